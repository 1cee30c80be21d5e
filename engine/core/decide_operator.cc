// What events and operators' commands come to.
//
//   command     | execution, step or event                        | verdict, records
//   ------------+-------------------------------------------------+------------------------------
//   SendEvent   | open, a name it knows, a new id                 | EventReceived
//   SendEvent   | an id it remembers                              | kDuplicate
//   SendEvent   | an id that is delayed still                     | EventReceived: replaces it
//   SendEvent   | FAILING, CANCELLING, closed                     | FailedPrecondition
//   SendEvent   | a name no step waits for                        | InvalidArgument
//   CancelEvent | a delayed event                                 | EventCancelled
//   EditEvent   | not taken, or who reads it has not run          | EventEdited
//   EditEvent   | a reader runs or has run, or it did not come    | FailedPrecondition
//   ReplayEvent | some step took it; RUNNING or closed            | EventReplayed
//   Pause       | RUNNING, not paused                             | ExecutionPaused
//   Resume      | open, paused                                    | ExecutionResumed
//   Retry       | RUNNING; the step, or all that are parked       | StepRetried for each
//   Retry       | FAILED, nothing was undone                      | ExecutionReopened, StepRetried
//               |                                                 |   for it, and those parked
//    parked only| RUNNING; a step that is parked                  | StepRetried
//   Park        | RUNNING; a task scheduled or backing off        | StepParked
//   Resolve     | RUNNING; a step that is not settled             | StepResolved
//   Resolve     | FAILED at that step, nothing was undone         | ExecutionReopened, StepResolved
//   Rewind      | RUNNING or closed; a step that has begun        | ExecutionRewound
//   any         | anything else                                   | FailedPrecondition
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/decider.h"
#include "engine/core/graph_check.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {
namespace {

template <typename To>
void SetPayload(v1::Payload payload, uint64_t blob, To* to) {
  if (blob != 0) {
    to->set_payload_blob(blob);
    to->set_payload_blob_bytes(payload.data().size());
  }
  *to->mutable_payload() = std::move(payload);
}

template <typename Command, typename To>
void SetWho(Command& command, To* to) {
  to->set_identity(std::move(command.identity));
  to->set_reason(std::move(command.reason));
}

}  // namespace

// ---- events ----

absl::StatusOr<Decision> Decider::operator()(SendEvent&& command) {
  if (s_.known_ids.contains(command.event_id)) return Refused(Verdict::kDuplicate);
  if (s_.status != v1::EXECUTION_STATUS_RUNNING) {
    return absl::FailedPreconditionError(
        absl::StrCat(Name(), " is ", StatusName(s_.status), ": it takes no more events"));
  }
  bool known = s_.graph->FindEvent(command.event) != nullptr;
  std::vector<std::string> names;
  for (const Graph::EventPlan& event : s_.graph->events()) names.push_back(event.name);
  const Graph* last = nullptr;
  for (const auto& [number, frame] : s_.frames) {
    if (frame->fragment == nullptr || frame->graph == last) continue;
    last = frame->graph;
    known = known || last->FindEvent(command.event) != nullptr;
    for (const Graph::EventPlan& event : last->events()) names.push_back(event.name);
  }
  if (!known) {
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return absl::InvalidArgumentError(
        absl::StrCat("workflow ", s_.graph->name(), " waits for no event \"", command.event, "\"; ",
                     names.empty() ? "it waits for none" : "those it knows: ", ListSome(names)));
  }
  const bool replaces = s_.delayed_ids.contains(command.event_id);
  if (s_.events.size() >= kEventsMax && !replaces) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Name(), " keeps ", s_.events.size(),
                     " events that were not read yet, which is the limit: send more later"));
  }
  Decision decision;
  v1::EventReceived* received = Add(&decision)->mutable_event_received();
  received->set_event(std::move(command.event));
  received->set_event_id(std::move(command.event_id));
  SetPayload(std::move(command.payload), command.blob, received);
  if (command.deliver_at_ms > now_) {
    received->set_deliver_at_ms(std::min(command.deliver_at_ms, now_ + kSpanMsMax));
  }
  received->set_identity(std::move(command.identity));
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(CancelEvent&& command) {
  FLUX_RETURN_IF_ERROR(CheckRunning("have its delayed events cancelled"));
  if (!s_.delayed_ids.contains(command.event_id)) {
    return absl::NotFoundError(
        absl::StrCat(Name(), " has no delayed event with the id \"", command.event_id,
                     s_.known_ids.contains(command.event_id) ? "\": it was delivered" : "\""));
  }
  Decision decision;
  v1::EventCancelled* cancelled = Add(&decision)->mutable_event_cancelled();
  cancelled->set_event_id(std::move(command.event_id));
  SetWho(command, cancelled);
  return decision;
}

