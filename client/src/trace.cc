// What flux/graph.h calls: each function adds a step or sets an option in the trace its argument
// belongs to.
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "client/src/tracer.h"
#include "flux/codec.h"
#include "flux/value.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

// The options of a task step; null (with the mistake recorded) for any other.
v1::TaskStep* TaskOf(const ValueRef& step) {
  v1::Step* found = step.tracer->Find(step);
  return found != nullptr && found->has_task() ? found->mutable_task() : nullptr;
}

v1::TaskTimeouts* TimeoutsOf(const ValueRef& step) {
  v1::TaskStep* task = TaskOf(step);
  return task == nullptr ? nullptr : task->mutable_timeouts();
}

}  // namespace

Argument Argument::Nothing() {
  Argument nothing;
  nothing.literal = JsonPayload("null");
  return nothing;
}

absl::StatusOr<std::vector<Payload>> Literals(const std::vector<Argument>& arguments) {
  std::vector<Payload> payloads;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("argument ", i + 1, " cannot be encoded: ", arguments[i].status.message()));
    }
    payloads.push_back(arguments[i].literal);
  }
  return payloads;
}

absl::Status DoesNotFit(std::string_view number, std::string_view type) {
  return absl::InvalidArgumentError(
      absl::StrCat(ToAbsl(number), " does not fit into ", ToAbsl(type)));
}

// ---- the workflow itself
// --------------------------------------------------------------------------------------------

ValueRef RootParameter(const TracerPtr& tracer, uint32_t index) {
  ValueRef ref;
  ref.tracer = tracer;
  ref.parameter = true;
  ref.index = index;
  return ref;
}

void SetSignature(const TracerPtr& tracer, std::vector<std::string> parameter_types,
                  std::string result_type) {
  v1::Definition& definition = tracer->definition();
  definition.mutable_scopes(0)->set_parameters(static_cast<uint32_t>(parameter_types.size()));
  for (std::string& type : parameter_types) definition.add_parameter_types(std::move(type));
  definition.set_result_type(std::move(result_type));
}

void SetResult(const TracerPtr& tracer, const Argument& result) {
  v1::Input input = tracer->Resolve(result, {}, "the workflow's result");
  *tracer->definition().mutable_scopes(0)->mutable_result() = std::move(input);
}

void Refuse(const TracerPtr& tracer, Location at, std::string_view why) {
  tracer->Fail(at, ToAbsl(why));
}

// ---- steps
// ----------------------------------------------------------------------------------------------------------

ValueRef AddTask(const TracerPtr& tracer, std::string_view task, const TaskOptions& options,
                 const std::vector<Argument>& inputs, Location at) {
  v1::Step step;
  *step.mutable_task() = tracer->Task(task, options, at);
  return tracer->AddStep(task, at, std::move(step), inputs);
}

ValueRef AddSleep(const TracerPtr& tracer, absl::Duration duration, Location at) {
  v1::Step step;
  step.mutable_sleep()->set_duration_ms(tracer->Milliseconds(duration, at, "a sleep"));
  return tracer->AddStep("sleep", at, std::move(step), {});
}

ValueRef AddSleepMilliseconds(const TracerPtr& tracer, const Argument& milliseconds, Location at) {
  v1::Step step;
  step.mutable_sleep();
  return tracer->AddStep("sleep", at, std::move(step), {milliseconds});
}

ValueRef AddWaitEvent(const TracerPtr& tracer, std::string_view event, std::string type,
                      Location at) {
  v1::Step step;
  tracer->CheckedName("event name", event, at);
  tracer->CheckEventType(std::string(event), type, at);
  step.mutable_wait_event()->set_event(std::string(event));
  step.mutable_wait_event()->set_type(std::move(type));
  return tracer->AddStep(event, at, std::move(step), {});
}

ValueRef AddMap(const TracerPtr& tracer, const Argument& list, Location at) {
  v1::Step step;
  step.mutable_map();
  return tracer->AddStep("map", at, std::move(step), {list});
}

ValueRef AddSwitch(const TracerPtr& tracer, std::string_view base_name, const Argument& condition,
                   Location at) {
  v1::Step step;
  step.mutable_switch_();
  return tracer->AddStep(base_name, at, std::move(step), {condition});
}

