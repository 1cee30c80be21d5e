// Messages to other executions, and the steps that send them: emit and child.
//
//   step state | input                              | then
//   -----------+------------------------------------+---------------------------------------------
//   pending    | inputs settled                     | waiting: EMIT or START_CHILD in the outbox
//   pending    | inputs settled, no workflow id     | flux.bad_projection
//   pending    | a required input, or all, skipped  | skipped
//   waiting    | EMIT settled                       | completed, with no value
//   waiting    | START_CHILD settled, detached      | completed: the child's ids
//   waiting    | START_CHILD settled, awaited       | waiting for the child
//   waiting    | settled with a failure             | as that failure
//   waiting    | ChildClosed, COMPLETED             | completed with the child's result
//   waiting    | ChildClosed, SKIPPED               | skipped
//   waiting    | ChildClosed, any other             | as the child's failure
//   waiting    | the step, or its execution, ends   | the child is stopped, as its policy says
//   any other  | any                                | nothing
//
//   message         | made when                            | settled when
//   ----------------+--------------------------------------+---------------------------------------
//   EMIT            | an emit step begins                  | the target took the event, or refused
//   START_CHILD     | a child step begins                  | the child is started, or refused
//   CANCEL_CHILD    | a parent gives its child up          | the child was told, or is closed
//   TERMINATE_CHILD | likewise, by policy                  | likewise
//   NOTIFY_PARENT   | an execution with a parent closes    | the parent took it, or has moved on
//
// A message is sent again until it is settled. What it asks for is idempotent: the event's id and
// the start's request id are made of the sender's run and the message's number.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/machine.h"
#include "engine/core/payload_limit.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace internal {
namespace {

// Longer ids of children are cut, and told apart by a hash.
constexpr size_t kChildIdBytesMax = 200;

// The same path comes again after a rewind, in each page, and in the next fragment of a chain: then
// the message's number tells the children apart.
bool PathIsUnique(const Frame& frame, uint32_t step) {
  for (const Frame* at = &frame; at != nullptr; step = at->parent_step, at = at->parent) {
    if (at->fragment != nullptr || at->steps[step].generation > 0 ||
        at->graph->scopes()[at->scope].role == Graph::Role::kPage) {
      return false;
    }
  }
  return true;
}

std::string ChildId(const ExecutionState& state, const Frame& frame, uint32_t step) {
  std::string id = absl::StrCat(state.started->workflow_id(), "/", StepPath(state, frame, step));
  if (!PathIsUnique(frame, step)) absl::StrAppend(&id, "~", state.next_outbox);
  if (id.size() <= kChildIdBytesMax) return id;
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : id) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return absl::StrCat(Excerpt(id, kChildIdBytesMax - 24), "~", absl::Hex(hash, absl::kZeroPad16));
}

}  // namespace

uint64_t Machine::Send(OutboxState message) {
  const uint64_t number = s_.next_outbox++;
  s_.bytes += kMessageBytes;
  s_.outbox.emplace(number, std::move(message));
  if (effects_ != nullptr) effects_->outbox = true;
  return number;
}

