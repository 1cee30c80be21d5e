// Events, messages between executions, and what operators ask for.
//
// A message rests on the commit that put it into the sender's outbox and leaves once that is
// durable; the sender hears of its fate once the receiver's commit is durable. In between it may be
// sent again, after a restart or a refusal that passes: what it asks for is idempotent. An
// execution with messages on their way is not evicted, and its active row brings it back after a
// restart.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/core/payload_limit.h"
#include "engine/shard/engine.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

// How long a message waits that could not be taken now.
constexpr int64_t kMessageRetryMs = 500;

constexpr char kNotFound[] = "flux.not_found";
constexpr char kConflict[] = "flux.conflict";
constexpr char kRefused[] = "flux.refused";

// Refusals that pass: the message is sent again.
bool Passes(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) ||
         absl::IsInternal(status) || absl::IsDataLoss(status);
}

// Of a refusal that does not pass; ResourceExhausted: what is sent is too large.
v1::Failure FailureFor(const absl::Status& status) {
  v1::Failure failure;
  failure.set_type(absl::IsNotFound(status)            ? kNotFound
                   : absl::IsAlreadyExists(status)     ? kConflict
                   : absl::IsResourceExhausted(status) ? kPayloadTooLarge
                                                       : kRefused);
  failure.set_message(ToUtf8(Message(status)));
  failure.set_non_retriable(true);
  failure.set_source("coordinator");
  return failure;
}

}  // namespace

// ---- events ----

absl::Status Engine::CheckPayload(std::string_view what, const v1::Payload& payload) const {
  if (const size_t bytes = PayloadBytes(payload); bytes > options_.payload_bytes_max) {
    return absl::ResourceExhaustedError(
        OverPayloadLimit(what, bytes, options_.payload_bytes_max, "pass"));
  }
  if (payload.encoding() == v1::ENCODING_JSON) {
    if (absl::Status json = CheckJson(payload.data()); !json.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(ToAbsl(what), " says it is JSON, but is ", json.message()));
    }
  }
  return absl::OkStatus();
}

uint64_t Engine::BlobFor(const Slot& slot, const v1::Payload& payload) const {
  return PayloadBytes(payload) > options_.payload_inline_bytes ? NextBlob(*slot.execution) : 0;
}

absl::Status Engine::FullDisk(std::string_view what) const {
  return absl::ResourceExhaustedError(
      absl::StrCat("the disk under ", options_.data_directory, " is nearly full: ", ToAbsl(what),
                   " are refused until space is freed; running work goes on"));
}

void Engine::SendEvent(v1::SendEventRequest request, Reply<v1::SendEventResponse> reply) {
  absl::Status status = CheckRef(*request.mutable_execution());
  if (status.ok()) status = CheckId("event's name", request.event(), true);
  if (status.ok()) status = CheckId("event id", request.event_id(), false);
  if (status.ok()) status = CheckId("identity", request.identity(), false);
  if (status.ok()) status = CheckPayload("the event's payload", request.payload());
  if (status.ok() && request.deliver_time_ms() < 0) {
    status = absl::InvalidArgumentError("the delivery time is before 1970");
  }
  if (status.ok()) status = TakeIn(request.payload().ByteSizeLong(), &reply);
  if (!status.ok()) return reply(status);
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    TakeEvent(std::move(request), std::move(reply));
  });
}

