// flux::Continue: a task that goes on as a piece of graph, made while the workflow runs.
//
//   worker.Register(kPlan, [](const Order& order) -> flux::Outcome<Receipt> {
//     if (order.parts.empty()) return Receipt();
//     return flux::Continue<Receipt>(
//         [&](flux::Graph& g, flux::Value<Order> whole) {
//           std::vector<flux::Value<Part>> made;
//           for (const std::string& part : order.parts) made.push_back(g.Call(kMake, part));
//           return g.Call(kShip, whole, g.Join(made));
//         },
//         order);
//   });
//
// The graph takes the step's place: its value (or its failure) becomes the step's. It is recorded
// together with the task's result, or not at all. A graph that ends in a step which continues again
// costs no depth, so that a chain of them has no end.
#ifndef FLUX_CONTINUE_H_
#define FLUX_CONTINUE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "flux/graph.h"
#include "flux/internal/tracer.h"
#include "flux/outcome.h"
#include "flux/task.h"
#include "flux/value.h"
#include "flux/workflow.h"

namespace flux {
namespace internal {

// The parameters of a body after its flux::Graph&: from its declaration, or, where that is generic,
// from the arguments.
template <typename F, typename... A>
struct ContinuedParameters {
  using type = std::tuple<typename ResultTypeOf<A>::type...>;
};
template <typename Tuple>
struct AfterGraph {
  using type = void;
};
template <typename... P>
struct AfterGraph<std::tuple<Graph&, P...>> {
  using type = std::tuple<ValueTypeOf<P>...>;
};
template <typename F, typename... A>
requires(CallableTraits<F>::value) struct ContinuedParameters<F, A...> {
  using type = typename AfterGraph<typename CallableTraits<F>::Parameters>::type;
};

template <typename R>
Continuation<R> ContinueWith(const absl::StatusOr<Traced>& traced,
                             absl::StatusOr<std::vector<Payload>> inputs) {
  if (!traced.ok()) return Continuation<R>(traced.status());
  if (!inputs.ok()) return Continuation<R>(std::move(inputs).status());
  auto fragment = std::make_shared<Fragment>();
  fragment->definition_bytes = traced->definition_bytes;
  fragment->inputs = *std::move(inputs);
  fragment->children = traced->children;
  return Continuation<R>(std::move(fragment));
}

template <typename R, typename... P, typename F, typename... A>
Continuation<R> ContinueBody(std::type_identity<std::tuple<P...>>, const F& body,
                             const A&... arguments) {
  using Result = ResultT<R>;
  static_assert(sizeof...(P) == sizeof...(A),
                "flux: Continue gives the body another number of arguments than it has parameters");
  if constexpr (sizeof...(P) == sizeof...(A)) {
    constexpr bool kCallable = std::is_invocable_v<const F&, Graph&, Value<P>...>;
    static_assert(kCallable,
                  "flux: the body of Continue takes flux::Graph& and then a flux::Value of each "
                  "argument");
    if constexpr (kCallable) {
      using Made = std::invoke_result_t<const F&, Graph&, Value<P>...>;
      constexpr bool kFits =
          std::is_void_v<Made>
              ? std::is_same_v<Result, Unit>
              : std::is_same_v<BodyType<const F, Graph&, Value<P>...>, Never> ||
                    FitOf<Result, std::conditional_t<std::is_void_v<Made>, int, Made>>() ==
                        Fit::kFits;
      static_assert(kFits,
                    "flux: the body of Continue makes a value of another type than the task's "
                    "result");
      if constexpr (kFits) {
        const absl::StatusOr<Traced> traced = TraceFragment([&](Graph& graph) {
          const TracerPtr& tracer = graph.tracer();
          SetSignature(tracer, {TypeName<P>()...}, TypeName<Result>());
          std::tuple<Graph&, Value<P>...> parameters = [&]<size_t... kIndex>(
              std::index_sequence<kIndex...>) {
            return std::tuple<Graph&, Value<P>...>(
                graph, Value<P>(RootParameter(tracer, static_cast<uint32_t>(kIndex)))...);
          }
          (std::index_sequence_for<P...>());
          if constexpr (std::is_void_v<Made>) {
            std::apply(body, parameters);
            SetResult(tracer, Argument::Nothing());
          } else {
            SetResult(tracer, ResultArgument<Result>(std::apply(body, parameters)));
          }
        });
        const std::vector<Argument> made = {MakeArgument<P>(arguments)...};
        return ContinueWith<R>(traced, Literals(made));
      }
    }
  }
  return Continuation<R>(absl::InternalError("a continuation that does not compile"));
}

}  // namespace internal

// Goes on as the graph that `body` writes: a lambda of flux::Graph& and a flux::Value of each
// argument, which may look at everything around it. Traced at once, so that what it refers to need
// not outlive the call. R is the task's result. A mistake in it, or an argument that cannot be
// encoded, becomes the failure flux.task.bad_result with the reason.
// Workflows that the graph starts with Child must be known to the coordinator (Client::Put).
template <typename R, typename F, typename... A>
Continuation<R> Continue(const F& body, const A&... arguments) {
  using Parameters = typename internal::ContinuedParameters<F, A...>::type;
  constexpr bool kTakesGraph = !std::is_void_v<Parameters>;
  static_assert(kTakesGraph,
                "flux: the body of Continue takes flux::Graph& and then a flux::Value of each "
                "argument");
  if constexpr (kTakesGraph) {
    return internal::ContinueBody<R>(std::type_identity<Parameters>(), body, arguments...);
  } else {
    return Continuation<R>(absl::InternalError("a continuation that does not compile"));
  }
}

// The same with the graph of a workflow.
template <typename R, typename S, typename... P, typename... A>
Continuation<R> Continue(const Workflow<S(P...)>& workflow, const A&... arguments) {
  static_assert(std::is_same_v<internal::ResultT<S>, internal::ResultT<R>>,
                "flux: the workflow that a task continues as makes another type than the task's "
                "result");
  return internal::ContinueWith<R>(workflow.Trace(), workflow.EncodeArguments(arguments...));
}

}  // namespace flux

#endif  // FLUX_CONTINUE_H_
