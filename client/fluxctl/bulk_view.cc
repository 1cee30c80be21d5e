#include "client/fluxctl/bulk_view.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/fluxctl/json.h"
#include "client/fluxctl/view.h"

namespace flux::ctl {
namespace {

constexpr std::size_t kHashShown = 12;

std::string Quoted(const std::string& text) {
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

std::string WithName(const char* verb, const std::string& name) {
  return name.empty() ? std::string(verb) : absl::StrCat(verb, " ", name);
}

std::string Took(const v1::BulkOperation& operation, absl::Time now) {
  const int64_t end =
      operation.end_time_ms() != 0 ? operation.end_time_ms() : absl::ToUnixMillis(now);
  return DurationText(absl::Milliseconds(end - operation.start_time_ms()));
}

}  // namespace

std::string BulkStateName(v1::BulkState state) {
  return EnumName(*v1::BulkState_descriptor(), state);
}

Style BulkStateStyle(v1::BulkState state) {
  switch (state) {
    case v1::BULK_STATE_RUNNING:
      return Style::kBusy;
    case v1::BULK_STATE_COMPLETED:
      return Style::kGood;
    case v1::BULK_STATE_CANCELLED:
      return Style::kWait;
    default:
      return Style::kBad;
  }
}

bool HasEnded(const v1::BulkOperation& operation) {
  return operation.state() != v1::BULK_STATE_RUNNING;
}

std::string OperationText(const v1::Operation& operation) {
  switch (operation.kind_case()) {
    case v1::Operation::kPause:
      return "pause";
    case v1::Operation::kResume:
      return "resume";
    case v1::Operation::kCancel:
      return "cancel";
    case v1::Operation::kTerminate:
      return "terminate";
    case v1::Operation::kRetry:
      return WithName("retry", operation.retry().step());
    case v1::Operation::kUnpark:
      return WithName("unpark", operation.unpark().step());
    case v1::Operation::kPark:
      return WithName("park", operation.park().step());
    case v1::Operation::kSkip:
      return WithName("skip", operation.skip().step());
    case v1::Operation::kSetResult:
      return WithName("set-result", operation.set_result().step());
    case v1::Operation::kRewind:
      return WithName("rewind", operation.rewind().step());
    case v1::Operation::kCancelEvent:
      return WithName("event cancel", operation.cancel_event().event_id());
    case v1::Operation::kEditEvent:
      return WithName("event edit", operation.edit_event().event());
    case v1::Operation::kReplayEvent:
      return WithName("event replay", operation.replay_event().event());
    case v1::Operation::kMigrate:
      return absl::StrCat(
          "migrate to ",
          absl::BytesToHexString(operation.migrate().definition_hash()).substr(0, kHashShown));
    case v1::Operation::kDelete:
      return "delete";
    case v1::Operation::KIND_NOT_SET:
      break;
  }
  return "unknown";
}

std::string FilterText(const v1::ExecutionFilter& filter) {
  std::vector<std::string> parts;
  if (!filter.workflow().empty()) {
    parts.push_back(absl::StrCat("workflow = ", Quoted(filter.workflow())));
  }
  std::vector<std::string> statuses;
  for (const int status : filter.statuses()) {
    statuses.push_back(Quoted(EnumName(*v1::ExecutionStatus_descriptor(), status)));
  }
  if (statuses.size() == 1) parts.push_back(absl::StrCat("status = ", statuses.front()));
  if (statuses.size() > 1) {
    parts.push_back(absl::StrCat("status in (", absl::StrJoin(statuses, ", "), ")"));
  }
  if (!filter.workflow_id_prefix().empty()) {
    parts.push_back(absl::StrCat("workflow_id ^= ", Quoted(filter.workflow_id_prefix())));
  }
  if (filter.started_after_ms() != 0) {
    parts.push_back(absl::StrCat("started >= ", TimeText(filter.started_after_ms())));
  }
  if (filter.started_before_ms() != 0) {
    parts.push_back(absl::StrCat("started < ", TimeText(filter.started_before_ms())));
  }
  if (!filter.query().empty()) {
    parts.push_back(parts.empty() ? filter.query() : absl::StrCat("(", filter.query(), ")"));
  }
  return absl::StrJoin(parts, " and ");
}

std::string BulkCounts(const v1::BulkOperation& operation) {
  std::string text = absl::StrCat(operation.done(), "/", operation.matched(), " done");
  if (operation.refused() > 0) absl::StrAppend(&text, ", ", operation.refused(), " refused");
  if (operation.failed() > 0) absl::StrAppend(&text, ", ", operation.failed(), " failed");
  return text;
}

Table BulksTable(const std::vector<v1::BulkOperation>& operations, absl::Time now) {
  Table table;
  table.columns = {{.header = "BULK ID"},
                   {.header = "OPERATION", .shrink = true},
                   {.header = "STATE"},
                   {.header = "MATCHED", .right = true},
                   {.header = "DONE", .right = true},
                   {.header = "REFUSED", .right = true},
                   {.header = "FAILED", .right = true},
                   {.header = "AGE", .right = true},
                   {.header = "QUERY", .shrink = true}};
  for (const v1::BulkOperation& o : operations) {
    table.rows.push_back({Cell(o.id(), Style::kBold), Cell(OperationText(o.operation())),
                          Cell(BulkStateName(o.state()), BulkStateStyle(o.state())),
                          Cell(absl::StrCat(o.matched())), Cell(absl::StrCat(o.done())),
                          Cell(absl::StrCat(o.refused())), Cell(absl::StrCat(o.failed())),
                          Cell(AgeText(o.start_time_ms(), now)), Cell(FilterText(o.filter()))});
  }
  return table;
}

Block BulkBlock(const v1::BulkOperation& operation, absl::Time now) {
  const bool ended = HasEnded(operation);
  return {{"Bulk id", Cell(operation.id(), Style::kBold)},
          {"Operation", Cell(OperationText(operation.operation()))},
          {"Namespace", Cell(operation.filter().namespace_())},
          {"Query", Cell(FilterText(operation.filter()))},
          {"State", Cell(BulkStateName(operation.state()), BulkStateStyle(operation.state()))},
          {"Why", Cell(operation.failure())},
          {"Progress", Cell(BulkCounts(operation))},
          {"Rate", Cell(absl::StrCat("at most ", operation.rate_per_second(), "/s"))},
          {"Started", Cell(absl::StrCat(TimeText(operation.start_time_ms()), " (",
                                        AgeText(operation.start_time_ms(), now), " ago)"))},
          {"Ended", Cell(ended ? TimeText(operation.end_time_ms()) : std::string())},
          {"Took", Cell(ended ? Took(operation, now) : std::string())},
          {"By", Cell(operation.identity())},
          {"Reason", Cell(operation.reason())}};
}

Table BulkOutcomeTable(const v1::BulkOperation& operation, absl::Time now) {
  Table table;
  table.columns = {{.header = "BULK ID"},
                   {.header = "STATE"},
                   {.header = "MATCHED", .right = true},
                   {.header = "DONE", .right = true},
                   {.header = "REFUSED", .right = true},
                   {.header = "FAILED", .right = true},
                   {.header = "TOOK", .right = true}};
  table.rows.push_back({Cell(operation.id(), Style::kBold),
                        Cell(BulkStateName(operation.state()), BulkStateStyle(operation.state())),
                        Cell(absl::StrCat(operation.matched())),
                        Cell(absl::StrCat(operation.done())),
                        Cell(absl::StrCat(operation.refused())),
                        Cell(absl::StrCat(operation.failed())), Cell(Took(operation, now))});
  return table;
}

Table BulkErrorsTable(const v1::BulkOperation& operation) {
  Table table;
  table.columns = {{.header = "WORKFLOW ID"},
                   {.header = "RUN ID", .shrink = true},
                   {.header = "ERROR", .shrink = true}};
  for (const v1::BulkError& error : operation.errors()) {
    table.rows.push_back({Cell(error.workflow_id(), Style::kBold),
                          Cell(error.run_id(), Style::kDim), Cell(error.message(), Style::kBad)});
  }
  return table;
}

}  // namespace flux::ctl