void Engine::TakeEvent(v1::SendEventRequest request, Reply<v1::SendEventResponse> reply) {
  if (env_.store->BelowReserve()) {
    return ReplyWith<v1::SendEventResponse>(std::move(reply), FullDisk("events"));
  }
  const v1::ExecutionRef ref = request.execution();
  WithExecution(ref, [this, request = std::move(request), reply = std::move(reply)](
                         Slot* slot, const absl::Status& found) mutable {
    if (slot == nullptr) return ReplyWith<v1::SendEventResponse>(std::move(reply), found);
    v1::SendEventResponse response;
    response.set_run_id(slot->run.Text());
    // Without one it could be neither cancelled nor replaced.
    if (request.event_id().empty() && request.deliver_time_ms() > DecisionMs()) {
      request.set_event_id(MakeEventId(*slot->execution));
    }
    response.set_event_id(request.event_id());
    response.set_replaced(IsDelayed(*slot->execution, request.event_id()));
    flux::engine::SendEvent command;
    command.blob = BlobFor(*slot, request.payload());
    command.event = std::move(*request.mutable_event());
    command.event_id = std::move(*request.mutable_event_id());
    command.payload = std::move(*request.mutable_payload());
    command.deliver_at_ms = request.deliver_time_ms();
    command.identity = std::move(*request.mutable_identity());
    const absl::StatusOr<Verdict> verdict = Execute(*slot, std::move(command));
    if (!verdict.ok()) {
      return ReplyWith<v1::SendEventResponse>(std::move(reply), verdict.status());
    }
    if (*verdict == Verdict::kDuplicate) {
      response.set_duplicate(true);
      response.set_replaced(false);
    }
    ReplyWith<v1::SendEventResponse>(std::move(reply), std::move(response));
  });
}

void Engine::ListEvents(v1::ListEventsRequest request, Reply<v1::ListEventsResponse> reply) {
  if (absl::Status status = CheckRef(*request.mutable_execution()); !status.ok()) {
    return reply(status);
  }
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    WithExecution(request.execution(), [this, payloads = request.payloads(),
                                        reply = std::move(reply)](
                                           Slot* slot, const absl::Status& status) mutable {
      if (slot == nullptr) return ReplyWith<v1::ListEventsResponse>(std::move(reply), status);
      const size_t bytes = payloads ? EventBytes(*slot->execution) : 0;
      if (bytes > options_.answer_bytes_max) {
        return ReplyWith<v1::ListEventsResponse>(
            std::move(reply),
            absl::ResourceExhaustedError(absl::StrCat(
                "the events' payloads have ", bytes, " bytes together and an answer holds at most ",
                options_.answer_bytes_max, ": list the events without payloads")));
      }
      v1::ListEventsResponse response;
      FillEvents(*slot->execution, payloads, &response);
      ReplyWith<v1::ListEventsResponse>(std::move(reply), std::move(response));
    });
  });
}

// ---- messages to other executions ----

void Engine::SendPending(Slot& slot) {
  for (const uint64_t number : PendingOutbox(*slot.execution, slot.sent_message)) {
    slot.sent_message = number;
    ReplyLater([this, run = slot.run, number] {
      Post([this, run, number] { SendMessage(run, number); });
    });
  }
}

void Engine::RetryMessages() {
  const int64_t now = env_.clock->MonotonicMs();
  while (!message_retries_.empty() && message_retries_.begin()->first <= now) {
    const auto [run, number] = message_retries_.begin()->second;
    message_retries_.erase(message_retries_.begin());
    deferred_.push_back([this, run = run, number = number] { SendMessage(run, number); });
  }
}

void Engine::SendMessage(const RunId& run, uint64_t number) {
  WithRun(run, [this, run, number](Slot* slot, const absl::Status& status) {
    if (slot == nullptr) {
      if (!absl::IsNotFound(status)) MessageAnswered(run, number, status);
      return;
    }
    absl::StatusOr<OutboxMessage> message =
        BuildOutboxMessage(*slot->execution, number, options_.payload_bytes_max);
    if (!message.ok()) {
      if (!absl::IsNotFound(message.status())) SettleMessage(run, number, message.status());
      return;
    }
    switch (message->kind) {
      case v1::OUTBOX_KIND_EMIT:
        return TakeEvent(std::move(message->event),
                         [this, run, number](const absl::StatusOr<v1::SendEventResponse>& answer) {
                           MessageAnswered(run, number, answer.status());
                         });
      case v1::OUTBOX_KIND_START_CHILD:
        return StartChild(run, *std::move(message));
      case v1::OUTBOX_KIND_CANCEL_CHILD:
      case v1::OUTBOX_KIND_TERMINATE_CHILD:
        return StopChild(run, *std::move(message));
      case v1::OUTBOX_KIND_NOTIFY_PARENT:
        return NotifyParent(run, *std::move(message));
      default:
        return MessageAnswered(run, number, absl::OkStatus());
    }
  });
}

