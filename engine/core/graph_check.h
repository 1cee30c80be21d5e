// Refuses definitions that cannot run, each with the step's name and the way out.
#ifndef FLUX_ENGINE_CORE_GRAPH_CHECK_H_
#define FLUX_ENGINE_CORE_GRAPH_CHECK_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/core/graph.h"
#include "flux/v1/definition.pb.h"

namespace flux::engine {

// Defaults of a task step; a figure of 0 in a definition means these.
inline constexpr uint32_t kRetryAttemptsDefault = 5;
inline constexpr int64_t kInitialBackoffMsDefault = 1'000;
inline constexpr uint32_t kBackoffFactorPermilleDefault = 2'000;
inline constexpr int64_t kMaxBackoffMsDefault = 60'000;
inline constexpr uint32_t kJitterPermilleDefault = 200;
inline constexpr int64_t kStartToCloseMsDefault = 300'000;
inline constexpr uint32_t kBackoffFactorPermilleMax = 1'000'000;
// Spans of time: a hundred years, so that no sum of a time and a span overflows.
inline constexpr int64_t kSpanMsMax = int64_t{100} * 366 * 24 * 3600 * 1000;

// InvalidArgument or ResourceExhausted; warnings are appended to `warnings` unless it is null.
absl::Status CheckDefinition(const v1::Definition& definition, const GraphLimits& limits,
                             std::vector<std::string>* warnings);

// Calls `visit(body, role, clause)` for every body of a step.
template <typename Visit>
void ForEachBody(const v1::Step& step, Visit visit) {
  switch (step.kind_case()) {
    case v1::Step::kMap:
      visit(step.map().body(), Graph::Role::kMapItem, 0u);
      if (step.map().has_page_body()) visit(step.map().page_body(), Graph::Role::kPage, 0u);
      break;
    case v1::Step::kLoop:
      visit(step.loop().body(), Graph::Role::kLoopTurn, 0u);
      break;
    case v1::Step::kBlock:
      visit(step.block().body(), Graph::Role::kBlock, 0u);
      break;
    case v1::Step::kSwitch: {
      const uint32_t cases = static_cast<uint32_t>(step.switch_().cases_size());
      for (uint32_t i = 0; i < cases; ++i) {
        visit(step.switch_().cases(static_cast<int>(i)).body(), Graph::Role::kCase, i);
      }
      if (step.switch_().has_default_body()) {
        visit(step.switch_().default_body(), Graph::Role::kCase, cases);
      }
      break;
    }
    default:
      break;
  }
  for (uint32_t i = 0; i < static_cast<uint32_t>(step.catches_size()); ++i) {
    visit(step.catches(static_cast<int>(i)).body(), Graph::Role::kCatch, i);
  }
}

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_GRAPH_CHECK_H_
