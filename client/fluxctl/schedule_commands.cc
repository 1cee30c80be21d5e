#include "client/fluxctl/schedule_commands.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/fluxctl/schedule_view.h"
#include "client/fluxctl/text.h"
#include "client/fluxctl/view.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

using v1::ScheduleService;

constexpr uint32_t kPageSize = 500;

v1::ScheduleOverlap ParseOverlap(const std::string& word) {
  for (int i = 0; i < v1::ScheduleOverlap_descriptor()->value_count(); ++i) {
    const auto overlap =
        static_cast<v1::ScheduleOverlap>(v1::ScheduleOverlap_descriptor()->value(i)->number());
    if (overlap != v1::SCHEDULE_OVERLAP_UNSPECIFIED && OverlapName(overlap) == word) return overlap;
  }
  return v1::SCHEDULE_OVERLAP_UNSPECIFIED;
}

absl::StatusOr<int64_t> Milliseconds(const std::string& option, const std::string& text) {
  FLUX_ASSIGN_OR_RETURN(const absl::Duration duration, ForOption(option, ParseDuration(text)));
  return absl::ToInt64Milliseconds(duration);
}

absl::StatusOr<int64_t> TimeOrNone(const std::string& option, const std::string& text,
                                   absl::Time now) {
  if (text == "none") return 0;
  FLUX_ASSIGN_OR_RETURN(const absl::Time time, ForOption(option, ParseTimeToCome(text, now, "")));
  return absl::ToUnixMillis(time);
}

// "6h" or "6h+30m".
absl::Status AddInterval(const std::string& text, v1::ScheduleSpec* spec) {
  const std::size_t plus = text.find('+');
  v1::ScheduleInterval& interval = *spec->add_intervals();
  FLUX_ASSIGN_OR_RETURN(const int64_t every, Milliseconds("--every", text.substr(0, plus)));
  interval.set_every_ms(every);
  if (plus == std::string::npos) return absl::OkStatus();
  FLUX_ASSIGN_OR_RETURN(const int64_t offset, Milliseconds("--every", text.substr(plus + 1)));
  interval.set_offset_ms(offset);
  return absl::OkStatus();
}

absl::Status ApplySpec(const ScheduleOptions& options, absl::Time now, v1::ScheduleSpec* spec) {
  // Times are replaced as a whole: what is left of the old ones would be a surprise.
  if (!options.crons.empty() || !options.every.empty()) {
    spec->clear_crons();
    spec->clear_intervals();
  }
  for (const std::string& cron : options.crons) spec->add_crons(cron);
  for (const std::string& every : options.every) FLUX_RETURN_IF_ERROR(AddInterval(every, spec));
  if (options.time_zone) spec->set_time_zone(*options.time_zone);
  if (options.start_at) {
    FLUX_ASSIGN_OR_RETURN(const int64_t time, TimeOrNone("--start-at", *options.start_at, now));
    spec->set_start_time_ms(time);
  }
  if (options.end_at) {
    FLUX_ASSIGN_OR_RETURN(const int64_t time, TimeOrNone("--end-at", *options.end_at, now));
    spec->set_end_time_ms(time);
  }
  if (options.jitter) {
    FLUX_ASSIGN_OR_RETURN(const int64_t jitter, Milliseconds("--jitter", *options.jitter));
    spec->set_jitter_ms(jitter);
  }
  return absl::OkStatus();
}

absl::Status ApplyStart(const ScheduleOptions& options, v1::StartWorkflowRequest* start) {
  FLUX_ASSIGN_OR_RETURN(v1::StartWorkflowRequest given, BuildStart(options.start, ""));
  if (!given.workflow().empty()) {
    start->set_workflow(given.workflow());
    start->clear_definition_hash();
  }
  if (!given.version().empty()) start->set_version(given.version());
  if (!given.workflow_id().empty()) start->set_workflow_id(given.workflow_id());
  if (given.inputs_size() > 0 || options.start.args) {
    start->mutable_inputs()->Swap(given.mutable_inputs());
  }
  if (!given.labels().empty()) *start->mutable_labels() = given.labels();
  if (given.execution_timeout_ms() != 0) {
    start->set_execution_timeout_ms(given.execution_timeout_ms());
  }
  return absl::OkStatus();
}

