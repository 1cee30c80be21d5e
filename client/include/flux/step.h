// The kinds of step that flux::Graph makes: what each of its methods answers, with the options that
// fit the kind.
//
//   g.Call(kCode, page).Retry({.max_attempts = 5}).Queue("nlp").OnUndo(kUncode)
//   g.Map(pages, kCode).MaxParallel(200).TolerateFailures(3)
//
// Each is also the flux::Value of what the step will make, cheap to copy; an option is chained on
// it and answers it again. Used while a workflow is traced, by one thread. An option that does not
// fit the kind is a compile error which names the kind; a figure out of range is what the trace
// answers, with file and line.
#ifndef FLUX_STEP_H_
#define FLUX_STEP_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "flux/error.h"
#include "flux/internal/tracer.h"
#include "flux/struct.h"
#include "flux/task.h"
#include "flux/value.h"

namespace flux {

template <typename Signature>
class Workflow;

namespace internal {

template <typename T>
inline constexpr bool kIsNever = std::is_same_v<T, Never>;

// What a body makes when it is given Args; Never if it cannot be called so (which is reported
// elsewhere).
template <typename F, typename... Args>
struct BodyTypeOf {
  using type = Never;
};
template <typename F, typename... Args>
requires(std::is_invocable_v<F&, Args...>) struct BodyTypeOf<F, Args...> {
  using type = typename ResultTypeOf<std::invoke_result_t<F&, Args...>>::type;
};
template <typename F, typename... Args>
using BodyType = typename BodyTypeOf<std::remove_reference_t<F>, Args...>::type;

// The type of a step with two branches.
template <typename A, typename B>
struct BranchTypeOf {
  static_assert(std::is_same_v<A, B> || kIsNever<A> || kIsNever<B>,
                "flux: the branches make values of different types; all branches of an If or a "
                "Switch return the same "
                "type (or Fail, or Skip)");
  using type = std::conditional_t<kIsNever<A>, B, A>;
};
template <typename A, typename B>
using BranchType = typename BranchTypeOf<A, B>::type;

template <typename F, typename... Args>
constexpr bool CheckBody() {
  static_assert(std::is_invocable_v<F&, Args...>,
                "flux: the body cannot be called here: a branch or block takes nothing, a Map's "
                "body takes the "
                "flux::Value of an item, a Loop's body the flux::Value of the state");
  return std::is_invocable_v<F&, Args...>;
}

// Runs a body and closes it with its result.
template <typename T, typename F, typename... Args>
void TraceBody(const ValueRef& owner, F& body, Location at, const Args&... args) {
  if constexpr (CheckBody<F, Args...>()) {
    if constexpr (std::is_void_v<std::invoke_result_t<F&, const Args&...>>) {
      body(args...);
      CloseBody(owner, Argument::Nothing(), at);
    } else {
      auto result = body(args...);
      CloseBody(owner, ResultArgument<T>(result), at);
    }
  }
}

// What Graph::Until answers; Next is a Value or a literal.
template <typename Next>
struct Turn {
  Argument done;
  Next next;
};
template <typename T>
struct TurnTraits : std::false_type {};
template <typename Next>
struct TurnTraits<Turn<Next>> : std::true_type {};

// T if F is a function of exactly one Value<T>, said in full; else NotAValue.
template <typename F>
struct BodyParameterOf {
  using type = NotAValue;
};
template <typename F>
requires(CallableTraits<F>::value&& std::tuple_size_v<typename CallableTraits<F>::Parameters> ==
         1) struct BodyParameterOf<F> {
  using type = ValueTypeOf<std::tuple_element_t<0, typename CallableTraits<F>::Parameters>>;
};

// The type of a loop's state: that of a Value; for a literal what the body asks for, or else its
// own.
template <typename S, typename F>
using LoopState =
    std::conditional_t<kIsValue<S> || std::is_same_v<typename BodyParameterOf<F>::type, NotAValue>,
                       typename ResultTypeOf<S>::type, typename BodyParameterOf<F>::type>;

// The first of some types; NotAValue of none.
template <typename... T>
struct FirstTypeOf {
  using type = NotAValue;
};
template <typename First, typename... Rest>
struct FirstTypeOf<First, Rest...> {
  using type = First;
};
template <typename... T>
using FirstOf = typename FirstTypeOf<T...>::type;

// ---- options shared by several kinds of step
// --------------------------------------------------------------------

// For every step. Each option answers the step again.
template <typename Self>
class StepOptions {
 public:
  // Begins only after these steps have ended (completed or been skipped), without using their
  // values.
  template <typename... T>
  Self After(const Value<T>&... earlier) const {
    (AddAfter(self().ref(), earlier.ref()), ...);
    return self();
  }
  // The step's name, unique in the workflow; otherwise one is made from its task or kind.
  Self Named(std::string_view name) const {
    SetName(self().ref(), name);
    return self();
  }
  // Told with the step wherever it is shown; the same name again replaces the value. At most 64 a
  // step, names and values of 1 to 256 bytes without control characters. What varies from run to
  // run the task itself can add, with TaskContext::SetStepLabel.
  Self Label(std::string_view name, std::string_view value) const {
    SetStepLabel(self().ref(), name, value);
    return self();
  }

