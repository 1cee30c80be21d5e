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
//   a map                     | over pages as before, or not; it tolerates the items that failed
//   a loop                    | has the turn that it is in
//   an open body              | the body of the same step, of as many parameters; what it is yet to
//                             |   be given comes from where it came
//   the body of a case        | of the same value, or the default's as before
//   the body of a catch clause| of the first clause that takes the failure
//   a failure tolerated for a | tolerated still
//     join that is to be made |
//   a step that was cancelled | read by nothing that is to be done
//   a step that can be undone | can be undone, with as many inputs
//   an event nobody has taken | of the same type; so for one that a fragment awaits
//   a step that has not begun | anything, or nothing
//
// Steps that have begun keep their place in their scope, and with it the tokens of what is running.
// Those that have not begin a new generation.
#include <algorithm>
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
  // Bodies are compared as what is open of them, what bounds a loop with the turn it is in.
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
    return CheckEvents();
  }

 private:
  static absl::Status Refuse(const std::string& path, const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat("step \"", path, "\" ", why));
  }

  // An event that nobody has taken is read as what it was when it was sent.
  absl::Status CheckEvents() const {
    const Graph* last = nullptr;
    for (const auto& [number, frame] : s_.frames) {
      if (frame->fragment == nullptr || frame->graph == last) continue;
      last = frame->graph;
      if (const Graph::EventPlan* event = to_.EventOfAnotherType(*last)) {
        return RefuseEvent(*event, absl::StrCat("a fragment, ", last->name(), ", awaits it as ",
                                                last->FindEvent(event->name)->type));
      }
    }
    if (to_.EventOfAnotherType(*s_.graph) == nullptr) return absl::OkStatus();
    for (const auto& [number, kept] : s_.events) {
      const Graph::EventPlan* event = to_.FindEvent(kept.name);
      const Graph::EventPlan* sent = s_.graph->FindEvent(kept.name);
      if (kept.readers != 0 || event == nullptr || sent == nullptr || event->type.empty() ||
          sent->type.empty() || event->type == sent->type) {
        continue;
      }
      return RefuseEvent(*event,
                         absl::StrCat("one that nobody has taken yet was sent as ", sent->type));
    }
    return absl::OkStatus();
  }

  static absl::Status RefuseEvent(const Graph::EventPlan& event, const std::string& why) {
    return absl::FailedPreconditionError(
        absl::StrCat("event \"", event.name, "\" is awaited as ", event.type, ", but ", why));
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
    FLUX_RETURN_IF_ERROR(CheckBranch(frame, *scope));
    for (uint32_t i = 0; i < frame.steps.size(); ++i) {
      if (frame.steps[i].phase != Phase::kPending) FLUX_RETURN_IF_ERROR(CheckStep(frame, i, to));
    }
    return absl::OkStatus();
  }

  // Bodies of cases and clauses stand for each other by their number: here they are seen to be open
  // for the same reason. The steps above lie at the same places, since they have begun.
  absl::Status CheckBranch(const Frame& frame, uint32_t scope) const {
    const Graph::ScopePlan& from = s_.Scope(frame);
    const Graph::ScopePlan& to = to_.scopes()[scope];
    const auto owner = [](const Graph& graph, const Graph::ScopePlan& body) -> const v1::Step& {
      return *graph.scopes()[body.owner_scope].steps[body.owner_step].step;
    };
    if (from.role == Graph::Role::kCase) {
      const auto match = [&](const v1::Step& step) {
        const v1::SwitchStep& spec = step.switch_();
        const int number = static_cast<int>(from.clause);
        return number < spec.cases_size() ? spec.cases(number).match().data() : std::string();
      };
      if (match(owner(*s_.graph, from)) == match(owner(to_, to))) return absl::OkStatus();
      return Refuse(FramePath(s_, frame),
                    "has the body of a case open that stands for another value in the new version: "
                    "add new cases behind those there are, or wait until it is done");
    }
    if (from.role != Graph::Role::kCatch) return absl::OkStatus();
    const Frame& above = *frame.parent;
    const v1::Failure& caught = *above.steps[frame.parent_step].extra->failure;
    if (MatchingClause(owner(to_, to), caught.type()) != static_cast<int>(from.clause)) {
      return Refuse(FramePath(s_, frame),
                    absl::StrCat("has the body of a catch clause open that does not take the "
                                 "failure it runs for, ",
                                 caught.type(), ", in the new version"));
    }
    // The first parameter is the failure; those that are pending are read when they settle.
    const auto& captures = s_.Plan(above, frame.parent_step).catch_captures[from.clause];
    const auto& read = to_.scopes()[to.owner_scope].steps[to.owner_step].catch_captures[to.clause];
    for (size_t i = 0; i < captures.size(); ++i) {
      if (frame.parameters[i + 1].state != Parameter::State::kPending ||
          SerializeDeterministic(*captures[i].input) == SerializeDeterministic(*read[i].input)) {
        continue;
      }
      return Refuse(FramePath(s_, frame),
                    "has a body open that waits for a value, and for another one in the new "
                    "version");
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
    if (IsSettled(frame.steps[index].phase)) return CheckReaders(frame, index, to);
    const v1::Step& step = *to.steps[index].step;
    if (WorkOf(*from.step) != WorkOf(step)) {
      return Refuse(path, "is under way, and does something else in the new version");
    }
    if (from.step->map().has_page_body() != step.map().has_page_body()) {
      return Refuse(path, from.step->map().has_page_body()
                              ? "is under way over pages, in the new version over a list"
                              : "is under way over a list, in the new version over pages");
    }
    const StepExtra* extra = frame.steps[index].extra.get();
    if (extra != nullptr && extra->map != nullptr) {
      return CheckTolerance(path, *extra->map, step.map());
    }
    const uint64_t turns = step.loop().turns();
    if (extra != nullptr && extra->loop != nullptr && turns != 0 && turns <= extra->loop->turn) {
      return Refuse(path, absl::StrCat("is in turn ", extra->loop->turn,
                                       " (the first is 0), in the new version it has only ", turns,
                                       " turns"));
    }
    return absl::OkStatus();
  }

  // Of how many items it is a share is known with the last page.
  static absl::Status CheckTolerance(const std::string& path, const MapState& map,
                                     const v1::MapStep& to) {
    const uint64_t tolerated = std::max<uint64_t>(
        to.tolerated_failures(), map.items * to.tolerated_failure_permille() / 1000);
    const bool known = map.last_page || to.tolerated_failure_permille() == 0;
    if (!known || map.failed <= tolerated) return absl::OkStatus();
    return Refuse(path,
                  absl::StrCat("has ", map.failed, map.failed == 1 ? " item" : " items",
                               " that failed, in the new version ", tolerated, " are tolerated"));
  }

  // What early joins left behind holds good only for who knew of it: a step was cancelled since
  // nobody needed it, a failure was tolerated for the sake of one reader.
  absl::Status CheckReaders(const Frame& frame, uint32_t index, const Graph::ScopePlan& to) const {
    const StepState& state = frame.steps[index];
    const bool tolerated =
        state.phase == Phase::kSkipped && state.extra != nullptr && state.extra->failure != nullptr;
    if (!tolerated && state.phase != Phase::kCancelled) return absl::OkStatus();
    const Graph::StepPlan& plan = to.steps[index];
    // A rewind may have taken back who read it.
    const std::vector<uint32_t> before = ReadersOf(s_.Plan(frame, index));
    const auto known = [&](uint32_t reader) {
      return std::any_of(before.begin(), before.end(), [&](uint32_t old) {
        return s_.Plan(frame, old).step->name() == to.steps[reader].step->name();
      });
    };
    bool read = plan.in_result && !s_.Plan(frame, index).in_result;
    bool wanted = false;
    for (const uint32_t old : before) wanted = wanted || !IsSettled(frame.steps[old].phase);
    bool by_some = false;
    for (const uint32_t reader : ReadersOf(plan)) {
      if (reader < frame.steps.size() && IsSettled(frame.steps[reader].phase)) continue;
      const bool tolerates =
          plan.dependants.size() == 1 && plan.lazy_dependants.empty() && to.steps[reader].early &&
          Tolerated(frame, to, reader) <= to.steps[reader].step->join().tolerated_failures();
      read = read || (tolerated ? !tolerates : !known(reader));
      by_some = by_some || tolerates;
    }
    if (!read && !(tolerated && wanted && !by_some)) return absl::OkStatus();
    return Refuse(StepPath(s_, frame, index),
                  tolerated ? "failed, which was tolerated; in the new version it is not"
                            : "was cancelled as nobody needed it, and is read in the new version");
  }

  // How many failures were tolerated of what the join reads in the new version.
  uint32_t Tolerated(const Frame& frame, const Graph::ScopePlan& to, uint32_t join) const {
    uint32_t count = 0;
    for (const uint32_t source : to.steps[join].sources) {
      if (source >= frame.steps.size()) continue;
      const StepState& state = frame.steps[source];
      if (state.phase == Phase::kSkipped && state.extra != nullptr &&
          state.extra->failure != nullptr) {
        ++count;
      }
    }
    return count;
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
