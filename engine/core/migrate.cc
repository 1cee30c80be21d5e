// Moving a running execution to another version of its workflow.
//
//   execution | input                                       | then
//   ----------+---------------------------------------------+---------------------------------------
//   RUNNING   | ExecutionMigrated                           | goes on in the new version's graph
//   any other | ExecutionMigrated                           | nothing (Decide refuses)
//
//   what has begun            | in the new version
//   --------------------------+--------------------------------------------------------------------
//   a step that is settled    | of the same name, kind and place
//   a step that is under way  | likewise, and the same work and inputs
//   an open body              | the body of the same step, of as many parameters
//   a step that can be undone | can be undone, with as many inputs
//   a step that has not begun | anything, or nothing
//
// Steps that have begun keep their place in their scope, and with it the tokens of what is running.
// Those that have not begin a new generation.
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/decider.h"
#include "engine/core/graph_check.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {
namespace {

using ScopeMap = std::vector<std::optional<uint32_t>>;

// Which body of the new version stands for each of the old one: that of the step of the same name,
// in the same role, of the same clause. Undo scopes follow their steps.
ScopeMap MapScopes(const Graph& from, const Graph& to) {
  ScopeMap map(from.scopes().size());
  map[0] = 0;
  std::vector<uint32_t> todo = {0};
  while (!todo.empty()) {
    const uint32_t scope = todo.back();
    todo.pop_back();
    const Graph::ScopePlan& old_scope = from.scopes()[scope];
    const Graph::ScopePlan& new_scope = to.scopes()[*map[scope]];
    for (const Graph::StepPlan& old_step : old_scope.steps) {
      for (const Graph::StepPlan& new_step : new_scope.steps) {
        if (old_step.step->name() != new_step.step->name()) continue;
        ForEachBody(*old_step.step, [&](uint32_t old_body, Graph::Role old_role, uint32_t clause) {
          ForEachBody(*new_step.step,
                      [&](uint32_t new_body, Graph::Role new_role, uint32_t new_clause) {
                        if (old_role != new_role || clause != new_clause) return;
                        map[old_body] = new_body;
                        todo.push_back(old_body);
                      });
        });
        if (old_step.undo_scope.has_value() && new_step.undo_scope.has_value()) {
          map[*old_step.undo_scope] = *new_step.undo_scope;
        }
      }
    }
  }
  return map;
}

// What a step does, apart from how often it is tried and how long it may take.
std::string WorkOf(const v1::Step& step) {
  v1::Step work = step;
  work.clear_location();
  work.clear_labels();
  work.clear_catches();
  work.clear_undo();
  work.clear_on_exhausted();
  work.clear_after();
  if (work.has_task()) {
    work.mutable_task()->clear_retry();
    work.mutable_task()->clear_timeouts();
    work.mutable_task()->clear_non_retriable();
    work.mutable_task()->clear_priority();
    work.mutable_task()->clear_queue();
  }
  // Bodies are compared as what is open of them.
  if (work.has_map()) work.clear_map();
  if (work.has_loop()) work.clear_loop();
  if (work.has_block()) work.clear_block();
  if (work.has_switch_()) work.clear_switch_();
  return SerializeDeterministic(work);
}

class Comparison {
 public:
  Comparison(const ExecutionState& state, const Graph& to, const ScopeMap& scopes)
      : s_(state), to_(to), scopes_(scopes) {}