 protected:
  const Self& self() const { return static_cast<const Self&>(*this); }
};

// For steps that can fail; T is the step's own type.
template <typename Self, typename T>
class CatchOptions {
 public:
  // If the step fails with one of these types, the handler's value stands for the step's. A handler
  // is
  // [&] {…} or [&](flux::Value<flux::Failure> failure) {…}; the first of several that matches runs.
  template <typename F>
  Self Catch(std::initializer_list<ErrorType> types, F handler,
             Location at = Location::Current()) const {
    const Self& self = static_cast<const Self&>(*this);
    BodySpec spec{.role = BodyRole::kCatch, .match = {}, .types = types};
    const ValueRef failure = OpenBody(self.ref(), spec, at);
    if constexpr (std::is_invocable_v<F&, Value<Failure>>) {
      if constexpr (CheckHandlerType<BodyType<F, Value<Failure>>>()) {
        TraceBody<T>(self.ref(), handler, at, Value<Failure>(failure));
      }
    } else if constexpr (CheckHandlerType<BodyType<F>>()) {
      TraceBody<T>(self.ref(), handler, at);
    }
    return self;
  }
  // Every failure.
  template <typename F>
  Self Catch(F handler, Location at = Location::Current()) const {
    return Catch({}, std::move(handler), at);
  }

