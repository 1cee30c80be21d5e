// What operators do to an execution.
//
//   execution | input           | then
//   ----------+-----------------+----------------------------------------------------------------
//   RUNNING   | Paused          | PAUSED: nothing is handed out; results and timers go on
//   PAUSED    | Resumed         | RUNNING: what is scheduled is handed out
//   closed    | Reopened        | RUNNING: the step it failed at is parked, deliveries are granted
//   anew any       | Rewound         | RUNNING: the step and all downstream pending, in a new
//   generation
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
  const v1::Step::KindCase kind = Plan(*frame, step).kind;
  // The answer to an earlier message must not be taken for this one's.
  if (kind == v1::Step::kChild || kind == v1::Step::kEmit) state.generation = ++s_.generation;
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
  state.phase = Phase::kParked;
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
  if (effects_ != nullptr) effects_->reopened = true;
  if (s_.has_failed_step) {
    s_.has_failed_step = false;
    Frame* frame = s_.FindFrame(s_.failed_step.frame);
    frame->steps[s_.failed_step.step].phase = Phase::kParked;
    frame->steps[s_.failed_step.step].ended_ms = 0;
    for (Frame* at = frame; at->parent != nullptr; at = at->parent) {
      StepState& owner = at->parent->steps[at->parent_step];
      owner.phase = Phase::kWaiting;
      owner.ended_ms = 0;
    }
    s_.failed_step = {};
  }
  // A closed execution's deliveries and children were given up, and perhaps its timers.
  for (const auto& [number, event] : s_.events) {
    if (event.deliver_at_ms != 0) {
      s_.timers.insert({event.deliver_at_ms, number, 0, v1::TIMER_KIND_EVENT_DELIVERY});
    }
  }
  for (const auto& [number, frame] : s_.frames) {
    const Graph::ScopePlan& scope = s_.Scope(*frame);
    for (uint32_t i = 0; i < frame->steps.size(); ++i) {
      StepState& state = frame->steps[i];
      const StepExtra* extra = state.extra.get();
      switch (state.phase) {
        case Phase::kScheduled:
        case Phase::kBackingOff:
          if (const int64_t limit = scope.steps[i].task.timeouts().schedule_to_close_ms();
              limit > 0) {
            s_.timers.insert(
                {state.first_scheduled_ms + limit, number, i, v1::TIMER_KIND_SCHEDULE_TO_CLOSE});
          }
          if (state.phase == Phase::kScheduled) {
            Grant(frame, i);
          } else {
            s_.timers.insert({extra->wake_ms, number, i, v1::TIMER_KIND_BACKOFF});
          }
          break;
        case Phase::kWaiting:
          if (extra != nullptr && extra->wake_ms != 0) {
            s_.timers.insert({extra->wake_ms, number, i,
                              scope.steps[i].kind == v1::Step::kWaitEvent
                                  ? v1::TIMER_KIND_EVENT_TIMEOUT
                                  : v1::TIMER_KIND_SLEEP});
          }
          if (extra != nullptr && extra->child != nullptr && extra->first_child == nullptr &&
              !s_.children.contains({number, i})) {
            TryAgain(frame, i);
          }
          break;
        default:
          break;
      }
    }
  }
}

void Machine::Rewound(const v1::ExecutionRewound& rewound) {
  Frame* frame = s_.FindFrame(rewound.ref().frame());
  if (frame == nullptr || rewound.ref().step() >= frame->steps.size()) return;
  if (v1::HistoryEvent* told =
          TellOperator("execution.rewound", rewound.identity(), rewound.reason())) {
    told->set_step(StepPath(s_, *frame, rewound.ref().step()));
  }
  Reopen();
  Reset(frame, {rewound.ref().step()});
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
    std::erase_if(s_.undo, [&](const UndoState& undo) {
      const bool below = undo.path.size() > path.size() && absl::StartsWith(undo.path, path) &&
                         (undo.path[path.size()] == '.' || undo.path[path.size()] == '[');
      return below || undo.path == path;
    });
    AbandonStep(frame, i);
    s_.bytes -= state.output.memory_bytes();
    state.output = Value();
    state.phase = Phase::kPending;
    state.attempt = 0;
    state.first_scheduled_ms = state.scheduled_ms = state.ended_ms = 0;
    state.resolved = false;
    state.generation = s_.generation;
  }
  for (uint32_t i = 0; i < frame->steps.size(); ++i) {
    if (!in[i]) continue;
    StepState& state = frame->steps[i];
    uint32_t completed = 0;
    state.waiting_for = 0;
    for (const uint32_t source : scope.steps[i].sources) {
      if (!IsSettled(frame->steps[source].phase)) ++state.waiting_for;
      if (frame->steps[source].phase == Phase::kCompleted) ++completed;
    }
    for (size_t p = 0; p < frame->parameters.size(); ++p) {
      const std::vector<uint32_t>& readers = scope.parameter_dependants[p];
      if (frame->parameters[p].state == Parameter::State::kPending &&
          std::find(readers.begin(), readers.end(), i) != readers.end()) {
        ++state.waiting_for;
      }
    }
    bool ready = state.waiting_for == 0;
    if (scope.steps[i].early && completed > 0) {
      StepExtra& extra = Extra(frame, i);
      extra.join = std::make_unique<JoinState>();
      extra.join->completed = completed;
      const uint32_t first = scope.steps[i].step->join().first();
      ready = ready || (first != 0 && completed >= first);
    }
    if (ready) Push(Work::Kind::kActivate, frame, i);
  }
  frame->remaining = 0;
  for (const StepState& state : frame->steps) frame->remaining += IsSettled(state.phase) ? 0 : 1;
  if (scope.result.has_value() && scope.result->source == InputPlan::Source::kParameter &&
      frame->parameters[scope.result->index].state == Parameter::State::kPending) {
    ++frame->remaining;
  }
}

}  // namespace flux::engine::internal
