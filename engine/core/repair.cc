// What operators do to an execution.
//
//   execution | input           | then
//   ----------+-----------------+----------------------------------------------------------------
//   RUNNING   | Paused          | PAUSED: nothing is handed out; results and timers go on
//   PAUSED    | Resumed         | RUNNING: what is scheduled is handed out
//   closed    | Reopened        | RUNNING: the step it failed at is parked; what went on beside it
//             |                 |   goes on: new deliveries, messages and time limits
//   any       | Rewound         | RUNNING: the step and all downstream pending, in a new
//             |                 |   generation
//
//   step      | input           | then
//   ----------+-----------------+----------------------------------------------------------------
//   pending   | StepResolved    | completed, or skipped: its own body and deliveries are dropped
//   scheduled | StepResolved    | likewise; so for backing_off, waiting and parked
//   scheduled | StepRetried     | attempt 1 again, a new delivery; so for backing_off and parked
//   waiting   | StepRetried     | begins again; so for parked steps that are no tasks
//   scheduled | StepParked      | parked; so for backing_off
//   any other | any             | nothing (Decide refuses)
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"

namespace flux::engine::internal {

v1::HistoryEvent* Machine::TellOperator(const char* type, const std::string& identity,
                                        const std::string& reason) {
  v1::HistoryEvent* told = Tell(type, /*derived=*/false);
  if (told == nullptr) return nullptr;
  told->set_identity(identity);
  told->set_detail(reason);
  return told;
}

void Machine::Pause(bool paused, const std::string& identity, const std::string& reason) {
  TellOperator(paused ? "execution.paused" : "execution.resumed", identity, reason);
  s_.paused = paused;
  if (effects_ != nullptr) (paused ? effects_->paused : effects_->resumed) = true;
}

void Machine::TryAgain(Frame* frame, uint32_t step) {
  AbandonStep(frame, step);
  StepState& state = frame->steps[step];
  state.phase = Phase::kPending;
  state.ended_ms = 0;
  // The answer to an earlier message must not be taken for this one's; nor a child of its earlier
  // bodies for one of those to come.
  if (Plan(*frame, step).kind != v1::Step::kTask) state.generation = ++s_.generation;
  Push(Work::Kind::kActivate, frame, step);
}

void Machine::Resolved(v1::StepResolved resolved) {
  Frame* frame = s_.FindFrame(resolved.ref().frame());
  const uint32_t step = resolved.ref().step();
  if (frame == nullptr || Gone(*frame) || step >= frame->steps.size()) return;
  StepState& state = frame->steps[step];
  if (IsSettled(state.phase)) return;
  if (v1::HistoryEvent* told =
          TellOperator(resolved.skipped() ? "step.skip_asked" : "step.result_set",
                       resolved.identity(), resolved.reason())) {
    told->set_step(StepPath(s_, *frame, step));
    if (!resolved.skipped()) *told->mutable_payload() = resolved.output();
  }
  AbandonStep(frame, step);
  state.resolved = true;
  if (state.first_scheduled_ms == 0) state.first_scheduled_ms = now();
  if (resolved.skipped()) {
    SkipStep(frame, step);
  } else {
    CompleteStep(frame, step,
                 Value::FromPayload(std::move(*resolved.mutable_output()), resolved.output_blob()));
  }
}

void Machine::Retried(const v1::StepRetried& retried) {
  Frame* frame = s_.FindFrame(retried.ref().frame());
  const uint32_t step = retried.ref().step();
  if (frame == nullptr || Gone(*frame) || step >= frame->steps.size()) return;
  const Phase phase = frame->steps[step].phase;
  if (IsSettled(phase) || phase == Phase::kPending) return;
  if (v1::HistoryEvent* told = TellOperator("step.retried", retried.identity(), retried.reason())) {
    told->set_step(StepPath(s_, *frame, step));
  }
  TryAgain(frame, step);
}

void Machine::Parked(const v1::StepParked& parked) {
  Frame* frame = FindTask(parked.ref());
  if (frame == nullptr) return;
  const uint32_t step = parked.ref().step();
  StepState& state = frame->steps[step];
  if (state.phase != Phase::kScheduled && state.phase != Phase::kBackingOff) return;
  if (v1::HistoryEvent* told = TellOperator("step.parked", parked.identity(), parked.reason())) {
    told->set_step(StepPath(s_, *frame, step));
  }
  RevokeIfScheduled(*frame, step);
  Disarm(frame, step);
  SetParked(state);
  StepExtra& extra = Extra(frame, step);
  if (extra.failure != nullptr) return;
  extra.failure = std::make_unique<v1::Failure>(
      MakeFailure("flux.parked", parked.reason().empty() ? absl::StrCat("by ", parked.identity())
                                                         : parked.reason()));
}

void Machine::Reopened(const v1::ExecutionReopened& reopened) {
  TellOperator("execution.reopened", reopened.identity(), reopened.reason());
  Reopen();
}

void Machine::Reopen() {
  if (s_.status == v1::EXECUTION_STATUS_RUNNING) return;
  s_.status = v1::EXECUTION_STATUS_RUNNING;
  s_.closing_as = v1::EXECUTION_STATUS_UNSPECIFIED;
  s_.close_time_ms = 0;
  s_.close_reason.clear();
  s_.close_identity.clear();
  s_.failure.reset();
  s_.bytes -= s_.result.memory_bytes();
  s_.result = Value();
  s_.compensated = false;
  if (effects_ != nullptr) effects_->reopened = true;
  if (const int64_t limit = s_.started->execution_timeout_ms(); limit > 0) {
    DisarmExecution();
    s_.timers.insert({now() + limit, 0, 0, v1::TIMER_KIND_EXECUTION_TIMEOUT});
  }
  if (s_.has_failed_step) {
    s_.has_failed_step = false;
    Frame* frame = s_.FindFrame(s_.failed_step.frame);
    ParkFailed(frame, s_.failed_step.step);
    for (Frame* at = frame; at->parent != nullptr; at = at->parent) {
      StepState& owner = at->parent->steps[at->parent_step];
      owner.phase = Phase::kWaiting;
      owner.ended_ms = 0;
    }
    s_.failed_step = {};
  }
  for (const auto& [number, event] : s_.events) {
    if (event.deliver_at_ms != 0) {
      s_.timers.insert({event.deliver_at_ms, number, 0, v1::TIMER_KIND_EVENT_DELIVERY});
    }
  }
  absl::btree_set<StepKey> sending;
  for (auto it = s_.outbox.begin(); it != s_.outbox.end();) {
    if (it->second.kind == v1::OUTBOX_KIND_NOTIFY_PARENT) {
      // It is not over; the next close makes another.
      it = s_.outbox.erase(it);
      s_.bytes -= kMessageBytes;
      continue;
    }
    if (it->second.kind == v1::OUTBOX_KIND_EMIT || it->second.kind == v1::OUTBOX_KIND_START_CHILD) {
      sending.insert(it->second.key);
    }
    ++it;
  }
  Frame* undoing = nullptr;
  for (const auto& [number, frame] : s_.frames) {
    if (s_.Scope(*frame).role == Graph::Role::kUndo) {
      undoing = frame;
      continue;
    }
    for (uint32_t i = 0; i < frame->steps.size(); ++i) Revive(frame, i, sending);
    // It closed amid what followed from a record: the rest of that follows now.
    Recount(frame);
    if (frame->parent != nullptr) Push(Work::Kind::kBind, frame, 0);
  }
  if (undoing != nullptr) {
    // It was terminated amid this; should it come to that again, the undo task starts anew.
    EndDelivery(undoing, 0);
    DropFrame(undoing);
  }
}

// The step the execution failed at waits for the operator; what is left of its bodies goes.
void Machine::ParkFailed(Frame* frame, uint32_t step) {
  StepState& state = frame->steps[step];
  Disarm(frame, step);
  // All deliveries were revoked as it closed.
  const size_t revoked = effects_ != nullptr ? effects_->revoked.size() : 0;
  DropChildren(frame, step);
  if (effects_ != nullptr) effects_->revoked.resize(revoked);
  std::unique_ptr<v1::Failure> failure = std::move(state.extra->failure);
  ClearExtra(s_, state);
  Extra(frame, step).failure = std::move(failure);
  SetParked(state);
  state.ended_ms = 0;
}

// A closed execution's deliveries and children were given up, and perhaps its timers; what became
// of its messages was not heard.
void Machine::Revive(Frame* frame, uint32_t step, const absl::btree_set<StepKey>& sending) {
  const StepKey key{frame->number, step};
  const StepPlan& plan = Plan(*frame, step);
  StepState& state = frame->steps[step];
  const StepExtra* extra = state.extra.get();
  if (state.phase == Phase::kScheduled || state.phase == Phase::kBackingOff) {
    if (const int64_t limit = plan.task.timeouts().schedule_to_close_ms(); limit > 0) {
      const v1::TimerKind kind = v1::TIMER_KIND_SCHEDULE_TO_CLOSE;
      s_.timers.erase({state.first_scheduled_ms + limit, frame->number, step, kind});
      state.first_scheduled_ms = now();
      s_.timers.insert({now() + limit, frame->number, step, kind});
    }
    if (state.phase == Phase::kScheduled) {
      Grant(frame, step);
    } else {
      s_.timers.insert({extra->wake_ms, frame->number, step, v1::TIMER_KIND_BACKOFF});
    }
    return;
  }
  if (state.phase != Phase::kWaiting) return;
  if (extra != nullptr && extra->wake_ms != 0) {
    s_.timers.insert(
        {extra->wake_ms, frame->number, step,
         plan.kind == v1::Step::kWaitEvent ? v1::TIMER_KIND_EVENT_TIMEOUT : v1::TIMER_KIND_SLEEP});
  }
  // A body of it, as of a catch clause, goes on by itself.
  if (extra != nullptr && extra->first_child != nullptr) return;
  const bool awaits = extra != nullptr && extra->child != nullptr;
  const bool sends = plan.kind == v1::Step::kEmit || plan.kind == v1::Step::kChild;
  if (awaits ? !s_.children.contains(key) : sends && !sending.contains(key)) TryAgain(frame, step);
}

void Machine::Rewound(const v1::ExecutionRewound& rewound) {
  Frame* frame = s_.FindFrame(rewound.ref().frame());
  if (frame == nullptr || rewound.ref().step() >= frame->steps.size()) return;
  if (v1::HistoryEvent* told =
          TellOperator("execution.rewound", rewound.identity(), rewound.reason())) {
    told->set_step(StepPath(s_, *frame, rewound.ref().step()));
  }
  ++frame->queued;  // what the execution failed at loses its bodies
  Reopen();
  if (!frame->dropped) Reset(frame, {rewound.ref().step()});
  ReleaseQueued(frame);
}

void Machine::Reset(Frame* frame, const std::vector<uint32_t>& steps) {
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  std::vector<bool> in(frame->steps.size(), false);
  std::vector<uint32_t> todo = steps;
  while (!todo.empty()) {
    const uint32_t step = todo.back();
    todo.pop_back();
    if (in[step]) continue;
    in[step] = true;
    for (const uint32_t reader : ReadersOf(scope.steps[step])) todo.push_back(reader);
  }
  ++s_.generation;
  for (uint32_t i = 0; i < frame->steps.size(); ++i) {
    if (!in[i]) continue;
    StepState& state = frame->steps[i];
    const std::string path = StepPath(s_, *frame, i);
    if (IsSettled(state.phase)) TellStep("step.superseded", *frame, i, /*derived=*/true);
    const size_t dropped = std::erase_if(s_.undo, [&](const UndoState& undo) {
      const bool below = undo.path.size() > path.size() && absl::StartsWith(undo.path, path) &&
                         (undo.path[path.size()] == '.' || undo.path[path.size()] == '[');
      return below || undo.path == path;
    });
    s_.bytes -= dropped * kUndoBytes;
    GiveBackAll(frame, i);
    AbandonStep(frame, i);
    ReleaseLabels(s_, state);
    s_.bytes -= state.output.memory_bytes();
    state.output = Value();
    state.phase = Phase::kPending;
    state.attempt = 0;
    state.first_scheduled_ms = state.scheduled_ms = state.ended_ms = 0;
    state.resolved = false;
    state.generation = s_.generation;
  }
  Recount(frame);
}

void Machine::Recount(Frame* frame) {
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  const auto pending = [&](uint32_t parameter) {
    return frame->parameters[parameter].state == Parameter::State::kPending;
  };
  frame->remaining = 0;
  for (uint32_t i = 0; i < frame->steps.size(); ++i) {
    StepState& state = frame->steps[i];
    state.waiting_for = 0;
    for (const uint32_t source : scope.steps[i].sources) {
      if (!IsSettled(frame->steps[source].phase)) ++state.waiting_for;
    }
    if (!IsSettled(state.phase)) ++frame->remaining;
  }
  for (uint32_t p = 0; p < frame->parameters.size(); ++p) {
    if (!pending(p)) continue;
    for (const uint32_t reader : scope.parameter_dependants[p]) ++frame->steps[reader].waiting_for;
  }
  if (scope.result.has_value() && scope.result->source == InputPlan::Source::kParameter &&
      pending(scope.result->index)) {
    ++frame->remaining;
  }
  for (uint32_t i = 0; i < frame->steps.size(); ++i) {
    if (frame->steps[i].phase != Phase::kPending) continue;
    const bool enough = scope.steps[i].early && CountInputs(frame, i);
    if (enough || frame->steps[i].waiting_for == 0) Push(Work::Kind::kActivate, frame, i);
  }
  if (frame->remaining == 0) Push(Work::Kind::kFrameDone, frame, 0);
}

}  // namespace flux::engine::internal