// The server counts a backfill's times no further (BackfillScheduleResponse.times).
constexpr uint64_t kCountedMax = 100'000;

// What was done, and the times that follow from it.
void PrintNext(Context& context, const std::string& done, const std::string& id, bool paused,
               const google::protobuf::RepeatedField<int64_t>& next) {
  context.console.Note(done);
  if (paused) {
    context.console.Note(absl::StrCat("it is paused; 'fluxctl schedule resume ", id,
                                      "' lets it start what is to come"));
    return;
  }
  if (next.empty()) {
    context.console.Note("it has no times to come");
    return;
  }
  Table table = NextTimesTable(next, context.Now());
  context.Print(table);
}

absl::StatusOr<v1::GetScheduleResponse> Get(Context& context, const std::string& id) {
  v1::GetScheduleRequest request;
  request.set_namespace_(context.name_space);
  request.set_schedule_id(id);
  return context.connection.Call(context.connection.schedules(),
                                 &ScheduleService::Stub::GetSchedule, request);
}

}  // namespace

absl::Status ApplyOptions(const ScheduleOptions& options, absl::Time now, v1::Schedule* schedule) {
  FLUX_RETURN_IF_ERROR(ApplySpec(options, now, schedule->mutable_spec()));
  FLUX_RETURN_IF_ERROR(ApplyStart(options, schedule->mutable_start()));
  v1::SchedulePolicies& policies = *schedule->mutable_policies();
  if (options.overlap) policies.set_overlap(ParseOverlap(*options.overlap));
  if (options.catchup_window) {
    FLUX_ASSIGN_OR_RETURN(const int64_t window,
                          Milliseconds("--catchup-window", *options.catchup_window));
    policies.set_catchup_window_ms(window);
  }
  if (options.pause_on_failure) policies.set_pause_on_failure(*options.pause_on_failure);
  if (options.max_actions) policies.set_max_actions(*options.max_actions);
  return absl::OkStatus();
}

CommandResult CreateSchedule(Context& context, const ScheduleOptions& options) {
  v1::CreateScheduleRequest request;
  v1::Schedule& schedule = *request.mutable_schedule();
  schedule.set_namespace_(context.name_space);
  schedule.set_schedule_id(options.id);
  FLUX_RETURN_IF_ERROR(ApplyOptions(options, context.Now(), &schedule));
  if (options.start_at == "now" || options.end_at == "now") {
    FLUX_ASSIGN_OR_RETURN(const absl::Time now, context.AskNow());
    FLUX_RETURN_IF_ERROR(ApplySpec(options, now, schedule.mutable_spec()));
  }
  if (schedule.spec().crons().empty() && schedule.spec().intervals().empty()) {
    return WithHint(absl::InvalidArgumentError("the schedule has no times"),
                    "--cron '0 9 * * MON-FRI' or --every 6h says when");
  }
  request.set_paused(options.paused);
  request.set_note(options.note);
  request.set_identity(Identity());
  request.set_request_id(RandomId());
  absl::StatusOr<v1::CreateScheduleResponse> response = context.connection.Call(
      context.connection.schedules(), &ScheduleService::Stub::CreateSchedule, request);
  if (absl::IsAlreadyExists(response.status())) {
    return WithHint(response.status(),
                    absl::StrCat("'fluxctl schedule update ", options.id, "' changes it"));
  }
  if (absl::IsNotFound(response.status())) {
    return WithHint(response.status(), "'fluxctl definition list' shows what the server knows");
  }
  if (!response.ok()) return response.status();
  if (context.output != Output::kTable) {
    context.Print(ToJson(*response));
  } else {
    PrintNext(context, absl::StrCat("created ", options.id), options.id, options.paused,
              response->next_time_ms());
  }
  return kExitOk;
}