void Machine::StartMessage(Frame* frame, uint32_t step) {
  const StepPlan& plan = Plan(*frame, step);
  StepState& state = frame->steps[step];
  const bool child = plan.kind == v1::Step::kChild;
  OutboxState message;
  message.kind = child ? v1::OUTBOX_KIND_START_CHILD : v1::OUTBOX_KIND_EMIT;
  message.key = {frame->number, step};
  message.generation = state.generation;
  if (!child || plan.step->child().id_input()) {
    Value value;
    std::string error;
    if (ReadInput(*frame, plan.inputs.back(), &value, &error) != Read::kError) {
      absl::StatusOr<std::string> id = JsonString(value);
      if (id.ok() && !id->empty()) {
        message.workflow_id = *std::move(id);
      } else {
        error = id.ok() ? "it is empty" : std::string(Message(id.status()));
      }
    }
    if (!error.empty()) {
      FailStep(frame, step,
               MakeFailure(kBadProjection,
                           absl::StrCat("the workflow id to address cannot be read: ", error)));
      return;
    }
  } else {
    message.workflow_id = plan.step->child().workflow_id().empty()
                              ? ChildId(s_, *frame, step)
                              : plan.step->child().workflow_id();
  }
  state.phase = Phase::kWaiting;
  if (child && !plan.step->child().detached()) {
    StepExtra& extra = Extra(frame, step);
    extra.child = std::make_unique<ChildState>();
    extra.child->workflow_id = message.workflow_id;
    Charge(s_, extra, sizeof(ChildState) + message.workflow_id.size());
    s_.children.insert(message.key);
  }
  if (v1::HistoryEvent* told = TellStep(child ? "child.starting" : "event.emitting", *frame, step,
                                        /*derived=*/true)) {
    told->set_detail(child
                         ? absl::StrCat(plan.step->child().workflow(), " as ", message.workflow_id)
                         : absl::StrCat(plan.step->emit().event(), " to ", message.workflow_id));
  }
  Send(std::move(message));
}

void Machine::Settled(const v1::OutboxSettled& settled) {
  const auto entry = s_.outbox.find(settled.number());
  if (entry == s_.outbox.end()) return;
  const OutboxState message = std::move(entry->second);
  s_.outbox.erase(entry);
  s_.bytes -= kMessageBytes;
  if (message.kind != v1::OUTBOX_KIND_EMIT && message.kind != v1::OUTBOX_KIND_START_CHILD) return;
  Frame* frame = s_.FindFrame(message.key.frame);
  if (frame == nullptr || Gone(*frame) || message.key.step >= frame->steps.size()) return;
  const uint32_t step = message.key.step;
  StepState& state = frame->steps[step];
  if (state.phase != Phase::kWaiting || state.generation != message.generation) return;
  const v1::Step::KindCase kind = Plan(*frame, step).kind;
  if (kind != v1::Step::kChild && kind != v1::Step::kEmit) return;
  if (settled.has_failure()) {
    s_.children.erase(message.key);
    FailStep(frame, step, settled.failure());
    return;
  }
  if (message.kind == v1::OUTBOX_KIND_EMIT) {
    CompleteStep(frame, step, Value());
    return;
  }
  const std::string run = RunId::FromBytes(settled.run_id()).value_or(RunId()).Text();
  if (v1::HistoryEvent* told = TellStep("child.started", *frame, step, /*derived=*/false)) {
    told->set_detail(absl::StrCat(settled.workflow_id(), " (run ", run, ")"));
  }
  if (state.extra != nullptr && state.extra->child != nullptr) {
    state.extra->child->workflow_id = settled.workflow_id();
    state.extra->child->run_id = settled.run_id();
    return;
  }
  CompleteStep(frame, step,
               Value::FromData(absl::StrCat("{\"workflow_id\":", QuoteJson(settled.workflow_id()),
                                            ",\"run_id\":", QuoteJson(run), "}"),
                               v1::ENCODING_JSON));
}

void Machine::ChildEnded(v1::ChildClosed closed) {
  Frame* frame = s_.FindFrame(closed.ref().frame());
  const uint32_t step = closed.ref().step();
  if (frame == nullptr || Gone(*frame) || step >= frame->steps.size()) return;
  StepState& state = frame->steps[step];
  if (state.phase != Phase::kWaiting || state.generation != closed.generation() ||
      state.extra == nullptr || state.extra->child == nullptr) {
    return;
  }
  const StepKey key{frame->number, step};
  s_.children.erase(key);
  // It may close before its start was settled.
  for (auto it = s_.outbox.begin(); it != s_.outbox.end(); ++it) {
    if (it->second.kind != v1::OUTBOX_KIND_START_CHILD || it->second.key != key) continue;
    s_.outbox.erase(it);
    s_.bytes -= kMessageBytes;
    break;
  }
  const std::string id = state.extra->child->workflow_id;
  if (v1::HistoryEvent* told = TellStep("child.closed", *frame, step, /*derived=*/false)) {
    told->set_detail(absl::StrCat(id, ": ", StatusName(closed.status())));
  }
  if (closed.status() == v1::EXECUTION_STATUS_COMPLETED) {
    CompleteStep(frame, step,
                 Value::FromPayload(std::move(*closed.mutable_output()), closed.output_blob()));
  } else if (closed.status() == v1::EXECUTION_STATUS_SKIPPED) {
    SkipStep(frame, step);
  } else {
    v1::Failure failure = std::move(*closed.mutable_failure());
    failure.set_message(absl::StrCat("child ", id, ": ", failure.message()));
    failure.set_non_retriable(true);
    FailStep(frame, step, std::move(failure));
  }
}