ValueRef AddLoop(const TracerPtr& tracer, const Argument& state, Location at) {
  v1::Step step;
  step.mutable_loop();
  return tracer->AddStep("loop", at, std::move(step), {state});
}

ValueRef AddBlock(const TracerPtr& tracer, Location at) {
  v1::Step step;
  step.mutable_block();
  return tracer->AddStep("block", at, std::move(step), {});
}

ValueRef AddJoin(const TracerPtr& tracer, const std::vector<Argument>& inputs, Location at) {
  v1::Step step;
  step.mutable_join();
  // Optional for the join whatever the type: a skipped value is left out of the list.
  std::vector<Argument> optional = inputs;
  for (Argument& input : optional) input.optional = true;
  return tracer->AddStep("join", at, std::move(step), optional);
}

ValueRef AddChild(const TracerPtr& tracer, const WorkflowSpec& workflow,
                  const std::vector<Argument>& inputs, Location at) {
  v1::Step step;
  tracer->CheckedName("workflow name", workflow.name, at);
  step.mutable_child()->set_workflow(std::string(workflow.name));
  step.mutable_child()->set_version(std::string(workflow.options.version));
  tracer->AddChild(workflow);
  return tracer->AddStep(workflow.name, at, std::move(step), inputs);
}

ValueRef AddEmit(const TracerPtr& tracer, std::string_view event, const Argument& workflow_id,
                 const Argument& value, Location at) {
  v1::Step step;
  tracer->CheckedName("event name", event, at);
  step.mutable_emit()->set_event(std::string(event));
  return tracer->AddStep(absl::StrCat("emit ", ToAbsl(event)), at, std::move(step),
                         {value, workflow_id});
}

ValueRef AddFail(const TracerPtr& tracer, const ErrorType& type, std::string_view message,
                 Location at) {
  v1::Step step;
  v1::Failure* failure = step.mutable_fail()->mutable_failure();
  tracer->CheckedName("error type", type.name(), at);
  failure->set_type(std::string(type.name()));
  if (ValidUtf8Prefix(message).size() != message.size()) {
    tracer->Fail(at, "the message of a Fail is not UTF-8");
  } else {
    failure->set_message(std::string(message));
  }
  failure->set_non_retriable(true);
  return tracer->AddStep("fail", at, std::move(step), {});
}

ValueRef AddSkip(const TracerPtr& tracer, Location at) {
  v1::Step step;
  step.mutable_skip();
  return tracer->AddStep("skip", at, std::move(step), {});
}

// ---- bodies
// ---------------------------------------------------------------------------------------------------------

ValueRef OpenBody(const ValueRef& owner, const BodySpec& spec, Location at) {
  return owner.tracer->OpenBody(owner, spec, at);
}

void CloseBody(const ValueRef& owner, const Argument& result, Location at) {
  v1::Input input = owner.tracer->Resolve(result, at, "the result of the body");
  if (v1::Scope* scope = owner.tracer->CloseBody(owner, at); scope != nullptr) {
    *scope->mutable_result() = std::move(input);
  }
}

void CloseLoopBody(const ValueRef& owner, const Argument* done, const Argument& next, Location at) {
  Tracer& tracer = *owner.tracer;
  v1::Input done_input;
  if (done != nullptr) done_input = tracer.Resolve(*done, at, "the condition of Until");
  CloseBody(owner, next, at);
  if (v1::Step* step = tracer.Find(owner); step != nullptr && done != nullptr) {
    *step->mutable_loop()->mutable_done() = std::move(done_input);
  }
}

// ---- options
// --------------------------------------------------------------------------------------------------------

void SetName(const ValueRef& step, std::string_view name) { step.tracer->SetName(step, name); }

void SetStepLabel(const ValueRef& step, std::string_view name, std::string_view value) {
  step.tracer->SetLabel(step, name, value);
}

void AddAfter(const ValueRef& step, const ValueRef& earlier) {
  step.tracer->AddAfter(step, earlier);
}

void SetRetry(const ValueRef& step, const RetryOptions& retry) {
  Tracer& tracer = *step.tracer;
  v1::TaskStep* task = TaskOf(step);
  if (task == nullptr) return;
  *task->mutable_retry() = tracer.Retry(retry, task->retry(), tracer.PlaceOf(step));
}