void Engine::StartChild(const RunId& run, OutboxMessage message) {
  const uint64_t number = message.number;
  if (message.awaited) *message.start.mutable_parent() = message.parent;
  absl::StatusOr<std::shared_ptr<const Graph>> graph = GraphOf(message.start);
  absl::Status status = graph.status();
  if (status.ok()) status = CheckStart(message.start, **graph);
  // What its inputs are too large for does not pass.
  if (absl::IsResourceExhausted(status)) return SettleMessage(run, number, status);
  if (status.ok() && env_.store->BelowReserve()) status = FullDisk("starts");
  if (status.ok() && shutting_down_) status = ShuttingDown();
  if (!status.ok()) return MessageAnswered(run, number, status);
  TakeStart(std::move(message.start), *std::move(graph),
            [this, run, number](absl::StatusOr<v1::StartWorkflowResponse> answer) {
              if (!answer.ok()) return MessageAnswered(run, number, answer.status());
              MessageAnswered(run, number, absl::OkStatus(), answer->workflow_id(),
                              RunId::FromText(answer->run_id()).value_or(RunId{}).Bytes());
            });
}

void Engine::StopChild(const RunId& run, OutboxMessage message) {
  const uint64_t number = message.number;
  const v1::ExecutionRef target = message.target;
  WithExecution(target, [this, run, number, message = std::move(message)](
                            Slot* slot, const absl::Status& found) mutable {
    if (slot != nullptr && !slot->execution->closed()) {
      const v1::ParentRef& parent = slot->execution->started().parent();
      const bool ours = parent.run_id() == message.parent.run_id() &&
                        parent.ref().frame() == message.parent.ref().frame() &&
                        parent.ref().step() == message.parent.ref().step() &&
                        parent.generation() == message.parent.generation();
      // It may be closing already, which is as good.
      if (ours && message.kind == v1::OUTBOX_KIND_TERMINATE_CHILD) {
        Execute(*slot,
                flux::engine::Terminate{"its parent gave it up", message.parent.workflow_id()})
            .IgnoreError();
      } else if (ours) {
        Execute(*slot, flux::engine::Cancel{"its parent gave it up", message.parent.workflow_id()})
            .IgnoreError();
      }
    }
    const bool gone = slot != nullptr || absl::IsNotFound(found);
    ReplyLater([this, run, number, status = gone ? absl::OkStatus() : found] {
      MessageAnswered(run, number, status);
    });
  });
}

void Engine::NotifyParent(const RunId& run, OutboxMessage message) {
  const uint64_t number = message.number;
  const v1::ExecutionRef target = message.target;
  WithExecution(target, [this, run, number, report = std::move(message.report)](
                            Slot* slot, const absl::Status& found) mutable {
    if (slot != nullptr) {
      report.blob = BlobFor(*slot, report.result);
      if (auto verdict = Execute(*slot, std::move(report)); !verdict.ok()) {
        Log(3, absl::StrCat("run ", slot->run.Text(), ": ", verdict.status().ToString()));
      }
    }
    const bool gone = slot != nullptr || absl::IsNotFound(found);
    ReplyLater([this, run, number, status = gone ? absl::OkStatus() : found] {
      MessageAnswered(run, number, status);
    });
  });
}

void Engine::MessageAnswered(const RunId& run, uint64_t number, const absl::Status& status,
                             std::string workflow_id, std::string child_run) {
  if (Passes(status)) {
    message_retries_.emplace(env_.clock->MonotonicMs() + kMessageRetryMs,
                             std::make_pair(run, number));
    return;
  }
  SettleMessage(run, number, status, std::move(workflow_id), std::move(child_run));
}