void Machine::GiveUpChild(Frame* frame, uint32_t step) {
  const StepState& state = frame->steps[step];
  const v1::ParentClosePolicy policy = Plan(*frame, step).step->child().parent_close();
  if (policy == v1::PARENT_CLOSE_POLICY_ABANDON || state.extra == nullptr ||
      state.extra->child == nullptr) {
    return;
  }
  const StepKey key{frame->number, step};
  for (auto it = s_.outbox.begin(); it != s_.outbox.end(); ++it) {
    if (it->second.kind != v1::OUTBOX_KIND_START_CHILD || it->second.key != key) continue;
    s_.outbox.erase(it);
    s_.bytes -= kMessageBytes;
    break;
  }
  OutboxState message;
  message.kind = policy == v1::PARENT_CLOSE_POLICY_TERMINATE ? v1::OUTBOX_KIND_TERMINATE_CHILD
                                                             : v1::OUTBOX_KIND_CANCEL_CHILD;
  message.key = key;
  message.generation = state.generation;
  message.workflow_id = state.extra->child->workflow_id;
  message.run_id = state.extra->child->run_id;
  Send(std::move(message));
}

void Machine::NotifyParent() {
  if (!s_.started->has_parent()) return;
  // One that was not taken yet speaks for this close too: it is made when it is sent.
  for (const auto& [number, message] : s_.outbox) {
    if (message.kind == v1::OUTBOX_KIND_NOTIFY_PARENT) return;
  }
  OutboxState message;
  message.kind = v1::OUTBOX_KIND_NOTIFY_PARENT;
  message.workflow_id = s_.started->parent().workflow_id();
  message.run_id = s_.started->parent().run_id();
  Send(std::move(message));
}

}  // namespace internal

// ---- questions ----

std::vector<uint64_t> PendingOutbox(const Execution& execution, uint64_t after) {
  const auto& outbox = execution.state().outbox;
  std::vector<uint64_t> numbers;
  for (auto it = outbox.upper_bound(after); it != outbox.end(); ++it) numbers.push_back(it->first);
  return numbers;
}

bool HasOutbox(const Execution& execution) { return !execution.state().outbox.empty(); }