void SetQueue(const ValueRef& step, std::string_view queue) {
  step.tracer->CheckedName("queue name", queue, step.tracer->PlaceOf(step));
  if (v1::TaskStep* task = TaskOf(step); task != nullptr) task->set_queue(std::string(queue));
}

void SetPriority(const ValueRef& step, int priority) {
  if (v1::TaskStep* task = TaskOf(step); task != nullptr) task->set_priority(priority);
}

void SetTimeout(const ValueRef& step, Timeout which, absl::Duration timeout) {
  Tracer& tracer = *step.tracer;
  v1::TaskTimeouts* timeouts = TimeoutsOf(step);
  if (timeouts == nullptr) return;
  const int64_t ms = tracer.Milliseconds(timeout, tracer.PlaceOf(step), "a timeout");
  switch (which) {
    case Timeout::kScheduleToStart:
      return timeouts->set_schedule_to_start_ms(ms);
    case Timeout::kStartToClose:
      return timeouts->set_start_to_close_ms(ms);
    case Timeout::kHeartbeat:
      return timeouts->set_heartbeat_ms(ms);
    case Timeout::kScheduleToClose:
      return timeouts->set_schedule_to_close_ms(ms);
  }
}

void SetUndo(const ValueRef& step, std::string_view task, const TaskOptions& options) {
  Tracer& tracer = *step.tracer;
  if (v1::Step* found = tracer.Find(step); found != nullptr) {
    *found->mutable_undo()->mutable_task() = tracer.Task(task, options, tracer.PlaceOf(step));
  }
}

void SetOnExhausted(const ValueRef& step, Exhausted action) {
  if (v1::Step* found = step.tracer->Find(step); found != nullptr) {
    found->set_on_exhausted(action == Exhausted::kPark ? v1::ON_EXHAUSTED_PARK
                                                       : v1::ON_EXHAUSTED_FAIL);
  }
}

void SetMaxParallel(const ValueRef& step, int items) {
  v1::Step* found = step.tracer->Find(step);
  if (found == nullptr) return;
  if (items < 1 || items > kMapParallelMax) {
    step.tracer->FailStep(step, "MaxParallel(", items, "); it is 1 to ", kMapParallelMax);
    return;
  }
  found->mutable_map()->set_max_parallel(static_cast<uint32_t>(items));
}

void SetTurns(const ValueRef& step, int64_t turns) {
  v1::Step* found = step.tracer->Find(step);
  if (found == nullptr) return;
  if (turns < 1) {
    step.tracer->FailStep(step, "Turns(", turns, "); a loop runs at least once");
    return;
  }
  found->mutable_loop()->set_turns(static_cast<uint64_t>(turns));
}

void SetEventTimeout(const ValueRef& step, absl::Duration timeout) {
  Tracer& tracer = *step.tracer;
  if (v1::Step* found = tracer.Find(step); found != nullptr) {
    found->mutable_wait_event()->set_timeout_ms(
        tracer.Milliseconds(timeout, tracer.PlaceOf(step), "a timeout"));
  }
}

void SetEventDefault(const ValueRef& step, const Argument& value) {
  v1::Step* found = step.tracer->Find(step);
  if (found == nullptr) return;
  if (!value.status.ok()) {
    step.tracer->FailStep(step, "its default cannot be encoded: ", value.status.message());
    return;
  }
  *found->mutable_wait_event()->mutable_default_value() = ToProto(value.literal);
}

void SetChildId(const ValueRef& step, std::string_view workflow_id) {
  step.tracer->CheckedName("workflow id", workflow_id, step.tracer->PlaceOf(step));
  if (v1::Step* found = step.tracer->Find(step); found != nullptr) {
    if (found->child().id_input()) {
      found->mutable_inputs()->RemoveLast();
      found->mutable_child()->set_id_input(false);
    }
    found->mutable_child()->set_workflow_id(std::string(workflow_id));
  }
}

