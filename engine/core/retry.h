// When the next attempt of a task comes. Integers only, so that every machine computes the same.
#ifndef FLUX_ENGINE_CORE_RETRY_H_
#define FLUX_ENGINE_CORE_RETRY_H_

#include <cstdint>

#include "engine/core/graph.h"
#include "flux/v1/definition.pb.h"
#include "flux/v1/payload.pb.h"

namespace flux::engine {

// Random bits that are a function of the execution's seed and the attempt alone.
uint64_t JitterBits(uint64_t seed, const StepKey& key, uint32_t attempt);

// Gap after attempt `attempt` (from 1), without jitter: initial × factor^(attempt-1), at most the
// cap. Every field of `policy` is filled in (Graph::StepPlan::task).
int64_t BackoffMs(const v1::RetryPolicy& policy, uint32_t attempt);

// The gap with jitter: the share jitter_permille of it is spread evenly over [0, share] by `bits`.
int64_t JitteredBackoffMs(const v1::RetryPolicy& policy, uint32_t attempt, uint64_t bits);

// Whether this failure may be tried again at all, attempts and deadlines aside.
bool IsRetriable(const v1::TaskStep& task, const v1::Failure& failure);

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_RETRY_H_
