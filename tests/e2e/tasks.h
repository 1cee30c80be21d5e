// The tasks that ledger_worker.cc runs and the end-to-end tests' workflows call.
#ifndef FLUX_TESTS_E2E_TASKS_H_
#define FLUX_TESTS_E2E_TASKS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "flux/error.h"
#include "flux/task.h"

namespace flux::e2e {

// Attempts that die with their workers are attempts: under a rain of kills they must not run out.
inline constexpr flux::RetryOptions kStubborn{.max_attempts = 10'000,
                                              .initial_backoff = absl::Milliseconds(20),
                                              .factor = 1,
                                              .max_backoff = absl::Milliseconds(20),
                                              .jitter = 0};

inline constexpr flux::ErrorType kTryAgain{"e2e.try_again"};
inline constexpr flux::ErrorType kRefused{"e2e.refused"};

inline constexpr flux::Task<int64_t(int64_t)> kAddOne{"e2e.add-one", {.retry = kStubborn}};
inline constexpr flux::Task<int64_t(std::vector<int64_t>)> kSum{"e2e.sum", {.retry = kStubborn}};
// Its fencing token: says which delivery made the outcome that was recorded.
inline constexpr flux::Task<std::string(int64_t)> kStamp{"e2e.stamp", {.retry = kStubborn}};
// Waits until the gate of that name is opened (or its result is wanted no more); the worker's id.
inline constexpr flux::Task<std::string(std::string)> kWaitAtGate{"e2e.wait-at-gate",
                                                                  {.retry = kStubborn}};
// Fails so many times; then the number of the attempt.
inline constexpr flux::Task<int64_t(int64_t)> kFailTimes{"e2e.fail-times", {.retry = kStubborn}};
// Fails with kRefused: marked as non-retriable by the worker if `marked`.
inline constexpr flux::Task<int64_t(bool)> kRefuse{"e2e.refuse", {.retry = kStubborn}};
// First attempt: reports 41 as progress, then waits at the gate and fails. Later ones: the progress
// they were handed.
inline constexpr flux::Task<int64_t(std::string)> kProgress{"e2e.progress", {.retry = kStubborn}};
// First attempt: says nothing until its result is wanted no more. Later ones: the attempt's number.
inline constexpr flux::Task<int64_t(int64_t)> kSilent{"e2e.silent", {.retry = kStubborn}};
// A text of so many bytes.
inline constexpr flux::Task<std::string(int64_t)> kMakeText{"e2e.make-text", {.retry = kStubborn}};
inline constexpr flux::Task<int64_t(std::string)> kThrow{"e2e.throw", {.retry = kStubborn}};
// No worker has this one.
inline constexpr flux::Task<int64_t(int64_t)> kNobody{"e2e.nobody-has-it"};

}  // namespace flux::e2e

#endif  // FLUX_TESTS_E2E_TASKS_H_