void SetChildIdInput(const ValueRef& step, const Argument& workflow_id) {
  Tracer& tracer = *step.tracer;
  v1::Step* found = tracer.Find(step);
  if (found == nullptr) return;
  if (!tracer.InInnermost(step)) {
    tracer.FailStep(step, "WorkflowId() is given inside another body; write it where the step is");
    return;
  }
  v1::Input input =
      tracer.Resolve(workflow_id, tracer.PlaceOf(step), "the workflow id of the child");
  if (input.source_case() == v1::Input::kStep && input.step() >= step.index) {
    tracer.FailStep(step, "its workflow id comes from a step written after it");
    return;
  }
  // The second of two takes the first one's place.
  if (found->child().id_input()) found->mutable_inputs()->RemoveLast();
  *found->add_inputs() = std::move(input);
  found->mutable_child()->set_id_input(true);
  found->mutable_child()->clear_workflow_id();
}

void SetParentClose(const ValueRef& step, ParentClose policy) {
  if (v1::Step* found = step.tracer->Find(step); found != nullptr) {
    found->mutable_child()->set_parent_close(static_cast<v1::ParentClosePolicy>(policy));
  }
}

void SetEmitDelay(const ValueRef& step, absl::Duration delay) {
  Tracer& tracer = *step.tracer;
  if (v1::Step* found = tracer.Find(step); found != nullptr) {
    found->mutable_emit()->set_delay_ms(
        tracer.Milliseconds(delay, tracer.PlaceOf(step), "a delay"));
  }
}

void SetMapFirst(const ValueRef& step, int64_t items) {
  v1::Step* found = step.tracer->Find(step);
  if (found == nullptr) return;
  if (items < 1) {
    step.tracer->FailStep(step, "First(", items, "); a map is done with one item at the least");
    return;
  }
  found->mutable_map()->set_first(static_cast<uint64_t>(items));
}

void SetMapTolerance(const ValueRef& step, int items) {
  v1::Step* found = step.tracer->Find(step);
  if (found == nullptr) return;
  if (items < 0) {
    step.tracer->FailStep(step, "TolerateFailures(", items, "); it is 0 or more");
    return;
  }
  found->mutable_map()->set_tolerated_failures(static_cast<uint32_t>(items));
}

void SetMapToleranceShare(const ValueRef& step, double share) {
  v1::Step* found = step.tracer->Find(step);
  if (found == nullptr) return;
  if (!(share >= 0 && share <= 1)) {
    step.tracer->FailStep(step, "TolerateFailureShare(", share, "); it is a share from 0 to 1");
    return;
  }
  found->mutable_map()->set_tolerated_failure_permille(
      static_cast<uint32_t>(std::lround(share * 1000)));
}

void SetJoinFirst(const ValueRef& step, int inputs) {
  v1::Step* found = step.tracer->Find(step);
  if (found == nullptr) return;
  if (inputs < 1 || inputs > found->inputs_size()) {
    step.tracer->FailStep(step, "First(", inputs, ") of ", found->inputs_size(),
                          " inputs; it is 1 to their number");
    return;
  }
  found->mutable_join()->set_first(static_cast<uint32_t>(inputs));
}

void SetJoinTolerance(const ValueRef& step, int inputs) {
  v1::Step* found = step.tracer->Find(step);
  if (found == nullptr) return;
  if (inputs < 0) {
    step.tracer->FailStep(step, "TolerateFailures(", inputs, "); it is 0 or more");
    return;
  }
  found->mutable_join()->set_tolerated_failures(static_cast<uint32_t>(inputs));
}

void SetLimitKey(const ValueRef& step, std::string_view pointer) {
  v1::TaskStep* task = TaskOf(step);
  if (task == nullptr) return;
  if (pointer.empty() || pointer.front() != '/' ||
      ValidUtf8Prefix(pointer).size() != pointer.size()) {
    step.tracer->FailStep(step, "LimitKey(\"", absl::CHexEscape(ToAbsl(pointer)),
                          "\"); it is a JSON pointer such as \"/customer/id\"");
    return;
  }
  if (step.tracer->Find(step)->inputs().empty()) {
    step.tracer->FailStep(step, "LimitKey() of a task without parameters");
    return;
  }
  task->set_limit_key_pointer(std::string(pointer));
}

void SetDetached(const ValueRef& step) {
  if (v1::Step* found = step.tracer->Find(step); found != nullptr) {
    found->mutable_child()->set_detached(true);
  }
}

}  // namespace flux::internal
