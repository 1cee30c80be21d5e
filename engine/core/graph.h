// A validated definition, compiled for execution.
#ifndef FLUX_ENGINE_CORE_GRAPH_H_
#define FLUX_ENGINE_CORE_GRAPH_H_

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/value.h"
#include "flux/v1/definition.pb.h"

namespace flux::engine {

// One step of one frame of an execution. Frame 0 is the root scope's.
struct StepKey {
  uint64_t frame = 0;
  uint32_t step = 0;
  auto operator<=>(const StepKey&) const = default;
};

// Limits of a definition; each refusal names the limit and the figure.
struct GraphLimits {
  uint32_t steps_max = 50'000;  // over all scopes
  uint32_t scopes_max = 10'000;
  uint32_t depth_max = 32;  // of nested bodies
  uint32_t name_bytes_max = 256;
  uint32_t step_labels_max = 64;         // of a definition's step
  uint32_t inputs_max = 1'000;           // of a step
  uint32_t retry_attempts_max = 10'000;  // more are capped, and said so (F14)
  uint32_t map_parallel_max = 100'000;
  uint64_t definition_bytes_max = 16 * 1024 * 1024;
};

// Items a map has in flight unless it says how many. No setting: replaying an execution's records
// opens the frames they name only with the number they were made with (rule 17).
inline constexpr uint32_t kMapParallelDefault = 1'000;

// Immutable and shared between executions; thread-safe.
class Graph {
 public:
  // Checks everything a definition can get wrong: cycle (a reference to a step at or after itself),
  // unknown reference, two steps of one name, no result in the root scope, bodies shared or
  // unreachable, bad pointers, names, retry figures… InvalidArgument names the step (and its
  // location if it has one) and the way out. `warnings`, if given, gets what was capped or is
  // suspicious.
  static absl::StatusOr<std::shared_ptr<const Graph>> Compile(
      const v1::Definition& definition, std::string hash, const GraphLimits& limits = {},
      std::vector<std::string>* warnings = nullptr);

  const v1::Definition& definition() const { return definition_; }
  const std::string& hash() const { return hash_; }
  const std::string& name() const { return definition_.name(); }
  // Distinct task names, sorted.
  const std::vector<std::string>& tasks() const { return tasks_; }

  // A piece of graph that a task answered with (v1::Continuation): as Compile, but its outermost
  // scope is a body, and nothing names its literals.
  static absl::StatusOr<std::shared_ptr<const Graph>> CompileFragment(
      const v1::Definition& definition, const GraphLimits& limits = {});

  // An event that some step waits for.
  struct EventPlan {
    std::string name;
    std::string type;       // that its readers agree on; empty: they name none
    uint32_t readers = 0;   // steps that wait for it
    bool in_loop = false;   // some reader lies in a loop, whose turns take one after the other
    bool streamed = false;  // its one reader lies in loops alone: what it took, nobody needs again
    // All its readers lie in turns of this scope: what one took, nobody needs after the turn.
    std::optional<uint32_t> turn_scope;
  };
  // In order of name.
  const std::vector<EventPlan>& events() const { return events_; }
  // Null: no step waits for it.
  const EventPlan* FindEvent(std::string_view name) const;
  // The first event that the other graph awaits as another type; null: they agree.
  const EventPlan* EventOfAnotherType(const Graph& other) const;

  // Where one value comes from, resolved.
  struct InputPlan {
    enum class Source : uint8_t { kStep, kParameter, kLiteral };
    Source source = Source::kLiteral;
    bool optional = false;
    uint32_t index = 0;                // of the step or parameter in its scope, or into literals()
    const v1::Input* input = nullptr;  // for its pointer
  };
  // What a scope is the body of.
  enum class Role : uint8_t {
    kRoot,
    kMapItem,
    kLoopTurn,
    kBlock,
    kCase,
    kCatch,
    kPage,      // of a map over pages: gets the next one
    kFragment,  // the outermost scope of a continuation
    kUndo,      // made for a step with an undo task: that one call
  };

  // Per step, what Apply needs at hand.
  //
  // Most steps wait for all their inputs. The bodies of blocks, switches and catch clauses start
  // without their captures and are given each as it settles: such sources count in
  // `lazy_dependants`, not in `waits_for`.
  struct StepPlan {
    const v1::Step* step = nullptr;
    v1::Step::KindCase kind = v1::Step::KIND_NOT_SET;
    v1::TaskStep task;          // with every default filled in; task steps only
    uint32_t max_parallel = 0;  // with the default filled in; map steps only
    uint32_t waits_for = 0;     // distinct earlier steps it depends on: as many as `sources`
    std::vector<uint32_t> sources;
    std::vector<uint32_t> dependants;  // distinct later steps that wait for it
    std::vector<uint32_t>
        lazy_dependants;  // distinct later steps whose open body may be given its output
    std::vector<InputPlan> inputs;
    std::vector<std::vector<InputPlan>> catch_captures;  // a clause each
    std::optional<uint32_t> undo_scope;                  // given the inputs, then the output
    bool early = false;                                  // a join that may not wait for all
    bool in_result = false;  // the scope's result, or a loop's end, reads it
  };
  struct ScopePlan {
    const v1::Scope* scope = nullptr;
    std::vector<StepPlan> steps;
    std::vector<uint32_t> roots;  // steps that wait for nothing
    std::vector<std::vector<uint32_t>>
        parameter_dependants;  // as StepPlan::dependants, a parameter each
    std::vector<std::vector<uint32_t>> parameter_lazy;
    std::optional<InputPlan> result;
    Role role = Role::kRoot;
    uint32_t owner_scope = 0;  // whose step it is a body of; not of the root
    uint32_t owner_step = 0;
    uint32_t clause = 0;            // which case (the default: number of cases) or catch clause
    uint32_t depth = 0;             // 0: the root
    std::optional<InputPlan> done;  // loop bodies only
  };
  const std::vector<ScopePlan>& scopes() const { return scopes_; }
  // Every literal of the definition, in its order; what InputPlan::index means for one.
  const std::vector<Value>& literals() const { return literals_; }

 private:
  void Plan(const GraphLimits& limits);
  void PlanScope(uint32_t scope, const GraphLimits& limits);
  void PlanDependencies(uint32_t scope);
  void PlanUndo(const GraphLimits& limits);
  void PlanEvents();
  InputPlan PlanInput(const v1::Input& input);

  bool fragment_ = false;
  v1::Definition definition_;
  std::string hash_;
  std::vector<std::string> tasks_;
  std::vector<ScopePlan> scopes_;
  std::vector<Value> literals_;
  std::vector<EventPlan> events_;
  std::vector<std::unique_ptr<const v1::Scope>> undo_scopes_;  // not part of the definition
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_GRAPH_H_
