// What `fluxctl schedule` shows, and what its options ask for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "client/fluxctl/app.h"
#include "client/fluxctl/schedule_commands.h"
#include "client/fluxctl/schedule_view.h"
#include "proto/bridge.h"
#include "tests/schedule/times.h"

namespace flux::ctl {
namespace {

using engine::testing::At;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kNow = absl::FromUnixSeconds(1'735'700'000);  // 2025-01-01T02:53:20Z

v1::GetScheduleResponse Shown() {
  v1::GetScheduleResponse response;
  v1::Schedule& schedule = *response.mutable_schedule();
  schedule.set_schedule_id("nightly");
  schedule.mutable_start()->set_workflow("report");
  schedule.mutable_start()->set_version("2");
  schedule.mutable_spec()->add_crons("30 2 * * *");
  schedule.mutable_spec()->set_time_zone("Europe/Berlin");
  schedule.mutable_spec()->set_jitter_ms(30'000);
  schedule.mutable_policies()->set_max_actions(9);
  response.add_next_time_ms(At("2025-01-02T01:30:00Z"));
  response.set_revision(3);
  response.set_identity("me");
  response.set_update_time_ms(At("2025-01-01T00:00:00Z"));
  v1::ScheduleState& state = *response.mutable_state();
  state.set_actions_left(7);
  state.mutable_counts()->set_started(2);
  state.mutable_counts()->set_skipped(1);
  v1::ScheduleAction& action = *state.add_recent();
  action.set_nominal_time_ms(At("2025-01-01T01:30:00Z"));
  action.set_start_time_ms(At("2025-01-01T01:30:20Z"));
  action.set_cause(v1::SCHEDULE_CAUSE_TIME);
  action.set_workflow_id("nightly-2025-01-01T01:30:00Z");
  action.set_run_id("0123");
  action.set_status(v1::EXECUTION_STATUS_FAILED);
  v1::ScheduleAction& refused = *state.add_recent();
  refused.set_nominal_time_ms(At("2024-12-31T01:30:00Z"));
  refused.set_cause(v1::SCHEDULE_CAUSE_BACKFILL);
  refused.set_workflow_id("nightly-2024-12-31T01:30:00Z");
  refused.set_error("takes 2 input(s)\x1b[31m");
  return response;
}

std::string Text(const v1::GetScheduleResponse& response) {
  return Render(Theme{}, ScheduleBlock(response, kNow));
}

TEST(ScheduleView, ShowsAScheduleForPeople) {
  const std::string text = Text(Shown());
  EXPECT_THAT(text, AllOf(HasSubstr("report 2 as nightly-TIME"), HasSubstr("30 2 * * *"),
                          HasSubstr("Europe/Berlin"), HasSubstr("30s"), HasSubstr("skip"),
                          HasSubstr("7 of 9"), HasSubstr("active")));
  EXPECT_THAT(text, AllOf(HasSubstr("in 22h"), HasSubstr("2 started, 1 skipped (overlap)"),
                          HasSubstr("by me, revision 3"), Not(HasSubstr("Waiting"))));
}

TEST(ScheduleView, SaysWhyNothingComes) {
  v1::GetScheduleResponse response = Shown();
  response.clear_next_time_ms();
  EXPECT_THAT(Text(response), HasSubstr("no times left"));
  response.mutable_state()->set_paused(true);
  response.mutable_state()->set_note("the printer burns");
  response.mutable_state()->set_identity("ops");
  response.mutable_state()->set_paused_time_ms(At("2025-01-01T02:00:00Z"));
  EXPECT_THAT(Text(response),
              AllOf(HasSubstr("paused by ops 53m20s ago"), HasSubstr(": the printer burns")));
  v1::ScheduleStart& waiting = *response.mutable_state()->add_waiting();
  waiting.set_workflow_id("nightly-x");
  waiting.set_last_error("the disk is nearly full");
  EXPECT_THAT(Text(response), HasSubstr("1, first nightly-x: the disk is nearly full"));
}

TEST(ScheduleView, ShowsTheLastStarts) {
  const v1::GetScheduleResponse response = Shown();
  Table table = ScheduleActionsTable(response.state(), kNow);
  const std::string text = Render(Theme{}, table);
  EXPECT_THAT(text, AllOf(HasSubstr("nightly-2025-01-01T01:30:00Z"), HasSubstr("failed"),
                          HasSubstr("0123"), HasSubstr("time"), HasSubstr("backfill")));
  EXPECT_THAT(text, AllOf(HasSubstr("refused"), HasSubstr("takes 2 input(s)\\x1b[31m")));
}

TEST(ScheduleView, ListsOneALine) {
  google::protobuf::RepeatedPtrField<v1::ScheduleSummary> schedules;
  v1::ScheduleSummary& active = *schedules.Add();
  active.set_schedule_id("a");
  active.mutable_spec()->add_intervals()->set_every_ms(300'000);
  active.set_next_time_ms(At("2025-01-01T02:55:00Z"));
  v1::ScheduleSummary& paused = *schedules.Add();
  paused.set_schedule_id("b");
  paused.set_paused(true);
  paused.set_note("why");
  schedules.Add()->set_schedule_id("c");
  Table table = SchedulesTable(schedules, kNow);
  const std::string text = Render(Theme{}, table);
  EXPECT_THAT(text, AllOf(HasSubstr("every 5m00s"), HasSubstr("in 1m40s"), HasSubstr("active"),
                          HasSubstr("paused"), HasSubstr("why"), HasSubstr("ended")));
}

TEST(ScheduleView, WritesTimesInOneLine) {
  v1::ScheduleSpec spec;
  spec.add_crons("@daily");
  v1::ScheduleInterval& interval = *spec.add_intervals();
  interval.set_every_ms(21'600'000);
  interval.set_offset_ms(3'600'000);
  EXPECT_EQ(ScheduleTimesText(spec), "@daily, every 6h00m (+1h00m)");
  EXPECT_EQ(UntilText(0, kNow), "");
  EXPECT_EQ(UntilText(absl::ToUnixMillis(kNow) - 5, kNow), "now");
  EXPECT_EQ(OverlapName(v1::SCHEDULE_OVERLAP_UNSPECIFIED), "skip");
  EXPECT_EQ(OverlapName(v1::SCHEDULE_OVERLAP_TERMINATE_OTHER), "terminate-other");
}

TEST(ScheduleView, ItsDocumentHasThePolicyThatHolds) {
  EXPECT_EQ(ScheduleJson(Shown())["schedule"]["policies"]["overlap"], "skip");
  EXPECT_EQ(ScheduleJson(Shown())["schedule"]["policies"]["max_actions"], 9);
  v1::GetScheduleResponse bare;
  EXPECT_EQ(ScheduleJson(bare)["schedule"]["policies"]["overlap"], "skip");
  v1::GetScheduleResponse chosen = Shown();
  chosen.mutable_schedule()->mutable_policies()->set_overlap(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  EXPECT_EQ(ScheduleJson(chosen)["schedule"]["policies"]["overlap"], "allow_all");
}

TEST(ScheduleOptions, ChangeOnlyWhatTheyName) {
  v1::Schedule schedule = Shown().schedule();
  const v1::Schedule before = schedule;
  ASSERT_TRUE(ApplyOptions({}, kNow, &schedule).ok());
  EXPECT_EQ(schedule.SerializeAsString(), before.SerializeAsString());
  ScheduleOptions options;
  options.every = {"6h+30m", "90s"};
  options.start_at = "2025-06-01";
  options.jitter = "0";
  options.overlap = "cancel-other";
  options.max_actions = 0;
  options.start.workflow = "other";
  ASSERT_TRUE(ApplyOptions(options, kNow, &schedule).ok());
  EXPECT_EQ(schedule.spec().crons_size(), 0);
  ASSERT_EQ(schedule.spec().intervals_size(), 2);
  EXPECT_EQ(schedule.spec().intervals(0).offset_ms(), 1'800'000);
  EXPECT_EQ(schedule.spec().start_time_ms(), At("2025-06-01T00:00:00Z"));
  EXPECT_EQ(schedule.spec().jitter_ms(), 0);
  EXPECT_EQ(schedule.spec().time_zone(), "Europe/Berlin");
  EXPECT_EQ(schedule.policies().overlap(), v1::SCHEDULE_OVERLAP_CANCEL_OTHER);
  EXPECT_EQ(schedule.policies().max_actions(), 0u);
  EXPECT_EQ(schedule.start().workflow(), "other");
  EXPECT_EQ(schedule.start().request_id(), "") << "the schedule's to set";
  EXPECT_EQ(schedule.start().identity(), "");
}

TEST(ScheduleOptions, NameWhatIsWrong) {
  v1::Schedule schedule;
  ScheduleOptions options;
  options.every = {"6h+x"};
  EXPECT_THAT(std::string(Message(ApplyOptions(options, kNow, &schedule))), HasSubstr("--every"));
  options.every = {};
  options.end_at = "whenever";
  EXPECT_THAT(std::string(Message(ApplyOptions(options, kNow, &schedule))), HasSubstr("--end-at"));
  options.end_at = "2h";
  EXPECT_THAT(std::string(Message(ApplyOptions(options, kNow, &schedule))),
              AllOf(HasSubstr("--end-at: \"2h\" is a duration"), HasSubstr("RFC 3339")))
      << "it would be two hours ago";
  options.end_at = {};
  options.catchup_window = "long";
  EXPECT_THAT(std::string(Message(ApplyOptions(options, kNow, &schedule))),
              HasSubstr("--catchup-window"));
}

TEST(ScheduleCommands, AreCompletedByTheShells) {
  const CommandTree tree;
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = CompletionScript(tree, shell);
    EXPECT_THAT(script, AllOf(HasSubstr("schedule"), HasSubstr("backfill"),
                              HasSubstr("terminate-other"), HasSubstr("time-zone")))
        << shell;
  }
}

}  // namespace
}  // namespace flux::ctl
