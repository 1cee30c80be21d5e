// What a command comes to: looks at the execution, changes nothing, answers with records.
//
//   command           | the step, or execution                  | verdict, records
//   ------------------+-----------------------------------------+----------------------------------
//   ReportResult      | scheduled, this delivery; value or skip | StepCompleted
//   ReportResult      | scheduled, this delivery; a failure     | AttemptFailed; StepFailed if last
//   ReportResult      | scheduled, this delivery; a fragment    | StepContinued
//   ReportResult      | scheduled, this delivery; a bad one     | as a failure
//   ReportResult      | completed, skipped, or went on as a     | kDuplicate
//                     |   fragment, by this delivery            |
//   ReportResult      | open; of a delivery that was handed out | kStale; ResultRefused, once for
//                     |   once                                  |   each delivery
//   ReportResult      | anything else                           | kStale
//   EndAttempt        | scheduled, this delivery                | AttemptFailed; StepFailed if last
//   EndAttempt        | anything else                           | kStale
//   Redeliver         | scheduled, this delivery                | StepRedelivered
//   Redeliver         | anything else                           | kStale
//   FireTimers        | open                                    | TimerFired for each that is due
//   FireTimers        | closed                                  | none
//   Cancel            | RUNNING or PAUSED                       | CancelRequested
//   Cancel            | CANCELLING or CANCELLED                 | none
//   Terminate         | open                                    | ExecutionTerminated
//   Terminate         | TERMINATED                              | none
//   Cancel, Terminate | any other                               | FailedPrecondition
//   SettleOutbox      | the message is in the outbox            | OutboxSettled
//   SettleOutbox      | it is not                               | kStale
//   ReportChild       | waiting for that child, this generation | ChildClosed
//   ReportChild       | anything else                           | kStale
//
// Events and operators' commands: decide_operator.cc.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/decider.h"
#include "engine/core/graph_check.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "engine/core/payload_limit.h"
#include "engine/core/retry.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace internal {
namespace {

inline constexpr char kUnknownFailure[] = "flux.unknown";
inline constexpr char kBadResult[] = "flux.bad_result";

}  // namespace

absl::StatusOr<Decision> Decider::operator()(ReportResult&& command) {
  const v1::TaskToken& token = command.result.token();
  const StepKey key{token.frame(), token.step()};
  const StepState* step = s_.FindStep(key);
  if (step == nullptr || token.delivery() == 0 ||
      s_.Plan(*s_.FindFrame(key.frame), key.step).kind != v1::Step::kTask) {
    return Refused(Verdict::kStale);
  }
  // A step that an operator settled has no result of this delivery.
  if (step->delivery != token.delivery() || step->generation != token.generation() ||
      step->resolved) {
    return Stale(key, *step, command);
  }
  const bool continued = step->phase == Phase::kWaiting && step->extra != nullptr &&
                         step->extra->first_child != nullptr &&
                         s_.Scope(*step->extra->first_child).role == Graph::Role::kFragment;
  if (step->phase == Phase::kCompleted || step->phase == Phase::kSkipped || continued) {
    return Refused(Verdict::kDuplicate);
  }
  if (step->phase != Phase::kScheduled || s_.Dead(*s_.FindFrame(key.frame))) {
    return Stale(key, *step, command);
  }

  switch (command.result.outcome_case()) {
    case v1::TaskResult::kValue:
      return Completed(key, std::move(command));
    case v1::TaskResult::kSkip:
      if (command.result.skip()) return Completed(key, std::move(command));
      break;
    case v1::TaskResult::kContinuation:
      return Continued(key, *step, std::move(command));
    case v1::TaskResult::kFailure: {
      v1::Failure& failure = *command.result.mutable_failure();
      if (failure.type().empty()) failure.set_type(kUnknownFailure);
      if (failure.source().empty()) failure.set_source(command.worker_id);
      return Failed(key, *step, std::move(failure), std::move(*command.result.mutable_progress()));
    }
    case v1::TaskResult::OUTCOME_NOT_SET:
      break;
  }
  v1::Failure failure;
  failure.set_type(kBadResult);
  failure.set_message(
      absl::StrCat("worker ", command.worker_id, " answered with no value and no failure"));
  failure.set_source(command.worker_id);
  return Failed(key, *step, std::move(failure), std::move(*command.result.mutable_progress()));
}

