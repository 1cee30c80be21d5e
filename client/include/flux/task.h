// The contract that workflows and workers share: tasks and events, by name and signature.
#ifndef FLUX_TASK_H_
#define FLUX_TASK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/codec.h"
#include "flux/error.h"
#include "flux/outcome.h"
#include "flux/task_context.h"

namespace flux {

// How failed attempts are tried again. What is left at its default stays as the task (or the
// server) has it.
struct RetryOptions {
  uint32_t max_attempts = 0;                              // 0: 5; 1: never again
  absl::Duration initial_backoff = absl::ZeroDuration();  // 0: 1 s
  double factor = 0;                                      // 0: 2; at least 1
  absl::Duration max_backoff = absl::ZeroDuration();      // 0: 60 s
  double jitter = -1;  // share of the gap that is random, 0 to 1; -1: 0.2
};

// What holds for every call of a task, unless a step says otherwise.
struct TaskOptions {
  std::string_view queue = {};                    // empty: "default"
  absl::Duration timeout = absl::ZeroDuration();  // of one attempt (start to close); 0: 5 minutes
  RetryOptions retry = {};
  ErrorTypes non_retriable = {};                    // failures that no attempt can mend
  absl::Duration heartbeat = absl::ZeroDuration();  // longest silence of a running attempt; 0: any
  absl::Duration schedule_to_start = absl::ZeroDuration();  // longest wait for a worker; 0: any
  absl::Duration schedule_to_close = absl::ZeroDuration();  // over all attempts; 0: any
  int priority = 0;                                         // higher first
};

template <typename Signature>
class Task;

// A stateless function that workers run, known by its name. Immutable; a constexpr constant at
// namespace scope, usually in a header that the workflow's and the worker's programs include.
//
//   inline constexpr flux::Task<std::vector<Page>(std::string)> kSplit{"charts.split",
//       {.queue = "io", .timeout = absl::Minutes(5), .retry = {.max_attempts = 5}}};
//
// Parameters are given by value or const reference; R may be void. Names: 1 to 256 bytes of
// printable UTF-8; checked where the task is used.
template <typename R, typename... Args>
class Task<R(Args...)> {
 public:
  using Signature = R(std::remove_cvref_t<Args>...);
  using Result = internal::ResultT<R>;
  using Parameters = std::tuple<std::remove_cvref_t<Args>...>;

  constexpr Task(std::string_view name, TaskOptions options = {})  // NOLINT: written as braces
      : name_(name), options_(options) {
    (static_cast<void>(internal::CheckPayloadType<std::remove_cvref_t<Args>>()), ...);
    static_cast<void>(internal::CheckPayloadType<Result>());
  }

  constexpr std::string_view name() const { return name_; }
  constexpr const TaskOptions& options() const { return options_; }

 private:
  std::string_view name_;
  TaskOptions options_;
};

// Something that happens outside and is told to an execution, known by its name. Immutable,
// constexpr.
template <typename T>
class Event {
 public:
  using Value = internal::ResultT<T>;

  constexpr Event(std::string_view name) : name_(name) {  // NOLINT: written as braces
    static_cast<void>(internal::CheckPayloadType<Value>());
  }

  constexpr std::string_view name() const { return name_; }

