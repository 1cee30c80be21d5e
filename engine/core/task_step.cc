// A task step.
//
//   state       | input                    | then
//   ------------+--------------------------+---------------------------------------------------
//   pending     | inputs settled           | scheduled: attempt 1, delivery +1, deadline armed
//   pending     | required input skipped   | skipped
//   scheduled   | StepCompleted            | completed, or skipped if the task said so
//   scheduled   | AttemptFailed            | backing_off until retry_at
//   scheduled   | StepContinued            | waiting for a fragment (continuation.cc)
//   scheduled   | StepFailed               | a catch clause runs; else parked; else it goes up
//   scheduled   | StepRedelivered          | scheduled: delivery +1, same attempt
//   scheduled   | schedule_to_close passed | as StepFailed, by that timeout; revoked
//   backing_off | backoff ended            | scheduled: attempt +1, delivery +1
//   backing_off | StepCompleted            | completed: set by other hands than a worker's
//   backing_off | StepFailed               | as scheduled
//   backing_off | schedule_to_close passed | as StepFailed, by that timeout
//   parked      | StepCompleted            | completed
//   any         | ResultRefused            | the same; told, and remembered to have been
//   any other   | any other                | nothing
//
// Which results and deadlines become which record is decided in decide.cc.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"

namespace flux::engine::internal {

void Machine::Schedule(Frame* frame, uint32_t step) {
  StepState& state = frame->steps[step];
  state.attempt = 1;
  const int64_t limit_ms = Plan(*frame, step).task.timeouts().schedule_to_close_ms();
  if (limit_ms > 0) {
    s_.timers.insert({state.first_scheduled_ms + limit_ms, frame->number, step,
                      v1::TIMER_KIND_SCHEDULE_TO_CLOSE});
  }
  Grant(frame, step);
}

void Machine::Grant(Frame* frame, uint32_t step) {
  StepState& state = frame->steps[step];
  state.phase = Phase::kScheduled;
  ++state.delivery;
  state.scheduled_ms = now();
  if (effects_ != nullptr) effects_->ready.push_back({frame->number, step});
  TellStep("step.scheduled", *frame, step, /*derived=*/true);
}

Frame* Machine::FindTask(const v1::StepRef& ref) const {
  Frame* frame = s_.FindFrame(ref.frame());
  if (frame == nullptr || ref.step() >= frame->steps.size()) return nullptr;
  return Plan(*frame, ref.step()).kind == v1::Step::kTask && !Gone(*frame) ? frame : nullptr;
}

void Machine::TaskCompleted(v1::StepCompleted completed) {
  Frame* frame = FindTask(completed.ref());
  if (frame == nullptr) return;
  const uint32_t step = completed.ref().step();
  const Phase phase = frame->steps[step].phase;
  if (phase != Phase::kScheduled && phase != Phase::kBackingOff && phase != Phase::kParked) return;
  MergeLabels(completed.labels());
  SetStepLabels(s_, frame->steps[step], completed.step_labels());
  if (completed.skipped()) {
    SkipStep(frame, step);
  } else {
    CompleteStep(
        frame, step,
        Value::FromPayload(std::move(*completed.mutable_output()), completed.output_blob()));
  }
  if (telling()) {
    v1::HistoryEvent& event = effects_->story->back();
    event.set_derived(false);
    event.set_identity(completed.worker());
    event.set_detail(LabelsText(completed.step_labels()));
  }
}

void Machine::TaskAttemptFailed(v1::AttemptFailed failed) {
  Frame* frame = FindTask(failed.ref());
  if (frame == nullptr) return;
  const uint32_t step = failed.ref().step();
  StepState& state = frame->steps[step];
  if (state.phase != Phase::kScheduled) return;
  if (telling()) {
    TellFailure("attempt.failed", *frame, step, failed.failure(), /*derived=*/false);
    effects_->story->back().set_detail(
        absl::StrCat("tried again at ", FormatTime(failed.retry_at_ms())));
  }
  ++s_.attempts_failed;
  state.phase = Phase::kBackingOff;
  StepExtra& extra = Extra(frame, step);
  Charge(s_, extra, failed.failure().message().size() + failed.progress().data().size());
  extra.failure = std::make_unique<v1::Failure>(std::move(*failed.mutable_failure()));
  if (failed.has_progress()) {
    extra.progress = std::make_unique<v1::Payload>(std::move(*failed.mutable_progress()));
  }
  ArmWake(frame, step, v1::TIMER_KIND_BACKOFF, failed.retry_at_ms());
}

void Machine::TaskFailed(v1::StepFailed failed) {
  Frame* frame = FindTask(failed.ref());
  if (frame == nullptr) return;
  const uint32_t step = failed.ref().step();
  StepState& state = frame->steps[step];
  if (state.phase != Phase::kScheduled && state.phase != Phase::kBackingOff) return;
  ++s_.attempts_failed;
  EndDelivery(frame, step);
  FailStep(frame, step, std::move(*failed.mutable_failure()), failed.parked());
}

void Machine::TaskRedelivered(const v1::StepRedelivered& redelivered) {
  Frame* frame = FindTask(redelivered.ref());
  if (frame == nullptr) return;
  const uint32_t step = redelivered.ref().step();
  if (frame->steps[step].phase != Phase::kScheduled) return;
  if (v1::HistoryEvent* event = TellStep("step.redelivered", *frame, step, /*derived=*/false)) {
    event->set_detail(redelivered.reason());
  }
  Grant(frame, step);
}

void Machine::Refused(const v1::ResultRefused& refused) {
  Frame* frame = FindTask(refused.ref());
  if (frame == nullptr) return;
  const uint32_t step = refused.ref().step();
  StepState& state = frame->steps[step];
  RefusedState all;
  if (state.extra != nullptr && state.extra->refused != nullptr) all = *state.extra->refused;
  all.delivery = std::max(all.delivery, refused.delivery());
  ++all.results;
  SetRefused(s_, state, all);
  v1::HistoryEvent* told = TellStep("result.stale", *frame, step, /*derived=*/false);
  if (told == nullptr) return;
  told->clear_attempt();
  told->set_delivery(refused.delivery());
  told->set_identity(refused.worker());
  told->set_detail(absl::StrCat("a result of delivery ", refused.delivery(),
                                refused.generation() != state.generation
                                    ? absl::StrCat(" of generation ", refused.generation())
                                    : "",
                                " came when it was wanted no more"));
}

void Machine::BackoffEnded(Frame* frame, uint32_t step) {
  ++frame->steps[step].attempt;
  Grant(frame, step);
}

void Machine::ScheduleToClosePassed(Frame* frame, uint32_t step) {
  StepState& state = frame->steps[step];
  if (state.phase != Phase::kScheduled && state.phase != Phase::kBackingOff) return;
  RevokeIfScheduled(*frame, step);
  const StepPlan& plan = Plan(*frame, step);
  std::string message = absl::StrCat(
      "task ", plan.task.task(), " was not done within its schedule_to_close timeout of ",
      FormatSpan(plan.task.timeouts().schedule_to_close_ms()), ", in ", state.attempt,
      state.attempt == 1 ? " attempt" : " attempts");
  if (state.extra != nullptr && state.extra->failure != nullptr) {
    absl::StrAppend(&message, "; the last failure was ", state.extra->failure->type(), ": ",
                    state.extra->failure->message());
  }
  EndDelivery(frame, step);
  FailStep(frame, step, MakeFailure(kScheduleToCloseTimeout, message),
           plan.step->on_exhausted() == v1::ON_EXHAUSTED_PARK);
}

void Machine::EndDelivery(Frame* frame, uint32_t step) {
  Disarm(frame, step);
  frame->steps[step].phase = Phase::kFailed;
}

void Machine::RevokeIfScheduled(const Frame& frame, uint32_t step) {
  const StepState& state = frame.steps[step];
  if (state.phase != Phase::kScheduled) return;
  revoked_any_ = true;
  if (effects_ != nullptr) {
    effects_->revoked.push_back({{frame.number, step}, state.delivery});
  }
}

}  // namespace flux::engine::internal