Decision Decider::Stale(const StepKey& key, const StepState& step,
                        const ReportResult& command) const {
  Decision decision = Refused(Verdict::kStale);
  const v1::TaskResult& result = command.result;
  const uint64_t delivery = result.token().delivery();
  const uint32_t generation = result.token().generation();
  const internal::StepExtra* extra = step.extra.get();
  const bool last = delivery == step.delivery && generation == step.generation;
  // The last one is of an older generation only until the step begins anew.
  const bool handed_out =
      last || (generation <= step.generation &&
               (delivery < step.delivery || (delivery == step.delivery && step.attempt == 0)));
  // The answer to the same failure was lost.
  const bool recorded = last && result.has_failure() && extra != nullptr &&
                        extra->failure != nullptr &&
                        extra->failure->type() == result.failure().type() &&
                        extra->failure->message() == result.failure().message();
  const bool told = extra != nullptr && extra->refused != nullptr &&
                    (extra->refused->delivery >= delivery ||
                     extra->refused->results >= internal::kRefusedResultsMax);
  if (!handed_out || recorded || told || s_.closed() || s_.Dead(*s_.FindFrame(key.frame))) {
    return decision;
  }
  v1::ResultRefused* refused = Add(&decision)->mutable_result_refused();
  SetRef(key, refused->mutable_ref());
  refused->set_delivery(delivery);
  refused->set_generation(generation);
  refused->set_worker(command.worker_id);
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(EndAttempt&& command) {
  const StepState* step = Current(command.key, command.delivery);
  if (step == nullptr) return Refused(Verdict::kStale);
  const v1::TaskStep& task = Task(command.key);
  v1::Failure failure;
  std::string worker =
      command.worker_id.empty() ? "" : absl::StrCat(" (worker ", command.worker_id, ")");
  switch (command.reason) {
    case AttemptEnd::kScheduleToStart:
      failure.set_type("flux.timeout.schedule_to_start");
      failure.set_message(absl::StrCat("no worker took task ", task.task(), " from queue ",
                                       task.queue(), " within its schedule_to_start timeout of ",
                                       FormatSpan(task.timeouts().schedule_to_start_ms())));
      break;
    case AttemptEnd::kStartToClose:
      failure.set_type("flux.timeout.start_to_close");
      failure.set_message(absl::StrCat("task ", task.task(),
                                       " ran longer than its start_to_close timeout of ",
                                       FormatSpan(task.timeouts().start_to_close_ms()), worker));
      break;
    case AttemptEnd::kHeartbeat:
      failure.set_type("flux.timeout.heartbeat");
      failure.set_message(absl::StrCat("task ", task.task(),
                                       " sent no heartbeat within its heartbeat timeout of ",
                                       FormatSpan(task.timeouts().heartbeat_ms()), worker));
      break;
    case AttemptEnd::kWorkerLost:
      failure.set_type("flux.worker_lost");
      failure.set_message(absl::StrCat("the worker that ran task ", task.task(),
                                       " went away and did not come back in time", worker));
      break;
  }
  failure.set_source(kCoreSource);
  return Failed(command.key, *step, std::move(failure), std::move(command.progress));
}

absl::StatusOr<Decision> Decider::operator()(Redeliver&& command) {
  if (Current(command.key, command.delivery) == nullptr) return Refused(Verdict::kStale);
  Decision decision;
  v1::StepRedelivered* redelivered = Add(&decision)->mutable_step_redelivered();
  SetRef(command.key, redelivered->mutable_ref());
  redelivered->set_reason(std::move(command.reason));
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(SettleOutbox&& command) {
  if (!s_.outbox.contains(command.number)) return Refused(Verdict::kStale);
  Decision decision;
  v1::OutboxSettled* settled = Add(&decision)->mutable_outbox_settled();
  settled->set_number(command.number);
  if (command.failure.has_value()) *settled->mutable_failure() = *std::move(command.failure);
  settled->set_workflow_id(std::move(command.workflow_id));
  settled->set_run_id(std::move(command.run_id));
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(ReportChild&& command) {
  const StepState* step = s_.FindStep(command.ref);
  if (step == nullptr || step->phase != Phase::kWaiting || step->generation != command.generation ||
      step->extra == nullptr || step->extra->child == nullptr ||
      s_.Dead(*s_.FindFrame(command.ref.frame)) ||
      (!step->extra->child->run_id.empty() && step->extra->child->run_id != command.run_id)) {
    return Refused(Verdict::kStale);
  }
  Decision decision;
  v1::ChildClosed* closed = Add(&decision)->mutable_child_closed();
  SetRef(command.ref, closed->mutable_ref());
  closed->set_generation(command.generation);
  closed->set_run_id(std::move(command.run_id));
  closed->set_status(command.status);
  if (command.status == v1::EXECUTION_STATUS_COMPLETED) {
    if (command.blob != 0) {
      closed->set_output_blob(command.blob);
      closed->set_output_blob_bytes(command.result.data().size());
    }
    *closed->mutable_output() = std::move(command.result);
  } else if (command.status != v1::EXECUTION_STATUS_SKIPPED) {
    *closed->mutable_failure() = std::move(command.failure);
    if (closed->failure().type().empty()) closed->mutable_failure()->set_type(kUnknownFailure);
  }
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(FireTimers&&) {
  Decision decision;
  if (s_.closed()) return decision;
  for (const Timer& timer : s_.timers) {
    if (timer.due_ms > now_ || decision.records.size() >= kTimersPerDecisionMax) break;
    v1::TimerFired* fired = Add(&decision)->mutable_timer_fired();
    SetRef({timer.frame, timer.step}, fired->mutable_ref());
    fired->set_timer(timer.kind);
  }
  return decision;
}

// Cancel and Terminate are sent again when their answer was lost: the second finds done what it
// asks for.
absl::StatusOr<Decision> Decider::operator()(Cancel&& command) {
  if (s_.status == v1::EXECUTION_STATUS_CANCELLING || s_.status == v1::EXECUTION_STATUS_CANCELLED) {
    return Decision();
  }
  FLUX_RETURN_IF_ERROR(CheckOpen("cancelled"));
  if (s_.compensating()) {
    return absl::FailedPreconditionError(
        absl::StrCat(Name(), " is ", StatusName(s_.status),
                     " already: what it did is being undone; terminate it to leave the rest"));
  }
  Decision decision;
  v1::CancelRequested* cancel = Add(&decision)->mutable_cancel_requested();
  cancel->set_reason(std::move(command.reason));
  cancel->set_identity(std::move(command.identity));
  return decision;
}

absl::StatusOr<Decision> Decider::operator()(Terminate&& command) {
  if (s_.status == v1::EXECUTION_STATUS_TERMINATED) return Decision();
  FLUX_RETURN_IF_ERROR(CheckOpen("terminated"));
  Decision decision;
  v1::ExecutionTerminated* terminated = Add(&decision)->mutable_terminated();
  terminated->set_reason(std::move(command.reason));
  terminated->set_identity(std::move(command.identity));
  return decision;
}

const StepState* Decider::Current(const StepKey& key, uint64_t delivery) const {
  const StepState* step = s_.FindStep(key);
  return step != nullptr && step->phase == Phase::kScheduled && step->delivery == delivery &&
                 !s_.Dead(*s_.FindFrame(key.frame))
             ? step
             : nullptr;
}

std::string Decider::Name() const {
  return absl::StrCat("execution ", s_.started->workflow_id(), " (run ", s_.run.Text(), ")");
}

std::string Decider::PathOf(const StepKey& key) const {
  return absl::StrCat("step \"", StepPath(s_, *s_.FindFrame(key.frame), key.step), "\"");
}

absl::Status Decider::CheckOpen(const char* what) const {
  if (!s_.closed()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(Name(), " is ", StatusName(s_.status),
                                                    ": only an open execution can be ", what));
}

Decision Decider::Completed(const StepKey& key, ReportResult&& command) const {
  Decision decision;
  v1::StepCompleted* completed = Add(&decision)->mutable_step_completed();
  SetRef(key, completed->mutable_ref());
  completed->set_worker(std::move(command.worker_id));
  if (command.result.has_value()) {
    if (command.blob != 0) {
      completed->set_output_blob(command.blob);
      completed->set_output_blob_bytes(command.result.value().data().size());
    }
    *completed->mutable_output() = std::move(*command.result.mutable_value());
  } else {
    completed->set_skipped(true);
  }
  *completed->mutable_labels() = std::move(*command.result.mutable_labels());
  *completed->mutable_step_labels() = std::move(*command.result.mutable_step_labels());
  return decision;
}

std::string Decider::EventsDisagree(const Graph& fragment) const {
  if (fragment.events().empty()) return "";
  const auto why = [&](const Graph& other, std::string_view what) -> std::string {
    const Graph::EventPlan* event = fragment.EventOfAnotherType(other);
    if (event == nullptr) return "";
    return absl::StrCat("it awaits event \"", event->name, "\" as ", event->type, ", but ",
                        ToAbsl(what), " ", other.name(), " awaits it as ",
                        other.FindEvent(event->name)->type,
                        ": readers of one event agree on its type");
  };
  std::string error = why(*s_.graph, "workflow");
  const Graph* last = nullptr;
  for (const auto& [number, frame] : s_.frames) {
    if (!error.empty()) break;
    if (frame->fragment == nullptr || frame->graph == last) continue;
    last = frame->graph;
    error = why(*last, "fragment");
  }
  return error;
}

Decision Decider::Continued(const StepKey& key, const StepState& step,
                            ReportResult&& command) const {
  v1::Continuation& continuation = *command.result.mutable_continuation();
  const absl::StatusOr<std::shared_ptr<const Graph>> fragment =
      Graph::CompileFragment(continuation.fragment());
  std::string error;
  if (s_.Scope(*s_.FindFrame(key.frame)).role == Graph::Role::kUndo) {
    error = "an undo task answers with a value, or not at all";
  } else if (!fragment.ok()) {
    error = std::string(Message(fragment.status()));
  } else if ((*fragment)->scopes()[0].scope->parameters() !=
             static_cast<uint32_t>(continuation.inputs_size())) {
    error = absl::StrCat("it takes ", (*fragment)->scopes()[0].scope->parameters(),
                         " inputs, but was given ", continuation.inputs_size());
  } else {
    error = EventsDisagree(**fragment);
  }
  if (!error.empty()) {
    v1::Failure failure = MakeFailure(
        kBadFragment, absl::StrCat("the task went on as a graph that is refused: ", error));
    return Failed(key, step, std::move(failure), v1::Payload());
  }
  Decision decision;
  v1::StepContinued* continued = Add(&decision)->mutable_step_continued();
  SetRef(key, continued->mutable_ref());
  continued->set_fragment(SerializeDeterministic(continuation.fragment()));
  *continued->mutable_inputs() = std::move(*continuation.mutable_inputs());
  continued->set_worker(std::move(command.worker_id));
  *continued->mutable_labels() = std::move(*command.result.mutable_labels());
  *continued->mutable_step_labels() = std::move(*command.result.mutable_step_labels());
  return decision;
}

Decision Decider::Failed(const StepKey& key, const StepState& step, v1::Failure failure,
                         v1::Payload progress) const {
  const Frame& frame = *s_.FindFrame(key.frame);
  const Graph::StepPlan& plan = s_.Plan(frame, key.step);
  const int64_t retry_at_ms =
      now_ + JitteredBackoffMs(plan.task.retry(), step.attempt,
                               JitterBits(s_.started->seed(), key, step.attempt));
  const int64_t limit_ms = plan.task.timeouts().schedule_to_close_ms();
  const bool in_time = limit_ms == 0 || retry_at_ms < step.first_scheduled_ms + limit_ms;
  Decision decision;
  if (IsRetriable(plan.task, failure) && step.attempt < plan.task.retry().max_attempts() &&
      in_time) {
    v1::AttemptFailed* failed = Add(&decision)->mutable_attempt_failed();
    SetRef(key, failed->mutable_ref());
    *failed->mutable_failure() = std::move(failure);
    failed->set_retry_at_ms(retry_at_ms);
    if (progress.encoding() != v1::ENCODING_UNSPECIFIED || !progress.data().empty()) {
      *failed->mutable_progress() = std::move(progress);
    }
    return decision;
  }
  v1::StepFailed* failed = Add(&decision)->mutable_step_failed();
  SetRef(key, failed->mutable_ref());
  failed->set_parked(plan.step->on_exhausted() == v1::ON_EXHAUSTED_PARK &&
                     MatchingClause(*plan.step, failure.type()) < 0);
  *failed->mutable_failure() = std::move(failure);
  return decision;
}

}  // namespace internal

namespace {

// A map of the root scope over an input must find a list there.
absl::Status CheckMapInputs(const Graph& graph,
                            const google::protobuf::RepeatedPtrField<v1::Payload>& inputs) {
  for (const Graph::StepPlan& plan : graph.scopes()[0].steps) {
    // Over pages, it is a cursor.
    if (plan.kind != v1::Step::kMap || plan.step->map().has_page_body()) continue;
    const Graph::InputPlan& input = plan.inputs[0];
    if (input.source != Graph::InputPlan::Source::kParameter) continue;
    const v1::Payload& payload = inputs.Get(static_cast<int>(input.index));
    const auto unowned = std::shared_ptr<const v1::Payload>(std::shared_ptr<void>(), &payload);
    absl::StatusOr<Value> list =
        payload.encoding() == v1::ENCODING_NONE
            ? Value()
            : Value::Referring(unowned, Value::Origin::kInput, input.index);
    list = Project(*list, input.input->pointer());
    if (list.ok()) list = Value::Split(*list);
    if (list.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat("step \"", plan.step->name(),
                                                   "\" cannot map over input ", input.index, ": ",
                                                   list.status().message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStart(const Graph& graph,
                        const google::protobuf::RepeatedPtrField<v1::Payload>& inputs,
                        int64_t execution_timeout_ms) {
  const uint32_t takes = graph.scopes()[0].scope->parameters();
  if (static_cast<uint32_t>(inputs.size()) != takes) {
    return absl::InvalidArgumentError(absl::StrCat("workflow \"", graph.name(), "\" takes ", takes,
                                                   " input(s), the start gives ", inputs.size()));
  }
  if (execution_timeout_ms < 0 || execution_timeout_ms > kSpanMsMax) {
    return absl::InvalidArgumentError(absl::StrCat("execution_timeout_ms is ", execution_timeout_ms,
                                                   "; it must be 0 (none) to ", kSpanMsMax));
  }
  return CheckMapInputs(graph, inputs);
}

absl::StatusOr<v1::Record> DecideStart(const Graph& graph, v1::ExecutionStarted started,
                                       NowMs now) {
  if (!RunId::FromBytes(started.run_id()).has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a run id has 16 bytes, got ", started.run_id().size()));
  }
  if (started.execution_timeout_ms() == 0) {
    started.set_execution_timeout_ms(graph.definition().execution_timeout_ms());
  }
  FLUX_RETURN_IF_ERROR(CheckStart(graph, started.inputs(), started.execution_timeout_ms()));
  if (started.workflow().empty()) started.set_workflow(graph.name());
  if (started.version().empty()) started.set_version(graph.definition().version());
  if (started.definition_hash().empty()) started.set_definition_hash(graph.hash());
  started.set_semantics(1);
  v1::Record record;
  record.set_time_ms(now);
  *record.mutable_started() = std::move(started);
  return record;
}

void AssignInputBlobs(v1::ExecutionStarted* started) {
  started->clear_input_blobs();
  uint64_t next = 1;
  for (const v1::Payload& input : started->inputs()) {
    started->add_input_blobs(PayloadBytes(input) > kBlobBytesMin ? next++ : 0);
  }
  if (next == 1) started->clear_input_blobs();
}

absl::StatusOr<Decision> Decide(const Execution& execution, Command&& command, NowMs now) {
  return std::visit(
      [&](auto&& one) { return internal::Decider(execution.state(), now)(std::move(one)); },
      std::move(command));
}

}  // namespace flux::engine