 private:
  std::string_view name_;
};

namespace internal {

template <typename T>
struct TaskTraits : std::false_type {};
template <typename R, typename... Args>
struct TaskTraits<Task<R(Args...)>> : std::true_type {};

// The signature of a function, function pointer or non-generic lambda.
template <typename F, typename = void>
struct CallableTraits : std::false_type {};
template <typename R, typename... Args>
struct CallableTraits<R(Args...), void> : std::true_type {
  using Result = R;
  using Parameters = std::tuple<Args...>;
};
template <typename R, typename... Args>
struct CallableTraits<R (*)(Args...), void> : CallableTraits<R(Args...)> {};
template <typename R, typename... Args>
struct CallableTraits<R (*)(Args...) noexcept, void> : CallableTraits<R(Args...)> {};
template <typename C, typename R, typename... Args>
struct CallableTraits<R (C::*)(Args...), void> : CallableTraits<R(Args...)> {};
template <typename C, typename R, typename... Args>
struct CallableTraits<R (C::*)(Args...) const, void> : CallableTraits<R(Args...)> {};
template <typename C, typename R, typename... Args>
struct CallableTraits<R (C::*)(Args...) noexcept, void> : CallableTraits<R(Args...)> {};
template <typename C, typename R, typename... Args>
struct CallableTraits<R (C::*)(Args...) const noexcept, void> : CallableTraits<R(Args...)> {};
template <typename F>
struct CallableTraits<F, std::void_t<decltype(&F::operator())>>
    : CallableTraits<decltype(&F::operator())> {};

// Whether the declared parameters are exactly those of the task: an implicit conversion between
// them could narrow. A parameter that would modify its argument is refused too.
template <typename Declared, typename Expected>
struct SameParameters : std::false_type {};
template <typename... Declared, typename... Expected>
requires(
    sizeof...(Declared) ==
    sizeof...(Expected)) struct SameParameters<std::tuple<Declared...>, std::tuple<Expected...>>
    : std::bool_constant<((std::is_same_v<std::remove_cvref_t<Declared>, Expected> &&
                           (!std::is_lvalue_reference_v<Declared> ||
                            std::is_const_v<std::remove_reference_t<Declared>>)) &&
                          ...)> {
};
template <typename... Declared, typename... Expected>
requires(sizeof...(Declared) ==
         sizeof...(Expected)) struct SameParameters<std::tuple<TaskContext&, Declared...>,
                                                    std::tuple<TaskContext, Expected...>>
    : SameParameters<std::tuple<Declared...>, std::tuple<Expected...>> {
};

// Results of another type that become an R without loss: a wider integer from a narrower one, a
// text from a literal.
template <typename Returned, typename R>
concept ConvertsToResult = (std::is_arithmetic_v<Returned> && std::is_arithmetic_v<R> &&
                            std::is_same_v<Returned, bool> == std::is_same_v<R, bool> &&
                            requires(Returned returned) { R{returned}; }) ||
                           (std::is_same_v<R, std::string> && std::is_convertible_v<Returned, R>);

template <typename Returned, typename R>
inline constexpr bool kFitsResult =
    std::is_same_v<std::remove_cvref_t<Returned>, R> ||
    std::is_same_v<Returned, absl::StatusOr<R>> || std::is_same_v<Returned, Outcome<R>> ||
    ConvertsToResult<Returned, R>;
template <typename Returned>
inline constexpr bool kFitsResult<Returned, void> =
    std::is_void_v<Returned> || std::is_same_v<Returned, absl::Status> ||
    std::is_same_v<Returned, Outcome<void>> || std::is_same_v<Returned, Unit>;

template <typename F, typename Signature>
struct HandlerTraits;

// Whether F can be registered for a task of the signature, and whether it wants the context.
template <typename F, typename R, typename... Args>
struct HandlerTraits<F, R(Args...)> {
  static constexpr bool kWithContext = std::is_invocable_v<F&, TaskContext&, Args...>;
  static constexpr bool kWithoutContext = std::is_invocable_v<F&, Args...>;

