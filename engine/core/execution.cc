// The execution as a whole: starting, closing, its frames, and the work list that derives what
// follows.
//
//   status   | input                          | then
//   ---------+--------------------------------+------------------------------------------------------------
//   (none)   | ExecutionStarted               | RUNNING: the root frame opens
//   RUNNING  | root frame done, result set    | COMPLETED
//   RUNNING  | root frame done, result skipped| SKIPPED
//   RUNNING  | a failure nobody catches       | FAILED
//   RUNNING  | CancelRequested                | CANCELLED
//   RUNNING  | ExecutionTerminated            | TERMINATED
//   RUNNING  | execution timer fired          | FAILED, flux.timeout.execution
//   RUNNING  | a record of a step             | that step's machine
//   closed   | any record                     | counted, nothing else
//
// Closing is O(1): frames and timers stay as they were (a closed execution shows where it stopped),
// everything delivered is revoked at once.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "proto/bridge.h"

namespace flux::engine {

Execution Create(std::shared_ptr<const Graph> graph, const v1::Record& started, Effects* effects) {
  auto state = std::make_unique<internal::ExecutionState>();
  state->graph = std::move(graph);
  internal::Machine(*state, effects).Start(started);
  return Execution(std::move(state));
}

void Apply(Execution& execution, v1::Record record, Effects* effects) {
  internal::Machine(execution.state(), effects).Apply(std::move(record));
}

namespace internal {

v1::Failure MakeFailure(std::string_view type, std::string message) {
  v1::Failure failure;
  failure.set_type(std::string(type));
  failure.set_message(std::move(message));
  failure.set_non_retriable(true);
  failure.set_source(kCoreSource);
  return failure;
}

// ---- records
// ------------------------------------------------------------------------------------------------

void Machine::Start(v1::Record record) {
  auto started = std::make_shared<const v1::ExecutionStarted>(std::move(*record.mutable_started()));
  s_.started = started;
  s_.run = RunId::FromBytes(started->run_id()).value_or(RunId());
  s_.request_hash = RequestHash(*started);
  s_.ordinal = 1;
  s_.start_time_ms = s_.last_time_ms = record.time_ms();
  s_.bytes += started->ByteSizeLong();
  for (const uint64_t blob : started->input_blobs()) {
    s_.next_blob = std::max(s_.next_blob, blob + 1);
  }
  Tell("execution.started", /*derived=*/false);
  if (started->execution_timeout_ms() > 0) {
    s_.timers.insert({s_.start_time_ms + started->execution_timeout_ms(), 0, 0,
                      v1::TIMER_KIND_EXECUTION_TIMEOUT});
  }
  Frame* root = AddFrame(s_, 0, 0, nullptr, 0, 0);
  for (size_t i = 0; i < root->parameters.size(); ++i) {
    root->parameters[i] = {Parameter::State::kSet, InputValue(started, i)};
  }
  BeginFrame(root);
  Drain();
  SweepReady();
}

Value InputValue(const std::shared_ptr<const v1::ExecutionStarted>& started, size_t index) {
  const int i = static_cast<int>(index);
  if (i >= started->inputs_size()) return Value();
  const uint64_t blob = i < started->input_blobs_size() ? started->input_blobs(i) : 0;
  if (started->inputs(i).encoding() == v1::ENCODING_NONE && blob == 0) return Value();
  return Value::Referring(std::shared_ptr<const v1::Payload>(started, &started->inputs(i)),
                          Value::Origin::kInput, static_cast<uint32_t>(i), blob);
}

void Machine::Apply(v1::Record record) {
  ++s_.ordinal;
  s_.last_time_ms = std::max(s_.last_time_ms, record.time_ms());
  if (record.has_step_completed()) {
    s_.next_blob = std::max(s_.next_blob, record.step_completed().output_blob() + 1);
  }
  if (s_.closed()) return;
  switch (record.kind_case()) {
    case v1::Record::kStepCompleted:
      TaskCompleted(std::move(*record.mutable_step_completed()));
      break;
    case v1::Record::kAttemptFailed:
      TaskAttemptFailed(std::move(*record.mutable_attempt_failed()));
      break;
    case v1::Record::kStepFailed:
      TaskFailed(std::move(*record.mutable_step_failed()));
      break;
    case v1::Record::kTimerFired:
      Fired(record.timer_fired());
      break;
    case v1::Record::kStepRedelivered:
      TaskRedelivered(record.step_redelivered());
      break;
    case v1::Record::kCancelRequested:
    case v1::Record::kTerminated: {
      const bool cancelled = record.has_cancel_requested();
      s_.close_reason =
          cancelled ? record.cancel_requested().reason() : record.terminated().reason();
      s_.close_identity =
          cancelled ? record.cancel_requested().identity() : record.terminated().identity();
      s_.failure = std::make_unique<v1::Failure>(MakeFailure(
          cancelled ? kCancelled : kTerminated,
          s_.close_reason.empty() ? std::string("no reason was given") : s_.close_reason));
      s_.failure->set_source(s_.close_identity);
      Close(cancelled ? v1::EXECUTION_STATUS_CANCELLED : v1::EXECUTION_STATUS_TERMINATED);
      break;
    }
    case v1::Record::kStarted:
    case v1::Record::KIND_NOT_SET:
      break;
  }
  Drain();
  SweepReady();
}

void Machine::SweepReady() {
  if (effects_ == nullptr || (!revoked_any_ && !s_.closed())) return;
  std::erase_if(effects_->ready, [&](const StepKey& key) {
    const StepState* step = s_.FindStep(key);
    const bool swept = s_.closed() || step == nullptr || step->phase != Phase::kScheduled;
    // Nobody was offered that delivery, so that nobody needs to be told to forget it.
    if (swept) std::erase_if(effects_->revoked, [&](const auto& it) { return it.first == key; });
    return swept;
  });
}

void Machine::Close(v1::ExecutionStatus status) {
  s_.status = status;
  s_.close_time_ms = now();
  DropWork();
  if (effects_ != nullptr) effects_->all_revoked = effects_->closed = true;
  if (!telling()) return;
  const char* type = status == v1::EXECUTION_STATUS_COMPLETED    ? "execution.completed"
                     : status == v1::EXECUTION_STATUS_SKIPPED    ? "execution.skipped"
                     : status == v1::EXECUTION_STATUS_CANCELLED  ? "execution.cancelled"
                     : status == v1::EXECUTION_STATUS_TERMINATED ? "execution.terminated"
                                                                 : "execution.failed";
  const bool asked =
      status == v1::EXECUTION_STATUS_CANCELLED || status == v1::EXECUTION_STATUS_TERMINATED;
  v1::HistoryEvent* event = Tell(type, /*derived=*/!asked);
  if (asked) {
    event->set_detail(s_.close_reason);
    event->set_identity(s_.close_identity);
  } else if (s_.failure != nullptr) {
    *event->mutable_failure() = *s_.failure;
  } else if (status == v1::EXECUTION_STATUS_COMPLETED) {
    *event->mutable_payload() = s_.result.ToPayload();
  }
}

void Machine::CloseFailed(Frame* frame, uint32_t step, v1::Failure failure) {
  StepState& origin = frame->steps[step];
  origin.phase = Phase::kFailed;
  origin.ended_ms = now();
  Extra(frame, step).failure = std::make_unique<v1::Failure>(failure);
  s_.has_failed_step = true;
  s_.failed_step = {frame->number, step};
  for (Frame* at = frame; at->parent != nullptr; at = at->parent) {
    StepState& owner = at->parent->steps[at->parent_step];
    owner.phase = Phase::kFailed;
    owner.ended_ms = now();
  }
  s_.failure = std::make_unique<v1::Failure>(std::move(failure));
  Close(v1::EXECUTION_STATUS_FAILED);
}

// ---- work list
// ----------------------------------------------------------------------------------------------

void Machine::Push(Work::Kind kind, Frame* frame, uint32_t index) {
  ++frame->queued;
  s_.work.push_back({kind, index, frame});
}

void Machine::ReleaseQueued(Frame* frame) {
  if (--frame->queued == 0 && frame->dropped) delete frame;
}

void Machine::DropWork() {
  for (size_t i = s_.work_next; i < s_.work.size(); ++i) ReleaseQueued(s_.work[i].frame);
  s_.work.clear();
  s_.work_next = 0;
}

void Machine::Drain() {
  static constexpr size_t kCompactAbove = 1024;
  while (s_.work_next < s_.work.size()) {
    const Work work = s_.work[s_.work_next++];
    if (s_.work_next == s_.work.size()) {
      s_.work.clear();
      s_.work_next = 0;
    } else if (s_.work_next >= kCompactAbove && s_.work_next * 2 >= s_.work.size()) {
      s_.work.erase(s_.work.begin(), s_.work.begin() + static_cast<ptrdiff_t>(s_.work_next));
      s_.work_next = 0;
    }
    if (!work.frame->dropped && !s_.closed()) RunWork(work);
    ReleaseQueued(work.frame);
  }
}

void Machine::RunWork(const Work& work) {
  switch (work.kind) {
    case Work::Kind::kActivate:
      Activate(work.frame, work.index);
      return;
    case Work::Kind::kSettled:
      Settled(work.frame, work.index);
      return;
    case Work::Kind::kParameter:
      ParameterSettled(work.frame, work.index);
      return;
    case Work::Kind::kFrameDone:
      FrameDone(work.frame);
      return;
  }
}

// Callers of what follows are entries of the work list, which keep `frame` alive even where it is
// dropped on the way.

void Machine::Settled(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  Wake(frame, plan.dependants);
  if (frame->dropped || s_.closed()) return;
  BindPending(frame, plan.lazy_dependants);
  if (frame->dropped || s_.closed()) return;
  CountDown(frame);
}

void Machine::ParameterSettled(Frame* frame, uint32_t parameter) {
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  Wake(frame, scope.parameter_dependants[parameter]);
  if (frame->dropped || s_.closed()) return;
  BindPending(frame, scope.parameter_lazy[parameter]);
  if (frame->dropped || s_.closed()) return;
  if (scope.result.has_value() && scope.result->source == InputPlan::Source::kParameter &&
      scope.result->index == parameter) {
    CountDown(frame);
  }
}

void Machine::Wake(Frame* frame, const std::vector<uint32_t>& dependants) {
  for (const uint32_t dependant : dependants) {
    if (--frame->steps[dependant].waiting_for == 0) Activate(frame, dependant);
    if (frame->dropped || s_.closed()) return;
  }
}

void Machine::CountDown(Frame* frame) {
  if (--frame->remaining == 0) FrameDone(frame);
}

bool Machine::SkippedByInputs(const Frame& frame, const StepPlan& plan) const {
  if (plan.kind == v1::Step::kBlock) return false;
  const size_t count = plan.kind == v1::Step::kSwitch ? 1 : plan.inputs.size();
  size_t skipped = 0;
  for (size_t i = 0; i < count; ++i) {
    if (ReadSource(frame, plan.inputs[i]) != Read::kSkipped) continue;
    if (!plan.inputs[i].optional) return true;
    ++skipped;
  }
  return count > 0 && skipped == count;
}

void Machine::Activate(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  StepState& state = frame->steps[step];
  state.first_scheduled_ms = now();
  if (SkippedByInputs(*frame, plan)) {
    SkipStep(frame, step);
    return;
  }
  switch (plan.kind) {
    case v1::Step::kTask:
      return Schedule(frame, step);
    case v1::Step::kSleep:
      return StartSleep(frame, step);
    case v1::Step::kMap:
      return StartMap(frame, step);
    case v1::Step::kLoop:
      return StartLoop(frame, step);
    case v1::Step::kBlock:
      return StartBlock(frame, step);
    case v1::Step::kSwitch:
      return StartSwitch(frame, step);
    case v1::Step::kJoin:
      return RunJoin(frame, step);
    case v1::Step::kFail:
      return RunFail(frame, step);
    case v1::Step::kSkip:
    default:  // other kinds never pass Graph::Compile
      return SkipStep(frame, step);
  }
}

// ---- how steps end
// ------------------------------------------------------------------------------------------

void Machine::KeepOutput(StepState& step, Value output) {
  s_.bytes += output.memory_bytes();
  step.output = std::move(output);
}

void Machine::SettleStep(Frame* frame, uint32_t step) {
  StepState& state = frame->steps[step];
  Disarm(frame, step);
  ReleaseExtra(s_, state);
  state.ended_ms = now();
  ++s_.steps_completed;
  Push(Work::Kind::kSettled, frame, step);
}

void Machine::CompleteStep(Frame* frame, uint32_t step, Value output) {
  StepState& state = frame->steps[step];
  SettleStep(frame, step);
  state.phase = Phase::kCompleted;
  if (telling()) {
    const bool derived = Plan(*frame, step).kind != v1::Step::kTask;
    v1::HistoryEvent* event = TellStep("step.completed", *frame, step, derived);
    // Lists are told item by item, where the items were.
    if (!output.is_list()) *event->mutable_payload() = output.ToPayload();
  }
  KeepOutput(state, std::move(output));
}

void Machine::SkipStep(Frame* frame, uint32_t step) {
  SettleStep(frame, step);
  frame->steps[step].phase = Phase::kSkipped;
  TellStep("step.skipped", *frame, step, /*derived=*/true);
}

void Machine::FailStep(Frame* frame, uint32_t step, v1::Failure failure, bool park,
                       bool past_catches) {
  TellFailure("step.failed", *frame, step, failure, Plan(*frame, step).kind != v1::Step::kTask);
  Frame* at = frame;
  uint32_t failing = step;
  while (true) {
    if (!past_catches) {
      const int clause = MatchingClause(*Plan(*at, failing).step, failure.type());
      if (clause >= 0) {
        OpenCatch(at, failing, static_cast<uint32_t>(clause), failure);
        return;
      }
      if (park) {
        StepState& state = frame->steps[step];
        Disarm(frame, step);
        state.phase = Phase::kParked;
        Extra(frame, step).failure = std::make_unique<v1::Failure>(std::move(failure));
        TellStep("step.parked", *frame, step, /*derived=*/true);
        return;
      }
    }
    if (at->parent == nullptr) break;
    past_catches = s_.Scope(*at).role == Graph::Role::kCatch;
    failing = at->parent_step;
    at = at->parent;
  }
  CloseFailed(frame, step, std::move(failure));
}

int MatchingClause(const v1::Step& step, const std::string& type) {
  for (int i = 0; i < step.catches_size(); ++i) {
    const auto& types = step.catches(i).types();
    if (types.empty() || std::find(types.begin(), types.end(), type) != types.end()) return i;
  }
  return -1;
}

// ---- inputs
// -------------------------------------------------------------------------------------------------

Machine::Read Machine::ReadSource(const Frame& frame, const InputPlan& input) const {
  switch (input.source) {
    case InputPlan::Source::kLiteral:
      return Read::kSet;
    case InputPlan::Source::kParameter:
      switch (frame.parameters[input.index].state) {
        case Parameter::State::kPending:
          return Read::kPending;
        case Parameter::State::kSet:
          return Read::kSet;
        case Parameter::State::kSkipped:
          return Read::kSkipped;
      }
      break;
    case InputPlan::Source::kStep:
      switch (frame.steps[input.index].phase) {
        case Phase::kCompleted:
          return Read::kSet;
        case Phase::kSkipped:
          return Read::kSkipped;
        default:
          return Read::kPending;
      }
  }
  return Read::kPending;
}

const Value& SourceValue(const ExecutionState& state, const Frame& frame,
                         const Graph::InputPlan& input) {
  switch (input.source) {
    case Graph::InputPlan::Source::kStep:
      return frame.steps[input.index].output;
    case Graph::InputPlan::Source::kParameter:
      return frame.parameters[input.index].value;
    case Graph::InputPlan::Source::kLiteral:
      break;
  }
  return state.graph->literals()[input.index];
}

Machine::Read Machine::ReadInput(const Frame& frame, const InputPlan& input, Value* value,
                                 std::string* error) const {
  const Read read = ReadSource(frame, input);
  if (read == Read::kSkipped && input.optional) {
    *value = Value();
    return Read::kSet;
  }
  if (read != Read::kSet) return read;
  const Value& source = SourceValue(s_, frame, input);
  if (input.input->pointer().empty()) {
    *value = source;
    return Read::kSet;
  }
  absl::StatusOr<Value> projected = Project(source, input.input->pointer());
  if (!projected.ok()) {
    *error = std::string(Message(projected.status()));
    return Read::kError;
  }
  *value = *std::move(projected);
  return Read::kSet;
}

bool Machine::ReadParameter(const Frame& frame, const InputPlan& input, Parameter* parameter,
                            std::string* error) const {
  switch (ReadInput(frame, input, &parameter->value, error)) {
    case Read::kSet:
      parameter->state = Parameter::State::kSet;
      return true;
    case Read::kSkipped:
      parameter->state = Parameter::State::kSkipped;
      return true;
    case Read::kPending:
      parameter->state = Parameter::State::kPending;
      return true;
    case Read::kError:
      break;
  }
  return false;
}

bool Machine::ReadParameters(const Frame& frame, const std::vector<InputPlan>& inputs, size_t from,
                             std::vector<Parameter>* parameters, std::string* error) const {
  for (size_t i = from; i < inputs.size(); ++i) {
    if (!ReadParameter(frame, inputs[i], &parameters->emplace_back(), error)) {
      *error = absl::StrCat("its input ", i, " cannot be read: ", *error);
      return false;
    }
  }
  return true;
}

// ---- frames
// -------------------------------------------------------------------------------------------------

void Machine::OpenFrame(Frame* parent, uint32_t step, uint32_t scope, uint64_t item,
                        std::vector<Parameter> parameters) {
  ++frames_opened_;
  Frame* frame = AddFrame(s_, s_.next_frame++, scope, parent, step, item);
  frame->parameters = std::move(parameters);
  BeginFrame(frame);
}

void Machine::BeginFrame(Frame* frame) {
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  frame->remaining = static_cast<uint32_t>(frame->steps.size());
  for (size_t i = 0; i < frame->steps.size(); ++i) {
    frame->steps[i].waiting_for = scope.steps[i].waits_for;
  }
  bool pending = false;
  for (uint32_t p = 0; p < frame->parameters.size(); ++p) {
    if (frame->parameters[p].state != Parameter::State::kPending) continue;
    pending = true;
    for (const uint32_t reader : scope.parameter_dependants[p]) {
      ++frame->steps[reader].waiting_for;
    }
    if (scope.result.has_value() && scope.result->source == InputPlan::Source::kParameter &&
        scope.result->index == p) {
      ++frame->remaining;
    }
  }
  for (const uint32_t root : scope.roots) {
    if (!pending || frame->steps[root].waiting_for == 0) {
      Push(Work::Kind::kActivate, frame, root);
    }
  }
  if (frame->remaining == 0) Push(Work::Kind::kFrameDone, frame, 0);
}

void Machine::FrameDone(Frame* frame) {
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  Value result;
  std::string error;
  Read read = Read::kSet;
  if (scope.result.has_value()) read = ReadInput(*frame, *scope.result, &result, &error);
  if (scope.role == Graph::Role::kRoot) {
    RootDone(read, std::move(result), std::move(error));
    return;
  }
  if (read == Read::kError) {
    FailStep(frame->parent, frame->parent_step,
             MakeFailure(kBadProjection, absl::StrCat("the result of ", FramePath(s_, *frame),
                                                      " cannot be read: ", error)),
             /*park=*/false, /*past_catches=*/scope.role == Graph::Role::kCatch);
    return;
  }
  switch (scope.role) {
    case Graph::Role::kMapItem:
      return ItemDone(frame, read, std::move(result));
    case Graph::Role::kLoopTurn:
      return TurnDone(frame, read, std::move(result));
    default:
      return BranchDone(frame, read, std::move(result));
  }
}

void Machine::RootDone(Read read, Value result, std::string error) {
  if (read == Read::kError) {
    s_.failure = std::make_unique<v1::Failure>(MakeFailure(
        kBadProjection, absl::StrCat("the result of the workflow cannot be read: ", error)));
    Close(v1::EXECUTION_STATUS_FAILED);
  } else if (read == Read::kSkipped) {
    Close(v1::EXECUTION_STATUS_SKIPPED);
  } else {
    s_.result = std::move(result);
    s_.bytes += s_.result.memory_bytes();
    Close(v1::EXECUTION_STATUS_COMPLETED);
  }
}

// Recursion goes as deep as bodies nest in the definition (GraphLimits::depth_max), whatever the
// data.
void Machine::DropFrame(Frame* frame) {
  for (uint32_t i = 0; i < frame->steps.size(); ++i) {
    StepState& step = frame->steps[i];
    if (!IsSettled(step.phase) && step.phase != Phase::kPending) {
      RevokeIfScheduled(*frame, i);
      Disarm(frame, i);
      DropChildren(frame, i);
      ReleaseExtra(s_, step);
    }
    s_.bytes -= step.output.memory_bytes();
  }
  if (frame->parent != nullptr) {
    StepExtra& owner = *frame->parent->steps[frame->parent_step].extra;
    (frame->previous != nullptr ? frame->previous->next : owner.first_child) = frame->next;
    (frame->next != nullptr ? frame->next->previous : owner.last_child) = frame->previous;
  }
  s_.frames.erase(frame->number);
  s_.bytes -= FrameBytes(*frame);
  s_.live_entries -= frame->steps.size() + 1;
  frame->dropped = true;
  if (frame->queued == 0) delete frame;
}

void Machine::DropChildren(Frame* frame, uint32_t step) {
  const StepExtra* extra = frame->steps[step].extra.get();
  while (extra != nullptr && extra->last_child != nullptr) DropFrame(extra->last_child);
}

}  // namespace internal
}  // namespace flux::engine
