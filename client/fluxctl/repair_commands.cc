// What an operator does to executions, and events.
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/fluxctl/bulk.h"
#include "client/fluxctl/commands.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::WorkflowService;

struct Repair {
  const char* verb;
  const char* past;
  std::vector<std::string> statuses;  // what filters mean without --status
  // Whether a second time changes nothing more, so that a call which was cut off is repeated.
  bool repeatable;
  std::string query = {};  // has to hold as well then
};

Repair RepairOf(RepairKind kind) {
  switch (kind) {
    case RepairKind::kPause:
      return {"pause", "paused", {"running"}, true};
    case RepairKind::kResume:
      return {"resume", "resumed", {"paused"}, true};
    case RepairKind::kRetry:
      return {"retry", "tried again", {"running", "failed"}, false};
    case RepairKind::kPark:
      return {"park", "parked", {"running", "paused"}, false};
    case RepairKind::kUnpark:
      return {"unpark", "unparked", {"running", "paused"}, false, "parked > 0"};
    case RepairKind::kSkip:
      return {"skip", "skipped", {"running", "paused", "failed"}, false};
    case RepairKind::kSetResult:
      return {"set the result of", "result set", {"running", "paused", "failed"}, false};
    case RepairKind::kRewind:
      return {"rewind", "rewound", {}, false};
    case RepairKind::kCancelEvent:
      return {"cancel event", "event cancelled", {"running", "paused"}, false};
    case RepairKind::kEditEvent:
      return {"edit event", "event edited", {"running", "paused"}, true};
    case RepairKind::kReplayEvent:
      return {"replay event", "event replayed", {}, false};
    case RepairKind::kMigrate:
      return {"migrate", "migrated", {"running", "paused"}, false};
    case RepairKind::kDelete:
      // Once deleted, a repetition would meet an older run of the same workflow id.
      return {"delete",
              "deleted",
              {"completed", "failed", "cancelled", "terminated", "skipped"},
              false};
  }
  return {"repair", "repaired", {}, false};
}

absl::StatusOr<v1::Operation> BuildOperation(Context& context, const RepairOptions& options) {
  v1::Operation operation;
  v1::Payload value;
  if (options.kind == RepairKind::kSetResult || options.kind == RepairKind::kEditEvent ||
      options.kind == RepairKind::kReplayEvent) {
    FLUX_ASSIGN_OR_RETURN(value, ReadJsonArgument("--input", options.value));
  }
  switch (options.kind) {
    case RepairKind::kPause:
      operation.mutable_pause();
      break;
    case RepairKind::kResume:
      operation.mutable_resume();
      break;
    case RepairKind::kUnpark:
      operation.mutable_unpark()->set_step(options.name);
      break;
    case RepairKind::kRetry:
      operation.mutable_retry()->set_step(options.name);
      break;
    case RepairKind::kPark:
      operation.mutable_park()->set_step(options.name);
      break;
    case RepairKind::kSkip:
      operation.mutable_skip()->set_step(options.name);
      break;
    case RepairKind::kSetResult:
      operation.mutable_set_result()->set_step(options.name);
      *operation.mutable_set_result()->mutable_result() = std::move(value);
      break;
    case RepairKind::kRewind:
      operation.mutable_rewind()->set_step(options.name);
      break;
    case RepairKind::kCancelEvent:
      operation.mutable_cancel_event()->set_event_id(options.name);
      break;
    case RepairKind::kEditEvent:
      operation.mutable_edit_event()->set_event(options.name);
      operation.mutable_edit_event()->set_number(options.number);
      *operation.mutable_edit_event()->mutable_payload() = std::move(value);
      break;
    case RepairKind::kReplayEvent:
      operation.mutable_replay_event()->set_event(options.name);
      *operation.mutable_replay_event()->mutable_payload() = std::move(value);
      break;
    case RepairKind::kMigrate: {
      FLUX_ASSIGN_OR_RETURN(const v1::GetDefinitionResponse definition,
                            FindDefinition(context, options.name, options.bulk.filter.workflow));
      operation.mutable_migrate()->set_definition_hash(definition.summary().definition_hash());
      operation.mutable_migrate()->set_dry_run(options.dry_run);
      break;
    }
    case RepairKind::kDelete:
      operation.mutable_delete_();
      break;
  }
  return operation;
}

// What may help, by how the command was refused.
absl::Status Explained(const absl::Status& status, const RepairOptions& options,
                       const std::string& workflow_id) {
  if (!HintOf(status).empty()) return status;
  const bool event = options.kind == RepairKind::kCancelEvent ||
                     options.kind == RepairKind::kEditEvent ||
                     options.kind == RepairKind::kReplayEvent;
  if (!absl::IsNotFound(status) && !absl::IsFailedPrecondition(status)) return status;
  return WithHint(status, absl::StrCat("'fluxctl ", event ? "event list " : "workflow show ",
                                       workflow_id, "' shows where it stands"));
}

}  // namespace