void Engine::SettleMessage(const RunId& run, uint64_t number, const absl::Status& status,
                           std::string workflow_id, std::string child_run) {
  SettleOutbox command;
  command.number = number;
  if (!status.ok()) command.failure = FailureFor(status);
  command.workflow_id = std::move(workflow_id);
  command.run_id = std::move(child_run);
  Post([this, run, command = std::move(command)]() mutable {
    WithRun(run, [this, command = std::move(command)](Slot* slot, const absl::Status&) mutable {
      if (slot == nullptr) return;
      if (auto verdict = Execute(*slot, std::move(command)); !verdict.ok()) {
        Log(3, absl::StrCat("run ", slot->run.Text(), ": ", verdict.status().ToString()));
      }
      if (slot->execution->closed() && !HasOutbox(*slot->execution)) QueueFlush(*slot, true);
    });
  });
}

// ---- operators ----

namespace {

struct Who {
  const std::string& identity;
  const std::string& reason;
};

// The command for an operation on one execution, which CheckOperation let pass.
absl::StatusOr<Command> CommandFor(const Execution& execution, const v1::Operation& operation,
                                   const Who& who, uint64_t blob) {
  const auto step = [&](const std::string& path) { return FindStep(execution, path); };
  switch (operation.kind_case()) {
    case v1::Operation::kPause:
      return Command(Pause{who.identity, who.reason});
    case v1::Operation::kResume:
      return Command(Resume{who.identity, who.reason});
    case v1::Operation::kCancel:
      return Command(Cancel{who.reason, who.identity});
    case v1::Operation::kTerminate:
      return Command(Terminate{who.reason, who.identity});
    case v1::Operation::kRetry: {
      Retry command{std::nullopt, who.identity, who.reason};
      if (!operation.retry().step().empty()) {
        FLUX_ASSIGN_OR_RETURN(command.step, step(operation.retry().step()));
      }
      return Command(std::move(command));
    }
    case v1::Operation::kUnpark: {
      FLUX_ASSIGN_OR_RETURN(const StepKey key, step(operation.unpark().step()));
      return Command(
          Retry{.step = key, .identity = who.identity, .reason = who.reason, .parked_only = true});
    }
    case v1::Operation::kPark: {
      FLUX_ASSIGN_OR_RETURN(const StepKey key, step(operation.park().step()));
      return Command(Park{key, who.identity, who.reason});
    }
    case v1::Operation::kSkip: {
      FLUX_ASSIGN_OR_RETURN(const StepKey key, step(operation.skip().step()));
      return Command(Resolve{key, std::nullopt, 0, who.identity, who.reason});
    }
    case v1::Operation::kSetResult: {
      FLUX_ASSIGN_OR_RETURN(const StepKey key, step(operation.set_result().step()));
      return Command(Resolve{key, operation.set_result().result(), blob, who.identity, who.reason});
    }
    case v1::Operation::kRewind: {
      FLUX_ASSIGN_OR_RETURN(const StepKey key, step(operation.rewind().step()));
      return Command(Rewind{key, who.identity, who.reason});
    }
    case v1::Operation::kCancelEvent:
      return Command(CancelEvent{operation.cancel_event().event_id(), who.identity, who.reason});
    case v1::Operation::kEditEvent:
      return Command(EditEvent{operation.edit_event().event(), operation.edit_event().number(),
                               operation.edit_event().payload(), blob, who.identity, who.reason});
    case v1::Operation::kReplayEvent:
      return Command(ReplayEvent{operation.replay_event().event(),
                                 operation.replay_event().payload(), blob, who.identity,
                                 who.reason});
    default:
      return absl::InternalError(
          absl::StrCat("operation ", operation.kind_case(), " is not made of one command"));
  }
}

// The payload an operation brings along, or an empty one.
const v1::Payload& PayloadOf(const v1::Operation& operation) {
  switch (operation.kind_case()) {
    case v1::Operation::kSetResult:
      return operation.set_result().result();
    case v1::Operation::kEditEvent:
      return operation.edit_event().payload();
    case v1::Operation::kReplayEvent:
      return operation.replay_event().payload();
    default:
      return v1::Payload::default_instance();
  }
}

bool MayReopen(const v1::Operation& operation) {
  switch (operation.kind_case()) {
    case v1::Operation::kRetry:
    case v1::Operation::kSkip:
    case v1::Operation::kSetResult:
    case v1::Operation::kRewind:
    case v1::Operation::kReplayEvent:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::Status Engine::CheckOperation(const v1::Operation& operation) const {
  const auto step = [](std::string_view verb, const std::string& path) {
    return path.empty() ? absl::InvalidArgumentError(absl::StrCat(
                              "which step to ", ToAbsl(verb),
                              " is empty: give its path, as `workflow show` prints it"))
                        : absl::OkStatus();
  };
  switch (operation.kind_case()) {
    case v1::Operation::kPark:
      return step("park", operation.park().step());
    case v1::Operation::kUnpark:
      return step("unpark", operation.unpark().step());
    case v1::Operation::kSkip:
      return step("skip", operation.skip().step());
    case v1::Operation::kRewind:
      return step("rewind to", operation.rewind().step());
    case v1::Operation::kSetResult:
      FLUX_RETURN_IF_ERROR(step("set the result of", operation.set_result().step()));
      return CheckPayload(
          absl::StrCat("the result of step \"", operation.set_result().step(), "\""),
          operation.set_result().result());
    case v1::Operation::kCancelEvent:
      return CheckId("event id", operation.cancel_event().event_id(), true);
    case v1::Operation::kEditEvent:
      FLUX_RETURN_IF_ERROR(CheckId("event's name", operation.edit_event().event(), true));
      return CheckPayload(
          absl::StrCat("the payload of event \"", operation.edit_event().event(), "\""),
          operation.edit_event().payload());
    case v1::Operation::kReplayEvent:
      FLUX_RETURN_IF_ERROR(CheckId("event's name", operation.replay_event().event(), true));
      return CheckPayload(
          absl::StrCat("the payload of event \"", operation.replay_event().event(), "\""),
          operation.replay_event().payload());
    case v1::Operation::kMigrate:
      // Without a hash, it is the newest of each execution's workflow.
      if (operation.migrate().definition_hash().empty()) return absl::OkStatus();
      return definitions_->ByHash(operation.migrate().definition_hash()).status();
    case v1::Operation::KIND_NOT_SET:
      return absl::InvalidArgumentError(
          operation.GetReflection()->GetUnknownFields(operation).empty()
              ? "no operation is given: set one of its kinds, such as retry"
              : "the operation is not one this server version knows: upgrade the server");
    default:
      return absl::OkStatus();
  }
}

void Engine::Operate(v1::OperateExecutionRequest request,
                     Reply<v1::OperateExecutionResponse> reply) {
  absl::Status status = CheckRef(*request.mutable_execution());
  if (status.ok()) status = CheckWho(request.identity(), request.reason());
  if (status.ok()) status = CheckOperation(request.operation());
  if (!status.ok()) return reply(status);
  if (request.operation().has_delete_()) {
    return Delete(request.execution(), request.identity(), request.reason(), std::move(reply));
  }
  if (const size_t bytes = PayloadOf(request.operation()).ByteSizeLong(); bytes > 0) {
    if (status = TakeIn(bytes, &reply); !status.ok()) return reply(status);
  }
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    const v1::ExecutionRef ref = request.execution();
    WithExecution(ref, [this, request = std::move(request), reply = std::move(reply)](
                           Slot* slot, const absl::Status& found) mutable {
      if (slot == nullptr) return ReplyWith<v1::OperateExecutionResponse>(std::move(reply), found);
      if (!slot->execution->closed() || !MayReopen(request.operation())) {
        return OperateOn(*slot, request, std::move(reply));
      }
      Reopen(slot->run, slot->id_key, std::move(request), std::move(reply));
    });
  });
}

// Only the newest run of an id may run again (rule 12).
void Engine::Reopen(const RunId& run, const std::string& id_key,
                    v1::OperateExecutionRequest request,
                    Reply<v1::OperateExecutionResponse> reply) {
  WithId(id_key, [this, run, id_key, request = std::move(request),
                  reply = std::move(reply)](const absl::Status& known) mutable {
    if (!known.ok()) return ReplyWith<v1::OperateExecutionResponse>(std::move(reply), known);
    if (const RunId newest = ids_[id_key].current; newest != run) {
      return ReplyWith<v1::OperateExecutionResponse>(
          std::move(reply),
          absl::FailedPreconditionError(
              absl::StrCat("run ", run.Text(), " is closed and was followed by run ", newest.Text(),
                           " of the same workflow id: only the newest run can be reopened")));
    }
    WithRun(run, [this, run, id_key, request = std::move(request), reply = std::move(reply)](
                     Slot* slot, const absl::Status& loaded) mutable {
      if (slot == nullptr) {
        return ReplyWith<v1::OperateExecutionResponse>(std::move(reply), loaded);
      }
      if (const IdEntry& entry = ids_[id_key]; !entry.loaded || entry.current != run) {
        // While it was loaded another may have started.
        return Reopen(run, id_key, std::move(request), std::move(reply));
      }
      OperateOn(*slot, request, std::move(reply));
    });
  });
}

void Engine::OperateOn(Slot& slot, const v1::OperateExecutionRequest& request,
                       Reply<v1::OperateExecutionResponse> reply) {
  if (request.operation().has_migrate()) return MigrateOn(slot, request, std::move(reply));
  absl::StatusOr<Command> command =
      CommandFor(*slot.execution, request.operation(), {request.identity(), request.reason()},
                 BlobFor(slot, PayloadOf(request.operation())));
  if (!command.ok()) {
    return ReplyWith<v1::OperateExecutionResponse>(std::move(reply), command.status());
  }
  uint64_t retried = 0;
  const absl::StatusOr<Verdict> verdict = Execute(slot, *std::move(command), &retried);
  if (!verdict.ok()) {
    return ReplyWith<v1::OperateExecutionResponse>(std::move(reply), verdict.status());
  }
  v1::OperateExecutionResponse response;
  response.set_run_id(slot.run.Text());
  if (request.operation().has_retry() || request.operation().has_unpark()) {
    response.set_detail(
        absl::StrCat(retried, retried == 1 ? " step is" : " steps are", " tried again"));
  }
  ReplyWith<v1::OperateExecutionResponse>(std::move(reply), std::move(response));
}

void Engine::MigrateOn(Slot& slot, const v1::OperateExecutionRequest& request,
                       Reply<v1::OperateExecutionResponse> reply) {
  const v1::Operation::Migrate& wanted = request.operation().migrate();
  absl::StatusOr<std::shared_ptr<const Graph>> graph =
      wanted.definition_hash().empty()
          ? definitions_->ByName(slot.execution->started().workflow(), "")
          : definitions_->ByHash(wanted.definition_hash());
  if (!graph.ok()) {
    return ReplyWith<v1::OperateExecutionResponse>(std::move(reply), graph.status());
  }
  v1::OperateExecutionResponse response;
  response.set_run_id(slot.run.Text());
  const std::string version = (*graph)->definition().version();
  Migrate command{*std::move(graph), request.identity(), request.reason()};
  absl::Status status;
  if (wanted.dry_run()) {
    status = Decide(*slot.execution, std::move(command), DecisionMs()).status();
    response.set_detail(absl::StrCat("can move to version \"", version, "\""));
  } else {
    response.set_detail(absl::StrCat("moved to version \"", version, "\""));
    status = Execute(slot, std::move(command)).status();
  }
  if (!status.ok()) return ReplyWith<v1::OperateExecutionResponse>(std::move(reply), status);
  ReplyWith<v1::OperateExecutionResponse>(std::move(reply), std::move(response));
}

}  // namespace flux::engine
