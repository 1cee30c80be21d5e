// A validated definition, compiled for execution.
#ifndef FLUX_ENGINE_CORE_GRAPH_H_
#define FLUX_ENGINE_CORE_GRAPH_H_

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
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
  uint32_t steps_max = 50'000;            // over all scopes
  uint32_t scopes_max = 10'000;
  uint32_t depth_max = 32;                // of nested bodies
  uint32_t name_bytes_max = 256;
  uint32_t inputs_max = 1'000;            // of a step
  uint32_t retry_attempts_max = 10'000;   // more are capped, and said so (F14)
  uint32_t map_parallel_default = 1'000;
  uint32_t map_parallel_max = 100'000;
  uint64_t definition_bytes_max = 16 * 1024 * 1024;
};

// Immutable and shared between executions; thread-safe.
class Graph {
 public:
  // Checks everything a definition can get wrong: cycle (a reference to a step at or after itself), unknown
  // reference, two steps of one name, no result in the root scope, bodies shared or unreachable, bad pointers, names,
  // retry figures… InvalidArgument names the step (and its location if it has one) and the way out.
  // `warnings`, if given, gets what was capped or is suspicious.
  static absl::StatusOr<std::shared_ptr<const Graph>> Compile(const v1::Definition& definition,
                                                              std::string hash,
                                                              const GraphLimits& limits = {},
                                                              std::vector<std::string>* warnings = nullptr);

  const v1::Definition& definition() const { return definition_; }
  const std::string& hash() const { return hash_; }
  const std::string& name() const { return definition_.name(); }
  // Distinct task names, sorted.
  const std::vector<std::string>& tasks() const { return tasks_; }

  // Per step, what Apply needs at hand.
  struct StepPlan {
    const v1::Step* step = nullptr;
    v1::TaskStep task;                    // with every default filled in; task steps only
    uint32_t waits_for = 0;               // distinct earlier steps it depends on
    std::vector<uint32_t> dependants;     // distinct later steps that wait for it
  };
  struct ScopePlan {
    const v1::Scope* scope = nullptr;
    std::vector<StepPlan> steps;
    std::vector<uint32_t> roots;          // steps that wait for nothing
  };
  const std::vector<ScopePlan>& scopes() const { return scopes_; }

 private:
  v1::Definition definition_;
  std::string hash_;
  std::vector<std::string> tasks_;
  std::vector<ScopePlan> scopes_;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_GRAPH_H_