std::vector<StepKey> Decider::WaitsOf(const std::string& event) const {
  std::vector<StepKey> waits;
  for (const auto& [number, frame] : s_.frames) {
    const Graph::ScopePlan& scope = s_.Scope(*frame);
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      if (scope.steps[i].kind == v1::Step::kWaitEvent &&
          scope.steps[i].step->wait_event().event() == event &&
          frame->steps[i].phase == Phase::kCompleted && frame->steps[i].delivery != 0) {
        waits.push_back({number, i});
      }
    }
  }
  return waits;
}

absl::StatusOr<Decision> Decider::operator()(EditEvent&& command) {
  FLUX_RETURN_IF_ERROR(CheckRunning("have its events edited"));
  uint64_t number = command.number;
  // Those that took it; one of a loop may be all that is left of it.
  std::vector<StepKey> waits = WaitsOf(command.event);
  if (number == 0) {
    for (const auto& [at, event] : s_.events) {
      if (event.name == command.event) number = at;
    }
    for (const StepKey& wait : waits) number = std::max(number, s_.FindStep(wait)->delivery);
  }
  std::erase_if(waits, [&](const StepKey& wait) { return s_.FindStep(wait)->delivery != number; });
  const auto event = s_.events.find(number);
  if ((event == s_.events.end() || event->second.name != command.event) && waits.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(Name(), " has received no event \"",
                                                      command.event,
                                                      "\" that could be edited: send it instead"));
  }
  std::vector<std::string> ran;
  for (const StepKey& wait : waits) {
    const Frame& frame = *s_.FindFrame(wait.frame);
    for (const uint32_t reader : ReadersOf(s_.Plan(frame, wait.step))) {
      const Phase phase = frame.steps[reader].phase;
      if (phase == Phase::kPending || phase == Phase::kParked) continue;
      ran.push_back(absl::StrCat(StepPath(s_, frame, reader), " (", ToAbsl(PhaseName(phase)), ")"));
    }
  }
  if (!ran.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("event \"", command.event, "\" of ", Name(),
                                                      " has been read by ", ListSome(ran),
                                                      ": replay it with new data instead"));
  }
  Decision decision;
  v1::EventEdited* edited = Add(&decision)->mutable_event_edited();
  edited->set_event(std::move(command.event));
  edited->set_number(number);
  SetPayload(std::move(command.payload), command.blob, edited);
  SetWho(command, edited);
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(ReplayEvent&& command) {
  if (s_.compensating()) {
    return absl::FailedPreconditionError(absl::StrCat(Name(), " is ", StatusName(s_.status),
                                                      ": replay the event once it has closed"));
  }
  if (WaitsOf(command.event).empty()) {
    return absl::FailedPreconditionError(absl::StrCat("no step of ", Name(),
                                                      " has taken an event \"", command.event,
                                                      "\": there is nothing to replay; send it"));
  }
  Decision decision;
  v1::EventReplayed* replayed = Add(&decision)->mutable_event_replayed();
  replayed->set_event(std::move(command.event));
  SetPayload(std::move(command.payload), command.blob, replayed);
  SetWho(command, replayed);
  return decision;
}

// ---- the execution ----

absl::Status Decider::CheckRunning(const char* what) const {
  if (s_.status == v1::EXECUTION_STATUS_RUNNING) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(Name(), " is ", StatusName(s_.status), ": only a running execution can ", what));
}