  static constexpr bool Fits() {
    if constexpr (CallableTraits<F>::value) {
      using Declared = typename CallableTraits<F>::Parameters;
      if (!SameParameters<Declared, std::tuple<Args...>>::value &&
          !SameParameters<Declared, std::tuple<TaskContext, Args...>>::value) {
        return false;
      }
    }
    if constexpr (kWithContext) {
      return kFitsResult<std::invoke_result_t<F&, TaskContext&, Args...>, R>;
    } else if constexpr (kWithoutContext) {
      return kFitsResult<std::invoke_result_t<F&, Args...>, R>;
    } else {
      return false;
    }
  }
};

// Failures of the boundary between payloads and a task's function.
RawOutcome WrongInputCount(size_t expected, size_t found);
RawOutcome BadInput(size_t index, const absl::Status& status);
RawOutcome BadResult(const absl::Status& status);

template <typename T>
RawOutcome ToRaw(const T& value) {
  absl::StatusOr<Payload> payload = Encode(value);
  if (!payload.ok()) return BadResult(payload.status());
  return RawOutcome::Value(*std::move(payload));
}
template <typename R>
RawOutcome ToRaw(const absl::StatusOr<R>& value) {
  return value.ok() ? ToRaw(*value) : RawOutcome::Fail(value.status());
}
inline RawOutcome ToRaw(const absl::Status& status) {
  return status.ok() ? ToRaw(Unit{}) : RawOutcome::Fail(status);
}
template <typename R>
RawOutcome ToRaw(const Outcome<R>& outcome) {
  if (outcome.skipped()) return RawOutcome::Skipped();
  if (outcome.continued()) {
    return RawOutcome::Continue(outcome.continuation().status(), outcome.continuation().fragment());
  }
  return outcome.has_value() ? ToRaw(outcome.value()) : RawOutcome::Fail(outcome.status());
}

template <typename R, typename F, typename... Args>
RawOutcome CallAndEncode(F& function, Args&&... args) {
  using Returned = std::invoke_result_t<F&, Args...>;
  if constexpr (std::is_void_v<Returned>) {
    function(std::forward<Args>(args)...);
    return ToRaw(Unit{});
  } else if constexpr (ConvertsToResult<Returned, R>) {
    return ToRaw(R(function(std::forward<Args>(args)...)));
  } else {
    return ToRaw(function(std::forward<Args>(args)...));
  }
}

template <typename F, typename R, typename... Args, size_t... kIndex>
RawOutcome RunHandler(F& function, TaskContext& context, std::vector<Payload>& inputs,
                      std::type_identity<R(Args...)>, std::index_sequence<kIndex...>) {
  if (inputs.size() != sizeof...(Args)) return WrongInputCount(sizeof...(Args), inputs.size());
  std::tuple<absl::StatusOr<Args>...> args{Decode<Args>(std::move(inputs[kIndex]))...};
  RawOutcome bad;
  [[maybe_unused]] auto decoded = [&](size_t index, const absl::Status& status) {
    if (!status.ok()) bad = BadInput(index, status);
    return status.ok();
  };
  if (!(decoded(kIndex, std::get<kIndex>(args).status()) && ...)) return bad;
  if constexpr (HandlerTraits<F, R(Args...)>::kWithContext) {
    return CallAndEncode<R>(function, context, *std::move(std::get<kIndex>(args))...);
  } else {
    return CallAndEncode<R>(function, *std::move(std::get<kIndex>(args))...);
  }
}

// The signature check of Register, in the worker and in TaskSet alike.
template <typename F, typename Signature>
constexpr bool CheckHandler() {
  static_assert(HandlerTraits<F, Signature>::Fits(),
                "flux: the function does not fit the task: it takes exactly the task's parameters, "
                "by value or const "
                "reference, after an optional flux::TaskContext&, and returns the task's result R, "
                "absl::StatusOr<R> or flux::Outcome<R> (absl::Status or nothing where R is void)");
  return HandlerTraits<F, Signature>::Fits();
}

template <typename F, typename R, typename... Args>
TaskHandler MakeHandler(F function, std::type_identity<R(Args...)> signature) {
  if constexpr (CheckHandler<F, R(Args...)>()) {
    // Shared by the copies that std::function makes: the function itself may be move-only.
    return [function = std::make_shared<F>(std::move(function)), signature](
               TaskContext& context, std::vector<Payload> inputs) {
      return RunHandler(*function, context, inputs, signature, std::index_sequence_for<Args...>());
    };
  } else {
    return {};
  }
}

}  // namespace internal
}  // namespace flux

#endif  // FLUX_TASK_H_
