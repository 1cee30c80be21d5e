// What a task may answer: a value, a failure, that there is nothing to do, or a graph to go on
// with.
#ifndef FLUX_OUTCOME_H_
#define FLUX_OUTCOME_H_

#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "flux/payload.h"

namespace flux {

// The value of a task, workflow or step that has none of its own: what `void` stands for. JSON
// null.
struct Unit {
  bool operator==(const Unit&) const = default;
};

// Answered by a task whose step is to be skipped: `return flux::Skip{};`. Steps that need its value
// are skipped too.
struct Skip {};

namespace internal {
// void stands for Unit wherever a value is needed.
template <typename R>
using ResultT = std::conditional_t<std::is_void_v<R>, Unit, R>;

struct Fragment;  // flux/internal/tracer.h
}  // namespace internal

// Answered by a task that goes on as a piece of graph: its step's value becomes the graph's. Made
// by flux::Continue (flux/continue.h). A value object; thread-compatible.
template <typename R>
class Continuation {
 public:
  // For flux::Continue.
  explicit Continuation(absl::Status status) : status_(std::move(status)) {}
  explicit Continuation(std::shared_ptr<const internal::Fragment> fragment)
      : fragment_(std::move(fragment)) {}

  // Why the graph or an argument is wrong; OK if neither is.
  const absl::Status& status() const { return status_; }
  // Null unless OK. Shared: copies of an outcome go on with the same graph.
  const std::shared_ptr<const internal::Fragment>& fragment() const { return fragment_; }

 private:
  absl::Status status_;
  std::shared_ptr<const internal::Fragment> fragment_;
};

// The richest thing a task can return. A value object; thread-compatible.
//
//   worker.Register(kMerge, [](std::vector<Codes> codes) -> flux::Outcome<Report> {
//     if (codes.empty()) return flux::Skip{};
//     if (!Consistent(codes)) return kInconsistent("page 3 contradicts page 7");
//     return Merge(codes);
//   });
template <typename R>
class Outcome {
 public:
  using Value = internal::ResultT<R>;

  Outcome(Skip skip) : state_(skip) {}   // NOLINT: returned as is
  Outcome(Continuation<R> continuation)  // NOLINT: returned as is
      : state_(std::move(continuation)) {}
  Outcome(absl::Status status) : state_(Checked(std::move(status))) {}  // NOLINT: returned as is
  template <typename U>
  requires(std::is_convertible_v<U&&, Value> && !std::is_convertible_v<U&&, absl::Status> &&
           !std::is_same_v<std::remove_cvref_t<U>, Outcome>) Outcome(U&& value)
      : state_(std::in_place_type<Value>, std::forward<U>(value)) {}  // NOLINT
  Outcome(absl::StatusOr<Value> value) {                              // NOLINT
    if (value.ok()) {
      state_.template emplace<Value>(*std::move(value));
    } else {
      state_ = std::move(value).status();
    }
  }

  bool continued() const { return std::holds_alternative<Continuation<R>>(state_); }
  bool skipped() const { return std::holds_alternative<Skip>(state_); }
  bool has_value() const { return std::holds_alternative<Value>(state_); }
  // OK unless the task failed.
  absl::Status status() const {
    const auto* status = std::get_if<absl::Status>(&state_);
    return status == nullptr ? absl::OkStatus() : *status;
  }
  // continued() must hold.
  const Continuation<R>& continuation() const { return *std::get_if<Continuation<R>>(&state_); }
  // has_value() must hold.
  const Value& value() const& { return *std::get_if<Value>(&state_); }
  Value&& value() && { return std::move(*std::get_if<Value>(&state_)); }

 private:
  // An OK status is the whole answer of a task without a value, and a mistake in any other.
  static std::variant<Value, absl::Status, Skip, Continuation<R>> Checked(absl::Status status) {
    if (!status.ok()) return status;
    if constexpr (std::is_void_v<R> || std::is_same_v<R, Unit>) {
      return Unit{};
    } else {
      return absl::InternalError("the task returned an OK status where a value was expected");
    }
  }

  std::variant<Value, absl::Status, Skip, Continuation<R>> state_ = Skip{};
};

namespace internal {

// An outcome with its value encoded: what travels between a task's function and whoever runs it.
struct RawOutcome {
  enum class Kind { kValue, kFailure, kSkip, kContinue };

  Kind kind = Kind::kSkip;
  Payload value;                             // kValue
  Failure failure;                           // kFailure
  std::shared_ptr<const Fragment> fragment;  // kContinue

  static RawOutcome Value(Payload value);
  static RawOutcome Fail(Failure failure);
  static RawOutcome Fail(const absl::Status& status);
  static RawOutcome Skipped() { return {}; }
  // The failure flux.task.bad_result if `status` is not OK.
  static RawOutcome Continue(const absl::Status& status, std::shared_ptr<const Fragment> fragment);
};

}  // namespace internal
}  // namespace flux

#endif  // FLUX_OUTCOME_H_