absl::StatusOr<Decision> Decider::operator()(Pause&& command) {
  FLUX_RETURN_IF_ERROR(CheckRunning("be paused"));
  if (s_.paused) {
    return absl::FailedPreconditionError(absl::StrCat(Name(), " is paused already"));
  }
  Decision decision;
  SetWho(command, Add(&decision)->mutable_paused());
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(Resume&& command) {
  FLUX_RETURN_IF_ERROR(CheckOpen("resumed"));
  if (!s_.paused) return absl::FailedPreconditionError(absl::StrCat(Name(), " is not paused"));
  Decision decision;
  SetWho(command, Add(&decision)->mutable_resumed());
  return decision;
}

void Decider::AddReopened(const std::string& identity, const std::string& reason,
                          Decision* decision) const {
  v1::ExecutionReopened* reopened = Add(decision)->mutable_reopened();
  reopened->set_identity(identity);
  reopened->set_reason(reason);
}

// ---- steps ----

std::vector<StepKey> Decider::ParkedSteps() const {
  std::vector<StepKey> steps;
  for (const auto& [number, frame] : s_.frames) {
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      if (frame->steps[i].phase == Phase::kParked) steps.push_back({number, i});
    }
  }
  return steps;
}

bool Decider::LiesIn(const StepKey& step, const StepKey& outer) const {
  for (const Frame* at = s_.FindFrame(step.frame); at->parent != nullptr; at = at->parent) {
    if (outer == StepKey{at->parent->number, at->parent_step}) return true;
  }
  return false;
}

