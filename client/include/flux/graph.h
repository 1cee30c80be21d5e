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
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "flux/error.h"
#include "flux/internal/tracer.h"
#include "flux/page.h"
#include "flux/step.h"
#include "flux/task.h"
#include "flux/value.h"

namespace flux {

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

  // Waits for an event sent to this execution, perhaps before it asked. All readers of a name see
  // the same event, and await it with the same type; in a loop each turn takes the next one.
  template <typename T>
  WaitEventStep<typename Event<T>::Value> WaitEvent(const Event<T>& event,
                                                    Location at = Location::Current()) {
    using Value = typename Event<T>::Value;
    return WaitEventStep<Value>(
        internal::AddWaitEvent(tracer_, event.name(), internal::TypeName<Value>(), at));
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
      const internal::ValueRef map =
          internal::AddMap(tracer_, internal::MakeArgument<List>(list), at);
      return MapItems<typename List::value_type>(map, body, at);
    }
  }

  // Runs `body` for each item of a list that comes in pages, so that it never lies in one message:
  // `fetch`, a task of a cursor or a lambda that makes a flux::Page from a flux::Value of one, is
  // asked for the page at `first_cursor`, then for the page at each page's `next`, until a page has
  // none. The next page is asked for when fewer items than MaxParallel() are left.
  template <typename B, typename C, typename F>
  auto MapPages(const B& fetch, const C& first_cursor, const F& body,
                Location at = Location::Current()) {
    if constexpr (internal::TaskTraits<B>::value) {
      return MapPagesWith(
          internal::PageTaskTraits<B>(), first_cursor, body, at,
          [&](const Value<std::string>& cursor) { return CallWith(fetch, at, cursor); });
    } else {
      using Made = internal::BodyType<const B, Value<std::string>>;
      return MapPagesWith(internal::PageTraits<Made>(), first_cursor, body, at, fetch);
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

  // Another execution, of the version that the workflow's constant names (if it names one): its
  // result is the step's value (see ChildStep for detached ones). A workflow may name itself.
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

  // Sends an event to the execution of that workflow id. Fails if there is none, or it has closed.
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

  template <typename Traits, typename C, typename F, typename Fetch>
  auto MapPagesWith(Traits, const C& first_cursor, const F& body, Location at, const Fetch& fetch) {
    static_assert(Traits::value,
                  "flux: MapPages asks for pages with a task of one std::string parameter, or a "
                  "body that is given a flux::Value<std::string>, which makes a flux::Page<T>");
    if constexpr (Traits::value) {
      using Item = typename Traits::Item;
      const internal::ValueRef map =
          internal::AddMap(tracer_, internal::MakeArgument<std::string>(first_cursor), at);
      const internal::ValueRef cursor = internal::OpenBody(
          map, {.role = internal::BodyRole::kPage, .match = {}, .types = {}}, at);
      internal::TraceBody<Page<Item>>(map, fetch, at, Value<std::string>(cursor));
      return MapItems<Item>(map, body, at);
    }
  }

  // The body of a map, and the map.
  template <typename Item, typename B>
  auto MapItems(const internal::ValueRef& map, const B& body, Location at) {
    if constexpr (internal::TaskTraits<B>::value) {
      return MapItems<Item>(
          map, [&](const Value<Item>& item) { return CallWith(body, at, item); }, at);
    } else {
      using Made = internal::BodyType<const B, Value<Item>>;
      // A body that never makes a value makes a list of nothing.
      using Element = std::conditional_t<internal::kIsNever<Made>, Unit, Made>;
      const internal::ValueRef item =
          internal::OpenBody(map, {.role = internal::BodyRole::kMap, .match = {}, .types = {}}, at);
      internal::TraceBody<Element>(map, body, at, Value<Item>(item));
      return MapStep<Element>(map);
    }
  }

  template <typename R, typename... P, typename... A>
  auto ChildWith(const Workflow<R(P...)>& workflow, Location at, const A&... arguments) {
    using Step = ChildStep<R(std::remove_cvref_t<P>...)>;
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