 private:
  template <typename Handled>
  static constexpr bool CheckHandlerType() {
    constexpr bool kFits = kIsNever<Handled> || std::is_same_v<Handled, T>;
    static_assert(
        kFits, "flux: a Catch handler makes a value of the step's own type (or Fails, or Skips)");
    return kFits;
  }
};

}  // namespace internal

// ---- the kinds of step
// -----------------------------------------------------------------------------------------------

template <typename Signature>
class CallStep;

// A task. Its value is the task's result.
template <typename R, typename... Args>
class CallStep<R(Args...)>
    : public Value<internal::ResultT<R>>,
      public internal::StepOptions<CallStep<R(Args...)>>,
      public internal::CatchOptions<CallStep<R(Args...)>, internal::ResultT<R>> {
 public:
  using Value<internal::ResultT<R>>::Value;

  // Each field that is set takes the place of the task's own.
  CallStep Retry(const RetryOptions& retry) const {
    internal::SetRetry(this->ref(), retry);
    return *this;
  }
  // Of one attempt, start to close.
  CallStep Timeout(absl::Duration timeout) const {
    return With(internal::Timeout::kStartToClose, timeout);
  }
  CallStep ScheduleToStart(absl::Duration timeout) const {
    return With(internal::Timeout::kScheduleToStart, timeout);
  }
  // Over all attempts.
  CallStep ScheduleToClose(absl::Duration timeout) const {
    return With(internal::Timeout::kScheduleToClose, timeout);
  }
  CallStep Heartbeat(absl::Duration timeout) const {
    return With(internal::Timeout::kHeartbeat, timeout);
  }
  CallStep Queue(std::string_view queue) const {
    internal::SetQueue(this->ref(), queue);
    return *this;
  }
  CallStep Priority(int priority) const {
    internal::SetPriority(this->ref(), priority);
    return *this;
  }
  // Limits by key (see the queue's per-key-concurrency): attempts whose first argument has the same
  // value there share them. A member of the first parameter, a FLUX_STRUCT …
  template <typename Class, typename Member>
  CallStep LimitKey(Member Class::*member,
                    internal::Location at = internal::Location::Current()) const {
    constexpr bool kFits = std::is_same_v<Class, internal::FirstOf<Args...>> &&
                           internal::Struct<Class> && !internal::UserCodec<Class>;
    static_assert(kFits,
                  "flux: LimitKey() names a member of the task's first parameter, which is a "
                  "FLUX_STRUCT that travels as JSON");
    if constexpr (kFits) {
      const std::string_view name = internal::MemberName(member);
      if (name.empty()) {
        internal::Refuse(
            this->ref().tracer, at,
            "LimitKey() of a member that is not listed in its type's FLUX_STRUCT; add it there");
      } else {
        internal::SetLimitKey(this->ref(), "/" + std::string(name));
      }
    }
    return *this;
  }
  // … or a JSON pointer into it: "/customer/id".
  CallStep LimitKey(std::string_view pointer) const {
    internal::SetLimitKey(this->ref(), pointer);
    return *this;
  }
  CallStep OnExhausted(Exhausted action) const {
    internal::SetOnExhausted(this->ref(), action);
    return *this;
  }
  // If the execution fails or is cancelled after this step has completed, `undo` is called with the
  // step's arguments followed by its result; in reverse order of completion.
  template <typename Signature>
  CallStep OnUndo(const Task<Signature>& undo) const {
    constexpr bool kFits = std::is_same_v<typename Task<Signature>::Parameters,
                                          std::tuple<Args..., internal::ResultT<R>>>;
    static_assert(kFits,
                  "flux: the task of OnUndo takes the step's arguments followed by its result");
    if constexpr (kFits) internal::SetUndo(this->ref(), undo.name(), undo.options());
    return *this;
  }

 private:
  CallStep With(internal::Timeout which, absl::Duration timeout) const {
    internal::SetTimeout(this->ref(), which, timeout);
    return *this;
  }
};

class SleepStep : public Value<Unit>, public internal::StepOptions<SleepStep> {
 public:
  using Value::Value;
};

// Its value is the event's. All readers of a name see the same event.
template <typename T>
class WaitEventStep : public Value<T>,
                      public internal::StepOptions<WaitEventStep<T>>,
                      public internal::CatchOptions<WaitEventStep<T>, T> {
 public:
  using Value<T>::Value;

  // After this long the step takes its default, or fails with flux.timeout.event.
  WaitEventStep Timeout(absl::Duration timeout) const {
    internal::SetEventTimeout(this->ref(), timeout);
    return *this;
  }
  // Goes with Timeout().
  template <typename A>
  WaitEventStep Default(const A& value) const {
    static_assert(!internal::kIsValue<A>, "flux: the default of a WaitEvent is a literal");
    internal::SetEventDefault(this->ref(), internal::MakeArgument<T>(value));
    return *this;
  }
};

// Its value is the list of the body's results, in the order of the items. Items that were skipped,
// or failed and are tolerated, are left out.
template <typename T>
class MapStep : public Value<std::vector<T>>,
                public internal::StepOptions<MapStep<T>>,
                public internal::CatchOptions<MapStep<T>, std::vector<T>> {
 public:
  using Value<std::vector<T>>::Value;

  // At most so many items at one time.
  MapStep MaxParallel(int items) const {
    internal::SetMaxParallel(this->ref(), items);
    return *this;
  }
  // Done once so many items have completed; the others are dropped, and tasks that run are told.
  MapStep First(int64_t items) const {
    internal::SetMapFirst(this->ref(), items);
    return *this;
  }
  // So many items may fail: they are left out of the list. One more and the step fails with it.
  MapStep TolerateFailures(int items) const {
    internal::SetMapTolerance(this->ref(), items);
    return *this;
  }
  // The same as a share of all items, in thousandths: 0.05 is one in twenty. If both are given the
  // larger counts.
  MapStep TolerateFailureShare(double share) const {
    internal::SetMapToleranceShare(this->ref(), share);
    return *this;
  }
};

// Its value is that of the branch that ran; skipped if none did.
template <typename T>
class IfStep : public Value<T>,
               public internal::StepOptions<IfStep<T>>,
               public internal::CatchOptions<IfStep<T>, T> {
 public:
  using Value<T>::Value;
};

// A choice by a key of type K; cases are chained on it. Never until a branch says otherwise.
template <typename K, typename T>
class SwitchStep : public Value<T>,
                   public internal::StepOptions<SwitchStep<K, T>>,
                   public internal::CatchOptions<SwitchStep<K, T>, T> {
 public:
  using Value<T>::Value;

  // The first case whose literal equals the key runs.
  template <typename L, typename F>
  auto Case(const L& literal, F body, internal::Location at = internal::Location::Current()) const {
    static_assert(!internal::kIsValue<L>, "flux: what a Case matches is a literal");
    return Branch({.role = internal::BodyRole::kCase,
                   .match = internal::MakeArgument<K>(literal),
                   .types = {}},
                  body, at);
  }
  // Runs when no case does. Without one the step is then skipped.
  template <typename F>
  auto Default(F body, internal::Location at = internal::Location::Current()) const {
    return Branch({.role = internal::BodyRole::kDefault, .match = {}, .types = {}}, body, at);
  }

 private:
  template <typename F>
  auto Branch(const internal::BodySpec& spec, F& body, internal::Location at) const {
    using Made = internal::BranchType<T, internal::BodyType<F>>;
    internal::OpenBody(this->ref(), spec, at);
    internal::TraceBody<internal::BodyType<F>>(this->ref(), body, at);
    return SwitchStep<K, Made>(this->ref());
  }
};

// Its value is the last state.
template <typename S>
class LoopStep : public Value<S>,
                 public internal::StepOptions<LoopStep<S>>,
                 public internal::CatchOptions<LoopStep<S>, S> {
 public:
  using Value<S>::Value;

  // Ends after so many turns, whatever the condition says.
  LoopStep Turns(int64_t turns) const {
    internal::SetTurns(this->ref(), turns);
    return *this;
  }
};

template <typename T>
class BlockStep : public Value<T>,
                  public internal::StepOptions<BlockStep<T>>,
                  public internal::CatchOptions<BlockStep<T>, T> {
 public:
  using Value<T>::Value;
};

// Its value is the list of its inputs, in their order; without those that were skipped, or failed
// and are tolerated.
template <typename T>
class JoinStep : public Value<std::vector<T>>,
                 public internal::StepOptions<JoinStep<T>>,
                 public internal::CatchOptions<JoinStep<T>, std::vector<T>> {
 public:
  using Value<std::vector<T>>::Value;

  // Done once so many of its inputs have completed. The other steps, if nothing else reads them,
  // are cancelled. Does not go with After().
  JoinStep First(int inputs) const {
    internal::SetJoinFirst(this->ref(), inputs);
    return *this;
  }
  // So many of its inputs may fail: they are left out of the list. Does not go with After().
  JoinStep TolerateFailures(int inputs) const {
    internal::SetJoinTolerance(this->ref(), inputs);
    return *this;
  }
};

// Names an execution that was started and is not waited for.
struct StartedChild {
  std::string workflow_id;
  std::string run_id;