CommandResult UpdateSchedule(Context& context, const ScheduleOptions& options) {
  FLUX_ASSIGN_OR_RETURN(v1::GetScheduleResponse current, Get(context, options.id));
  v1::UpdateScheduleRequest request;
  request.mutable_schedule()->Swap(current.mutable_schedule());
  FLUX_RETURN_IF_ERROR(ApplyOptions(options, context.Now(), request.mutable_schedule()));
  request.set_revision(current.revision());
  request.set_identity(Identity());
  request.set_request_id(RandomId());
  FLUX_ASSIGN_OR_RETURN(const v1::UpdateScheduleResponse response,
                        context.connection.Call(context.connection.schedules(),
                                                &ScheduleService::Stub::UpdateSchedule, request));
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
  } else {
    PrintNext(context, absl::StrCat("updated ", options.id, ", revision ", response.revision()),
              options.id, current.state().paused(), response.next_time_ms());
  }
  return kExitOk;
}

CommandResult ListSchedules(Context& context, const ScheduleListOptions& options) {
  v1::ListSchedulesRequest request;
  request.set_namespace_(context.name_space);
  request.set_id_prefix(options.id_prefix);
  Listing listing(context, "schedules");
  uint64_t shown = 0;
  while (true) {
    const uint64_t left = options.limit == 0 ? kPageSize : options.limit - shown;
    request.set_page_size(static_cast<uint32_t>(std::min<uint64_t>(left, kPageSize)));
    FLUX_ASSIGN_OR_RETURN(const v1::ListSchedulesResponse page,
                          context.connection.Call(context.connection.schedules(),
                                                  &ScheduleService::Stub::ListSchedules, request));
    shown += static_cast<uint64_t>(page.schedules_size());
    if (context.output != Output::kTable) {
      for (const v1::ScheduleSummary& summary : page.schedules()) listing.Add(ToJson(summary));
    } else if (shown > 0) {
      listing.Add(SchedulesTable(page.schedules(), context.Now()));
    }
    request.set_page_token(page.next_page_token());
    if (page.next_page_token().empty()) break;
    if (options.limit != 0 && shown >= options.limit) {
      context.console.Note(
          absl::StrCat("there are more than these ", shown, "; --limit 0 shows all"));
      break;
    }
  }
  listing.Finish();
  if (shown == 0 && context.output == Output::kTable) context.console.Note("no schedules");
  return kExitOk;
}

CommandResult ShowSchedule(Context& context, const std::string& id) {
  FLUX_ASSIGN_OR_RETURN(const v1::GetScheduleResponse response, Get(context, id));
  if (context.output != Output::kTable) {
    context.Print(ScheduleJson(response));
    return kExitOk;
  }
  const absl::Time now = context.Now();
  context.Print(ScheduleBlock(response, now));
  if (!response.next_time_ms().empty()) {
    context.console.Out("\n");
    Table table = NextTimesTable(response.next_time_ms(), now);
    context.Print(table);
  }
  if (!response.state().recent().empty()) {
    context.console.Out("\n");
    Table table = ScheduleActionsTable(response.state(), now);
    context.Print(table);
  }
  return kExitOk;
}

CommandResult DeleteSchedule(Context& context, const std::string& id) {
  v1::DeleteScheduleRequest request;
  request.set_namespace_(context.name_space);
  request.set_schedule_id(id);
  request.set_identity(Identity());
  FLUX_ASSIGN_OR_RETURN(
      const v1::DeleteScheduleResponse response,
      context.connection.CallOnce(context.connection.schedules(),
                                  &ScheduleService::Stub::DeleteSchedule, request));
  if (context.output != Output::kTable) context.Print(ToJson(response));
  context.console.Note(absl::StrCat("deleted ", id, "; what it has started goes on"));
  return kExitOk;
}

CommandResult PauseSchedule(Context& context, const SchedulePauseOptions& options) {
  v1::PauseScheduleRequest request;
  request.set_namespace_(context.name_space);
  request.set_schedule_id(options.id);
  request.set_note(options.note);
  request.set_identity(Identity());
  FLUX_ASSIGN_OR_RETURN(const v1::PauseScheduleResponse response,
                        context.connection.Call(context.connection.schedules(),
                                                &ScheduleService::Stub::PauseSchedule, request));
  if (context.output != Output::kTable) context.Print(ToJson(response));
  context.console.Note(absl::StrCat("paused ", options.id));
  return kExitOk;
}

