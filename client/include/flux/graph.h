// flux::Graph: the language of workflows. A workflow's lambda is run once, with a Graph that writes
// down what it says.
//
//   auto pages = g.Call(kSplit, path);
//   auto codes = g.Map(pages, [&](flux::Value<Page> page) {
//     return g.Call(kCode, page).Retry({.max_attempts = 5}).Queue("nlp");
//   }).MaxParallel(200);
//
// Every method adds one step and answers it as a class of its own (CallStep, MapStep, …) which is
// also the Value of what the step will make; its options are chained on it. Bodies are lambdas:
// they may use every value around them, and their own values must not leave them other than as
// their result (a mistake that the trace reports with file and line).
#ifndef FLUX_GRAPH_H_
#define FLUX_GRAPH_H_

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

// Its value is the event's.
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
  template <typename A>
  WaitEventStep Default(const A& value) const {
    static_assert(!internal::kIsValue<A>, "flux: the default of a WaitEvent is a literal");
    internal::SetEventDefault(this->ref(), internal::MakeArgument<T>(value));
    return *this;
  }
};

// Its value is the list of the body's results, in the order of the items. Skipped items are left
// out.
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

template <typename T>
class JoinStep : public Value<std::vector<T>>, public internal::StepOptions<JoinStep<T>> {
 public:
  using Value<std::vector<T>>::Value;
};

// A child execution that nobody waits for.
class DetachedChildStep : public Value<Unit>, public internal::StepOptions<DetachedChildStep> {
 public:
  using Value::Value;
};

// Its value is the child's result.
template <typename T>
class ChildStep : public Value<T>,
                  public internal::StepOptions<ChildStep<T>>,
                  public internal::CatchOptions<ChildStep<T>, T> {
 public:
  using Value<T>::Value;

  // Otherwise derived from the parent's.
  ChildStep WorkflowId(std::string_view workflow_id) const {
    internal::SetChildId(this->ref(), workflow_id);
    return *this;
  }
  // Started, not waited for. The last option, since such a step has no value.
  DetachedChildStep Detached() const {
    internal::SetDetached(this->ref());
    return DetachedChildStep(this->ref());
  }
};

class EmitStep : public Value<Unit>, public internal::StepOptions<EmitStep> {
 public:
  using Value::Value;
};

class FailStep : public Value<Never>, public internal::StepOptions<FailStep> {
 public:
  using Value::Value;
};

class SkipStep : public Value<Never>, public internal::StepOptions<SkipStep> {
 public:
  using Value::Value;
};

// ---- the graph
// ------------------------------------------------------------------------------------------------------

// Handed to a workflow's lambda; lives only while it is traced. Not thread-safe.
// Calls, Joins and Children take up to kArgumentsMax arguments (longer lists: Join of a
// std::vector).
class Graph {
 public:
  static constexpr int kArgumentsMax = 8;

  // For flux::Workflow.
  explicit Graph(internal::TracerPtr tracer) : tracer_(std::move(tracer)) {}
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  const internal::TracerPtr& tracer() const { return tracer_; }

