#include "client/fluxctl/schedule_view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/fluxctl/view.h"

namespace flux::ctl {
namespace {

std::string Milliseconds(int64_t ms) { return DurationText(absl::Milliseconds(ms)); }

std::string Ago(int64_t time_ms, absl::Time now) {
  return time_ms == 0 ? std::string()
                      : absl::StrCat(AgeText(time_ms, now), " ago (", TimeText(time_ms), ")");
}

std::string By(const std::string& identity) {
  return identity.empty() ? "" : absl::StrCat(" by ", identity);
}

Cell StateCell(const v1::ScheduleState& state, bool has_next, absl::Time now) {
  if (state.paused()) {
    return Cell(absl::StrCat("paused", By(state.identity()), " ", Ago(state.paused_time_ms(), now),
                             state.note().empty() ? "" : ": ", state.note()),
                Style::kWait);
  }
  if (!has_next) return Cell("no times left", Style::kDim);
  return Cell(absl::StrCat("active", state.note().empty() ? "" : ": ", state.note()), Style::kGood);
}

// How the start ended, or that there was none.
Cell StatusCell(const v1::ScheduleAction& action) {
  if (action.run_id().empty()) return Cell("refused", Style::kBad);
  if (action.status() == v1::EXECUTION_STATUS_UNSPECIFIED) return Cell("gone", Style::kDim);
  return Cell(StatusName(action.status()), StatusStyle(action.status()));
}

std::string Bounds(const v1::ScheduleSpec& spec) {
  std::string out;
  if (spec.start_time_ms() != 0) absl::StrAppend(&out, "from ", TimeText(spec.start_time_ms()));
  if (spec.end_time_ms() != 0) {
    absl::StrAppend(&out, out.empty() ? "" : " ", "to ", TimeText(spec.end_time_ms()));
  }
  return out;
}

std::string CountsText(const v1::ScheduleState& state) {
  const v1::ScheduleCounts& counts = state.counts();
  std::string out = absl::StrCat(counts.started(), " started");
  if (counts.skipped() > 0) absl::StrAppend(&out, ", ", counts.skipped(), " skipped (overlap)");
  if (counts.missed() > 0) absl::StrAppend(&out, ", ", counts.missed(), " missed (too late)");
  if (counts.failed() > 0) absl::StrAppend(&out, ", ", counts.failed(), " refused");
  return out;
}

std::string WaitingText(const v1::ScheduleState& state) {
  if (state.waiting_size() == 0) return "";
  const v1::ScheduleStart& first = state.waiting(0);
  return absl::StrCat(state.waiting_size(), ", first ", first.workflow_id(),
                      first.last_error().empty() ? "" : ": ", first.last_error());
}

std::string BackfillsText(const v1::ScheduleState& state) {
  std::string out;
  for (const v1::ScheduleBackfill& backfill : state.backfills()) {
    absl::StrAppend(&out, out.empty() ? "" : "; ", "number ", backfill.number(), " to ",
                    TimeText(backfill.to_time_ms()), ", so far ",
                    TimeText(backfill.last_time_ms()));
  }
  return out;
}

}  // namespace

std::string OverlapName(v1::ScheduleOverlap overlap) {
  std::string name = overlap == v1::SCHEDULE_OVERLAP_UNSPECIFIED
                         ? std::string("skip")
                         : EnumName(*v1::ScheduleOverlap_descriptor(), overlap);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string ScheduleTimesText(const v1::ScheduleSpec& spec) {
  std::string out;
  for (const std::string& cron : spec.crons()) {
    absl::StrAppend(&out, out.empty() ? "" : ", ", cron);
  }
  for (const v1::ScheduleInterval& interval : spec.intervals()) {
    absl::StrAppend(&out, out.empty() ? "" : ", ", "every ", Milliseconds(interval.every_ms()));
    if (interval.offset_ms() != 0) {
      absl::StrAppend(&out, " (+", Milliseconds(interval.offset_ms()), ")");
    }
  }
  return out;
}

std::string UntilText(int64_t time_ms, absl::Time now) {
  if (time_ms == 0) return "";
  if (absl::FromUnixMillis(time_ms) <= now) return "now";
  return absl::StrCat("in ", AgeText(time_ms, now));
}

Table SchedulesTable(const google::protobuf::RepeatedPtrField<v1::ScheduleSummary>& schedules,
                     absl::Time now) {
  Table table;
  table.columns = {{.header = "SCHEDULE"},
                   {.header = "WORKFLOW"},
                   {.header = "TIMES", .shrink = true},
                   {.header = "STATE"},
                   {.header = "NEXT"},
                   {.header = "LAST", .right = true},
                   {.header = "LAST STATUS"},
                   {.header = "RUNNING", .right = true},
                   {.header = "WAITING", .right = true},
                   {.header = "STARTED", .right = true},
                   {.header = "SKIPPED", .right = true},
                   {.header = "NOTE", .shrink = true}};
  for (const v1::ScheduleSummary& s : schedules) {
    const bool ended = !s.paused() && s.next_time_ms() == 0;
    table.rows.push_back(
        {Cell(s.schedule_id(), Style::kBold), Cell(s.workflow()), Cell(ScheduleTimesText(s.spec())),
         s.paused() ? Cell("paused", Style::kWait)
         : ended    ? Cell("ended", Style::kDim)
                    : Cell("active", Style::kGood),
         Cell(UntilText(s.next_time_ms(), now)),
         Cell(s.has_last() ? AgeText(s.last().start_time_ms(), now) : ""),
         s.has_last() ? StatusCell(s.last()) : Cell(""), Cell(absl::StrCat(s.running())),
         Cell(absl::StrCat(s.waiting())), Cell(absl::StrCat(s.counts().started())),
         Cell(absl::StrCat(s.counts().skipped())), Cell(s.note())});
  }
  return table;
}

Block ScheduleBlock(const v1::GetScheduleResponse& response, absl::Time now) {
  const v1::Schedule& schedule = response.schedule();
  const v1::ScheduleState& state = response.state();
  const v1::ScheduleSpec& spec = schedule.spec();
  const v1::SchedulePolicies& policies = schedule.policies();
  const std::string& prefix = schedule.start().workflow_id();
  const std::string zone = spec.time_zone().empty() ? "UTC" : spec.time_zone();
  const int64_t next = response.next_time_ms_size() == 0 ? 0 : response.next_time_ms(0);
  return {
      {"Schedule", Cell(schedule.schedule_id(), Style::kBold)},
      {"Starts",
       Cell(absl::StrCat(schedule.start().workflow(), schedule.start().version().empty() ? "" : " ",
                         schedule.start().version(), " as ",
                         prefix.empty() ? schedule.schedule_id() : prefix, "-TIME"))},
      {"Times", Cell(ScheduleTimesText(spec))},
      {"Time zone", Cell(spec.crons().empty() ? "" : zone)},
      {"Bounds", Cell(Bounds(spec))},
      {"Jitter", Cell(spec.jitter_ms() == 0 ? "" : Milliseconds(spec.jitter_ms()))},
      {"Overlap", Cell(OverlapName(policies.overlap()))},
      {"Catch-up",
       Cell(policies.catchup_window_ms() == 0 ? "" : Milliseconds(policies.catchup_window_ms()))},
      {"On failure", Cell(policies.pause_on_failure() ? "pauses" : "")},
      {"Starts left", Cell(policies.max_actions() == 0 ? ""
                                                       : absl::StrCat(state.actions_left(), " of ",
                                                                      policies.max_actions()))},
      {"State", StateCell(state, next != 0, now)},
      {"Next",
       Cell(next == 0 ? "" : absl::StrCat(UntilText(next, now), " (", TimeText(next), ")"))},
      {"So far", Cell(CountsText(state))},
      {"Running", Cell(state.running_size() == 0 ? "" : absl::StrCat(state.running_size()))},
      {"Waiting", Cell(WaitingText(state))},
      {"Backfills", Cell(BackfillsText(state))},
      {"Created", Cell(Ago(response.create_time_ms(), now))},
      {"Changed", Cell(absl::StrCat(Ago(response.update_time_ms(), now), By(response.identity()),
                                    ", revision ", response.revision()))},
  };
}

Json ScheduleJson(const v1::GetScheduleResponse& response) {
  v1::GetScheduleResponse effective = response;
  v1::SchedulePolicies& policies = *effective.mutable_schedule()->mutable_policies();
  if (policies.overlap() == v1::SCHEDULE_OVERLAP_UNSPECIFIED) {
    policies.set_overlap(v1::SCHEDULE_OVERLAP_SKIP);
  }
  return ToJson(effective);
}

Table ScheduleActionsTable(const v1::ScheduleState& state, absl::Time now) {
  Table table;
  table.columns = {{.header = "TIME"},   {.header = "STARTED", .right = true},
                   {.header = "CAUSE"},  {.header = "WORKFLOW ID"},
                   {.header = "STATUS"}, {.header = "DETAIL", .shrink = true}};
  for (const v1::ScheduleAction& action : state.recent()) {
    table.rows.push_back({Cell(TimeText(action.nominal_time_ms())),
                          Cell(AgeText(action.start_time_ms(), now)),
                          Cell(EnumName(*v1::ScheduleCause_descriptor(), action.cause())),
                          Cell(action.workflow_id(), Style::kBold), StatusCell(action),
                          Cell(action.error().empty() ? action.run_id() : action.error())});
  }
  return table;
}

Table NextTimesTable(const google::protobuf::RepeatedField<int64_t>& times_ms, absl::Time now) {
  Table table;
  table.columns = {{.header = "NEXT TIMES"}, {.header = "IN", .right = true}};
  for (const int64_t time : times_ms) {
    table.rows.push_back({Cell(TimeText(time)), Cell(AgeText(time, now))});
  }
  return table;
}

}  // namespace flux::ctl