CommandResult ResumeSchedule(Context& context, const SchedulePauseOptions& options) {
  v1::ResumeScheduleRequest request;
  request.set_namespace_(context.name_space);
  request.set_schedule_id(options.id);
  request.set_note(options.note);
  request.set_identity(Identity());
  FLUX_ASSIGN_OR_RETURN(const v1::ResumeScheduleResponse response,
                        context.connection.Call(context.connection.schedules(),
                                                &ScheduleService::Stub::ResumeSchedule, request));
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
  } else {
    PrintNext(context, absl::StrCat("resumed ", options.id), options.id, /*paused=*/false,
              response.next_time_ms());
  }
  return kExitOk;
}

CommandResult TriggerSchedule(Context& context, const ScheduleTriggerOptions& options) {
  v1::TriggerScheduleRequest request;
  request.set_namespace_(context.name_space);
  request.set_schedule_id(options.id);
  request.set_overlap(ParseOverlap(options.overlap));
  request.set_identity(Identity());
  request.set_request_id(RandomId());
  FLUX_ASSIGN_OR_RETURN(const v1::TriggerScheduleResponse response,
                        context.connection.Call(context.connection.schedules(),
                                                &ScheduleService::Stub::TriggerSchedule, request));
  const std::string outcome = EnumName(*v1::TriggerOutcome_descriptor(), response.outcome());
  if (context.output != Output::kTable) {
    context.Print(ToJson(response));
  } else {
    Table table;
    table.columns = {{.header = "WORKFLOW ID"},
                     {.header = "RUN ID"},
                     {.header = "OUTCOME"},
                     {.header = "DETAIL", .shrink = true}};
    table.rows.push_back({Cell(response.workflow_id(), Style::kBold), Cell(response.run_id()),
                          Cell(outcome), Cell(response.detail())});
    context.Print(table);
  }
  switch (response.outcome()) {
    case v1::TRIGGER_OUTCOME_SKIPPED:
      return WithHint(absl::FailedPreconditionError(
                          absl::StrCat(options.id, " was not started: ", response.detail())),
                      "--overlap allow-all starts it beside that run, buffer-all after it");
    case v1::TRIGGER_OUTCOME_FAILED:
      return absl::FailedPreconditionError(
          absl::StrCat(options.id, " could not be started: ", response.detail()));
    default:
      return kExitOk;
  }
}

CommandResult BackfillSchedule(Context& context, const ScheduleBackfillOptions& options) {
  v1::BackfillScheduleRequest request;
  request.set_namespace_(context.name_space);
  request.set_schedule_id(options.id);
  FLUX_ASSIGN_OR_RETURN(const absl::Time from, context.TimeOf("--from", [&](absl::Time now) {
    return ParseWhen(options.from, now);
  }));
  FLUX_ASSIGN_OR_RETURN(const absl::Time to, context.TimeOf("--to", [&](absl::Time now) {
    return ParseUntil(options.to, now);
  }));
  request.set_from_time_ms(absl::ToUnixMillis(from));
  request.set_to_time_ms(absl::ToUnixMillis(to));
  request.set_overlap(ParseOverlap(options.overlap));
  request.set_identity(Identity());
  request.set_request_id(RandomId());
  FLUX_ASSIGN_OR_RETURN(const v1::BackfillScheduleResponse response,
                        context.connection.Call(context.connection.schedules(),
                                                &ScheduleService::Stub::BackfillSchedule, request));
  if (context.output != Output::kTable) context.Print(ToJson(response));
  context.console.Note(absl::StrCat("backfill ", response.backfill(), " of ", options.id, ": ",
                                    response.times(),
                                    response.times() == 1             ? " time"
                                    : response.times() >= kCountedMax ? " times or more"
                                                                      : " times",
                                    "; 'fluxctl schedule show ", options.id, "' follows it"));
  return kExitOk;
}

}  // namespace flux::ctl