  // Runs a task: g.Call(kSplit, path). Arguments are Values of exactly the parameters' types, or
  // literals. (One overload an arity: a default argument cannot follow a pack, and each call must
  // know its place.)
  using Location = internal::Location;
  template <typename S>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task,
                                             Location at = Location::Current()) {
    return CallWith(task, at);
  }
  template <typename S, typename A>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task, const A& a,
                                             Location at = Location::Current()) {
    return CallWith(task, at, a);
  }
  template <typename S, typename A, typename B>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task, const A& a, const B& b,
                                             Location at = Location::Current()) {
    return CallWith(task, at, a, b);
  }
  template <typename S, typename A, typename B, typename C>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task, const A& a, const B& b,
                                             const C& c, Location at = Location::Current()) {
    return CallWith(task, at, a, b, c);
  }
  template <typename S, typename A, typename B, typename C, typename D>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task, const A& a, const B& b,
                                             const C& c, const D& d,
                                             Location at = Location::Current()) {
    return CallWith(task, at, a, b, c, d);
  }
  template <typename S, typename A, typename B, typename C, typename D, typename E>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task, const A& a, const B& b,
                                             const C& c, const D& d, const E& e,
                                             Location at = Location::Current()) {
    return CallWith(task, at, a, b, c, d, e);
  }
  template <typename S, typename A, typename B, typename C, typename D, typename E, typename F>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task, const A& a, const B& b,
                                             const C& c, const D& d, const E& e, const F& f,
                                             Location at = Location::Current()) {
    return CallWith(task, at, a, b, c, d, e, f);
  }
  template <typename S, typename A, typename B, typename C, typename D, typename E, typename F,
            typename G>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task, const A& a, const B& b,
                                             const C& c, const D& d, const E& e, const F& f,
                                             const G& g, Location at = Location::Current()) {
    return CallWith(task, at, a, b, c, d, e, f, g);
  }
  template <typename S, typename A, typename B, typename C, typename D, typename E, typename F,
            typename G, typename H>
  CallStep<typename Task<S>::Signature> Call(const Task<S>& task, const A& a, const B& b,
                                             const C& c, const D& d, const E& e, const F& f,
                                             const G& g, const H& h,
                                             Location at = Location::Current()) {
    return CallWith(task, at, a, b, c, d, e, f, g, h);
  }

  SleepStep Sleep(absl::Duration duration, Location at = Location::Current()) {
    return SleepStep(internal::AddSleep(tracer_, duration, at));
  }
  // For as long as a value says.
  SleepStep SleepMilliseconds(const Value<int64_t>& milliseconds,
                              Location at = Location::Current()) {
    return SleepStep(
        internal::AddSleepMilliseconds(tracer_, internal::MakeArgument<int64_t>(milliseconds), at));
  }

  // Waits for an event told to this execution, perhaps before it asked.
  template <typename T>
  WaitEventStep<typename Event<T>::Value> WaitEvent(const Event<T>& event,
                                                    Location at = Location::Current()) {
    return WaitEventStep<typename Event<T>::Value>(
        internal::AddWaitEvent(tracer_, event.name(), at));
  }

  // Runs `body`, a lambda of one item or a task of one parameter, for each item of a list.
  template <typename L, typename B>
  auto Map(const L& list, const B& body, Location at = Location::Current()) {
    using List =
        std::conditional_t<internal::kIsValue<L>, internal::ValueTypeOf<L>, std::decay_t<L>>;
    constexpr bool kIsList = internal::VectorTraits<List>::value;
    static_assert(kIsList,
                  "flux: Map runs over a list: a flux::Value<std::vector<T>>, or a std::vector<T>");
    if constexpr (kIsList) {
      using Item = typename List::value_type;
      if constexpr (internal::TaskTraits<B>::value) {
        return Map(
            list, [&](const Value<Item>& item) { return CallWith(body, at, item); }, at);
      } else {
        using Made = internal::BodyType<const B, Value<Item>>;
        // A body that never makes a value makes a list of nothing.
        using Element = std::conditional_t<internal::kIsNever<Made>, Unit, Made>;
        const internal::ValueRef map =
            internal::AddMap(tracer_, internal::MakeArgument<List>(list), at);
        const internal::ValueRef item = internal::OpenBody(
            map, {.role = internal::BodyRole::kMap, .match = {}, .types = {}}, at);
        internal::TraceBody<Element>(map, body, at, Value<Item>(item));
        return MapStep<Element>(map);
      }
    }
  }

  // One of two bodies, by a condition.
  template <typename C, typename Then, typename Else>
  auto If(const C& condition, Then then, Else otherwise, Location at = Location::Current()) {
    using Made = internal::BranchType<internal::BodyType<Then>, internal::BodyType<Else>>;
    const internal::ValueRef step = AddIf(condition, then, at);
    internal::OpenBody(step, {.role = internal::BodyRole::kDefault, .match = {}, .types = {}}, at);
    internal::TraceBody<internal::BodyType<Else>>(step, otherwise, at);
    return IfStep<Made>(step);
  }
  // A body or nothing: then the step is skipped, and with it every step that needs its value.
  template <typename C, typename Then>
  auto If(const C& condition, Then then, Location at = Location::Current()) {
    return IfStep<internal::BodyType<Then>>(AddIf(condition, then, at));
  }

  // A choice by a key: g.Switch(kind).Case("a", [&]{…}).Case("b", [&]{…}).Default([&]{…}). Keys are
  // readable to the server: bool, integers, std::string, enums.
  template <typename V>
  auto Switch(const V& key, Location at = Location::Current()) {
    using Key = internal::ValueTypeOf<V>;
    constexpr bool kIsKey = std::is_same_v<Key, bool> || internal::kIsInteger<Key> ||
                            std::is_same_v<Key, std::string> || std::is_enum_v<Key>;
    static_assert(
        kIsKey,
        "flux: Switch chooses by a flux::Value of bool, an integer, std::string or an enum");
    return SwitchStep<Key, Never>(
        internal::AddSwitch(tracer_, "switch", internal::MakeArgument<Key>(key), at));
  }

  // Runs `body` again and again, each turn with the state that the turn before made. The body
  // answers g.Until(done, next), or just the next state if the number of turns is given with
  // Turns(). What a turn made inside is dropped.
  template <typename S, typename B>
  auto Loop(const S& state, B body, Location at = Location::Current()) {
    using State = internal::LoopState<S, B>;
    const internal::ValueRef loop =
        internal::AddLoop(tracer_, internal::MakeArgument<State>(state), at);
    const internal::ValueRef current =
        internal::OpenBody(loop, {.role = internal::BodyRole::kLoop, .match = {}, .types = {}}, at);
    if constexpr (internal::CheckBody<B, Value<State>>()) {
      auto turn = body(Value<State>(current));
      if constexpr (internal::TurnTraits<decltype(turn)>::value) {
        internal::CloseLoopBody(loop, &turn.done, internal::ResultArgument<State>(turn.next), at);
      } else {
        internal::CloseLoopBody(loop, nullptr, internal::ResultArgument<State>(turn), at);
      }
    }
    return LoopStep<State>(loop);
  }
  // Ends a loop's turn: the loop is over if `done` is true, and `next` is its state either way.
  template <typename D, typename N>
  auto Until(const D& done, const N& next) {
    return internal::Turn<std::decay_t<N>>{internal::MakeArgument<bool>(done), next};
  }

  // Steps with one name and one Catch.
  template <typename B>
  auto Block(B body, Location at = Location::Current()) {
    using Made = internal::BodyType<B>;
    const internal::ValueRef block = internal::AddBlock(tracer_, at);
    internal::OpenBody(block, {.role = internal::BodyRole::kBlock, .match = {}, .types = {}}, at);
    internal::TraceBody<Made>(block, body, at);
    return BlockStep<Made>(block);
  }

  // A list of values of one type. Skipped ones are left out, unless the type is optional.
  template <typename V>
  auto Join(const std::vector<V>& values, Location at = Location::Current()) {
    static_assert(internal::kIsValue<V>, "flux: Join takes flux::Values of one type");
    using T = internal::ValueTypeOf<V>;
    std::vector<internal::Argument> inputs;
    for (const V& value : values) inputs.push_back(internal::MakeArgument<T>(value));
    return JoinStep<T>(internal::AddJoin(tracer_, inputs, at));
  }
  template <typename A>
  requires(internal::kIsValue<A>) auto Join(const A& a, Location at = Location::Current()) {
    return JoinWith(at, a);
  }
  template <typename A, typename B>
  auto Join(const A& a, const B& b, Location at = Location::Current()) {
    return JoinWith(at, a, b);
  }
  template <typename A, typename B, typename C>
  auto Join(const A& a, const B& b, const C& c, Location at = Location::Current()) {
    return JoinWith(at, a, b, c);
  }
  template <typename A, typename B, typename C, typename D>
  auto Join(const A& a, const B& b, const C& c, const D& d, Location at = Location::Current()) {
    return JoinWith(at, a, b, c, d);
  }
  template <typename A, typename B, typename C, typename D, typename E>
  auto Join(const A& a, const B& b, const C& c, const D& d, const E& e,
            Location at = Location::Current()) {
    return JoinWith(at, a, b, c, d, e);
  }
  template <typename A, typename B, typename C, typename D, typename E, typename F>
  auto Join(const A& a, const B& b, const C& c, const D& d, const E& e, const F& f,
            Location at = Location::Current()) {
    return JoinWith(at, a, b, c, d, e, f);
  }

  // Another execution: its result is the step's value (see ChildStep for detached ones). A workflow
  // may name itself.
  template <typename S>
  auto Child(const Workflow<S>& workflow, Location at = Location::Current()) {
    return ChildWith(workflow, at);
  }
  template <typename S, typename A>
  auto Child(const Workflow<S>& workflow, const A& a, Location at = Location::Current()) {
    return ChildWith(workflow, at, a);
  }
  template <typename S, typename A, typename B>
  auto Child(const Workflow<S>& workflow, const A& a, const B& b,
             Location at = Location::Current()) {
    return ChildWith(workflow, at, a, b);
  }
  template <typename S, typename A, typename B, typename C>
  auto Child(const Workflow<S>& workflow, const A& a, const B& b, const C& c,
             Location at = Location::Current()) {
    return ChildWith(workflow, at, a, b, c);
  }
  template <typename S, typename A, typename B, typename C, typename D>
  auto Child(const Workflow<S>& workflow, const A& a, const B& b, const C& c, const D& d,
             Location at = Location::Current()) {
    return ChildWith(workflow, at, a, b, c, d);
  }

  // Tells an event to the execution of that workflow id.
  template <typename T, typename Id, typename V>
  EmitStep Emit(const Event<T>& event, const Id& workflow_id, const V& value,
                Location at = Location::Current()) {
    return EmitStep(internal::AddEmit(tracer_, event.name(),
                                      internal::MakeArgument<std::string>(workflow_id),
                                      internal::MakeArgument<typename Event<T>::Value>(value), at));
  }

  // Fails the enclosing body: the nearest Catch that matches handles it, or the execution fails.
  FailStep Fail(const ErrorType& type, std::string_view message,
                Location at = Location::Current()) {
    return FailStep(internal::AddFail(tracer_, type, message, at));
  }

  // As a branch's result: the step that owns the branch is skipped.
  SkipStep Skip(Location at = Location::Current()) {
    return SkipStep(internal::AddSkip(tracer_, at));
  }

 private:
  template <typename R, typename... P, typename... A>
  auto CallWith(const Task<R(P...)>& task, Location at, const A&... arguments) {
    using Step = CallStep<typename Task<R(P...)>::Signature>;
    static_assert(sizeof...(A) == sizeof...(P),
                  "flux: Call gives the task another number of arguments than it has parameters");
    if constexpr (sizeof...(A) == sizeof...(P)) {
      return Step(internal::AddTask(tracer_, task.name(), task.options(),
                                    {internal::MakeArgument<std::remove_cvref_t<P>>(arguments)...},
                                    at));
    } else {
      return Step(internal::ValueRef());
    }
  }

  template <typename First, typename... Rest>
  auto JoinWith(Location at, const First& first, const Rest&... rest) {
    using T = internal::ValueTypeOf<First>;
    constexpr bool kSame =
        internal::kIsValue<First> && (std::is_same_v<T, internal::ValueTypeOf<Rest>> && ...);
    static_assert(kSame, "flux: Join takes flux::Values of one type");
    if constexpr (kSame) {
      return JoinStep<T>(internal::AddJoin(
          tracer_, {internal::MakeArgument<T>(first), internal::MakeArgument<T>(rest)...}, at));
    }
  }

  template <typename R, typename... P, typename... A>
  auto ChildWith(const Workflow<R(P...)>& workflow, Location at, const A&... arguments) {
    using Step = ChildStep<internal::ResultT<R>>;
    static_assert(
        sizeof...(A) == sizeof...(P),
        "flux: Child gives the workflow another number of arguments than it has parameters");
    if constexpr (sizeof...(A) == sizeof...(P)) {
      return Step(internal::AddChild(tracer_, workflow.spec(),
                                     {internal::MakeArgument<std::remove_cvref_t<P>>(arguments)...},
                                     at));
    } else {
      return Step(internal::ValueRef());
    }
  }

  template <typename C, typename Then>
  internal::ValueRef AddIf(const C& condition, Then& then, Location at) {
    const internal::ValueRef step =
        internal::AddSwitch(tracer_, "if", internal::MakeArgument<bool>(condition), at);
    internal::OpenBody(step,
                       {.role = internal::BodyRole::kCase,
                        .match = internal::MakeArgument<bool>(true),
                        .types = {}},
                       at);
    internal::TraceBody<internal::BodyType<Then>>(step, then, at);
    return step;
  }

  internal::TracerPtr tracer_;
};

}  // namespace flux

#endif  // FLUX_GRAPH_H_