  absl::Status Check() const {
    for (const auto& [number, frame] : s_.frames) {
      if (frame->fragment == nullptr) FLUX_RETURN_IF_ERROR(CheckFrame(*frame));
    }
    for (const UndoState& undo : s_.undo) {
      if (undo.fragment != nullptr) continue;
      const std::optional<uint32_t> scope = scopes_[undo.scope];
      if (!scope.has_value() ||
          to_.scopes()[*scope].scope->parameters() != undo.parameters.size()) {
        return Refuse(undo.path, "was done and can be undone, which it cannot in the new version");
      }
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status Refuse(const std::string& path, const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat("step \"", path, "\" ", why));
  }

  absl::Status CheckFrame(const Frame& frame) const {
    const std::optional<uint32_t> scope = scopes_[frame.scope];
    if (!scope.has_value()) {
      return Refuse(FramePath(s_, frame), "has an open body that the new version lacks");
    }
    const Graph::ScopePlan& to = to_.scopes()[*scope];
    if (to.scope->parameters() != frame.parameters.size()) {
      return Refuse(FramePath(s_, frame),
                    absl::StrCat("has an open body of ", frame.parameters.size(),
                                 " parameters, in the new version of ", to.scope->parameters()));
    }
    for (uint32_t i = 0; i < frame.steps.size(); ++i) {
      if (frame.steps[i].phase != Phase::kPending) FLUX_RETURN_IF_ERROR(CheckStep(frame, i, to));
    }
    return absl::OkStatus();
  }

  absl::Status CheckStep(const Frame& frame, uint32_t index, const Graph::ScopePlan& to) const {
    const Graph::StepPlan& from = s_.Plan(frame, index);
    const std::string path = StepPath(s_, frame, index);
    if (index >= to.steps.size() || to.steps[index].step->name() != from.step->name()) {
      return Refuse(path,
                    "has begun, and is missing or at another place in the new version: add new "
                    "steps behind those that have begun");
    }
    if (to.steps[index].kind != from.kind) {
      return Refuse(path, absl::StrCat("has begun as ", ToAbsl(KindName(from.kind)),
                                       ", in the new version it is ",
                                       ToAbsl(KindName(to.steps[index].kind))));
    }
    if (!IsSettled(frame.steps[index].phase) &&
        WorkOf(*from.step) != WorkOf(*to.steps[index].step)) {
      return Refuse(path, "is under way, and does something else in the new version");
    }
    return absl::OkStatus();
  }

  const ExecutionState& s_;
  const Graph& to_;
  const ScopeMap& scopes_;
};

}  // namespace

absl::StatusOr<Decision> Decider::operator()(Migrate&& command) {
  FLUX_RETURN_IF_ERROR(CheckRunning("move to another version"));
  const Graph& to = *command.graph;
  if (to.hash() == s_.graph->hash()) {
    return absl::FailedPreconditionError(absl::StrCat(Name(), " has that version already"));
  }
  if (to.name() != s_.graph->name()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(), " is of workflow ", s_.graph->name(), ", not of ", to.name()));
  }
  const absl::Status fits = Comparison(s_, to, MapScopes(*s_.graph, to)).Check();
  if (!fits.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        Name(), " cannot move to version \"", to.definition().version(), "\": ", fits.message()));
  }
  Decision decision;
  v1::ExecutionMigrated* migrated = Add(&decision)->mutable_migrated();
  migrated->set_definition_hash(to.hash());
  migrated->set_version(to.definition().version());
  migrated->set_identity(std::move(command.identity));
  migrated->set_reason(std::move(command.reason));
  return decision;
}

void Machine::Migrated(const v1::ExecutionMigrated& migrated, std::shared_ptr<const Graph> graph) {
  if (s_.status != v1::EXECUTION_STATUS_RUNNING || graph == nullptr) return;
  if (v1::HistoryEvent* told =
          TellOperator("execution.migrated", migrated.identity(), migrated.reason())) {
    told->set_detail(absl::StrCat("to version \"", migrated.version(), "\"",
                                  migrated.reason().empty() ? "" : ": ", migrated.reason()));
  }
  const ScopeMap scopes = MapScopes(*s_.graph, *graph);
  const uint32_t generation = ++s_.generation;
  std::vector<Frame*> moved;
  for (const auto& [number, frame] : s_.frames) {
    if (frame->fragment != nullptr || !scopes[frame->scope].has_value()) continue;
    const uint32_t scope = *scopes[frame->scope];
    std::vector<StepState> steps(graph->scopes()[scope].steps.size());
    for (StepState& step : steps) step.generation = generation;
    for (size_t i = 0; i < frame->steps.size(); ++i) {
      if (frame->steps[i].phase == Phase::kPending) {
        ReleaseExtra(s_, frame->steps[i]);
      } else if (i < steps.size()) {
        const StepState& state = frame->steps[i];
        if (state.phase == Phase::kScheduled || state.phase == Phase::kBackingOff) {
          // Its time limit is the new version's.
          const auto limit = [&](const StepPlan& plan, bool arm) {
            const int64_t limit_ms = plan.task.timeouts().schedule_to_close_ms();
            if (limit_ms == 0) return;
            const Timer timer{state.first_scheduled_ms + limit_ms, number, static_cast<uint32_t>(i),
                              v1::TIMER_KIND_SCHEDULE_TO_CLOSE};
            if (arm) {
              s_.timers.insert(timer);
            } else {
              s_.timers.erase(timer);
            }
          };
          limit(Plan(*frame, static_cast<uint32_t>(i)), /*arm=*/false);
          limit(graph->scopes()[scope].steps[i], /*arm=*/true);
        }
        steps[i] = std::move(frame->steps[i]);
      }
    }
    s_.bytes -= FrameBytes(*frame);
    s_.live_entries -= frame->steps.size();
    frame->steps = std::move(steps);
    frame->scope = scope;
    frame->graph = graph.get();
    s_.bytes += FrameBytes(*frame);
    s_.live_entries += frame->steps.size();
    moved.push_back(frame);
  }
  for (UndoState& undo : s_.undo) {
    if (undo.fragment != nullptr || !scopes[undo.scope].has_value()) continue;
    undo.scope = *scopes[undo.scope];
    undo.graph = graph.get();
  }
  s_.graph = std::move(graph);
  for (Frame* frame : moved) Recount(frame);
}

}  // namespace flux::engine::internal
