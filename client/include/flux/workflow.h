// flux::Workflow: a named, versioned graph of steps, written as a lambda.
//
//   inline constexpr flux::Workflow<Report(std::string)> kCodeChart{"code-chart", {.version = "2"},
//     [](flux::Graph& g, flux::Value<std::string> path) {
//       auto pages = g.Call(kSplit, path);
//       auto codes = g.Map(pages, kCode).MaxParallel(200);
//       return g.Call(kMerge, codes);
//     }};
//
// The lambda runs once a process, when the workflow is first used, and only to say what the graph
// is: executions never run it again. It must not depend on anything that changes.
#ifndef FLUX_WORKFLOW_H_
#define FLUX_WORKFLOW_H_

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "flux/codec.h"
#include "flux/graph.h"
#include "flux/internal/tracer.h"
#include "flux/value.h"

namespace flux {

template <typename Signature>
class Workflow;

// Immutable; a constexpr constant at namespace scope. Its lambda captures nothing and takes the
// graph and a Value of each parameter; it returns a Value of the result (or a literal, or Fail or
// Skip; nothing if R is void).
template <typename R, typename... P>
class Workflow<R(P...)> {
 public:
  using Result = internal::ResultT<R>;

  template <typename F>
  constexpr Workflow(std::string_view name, F body) : Workflow(name, WorkflowOptions(), body) {}
  template <typename F>
  constexpr Workflow(std::string_view name, WorkflowOptions options, F)
      : spec_{name, options, Builder<F>()} {
    (static_cast<void>(internal::CheckPayloadType<std::remove_cvref_t<P>>()), ...);
    static_cast<void>(internal::CheckPayloadType<Result>());
  }

  constexpr std::string_view name() const { return spec_.name; }
  constexpr const WorkflowOptions& options() const { return spec_.options; }
  constexpr const internal::WorkflowSpec& spec() const { return spec_; }

  // The graph as data. Traced on first use; thread-safe; valid for the life of the process.
  // InvalidArgument: the graph is wrong; the message names the step, the file and line, and the way
  // out.
  const absl::StatusOr<internal::Traced>& Trace() const { return internal::TraceOnce(spec_); }

  // The inputs of an execution. InvalidArgument: an argument cannot be encoded; the message says
  // which.
  template <typename... A>
  static absl::StatusOr<std::vector<Payload>> EncodeArguments(const A&... arguments) {
    static_assert(sizeof...(A) == sizeof...(P),
                  "flux: the workflow is given another number of arguments than it has parameters");
    if constexpr (sizeof...(A) == sizeof...(P)) {
      static_assert((!internal::kIsValue<A> && ...),
                    "flux: a workflow is started with plain values, not with flux::Values");
      const std::vector<internal::Argument> made = {
          internal::MakeArgument<std::remove_cvref_t<P>>(arguments)...};
      return internal::Literals(made);
    } else {
      return absl::InternalError("wrong number of arguments");
    }
  }

 private:
  template <typename F>
  static constexpr auto Builder() -> void (*)(Graph&) {
    static_assert(std::is_empty_v<F> && std::is_default_constructible_v<F>,
                  "flux: a workflow's lambda captures nothing: it is [](flux::Graph& g, …) {…}; "
                  "pass what it needs as "
                  "parameters of the workflow");
    if constexpr (std::is_empty_v<F> && std::is_default_constructible_v<F>) {
      constexpr bool kCallable =
          std::is_invocable_v<const F&, Graph&, Value<std::remove_cvref_t<P>>...>;
      static_assert(kCallable,
                    "flux: the workflow's lambda takes flux::Graph& and then a flux::Value of each "
                    "of the workflow's "
                    "parameters");
      if constexpr (kCallable) return &Build<F>;
    }
    return nullptr;
  }

  template <typename F>
  static void Build(Graph& graph) {
    internal::SetSignature(graph.tracer(), {internal::TypeName<std::remove_cvref_t<P>>()...},
                           internal::TypeName<Result>());
    BuildWith(graph, F(), std::index_sequence_for<P...>());
  }

  template <typename F, size_t... kIndex>
  static void BuildWith(Graph& graph, const F& body, std::index_sequence<kIndex...>) {
    using Made = std::invoke_result_t<const F&, Graph&, Value<std::remove_cvref_t<P>>...>;
    constexpr bool kFits = std::is_void_v<Made> ? std::is_same_v<Result, Unit> : ResultFits<Made>();
    static_assert(kFits,
                  "flux: the workflow's lambda returns another type than the workflow's result");
    if constexpr (!kFits) {
      return;
    } else if constexpr (std::is_void_v<Made>) {
      body(graph,
           Value<std::remove_cvref_t<P>>(internal::RootParameter(graph.tracer(), kIndex))...);
      internal::SetResult(graph.tracer(), internal::Argument::Nothing());
    } else {
      auto result = body(
          graph, Value<std::remove_cvref_t<P>>(internal::RootParameter(graph.tracer(), kIndex))...);
      internal::SetResult(graph.tracer(), internal::ResultArgument<Result>(result));
    }
  }

  template <typename Made>
  static constexpr bool ResultFits() {
    if constexpr (std::is_void_v<Made>) {
      return false;
    } else {
      return std::is_same_v<internal::ValueTypeOf<Made>, Never> ||
             internal::FitOf<Result, Made>() == internal::Fit::kFits;
    }
  }

  internal::WorkflowSpec spec_;
};

}  // namespace flux

#endif  // FLUX_WORKFLOW_H_