  bool operator==(const StartedChild&) const = default;
};
FLUX_STRUCT(StartedChild, workflow_id, run_id)

// A child execution that nobody waits for; done once it is started.
class DetachedChildStep : public Value<StartedChild>,
                          public internal::StepOptions<DetachedChildStep>,
                          public internal::CatchOptions<DetachedChildStep, StartedChild> {
 public:
  using Value::Value;
};

template <typename Signature>
class ChildStep;

// Its value is the child's result; it fails with the child's failure.
template <typename R, typename... Args>
class ChildStep<R(Args...)>
    : public Value<internal::ResultT<R>>,
      public internal::StepOptions<ChildStep<R(Args...)>>,
      public internal::CatchOptions<ChildStep<R(Args...)>, internal::ResultT<R>> {
 public:
  using Value<internal::ResultT<R>>::Value;

  // The child's workflow id, a text or a flux::Value of one. Otherwise derived from the parent's.
  template <typename Id>
  ChildStep WorkflowId(const Id& workflow_id) const {
    constexpr bool kFits = internal::FitOf<std::string, Id>() == internal::Fit::kFits;
    static_assert(kFits,
                  "flux: WorkflowId() takes a text or a flux::Value<std::string>; make it in a "
                  "task if it depends on anything else");
    if constexpr (internal::kIsValue<Id> && kFits) {
      internal::SetChildIdInput(this->ref(), internal::MakeArgument<std::string>(workflow_id));
    } else if constexpr (kFits) {
      internal::SetChildId(this->ref(), workflow_id);
    }
    return *this;
  }
  // What becomes of the child when this execution closes first; otherwise it is cancelled.
  ChildStep ParentClose(flux::ParentClose policy) const {
    internal::SetParentClose(this->ref(), policy);
    return *this;
  }
  // As CallStep's: called with the child's arguments followed by its result.
  template <typename Signature>
  ChildStep OnUndo(const Task<Signature>& undo) const {
    constexpr bool kFits = std::is_same_v<typename Task<Signature>::Parameters,
                                          std::tuple<Args..., internal::ResultT<R>>>;
    static_assert(kFits,
                  "flux: the task of OnUndo takes the step's arguments followed by its result");
    if constexpr (kFits) internal::SetUndo(this->ref(), undo.name(), undo.options());
    return *this;
  }
  // Started, not waited for. The last option, since such a step has no value of the child's.
  DetachedChildStep Detached() const {
    internal::SetDetached(this->ref());
    return DetachedChildStep(this->ref());
  }
};

// Done once the event has been accepted.
class EmitStep : public Value<Unit>,
                 public internal::StepOptions<EmitStep>,
                 public internal::CatchOptions<EmitStep, Unit> {
 public:
  using Value::Value;

  // Delivered so much later; the step does not wait for it.
  EmitStep Delay(absl::Duration delay) const {
    internal::SetEmitDelay(this->ref(), delay);
    return *this;
  }
};

class FailStep : public Value<Never>, public internal::StepOptions<FailStep> {
 public:
  using Value::Value;
};

class SkipStep : public Value<Never>, public internal::StepOptions<SkipStep> {
 public:
  using Value::Value;
};
}  // namespace flux

#endif  // FLUX_STEP_H_
