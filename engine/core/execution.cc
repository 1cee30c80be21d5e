// The execution as a whole: starting, closing, and the work list that derives what follows.
//
//   status  | input                           | then
//   --------+---------------------------------+-------------------------------
//   (none)  | ExecutionStarted                | RUNNING: the root frame opens
//   RUNNING | root frame done, result set     | COMPLETED
//   RUNNING | root frame done, result skipped | SKIPPED
//   RUNNING | a failure nobody catches        | FAILING: undoing; nothing to undo: FAILED
//   RUNNING | CancelRequested                 | CANCELLING; nothing to undo: CANCELLED
//   RUNNING | execution timer fired           | as a failure, flux.timeout.execution
//   RUNNING | a record of a step              | that step's machine
//   open    | ExecutionTerminated             | TERMINATED
//   FAILING | all is undone                   | FAILED; CANCELLING likewise CANCELLED
//   FAILING | a record of an undo task        | that step's machine; CANCELLING likewise
//   FAILING | any other record                | counted, nothing else; CANCELLING likewise
//   closed  | OutboxSettled                   | the message is forgotten
//   closed  | Reopened, Rewound               | RUNNING (repair.cc)
//   closed  | any other record                | counted, nothing else
//
// Closing is O(1): frames and timers stay as they were (a closed execution shows where it stopped),
// everything delivered is revoked at once.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "engine/core/record.h"
#include "proto/bridge.h"

namespace flux::engine {

Execution Create(std::shared_ptr<const Graph> graph, const v1::Record& started, Effects* effects) {
  auto state = std::make_unique<internal::ExecutionState>();
  state->graph = std::move(graph);
  internal::Machine(*state, effects).Start(started);
  return Execution(std::move(state));
}

void Apply(Execution& execution, v1::Record record, Effects* effects,
           std::shared_ptr<const Graph> graph) {
  internal::Machine(execution.state(), effects).Apply(std::move(record), std::move(graph));
}

namespace internal {

v1::Failure MakeFailure(std::string_view type, std::string_view message) {
  v1::Failure failure;
  failure.set_type(std::string(type));
  // It may quote a payload, whose bytes are anybody's.
  failure.set_message(ToUtf8(message));
  failure.set_non_retriable(true);
  failure.set_source(kCoreSource);
  return failure;
}

// ---- records ----

void Machine::Start(v1::Record record) {
  auto started = std::make_shared<const v1::ExecutionStarted>(std::move(*record.mutable_started()));
  s_.started = started;
  s_.run = RunId::FromBytes(started->run_id()).value_or(RunId());
  s_.request_hash = RequestHash(*started);
  for (const auto& [key, value] : started->labels()) s_.labels[key] = value;
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

void Machine::Apply(v1::Record record, std::shared_ptr<const Graph> graph) {
  ++s_.ordinal;
  s_.last_time_ms = std::max(s_.last_time_ms, record.time_ms());
  s_.next_blob = std::max(s_.next_blob, BlobOf(record) + 1);
  switch (record.kind_case()) {
    case v1::Record::kOutboxSettled:
      Settled(record.outbox_settled());
      break;
    case v1::Record::kReopened:
      Reopened(record.reopened());
      break;
    case v1::Record::kRewound:
      Rewound(record.rewound());
      break;
    case v1::Record::kEventReplayed:
      Replayed(std::move(*record.mutable_event_replayed()));
      break;
    case v1::Record::kMigrated:
      Migrated(record.migrated(), std::move(graph));
      break;
    default:
      if (s_.closed()) return;
      ApplyOpen(std::move(record));
      break;
  }
  Drain();
  SweepReady();
}

void Machine::ApplyOpen(v1::Record record) {
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
    case v1::Record::kResultRefused:
      Refused(record.result_refused());
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
      if (cancelled) {
        s_.paused = false;  // what is to be undone does not wait
        End(v1::EXECUTION_STATUS_CANCELLED);
      } else {
        Close(v1::EXECUTION_STATUS_TERMINATED);
      }
      break;
    }
    case v1::Record::kEventReceived:
      Received(std::move(*record.mutable_event_received()));
      break;
    case v1::Record::kEventCancelled:
      Cancelled(record.event_cancelled());
      break;
    case v1::Record::kEventEdited:
      Edited(std::move(*record.mutable_event_edited()));
      break;
    case v1::Record::kChildClosed:
      ChildEnded(std::move(*record.mutable_child_closed()));
      break;
    case v1::Record::kStepContinued:
      Continued(std::move(*record.mutable_step_continued()));
      break;
    case v1::Record::kPaused:
      Pause(true, record.paused().identity(), record.paused().reason());
      break;
    case v1::Record::kResumed:
      Pause(false, record.resumed().identity(), record.resumed().reason());
      break;
    case v1::Record::kStepResolved:
      Resolved(std::move(*record.mutable_step_resolved()));
      break;
    case v1::Record::kStepRetried:
      Retried(record.step_retried());
      break;
    case v1::Record::kStepParked:
      Parked(record.step_parked());
      break;
    default:
      break;
  }
}

void Machine::MergeLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  for (const auto& [key, value] : labels) {
    if (value.empty()) {
      s_.labels.erase(key);
    } else {
      s_.labels[key] = value;
    }
  }
}