namespace {

// Lists are made into a payload here, whatever their size: it is looked at before.
absl::Status AppendInput(const internal::Frame& frame, const Graph::InputPlan& input,
                         std::string_view what, size_t bytes_max, v1::Payload* to) {
  Value value = internal::SourceValue(frame, input);
  if (!input.input->pointer().empty()) {
    FLUX_ASSIGN_OR_RETURN(value, Project(value, input.input->pointer()));
  }
  if (value.limit_bytes() > bytes_max) {
    return absl::ResourceExhaustedError(
        OverPayloadLimit(what, value.limit_bytes(), bytes_max, "pass"));
  }
  value.AppendTo(to);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OutboxMessage> BuildOutboxMessage(const Execution& execution, uint64_t number,
                                                 size_t payload_bytes_max) {
  const internal::ExecutionState& s = execution.state();
  const auto entry = s.outbox.find(number);
  if (entry == s.outbox.end()) {
    return absl::NotFoundError(absl::StrCat("message ", number, " is settled"));
  }
  const internal::OutboxState& from = entry->second;
  OutboxMessage to;
  to.number = number;
  to.kind = from.kind;
  to.target.set_namespace_(s.started->namespace_());
  to.target.set_workflow_id(from.workflow_id);
  if (!from.run_id.empty()) {
    to.target.set_run_id(RunId::FromBytes(from.run_id).value_or(RunId()).Text());
  }
  to.parent.set_namespace_(s.started->namespace_());
  to.parent.set_workflow_id(s.started->workflow_id());
  to.parent.set_run_id(s.started->run_id());
  to.parent.mutable_ref()->set_frame(from.key.frame);
  to.parent.mutable_ref()->set_step(from.key.step);
  to.parent.set_generation(from.generation);
  to.parent.set_outbox(number);
  if (from.kind == v1::OUTBOX_KIND_NOTIFY_PARENT) {
    to.target.set_namespace_(s.started->parent().namespace_());
    to.report.ref = {s.started->parent().ref().frame(), s.started->parent().ref().step()};
    to.report.generation = s.started->parent().generation();
    to.report.run_id = s.started->run_id();
    to.report.status = s.status;
    if (s.failure != nullptr) to.report.failure = *s.failure;
    if (s.status != v1::EXECUTION_STATUS_COMPLETED) return to;
    if (s.result.limit_bytes() > payload_bytes_max) {
      to.report.status = v1::EXECUTION_STATUS_FAILED;
      to.report.failure = internal::MakeFailure(
          kPayloadTooLarge,
          OverPayloadLimit("the result", s.result.limit_bytes(), payload_bytes_max, "return"));
      return to;
    }
    s.result.AppendTo(&to.report.result);
    return to;
  }
  if (from.kind != v1::OUTBOX_KIND_EMIT && from.kind != v1::OUTBOX_KIND_START_CHILD) return to;
  const internal::Frame* frame = s.FindFrame(from.key.frame);
  if (frame == nullptr || from.key.step >= frame->steps.size() ||
      frame->steps[from.key.step].generation != from.generation) {
    return absl::FailedPreconditionError("the step that sends the message is gone");
  }
  const Graph::StepPlan& plan = s.Plan(*frame, from.key.step);
  if (plan.kind != (from.kind == v1::OUTBOX_KIND_EMIT ? v1::Step::kEmit : v1::Step::kChild)) {
    return absl::FailedPreconditionError("the step that sends the message is another one now");
  }
  const std::string id = absl::StrCat("flux:", s.run.Text(), ":", number);
  if (from.kind == v1::OUTBOX_KIND_EMIT) {
    *to.event.mutable_execution() = to.target;
    to.event.set_event(plan.step->emit().event());
    to.event.set_event_id(id);
    if (plan.step->emit().delay_ms() > 0) {
      to.event.set_deliver_time_ms(frame->steps[from.key.step].first_scheduled_ms +
                                   plan.step->emit().delay_ms());
    }
    to.event.set_identity(s.started->workflow_id());
    FLUX_RETURN_IF_ERROR(AppendInput(*frame, plan.inputs[0], "the event's payload",
                                     payload_bytes_max, to.event.mutable_payload()));
    return to;
  }
  const v1::ChildStep& child = plan.step->child();
  to.awaited = !child.detached();
  to.start.set_namespace_(s.started->namespace_());
  to.start.set_workflow_id(from.workflow_id);
  to.start.set_request_id(id);
  to.start.set_workflow(child.workflow());
  to.start.set_version(child.version());
  to.start.set_definition_hash(child.definition_hash());
  to.start.set_identity(s.started->workflow_id());
  const size_t arguments = plan.inputs.size() - (child.id_input() ? 1 : 0);
  for (size_t i = 0; i < arguments; ++i) {
    FLUX_RETURN_IF_ERROR(AppendInput(*frame, plan.inputs[i], absl::StrCat("input ", i),
                                     payload_bytes_max, to.start.add_inputs()));
  }
  return to;
}

}  // namespace flux::engine
