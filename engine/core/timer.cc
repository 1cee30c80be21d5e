// Durable timers, and the sleep step.
//
//   sleep state | input                       | then
//   ------------+-----------------------------+---------------------------
//   pending     | inputs settled, a duration  | waiting until then
//   pending     | inputs settled, no duration | flux.bad_projection
//   pending     | a required input skipped    | skipped
//   waiting     | SLEEP fired                 | completed, with no value
//
//   timer             | fires for                        | then
//   ------------------+----------------------------------+--------------------------------
//   SLEEP             | a waiting sleep                  | completed
//   SLEEP             | a map or loop that yielded       | goes on opening frames
//   BACKOFF           | a task in backing_off            | its next attempt (task_step.cc)
//   SCHEDULE_TO_CLOSE | a task scheduled or backing_off  | fails (task_step.cc)
//   EXECUTION_TIMEOUT | the execution                    | fails
//   EVENT_TIMEOUT     | a waiting wait_event             | its default, or fails (event.cc)
//   EVENT_DELIVERY    | a delayed event                  | delivered (event.cc)
//   any               | what is not waiting for it       | nothing
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/graph_check.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine::internal {

void Machine::StartSleep(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  int64_t duration_ms = plan.step->sleep().duration_ms();
  if (!plan.inputs.empty()) {
    Value value;
    std::string error;
    if (ReadInput(*frame, plan.inputs[0], &value, &error) != Read::kError) {
      absl::StatusOr<int64_t> number = WholeNumber(value);
      if (number.ok()) {
        duration_ms = std::min(*number, kSpanMsMax);
      } else {
        error = std::string(Message(number.status()));
      }
    }
    if (!error.empty()) {
      FailStep(frame, step,
               MakeFailure(kBadProjection,
                           absl::StrCat("the milliseconds to sleep cannot be read: ", error)));
      return;
    }
  }
  frame->steps[step].phase = Phase::kWaiting;
  ArmWake(frame, step, v1::TIMER_KIND_SLEEP, now() + duration_ms);
  if (v1::HistoryEvent* event = TellStep("sleep.started", *frame, step, /*derived=*/true)) {
    event->set_detail(absl::StrCat("until ", FormatTime(now() + duration_ms)));
  }
}

void Machine::ArmWake(Frame* frame, uint32_t step, v1::TimerKind kind, int64_t due_ms) {
  due_ms = std::max<int64_t>(due_ms, 1);  // 0 stands for no timer
  Extra(frame, step).wake_ms = due_ms;
  s_.timers.insert({due_ms, frame->number, step, kind});
}

void Machine::DisarmWake(Frame* frame, uint32_t step) {
  StepState& state = frame->steps[step];
  if (state.extra == nullptr || state.extra->wake_ms == 0) return;
  const v1::TimerKind kind = state.phase == Phase::kBackingOff ? v1::TIMER_KIND_BACKOFF
                             : Plan(*frame, step).kind == v1::Step::kWaitEvent
                                 ? v1::TIMER_KIND_EVENT_TIMEOUT
                                 : v1::TIMER_KIND_SLEEP;
  s_.timers.erase({state.extra->wake_ms, frame->number, step, kind});
  state.extra->wake_ms = 0;
  state.extra->yielding = false;
}

void Machine::DisarmExecution() {
  for (auto it = s_.timers.begin(); it != s_.timers.end(); ++it) {
    if (it->kind != v1::TIMER_KIND_EXECUTION_TIMEOUT) continue;
    s_.timers.erase(it);
    return;
  }
}

void Machine::Disarm(Frame* frame, uint32_t step) {
  const StepState& state = frame->steps[step];
  DisarmWake(frame, step);
  if (state.phase != Phase::kScheduled && state.phase != Phase::kBackingOff) return;
  const int64_t limit_ms = Plan(*frame, step).task.timeouts().schedule_to_close_ms();
  if (limit_ms > 0) {
    s_.timers.erase({state.first_scheduled_ms + limit_ms, frame->number, step,
                     v1::TIMER_KIND_SCHEDULE_TO_CLOSE});
  }
}

void Machine::Yield(Frame* frame, uint32_t step) {
  Extra(frame, step).yielding = true;
  ArmWake(frame, step, v1::TIMER_KIND_SLEEP, now());
}

void Machine::Fired(const v1::TimerFired& fired) {
  // Decided together with what began the undoing.
  if (s_.compensating() && (fired.timer() == v1::TIMER_KIND_EXECUTION_TIMEOUT ||
                            fired.timer() == v1::TIMER_KIND_EVENT_DELIVERY)) {
    return;
  }
  if (fired.timer() == v1::TIMER_KIND_EXECUTION_TIMEOUT) {
    s_.failure = std::make_unique<v1::Failure>(MakeFailure(
        kExecutionTimeout, absl::StrCat("the execution was not done within its timeout of ",
                                        FormatSpan(s_.started->execution_timeout_ms()))));
    DisarmExecution();
    End(v1::EXECUTION_STATUS_FAILED);
    return;
  }
  if (fired.timer() == v1::TIMER_KIND_EVENT_DELIVERY) {
    const auto event = s_.events.find(fired.ref().frame());
    if (event == s_.events.end() || event->second.deliver_at_ms == 0) return;
    s_.timers.erase({event->second.deliver_at_ms, event->first, 0, fired.timer()});
    Deliver(event->first);
    return;
  }
  Frame* frame = s_.FindFrame(fired.ref().frame());
  const uint32_t step = fired.ref().step();
  if (frame == nullptr || step >= frame->steps.size() || Gone(*frame)) return;
  StepState& state = frame->steps[step];
  const v1::Step::KindCase kind = Plan(*frame, step).kind;
  if (fired.timer() == v1::TIMER_KIND_SCHEDULE_TO_CLOSE) {
    if (kind == v1::Step::kTask) ScheduleToClosePassed(frame, step);
    return;
  }
  if (state.extra == nullptr || state.extra->wake_ms == 0) return;
  if (fired.timer() == v1::TIMER_KIND_BACKOFF && state.phase == Phase::kBackingOff) {
    DisarmWake(frame, step);
    TellStep("timer.fired", *frame, step, /*derived=*/false);
    BackoffEnded(frame, step);
  } else if (fired.timer() == v1::TIMER_KIND_EVENT_TIMEOUT && state.phase == Phase::kWaiting) {
    DisarmWake(frame, step);
    TellStep("timer.fired", *frame, step, /*derived=*/false);
    WaitTimedOut(frame, step);
  } else if (fired.timer() == v1::TIMER_KIND_SLEEP && state.phase == Phase::kWaiting) {
    DisarmWake(frame, step);
    if (kind == v1::Step::kSleep) {
      TellStep("timer.fired", *frame, step, /*derived=*/false);
      CompleteStep(frame, step, Value());
    } else if (kind == v1::Step::kMap) {
      OpenItems(frame, step);
    } else if (kind == v1::Step::kLoop) {
      OpenTurn(frame, step);
    }
  }
}

}  // namespace flux::engine::internal