void Machine::SweepReady() {
  if (effects_ == nullptr || (!revoked_any_ && s_.status == v1::EXECUTION_STATUS_RUNNING)) return;
  absl::btree_map<StepKey, uint32_t> swept;
  absl::btree_set<StepKey> kept_ready;
  std::erase_if(effects_->ready, [&](const StepKey& key) {
    const StepState* step = s_.FindStep(key);
    const bool gone = step == nullptr || step->phase != Phase::kScheduled ||
                      s_.Dead(*s_.FindFrame(key.frame)) || !kept_ready.insert(key).second;
    if (gone) ++swept[key];
    return gone;
  });
  if (swept.empty()) return;
  // Nobody was offered those deliveries, so that nobody needs to be told to forget them: they are
  // the newest ones of their steps. One that was offered before stays revoked.
  auto& revoked = effects_->revoked;
  std::vector<std::pair<StepKey, uint64_t>> kept;
  for (auto it = revoked.rbegin(); it != revoked.rend(); ++it) {
    const auto never_offered = swept.find(it->first);
    if (never_offered != swept.end() && never_offered->second > 0) {
      --never_offered->second;
    } else {
      kept.push_back(*it);
    }
  }
  revoked.assign(kept.rbegin(), kept.rend());
}

void Machine::End(v1::ExecutionStatus status) {
  if (s_.undo.empty()) {
    Close(status);
    return;
  }
  s_.closing_as = status;
  s_.status = status == v1::EXECUTION_STATUS_FAILED ? v1::EXECUTION_STATUS_FAILING
                                                    : v1::EXECUTION_STATUS_CANCELLING;
  s_.timers.clear();
  DropWork();
  if (effects_ != nullptr) effects_->all_revoked = true;
  for (const StepKey& key : std::exchange(s_.children, {})) {
    GiveUpChild(s_.FindFrame(key.frame), key.step);
  }
  if (v1::HistoryEvent* event = Tell("execution.undoing", /*derived=*/true)) {
    event->set_detail(absl::StrCat(s_.undo.size(), s_.undo.size() == 1 ? " step" : " steps"));
    if (s_.failure != nullptr) *event->mutable_failure() = *s_.failure;
  }
  UndoNext();
}

void Machine::Close(v1::ExecutionStatus status) {
  s_.status = status;
  s_.closing_as = v1::EXECUTION_STATUS_UNSPECIFIED;
  s_.close_time_ms = now();
  s_.paused = false;
  DropWork();
  for (const StepKey& key : std::exchange(s_.children, {})) {
    GiveUpChild(s_.FindFrame(key.frame), key.step);
  }
  NotifyParent();
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
  End(v1::EXECUTION_STATUS_FAILED);
}

// ---- work list ----

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
  for (size_t i = s_.last_work_next; i < s_.last_work.size(); ++i) {
    ReleaseQueued(s_.last_work[i].frame);
  }
  s_.last_work.clear();
  s_.last_work_next = 0;
}

bool Machine::NextWork(Work* work) {
  static constexpr size_t kCompactAbove = 1024;
  if (s_.work_next == s_.work.size()) {
    if (s_.last_work_next == s_.last_work.size()) {
      s_.last_work.clear();
      s_.last_work_next = 0;
      return false;
    }
    *work = s_.last_work[s_.last_work_next++];
    return true;
  }
  *work = s_.work[s_.work_next++];
  if (s_.work_next == s_.work.size()) {
    s_.work.clear();
    s_.work_next = 0;
  } else if (s_.work_next >= kCompactAbove && s_.work_next * 2 >= s_.work.size()) {
    s_.work.erase(s_.work.begin(), s_.work.begin() + static_cast<ptrdiff_t>(s_.work_next));
    s_.work_next = 0;
  }
  return true;
}

void Machine::Drain() {
  Work work;
  while (NextWork(&work)) {
    if (!Gone(*work.frame)) RunWork(work);
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
      // A rewind may have taken a step of it back.
      if (work.frame->remaining == 0) FrameDone(work.frame);
      return;
    case Work::Kind::kBind:
      BindBody(work.frame);
      return;
    case Work::Kind::kJoinEarly:
      RunEarlyJoin(work.frame, work.index);
      return;
  }
}

// Callers of what follows are entries of the work list, which keep `frame` alive even where it is
// dropped on the way.

void Machine::Settled(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  // A rewind may have taken it back since it settled.
  if (!IsSettled(frame->steps[step].phase)) return;
  Wake(frame, plan.dependants, frame->steps[step].phase == Phase::kCompleted);
  if (Gone(*frame)) return;
  BindPending(frame, plan.lazy_dependants);
  if (Gone(*frame)) return;
  CountDown(frame);
}

void Machine::ParameterSettled(Frame* frame, uint32_t parameter) {
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  Wake(frame, scope.parameter_dependants[parameter],
       frame->parameters[parameter].state == Parameter::State::kSet);
  if (Gone(*frame)) return;
  BindPending(frame, scope.parameter_lazy[parameter]);
  if (Gone(*frame)) return;
  if (scope.result.has_value() && scope.result->source == InputPlan::Source::kParameter &&
      scope.result->index == parameter) {
    CountDown(frame);
  }
}