absl::StatusOr<Decision> Decider::operator()(Retry&& command) {
  Decision decision;
  std::vector<StepKey> steps;
  if (command.parked_only) FLUX_RETURN_IF_ERROR(CheckRunning("have steps unparked"));
  if (s_.status == v1::EXECUTION_STATUS_RUNNING) {
    if (command.step.has_value()) {
      const StepState* step = s_.FindStep(*command.step);
      if (step == nullptr) return absl::NotFoundError(absl::StrCat(Name(), " has no such step"));
      if (command.parked_only && step->phase != Phase::kParked) {
        return absl::FailedPreconditionError(absl::StrCat(
            PathOf(*command.step), " of ", Name(), " is ", ToAbsl(PhaseName(step->phase)),
            ": only a parked step can be unparked; to begin another, retry it"));
      }
      if (step->phase == Phase::kPending) {
        return absl::FailedPreconditionError(absl::StrCat(
            PathOf(*command.step), " of ", Name(),
            " has not begun: it waits for other steps, and runs by itself once they are done"));
      }
      if (IsSettled(step->phase)) {
        return absl::FailedPreconditionError(absl::StrCat(PathOf(*command.step), " of ", Name(),
                                                          " is ", ToAbsl(PhaseName(step->phase)),
                                                          ": to run it again, rewind to it"));
      }
      const internal::StepExtra* extra = step->extra.get();
      if (extra != nullptr && step->phase != Phase::kParked &&
          (extra->first_child != nullptr || extra->map != nullptr || extra->loop != nullptr)) {
        return absl::FailedPreconditionError(
            absl::StrCat(PathOf(*command.step), " of ", Name(),
                         " is under way: retry the step in it that fails, or rewind to it"));
      }
      steps.push_back(*command.step);
    } else {
      steps = ParkedSteps();
      if (steps.empty()) {
        return absl::FailedPreconditionError(
            absl::StrCat(Name(), " has no failed or parked step to retry"));
      }
    }
  } else {
    if (s_.status == v1::EXECUTION_STATUS_FAILED && !s_.has_failed_step) {
      return absl::FailedPreconditionError(
          absl::StrCat(Name(), " failed at no step: rewind it to the one to go on from"));
    }
    if (s_.status != v1::EXECUTION_STATUS_FAILED) {
      return absl::FailedPreconditionError(
          absl::StrCat(Name(), " is ", StatusName(s_.status),
                       ": only a failed execution can be retried; rewind it to a step instead"));
    }
    if (command.step.has_value() && s_.FindStep(*command.step) == nullptr) {
      return absl::NotFoundError(absl::StrCat(Name(), " has no such step"));
    }
    if (s_.compensated) {
      return absl::FailedPreconditionError(
          absl::StrCat(Name(),
                       " has undone what it did: rewind it to the first step that is to "
                       "be done again"));
    }
    if (command.step.has_value() && *command.step != s_.failed_step) {
      return absl::FailedPreconditionError(
          absl::StrCat(Name(), " failed at ", PathOf(s_.failed_step), ": retry that one"));
    }
    AddReopened(command.identity, command.reason, &decision);
    steps.push_back(s_.failed_step);
    if (!command.step.has_value()) {
      for (const StepKey& parked : ParkedSteps()) {
        // What lies in the failed step is dropped as it begins again.
        if (!LiesIn(parked, s_.failed_step)) steps.push_back(parked);
      }
    }
  }
  for (const StepKey& key : steps) {
    v1::StepRetried* retried = Add(&decision)->mutable_step_retried();
    SetRef(key, retried->mutable_ref());
    retried->set_identity(command.identity);
    retried->set_reason(command.reason);
  }
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(Park&& command) {
  FLUX_RETURN_IF_ERROR(CheckRunning("have steps parked"));
  const StepState* step = s_.FindStep(command.step);
  if (step == nullptr) return absl::NotFoundError(absl::StrCat(Name(), " has no such step"));
  const bool task =
      s_.Plan(*s_.FindFrame(command.step.frame), command.step.step).kind == v1::Step::kTask;
  if (!task || (step->phase != Phase::kScheduled && step->phase != Phase::kBackingOff)) {
    return absl::FailedPreconditionError(
        absl::StrCat(PathOf(command.step), " of ", Name(), " is ",
                     task ? ToAbsl(PhaseName(step->phase)) : absl::string_view("no task"),
                     ": only a task that is scheduled or backing off can be parked"));
  }
  Decision decision;
  v1::StepParked* parked = Add(&decision)->mutable_step_parked();
  SetRef(command.step, parked->mutable_ref());
  SetWho(command, parked);
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(Resolve&& command) {
  Decision decision;
  const StepState* step = s_.FindStep(command.step);
  if (step == nullptr) return absl::NotFoundError(absl::StrCat(Name(), " has no such step"));
  if (s_.status == v1::EXECUTION_STATUS_FAILED && s_.has_failed_step && !s_.compensated &&
      command.step == s_.failed_step) {
    AddReopened(command.identity, command.reason, &decision);
  } else {
    FLUX_RETURN_IF_ERROR(CheckRunning("have steps skipped or their results set"));
    if (IsSettled(step->phase)) {
      return absl::FailedPreconditionError(absl::StrCat(PathOf(command.step), " of ", Name(),
                                                        " is ", ToAbsl(PhaseName(step->phase)),
                                                        " already: rewind to it first"));
    }
  }
  v1::StepResolved* resolved = Add(&decision)->mutable_step_resolved();
  SetRef(command.step, resolved->mutable_ref());
  if (command.result.has_value()) {
    if (command.blob != 0) {
      resolved->set_output_blob(command.blob);
      resolved->set_output_blob_bytes(command.result->data().size());
    }
    *resolved->mutable_output() = *std::move(command.result);
  } else {
    resolved->set_skipped(true);
  }
  SetWho(command, resolved);
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(Rewind&& command) {
  const StepState* step = s_.FindStep(command.step);
  if (step == nullptr) return absl::NotFoundError(absl::StrCat(Name(), " has no such step"));
  if (s_.compensating()) {
    return absl::FailedPreconditionError(
        absl::StrCat(Name(), " is ", StatusName(s_.status), ": rewind it once it has closed"));
  }
  if (s_.Scope(*s_.FindFrame(command.step.frame)).role == Graph::Role::kUndo) {
    return absl::FailedPreconditionError("an undo task cannot be rewound to");
  }
  if (step->phase == Phase::kPending) {
    return absl::FailedPreconditionError(absl::StrCat(PathOf(command.step), " of ", Name(),
                                                      " has not begun: there is nothing to take "
                                                      "back"));
  }
  if (s_.has_failed_step && LiesIn(command.step, s_.failed_step)) {
    return absl::FailedPreconditionError(absl::StrCat(PathOf(command.step), " of ", Name(),
                                                      " lies in ", PathOf(s_.failed_step),
                                                      ", which failed: rewind to that one"));
  }
  Decision decision;
  v1::ExecutionRewound* rewound = Add(&decision)->mutable_rewound();
  SetRef(command.step, rewound->mutable_ref());
  SetWho(command, rewound);
  return decision;
}

}  // namespace flux::engine::internal