CommandResult RepairWorkflows(Context& context, const RepairOptions& options) {
  Repair repair = RepairOf(options.kind);
  // Without a step, all that failed or are parked: one in which all is well has nothing to retry.
  if (options.kind == RepairKind::kRetry && options.name.empty()) {
    repair.query = "status = \"failed\" or parked > 0";
  }
  v1::OperateExecutionRequest request;
  FLUX_ASSIGN_OR_RETURN(*request.mutable_operation(), BuildOperation(context, options));
  request.set_reason(options.reason);
  request.set_identity(Identity());
  const bool named = options.kind != RepairKind::kMigrate && !options.name.empty();
  return OnExecutions(
      context, options.bulk,
      {.verb = named ? absl::StrCat(repair.verb, " ", options.name, " in") : repair.verb,
       .past = options.dry_run ? "can be migrated" : repair.past,
       .statuses = repair.statuses,
       .query = repair.query,
       .dry_run = options.dry_run,
       .operation = request.operation(),
       .reason = options.reason},
      [&](const v1::ExecutionRef& ref) -> absl::StatusOr<std::string> {
        *request.mutable_execution() = ref;
        const absl::StatusOr<v1::OperateExecutionResponse> response =
            repair.repeatable || options.dry_run
                ? context.connection.Call(context.connection.workflows(),
                                          &WorkflowService::Stub::OperateExecution, request)
                : context.connection.CallOnce(context.connection.workflows(),
                                              &WorkflowService::Stub::OperateExecution, request);
        if (!response.ok()) return Explained(response.status(), options, ref.workflow_id());
        return response->detail();
      });
}

CommandResult SignalWorkflow(Context& context, const SignalOptions& options) {
  v1::SendEventRequest request;
  *request.mutable_execution() = context.Ref(options.target.workflow_id, options.target.run_id);
  request.set_event(options.event);
  request.set_event_id(options.event_id.empty() ? RandomId() : options.event_id);
  request.set_identity(Identity());
  if (!options.deliver_at.empty() && !options.deliver_in.empty()) {
    return absl::InvalidArgumentError("--at and --in both say when: give one of them");
  }
  FLUX_ASSIGN_OR_RETURN(*request.mutable_payload(), ReadJsonArgument("--input", options.payload));
  if (!options.deliver_at.empty()) {
    FLUX_ASSIGN_OR_RETURN(const absl::Time time, context.TimeOf("--at", [&](absl::Time now) {
      return ParseTimeToCome(options.deliver_at, now, /*wait_option=*/"--in");
    }));
    request.set_deliver_time_ms(absl::ToUnixMillis(time));
  }
  if (!options.deliver_in.empty()) {
    FLUX_ASSIGN_OR_RETURN(const absl::Duration wait,
                          ForOption("--in", ParseDuration(options.deliver_in)));
    FLUX_ASSIGN_OR_RETURN(const absl::Time now, context.AskNow());
    request.set_deliver_time_ms(absl::ToUnixMillis(now + wait));
  }
  FLUX_ASSIGN_OR_RETURN(const v1::SendEventResponse response,
                        context.connection.Call(context.connection.workflows(),
                                                &WorkflowService::Stub::SendEvent, request));
  // An older coordinator does not say it.
  const std::string& event_id =
      response.event_id().empty() ? request.event_id() : response.event_id();
  if (context.output != Output::kTable) {
    Json json = ToJson(response);
    json["event_id"] = event_id;
    context.Print(json);
    return kExitOk;
  }
  Table table;
  table.columns = {{.header = "WORKFLOW ID"},
                   {.header = "EVENT"},
                   {.header = "EVENT ID"},
                   {.header = "RUN ID"},
                   {.header = "OUTCOME"}};
  const std::string when = request.deliver_time_ms() == 0
                               ? "accepted"
                               : absl::StrCat("due at ", TimeText(request.deliver_time_ms()));
  table.rows.push_back(
      {Cell(options.target.workflow_id, Style::kBold), Cell(options.event), Cell(event_id),
       Cell(response.run_id()),
       Cell(response.duplicate()  ? "it was here before: nothing changed"
            : response.replaced() ? absl::StrCat(when, ", instead of an earlier one")
                                  : when)});
  context.Print(table);
  return kExitOk;
}

CommandResult ListEvents(Context& context, const EventsOptions& options) {
  v1::ListEventsRequest request;
  *request.mutable_execution() = context.Ref(options.target.workflow_id, options.target.run_id);
  request.set_payloads(options.payloads || context.output != Output::kTable);
  FLUX_ASSIGN_OR_RETURN(const v1::ListEventsResponse response,
                        context.connection.Call(context.connection.workflows(),
                                                &WorkflowService::Stub::ListEvents, request));
  if (context.output != Output::kTable) {
    Listing listing(context, "events");
    for (const v1::EventInfo& event : response.events()) listing.Add(ToJson(event));
    listing.Finish();
    return kExitOk;
  }
  if (response.events().empty()) {
    context.console.Note("no events");
    return kExitOk;
  }
  Table table = EventsTable(response.events(), context.Now(), options.payloads);
  context.Print(table);
  return kExitOk;
}

}  // namespace flux::ctl
