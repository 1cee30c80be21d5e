// Failures as the user sees them: named error types, and the way between absl::Status and
// flux::Failure.
#ifndef FLUX_ERROR_H_
#define FLUX_ERROR_H_

#include <array>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "flux/payload.h"
#include "flux/struct.h"

namespace flux {

FLUX_STRUCT(Failure, type, message, non_retriable, source)

struct ErrorTypeOptions {
  bool non_retriable = false;  // a failure of this type is never tried again, whatever the policy
};

// A named kind of failure, shared by the task that reports it and the workflow that catches it.
// Immutable; a constexpr constant at namespace scope. The name's bytes must outlive it (a string
// literal).
//
//   inline constexpr flux::ErrorType kBadPage{"bad-page", {.non_retriable = true}};
//   return kBadPage("page 7 is empty");            // in a task: an absl::Status
//   g.Call(kCode, page).Catch({kBadPage}, …);      // in a workflow
//
// Names that begin with "flux." belong to Flux.
class ErrorType {
 public:
  constexpr ErrorType() = default;  // no type at all; refused wherever one is needed
  constexpr explicit ErrorType(std::string_view name, ErrorTypeOptions options = {})
      : name_(name), options_(options) {}

  constexpr std::string_view name() const { return name_; }
  constexpr bool non_retriable() const { return options_.non_retriable; }

  // A status that says why and carries the type: FailureOf() gives it back.
  absl::Status operator()(std::string message) const;

  // Whether `status` is a failure of this type.
  bool Is(const absl::Status& status) const;

 private:
  std::string_view name_;
  ErrorTypeOptions options_;
};

// A short constexpr list of error types, written {kA, kB}. More than kMax are refused when a
// workflow that names them is traced.
class ErrorTypes {
 public:
  static constexpr size_t kMax = 16;

  constexpr ErrorTypes() = default;
  constexpr ErrorTypes(std::initializer_list<ErrorType> types)  // NOLINT: written as a list
      : size_(types.size()) {
    size_t i = 0;
    for (const ErrorType& type : types) {
      if (i < kMax) types_[i++] = type;
    }
  }

  constexpr size_t size() const { return size_; }
  constexpr bool too_many() const { return size_ > kMax; }
  constexpr const ErrorType* begin() const { return types_.data(); }
  constexpr const ErrorType* end() const { return types_.data() + (too_many() ? kMax : size_); }

 private:
  std::array<ErrorType, kMax> types_;
  size_t size_ = 0;
};

// What Flux itself reports; catchable like any other type.
namespace errors {
inline constexpr ErrorType kScheduleToStart{"flux.timeout.schedule_to_start"};
inline constexpr ErrorType kStartToClose{"flux.timeout.start_to_close"};
inline constexpr ErrorType kHeartbeat{"flux.timeout.heartbeat"};
inline constexpr ErrorType kScheduleToClose{"flux.timeout.schedule_to_close"};
inline constexpr ErrorType kEventTimeout{"flux.timeout.event"};
inline constexpr ErrorType kExecutionTimeout{"flux.timeout.execution"};
inline constexpr ErrorType kWorkerLost{"flux.worker_lost"};
inline constexpr ErrorType kBadInput{"flux.task.bad_input", {.non_retriable = true}};
inline constexpr ErrorType kBadResult{"flux.task.bad_result", {.non_retriable = true}};
inline constexpr ErrorType kException{"flux.task.exception"};
inline constexpr ErrorType kUnknownTask{"flux.task.unknown", {.non_retriable = true}};
inline constexpr ErrorType kPayloadTooLarge{"flux.payload_too_large", {.non_retriable = true}};
inline constexpr ErrorType kInputTooLarge{"flux.input_too_large", {.non_retriable = true}};
inline constexpr ErrorType kBadProjection{"flux.bad_projection", {.non_retriable = true}};
inline constexpr ErrorType kBadFragment{"flux.bad_fragment", {.non_retriable = true}};
inline constexpr ErrorType kTooManyFailures{"flux.too_many_failures", {.non_retriable = true}};
inline constexpr ErrorType kDepthLimit{"flux.limit.depth", {.non_retriable = true}};
// Of a Child or an Emit: no such workflow or execution, the id is in use, or it takes no events.
inline constexpr ErrorType kNotFound{"flux.not_found", {.non_retriable = true}};
inline constexpr ErrorType kConflict{"flux.conflict", {.non_retriable = true}};
inline constexpr ErrorType kRefused{"flux.refused", {.non_retriable = true}};
inline constexpr ErrorType kCancelled{"flux.cancelled", {.non_retriable = true}};
inline constexpr ErrorType kTerminated{"flux.terminated", {.non_retriable = true}};
inline constexpr ErrorType kSkipped{"flux.skipped", {.non_retriable = true}};
}  // namespace errors

// The failure a status stands for. A status made by an ErrorType or by ToStatus() gives back
// exactly what it carries; any other one has type "flux.status.<code>", e.g. flux.status.not_found,
// and is retriable. `status` must not be OK.
Failure FailureOf(const absl::Status& status);

// A status with the failure's type and message in its text and the whole failure attached. The code
// is that of a "flux.status.<code>" type, Cancelled, DeadlineExceeded or Aborted for
// flux.cancelled, flux.timeout.* and flux.terminated, and Unknown for everything else.
absl::Status ToStatus(const Failure& failure);

// The same status, marked so that no policy tries again.
absl::Status NonRetriable(const absl::Status& status);

// The outcome of an execution (or the value of an inline run) whose result was skipped.
absl::Status SkippedStatus(std::string_view what);
bool IsSkipped(const absl::Status& status);

}  // namespace flux

#endif  // FLUX_ERROR_H_