void Machine::Wake(Frame* frame, const std::vector<uint32_t>& dependants, bool completed) {
  for (const uint32_t dependant : dependants) {
    StepState& state = frame->steps[dependant];
    const bool last = --state.waiting_for == 0;
    // Settled already: by an operator, or as an early join.
    if (state.phase != Phase::kPending) continue;
    if (last || (Plan(*frame, dependant).early && JoinIsDone(frame, dependant, completed))) {
      Activate(frame, dependant);
    }
    if (Gone(*frame)) return;
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
  if (state.phase != Phase::kPending) return;
  if (plan.early) {
    ++frame->queued;
    s_.last_work.push_back({Work::Kind::kJoinEarly, step, frame});
    return;
  }
  // Queued before a rewind took back what it waits for.
  if (state.waiting_for > 0) return;
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
    case v1::Step::kWaitEvent:
      return StartWait(frame, step);
    case v1::Step::kEmit:
    case v1::Step::kChild:
      return StartMessage(frame, step);
    case v1::Step::kSkip:
    default:  // Graph::Compile lets no step without a kind pass
      return SkipStep(frame, step);
  }
}

// ---- how steps end ----

void Machine::KeepOutput(StepState& step, Value output) {
  s_.bytes += output.memory_bytes();
  step.output = std::move(output);
}

void Machine::SettleStep(Frame* frame, uint32_t step) {
  StepState& state = frame->steps[step];
  Disarm(frame, step);
  EndParked(state);
  ClearExtra(s_, state);
  state.ended_ms = now();
  ++s_.steps_completed;
  Push(Work::Kind::kSettled, frame, step);
}

void Machine::SetParked(StepState& step) {
  if (step.phase != Phase::kParked) ++s_.parked;
  step.phase = Phase::kParked;
}

void Machine::EndParked(StepState& step) {
  if (step.phase != Phase::kParked) return;
  --s_.parked;
  step.phase = Phase::kFailed;
}

void Machine::CompleteStep(Frame* frame, uint32_t step, Value output) {
  StepState& state = frame->steps[step];
  if (Plan(*frame, step).undo_scope.has_value()) KeepUndo(frame, step, output);
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

void Machine::AbandonStep(Frame* frame, uint32_t step) {
  RevokeIfScheduled(*frame, step);
  if (s_.children.erase({frame->number, step}) != 0) GiveUpChild(frame, step);
  if (frame->steps[step].phase == Phase::kWaiting &&
      Plan(*frame, step).kind == v1::Step::kWaitEvent) {
    s_.readers.erase({Plan(*frame, step).step->wait_event().event(), {frame->number, step}});
  }
  DropChildren(frame, step);
  Disarm(frame, step);
  EndParked(frame->steps[step]);
  ClearExtra(s_, frame->steps[step]);
}

void Machine::CancelStep(Frame* frame, uint32_t step) {
  AbandonStep(frame, step);
  SettleStep(frame, step);
  frame->steps[step].phase = Phase::kCancelled;
  TellStep("step.cancelled", *frame, step, /*derived=*/true);
}

void Machine::CancelUnneeded(Frame* frame, const std::vector<uint32_t>& sources) {
  std::vector<uint32_t> todo = sources;
  const Graph::ScopePlan& scope = s_.Scope(*frame);
  while (!todo.empty()) {
    const uint32_t step = todo.back();
    todo.pop_back();
    const StepPlan& plan = scope.steps[step];
    const auto settled = [&](uint32_t reader) { return IsSettled(frame->steps[reader].phase); };
    if (settled(step) || plan.in_result ||
        !std::all_of(plan.dependants.begin(), plan.dependants.end(), settled) ||
        !std::all_of(plan.lazy_dependants.begin(), plan.lazy_dependants.end(), settled)) {
      continue;
    }
    CancelStep(frame, step);
    todo.insert(todo.end(), plan.sources.begin(), plan.sources.end());
    // What only an open body would have been given.
    const auto add = [&](const InputPlan& input) {
      if (input.source == InputPlan::Source::kStep) todo.push_back(input.index);
    };
    std::for_each(plan.inputs.begin(), plan.inputs.end(), add);
    for (const std::vector<InputPlan>& captures : plan.catch_captures) {
      std::for_each(captures.begin(), captures.end(), add);
    }
  }
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
        SetParked(state);
        Extra(frame, step).failure = std::make_unique<v1::Failure>(std::move(failure));
        TellStep("step.parked", *frame, step, /*derived=*/true);
        return;
      }
    }
    if (TolerateInput(at, failing, failure)) return;
    const Graph::Role role = s_.Scope(*at).role;
    if (role == Graph::Role::kUndo) return UndoFailed(at, failure);
    if (at->parent == nullptr) break;
    if (role == Graph::Role::kMapItem && TolerateItem(at, failure)) return;
    past_catches = role == Graph::Role::kCatch;
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

}  // namespace internal
}  // namespace flux::engine
