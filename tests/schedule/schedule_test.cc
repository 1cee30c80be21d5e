// One schedule by itself: what it takes up, what it decides, what it wants done.
#include "engine/schedule/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/bridge.h"
#include "tests/schedule/bench.h"
#include "tests/schedule/times.h"

namespace flux::engine::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// ---- starting
// ------------------------------------------------------------------------------------------------------

TEST(Schedule, StartsEachTimeUnderItsOwnIds) {
  v1::Schedule definition = Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  definition.mutable_start()->set_workflow_id("nightly");
  (*definition.mutable_start()->mutable_labels())["team"] = "billing";
  Bench bench(definition);
  bench.To("2025-01-01T02:30:00Z");
  EXPECT_THAT(bench.engine.order,
              ElementsAre("nightly-2025-01-01T01:00:00Z", "nightly-2025-01-01T02:00:00Z"));
  EXPECT_TRUE(
      bench.engine.by_request.contains(absl::StrCat("schedule:s:", At("2025-01-01T01:00:00Z"))));
  const v1::ScheduleState state = bench.state();
  EXPECT_EQ(state.counts().started(), 2u);
  EXPECT_EQ(state.last_time_ms(), At("2025-01-01T02:00:00Z"));
  ASSERT_EQ(state.recent_size(), 2);
  EXPECT_EQ(state.recent(0).workflow_id(), "nightly-2025-01-01T02:00:00Z") << "the newest first";
  EXPECT_EQ(state.recent(0).run_id(), "run2");
  EXPECT_EQ(state.running_size(), 2);
  EXPECT_EQ(state.waiting_size(), 0);

  v1::ScheduleStart start;
  start.set_nominal_time_ms(At("2025-01-01T01:00:00Z"));
  start.set_cause(v1::SCHEDULE_CAUSE_TIME);
  start.set_workflow_id("x");
  const v1::StartWorkflowRequest request = ScheduledStart(definition, start);
  EXPECT_EQ(request.workflow(), "report");
  EXPECT_EQ(request.namespace_(), "default");
  EXPECT_EQ(request.identity(), "schedule:s");
  EXPECT_EQ(request.labels().at("team"), "billing");
  EXPECT_EQ(request.labels().at("flux.schedule"), "s");
  EXPECT_EQ(request.labels().at("flux.schedule_time"), "2025-01-01T01:00:00Z");
  EXPECT_EQ(request.conflict_policy(), v1::CONFLICT_POLICY_REJECT);
  EXPECT_EQ(request.reuse_policy(), v1::REUSE_POLICY_REJECT);
}

TEST(Schedule, StartsLaterByItsJitterUnderTheNominalTime) {
  v1::Schedule definition = Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  definition.mutable_spec()->set_jitter_ms(30 * kMinute);
  Bench bench(definition);
  const int64_t nominal = At("2025-01-01T01:00:00Z");
  const int64_t fire = Spec::Compile(definition.spec(), 7)->FireTime(nominal);
  ASSERT_GT(fire, nominal);
  bench.ToMs(fire - 1);
  EXPECT_THAT(bench.engine.order, IsEmpty());
  bench.ToMs(fire);
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01")));
}

TEST(Schedule, ShowsItsNextTimes) {
  Bench bench(Hourly());
  EXPECT_THAT(bench.schedule().NextTimes(bench.now(), 2),
              ElementsAre(At("2025-01-01T01:00:00Z"), At("2025-01-01T02:00:00Z")));
  bench.schedule().Pause("", "me", bench.now());
  EXPECT_THAT(bench.schedule().NextTimes(bench.now(), 2), IsEmpty());
}

// ---- overlap
// ------------------------------------------------------------------------------------------------------

TEST(ScheduleOverlap, SkipLeavesOutTimesWhileARunIsOpen) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_UNSPECIFIED));
  bench.To("2025-01-01T03:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01")));
  EXPECT_EQ(bench.state().counts().skipped(), 2u);
  bench.Close(Id("01"));
  EXPECT_EQ(bench.state().recent(0).status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(bench.state().running_size(), 0);
  bench.To("2025-01-01T04:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("04")));
}

TEST(ScheduleOverlap, IsDecidedByWhatIsOpenNowAndNotByWhatWas) {
  Bench bench(Hourly());
  bench.To("2025-01-01T01:00:00Z");
  bench.CloseUnseen(Id("01"));
  bench.questions = 0;
  bench.To("2025-01-01T02:00:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02")));
  EXPECT_GE(bench.questions, 1);
  EXPECT_EQ(bench.state().counts().skipped(), 0u);
}

TEST(ScheduleOverlap, BufferOneKeepsTheFirstThatCame) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_BUFFER_ONE));
  bench.To("2025-01-01T04:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01")));
  ASSERT_EQ(bench.state().waiting_size(), 1);
  EXPECT_EQ(bench.state().waiting(0).workflow_id(), Id("02"));
  EXPECT_EQ(bench.state().counts().skipped(), 2u);
  bench.Close(Id("01"));
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02")));
  EXPECT_EQ(bench.state().waiting_size(), 0);
}

TEST(ScheduleOverlap, BufferAllRunsOneAfterTheOther) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_BUFFER_ALL));
  bench.To("2025-01-01T04:30:00Z");
  EXPECT_EQ(bench.state().waiting_size(), 3);
  bench.Close(Id("01"));
  bench.Close(Id("02"));
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02"), Id("03")));
  EXPECT_EQ(bench.state().counts().skipped(), 0u);
  EXPECT_EQ(bench.state().running_size(), 1);
}

TEST(ScheduleOverlap, CancelOtherCancelsOnceAndStartsTheNewestAfterwards) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_CANCEL_OTHER));
  bench.To("2025-01-01T03:30:00Z");
  EXPECT_THAT(bench.engine.stops, ElementsAre("cancel " + Id("01")));
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"))) << "it has not closed yet";
  EXPECT_EQ(bench.state().waiting_size(), 1);
  EXPECT_EQ(bench.state().counts().skipped(), 1u) << "03 replaces 02, which waited";
  bench.Close(Id("01"), v1::EXECUTION_STATUS_CANCELLED);
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("03")));
}

TEST(ScheduleOverlap, TerminateOtherTerminates) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_TERMINATE_OTHER));
  bench.To("2025-01-01T02:30:00Z");
  EXPECT_THAT(bench.engine.stops, ElementsAre("terminate " + Id("01")));
  bench.Close(Id("01"), v1::EXECUTION_STATUS_TERMINATED);
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02")));
}

TEST(ScheduleOverlap, AllowAllStartsBesideWhatRuns) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL));
  bench.To("2025-01-01T03:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02"), Id("03")));
  EXPECT_EQ(bench.state().running_size(), 3);
}

TEST(ScheduleOverlap, FollowsTheNewestRunsUpToItsLimit) {
  v1::Schedule definition = Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  definition.mutable_spec()->clear_crons();
  definition.mutable_spec()->add_intervals()->set_every_ms(kMinute);
  Bench bench(definition);
  bench.ToMs(bench.now() + (kScheduleRunsMax + 5) * kMinute);
  EXPECT_EQ(bench.engine.order.size(), kScheduleRunsMax + 5);
  const v1::ScheduleState state = bench.state();
  ASSERT_EQ(static_cast<size_t>(state.running_size()), kScheduleRunsMax);
  EXPECT_EQ(state.running(0).workflow_id(), bench.engine.order[5]);
  EXPECT_EQ(state.recent_size(), kScheduleRecentMax);
}

// ---- catching up
// ------------------------------------------------------------------------------------------------------

TEST(ScheduleCatchup, MakesUpForADowntimeByItsOverlapPolicy) {
  struct Case {
    v1::ScheduleOverlap overlap;
    std::vector<std::string> started;
    uint64_t skipped;
  };
  for (const Case& c :
       std::vector<Case>{{v1::SCHEDULE_OVERLAP_SKIP, {Id("01")}, 2},
                         {v1::SCHEDULE_OVERLAP_BUFFER_ONE, {Id("01"), Id("02")}, 1},
                         {v1::SCHEDULE_OVERLAP_BUFFER_ALL, {Id("01"), Id("02"), Id("03")}, 0},
                         {v1::SCHEDULE_OVERLAP_CANCEL_OTHER, {Id("01"), Id("03")}, 1},
                         {v1::SCHEDULE_OVERLAP_ALLOW_ALL, {Id("01"), Id("02"), Id("03")}, 0}}) {
    Bench bench(Hourly(c.overlap));
    bench.Run();
    bench.Jump("2025-01-01T03:30:00Z");
    bench.Restart();
    bench.Run();
    bench.CloseAll();
    bench.CloseAll();
    bench.CloseAll();
    EXPECT_EQ(bench.engine.order, c.started) << v1::ScheduleOverlap_Name(c.overlap);
    EXPECT_EQ(bench.state().counts().skipped(), c.skipped) << v1::ScheduleOverlap_Name(c.overlap);
    EXPECT_EQ(bench.state().last_time_ms(), At("2025-01-01T03:00:00Z"));
  }
}

TEST(ScheduleCatchup, LeavesOutWhatIsOlderThanItsWindowAndSaysHowMany) {
  v1::Schedule definition = Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  definition.mutable_policies()->set_catchup_window_ms(2 * kHour);
  Bench bench(definition);
  bench.Jump("2025-01-01T05:00:00Z");
  bench.Run();
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("03"), Id("04"), Id("05"))) << "03 is just inside";
  EXPECT_EQ(bench.state().counts().missed(), 2u);
}

TEST(ScheduleCatchup, OfAYearsDowntimeDoesNotTakeUpEachTime) {
  v1::Schedule definition = Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  definition.mutable_spec()->clear_crons();
  definition.mutable_spec()->add_intervals()->set_every_ms(kSecond);
  definition.mutable_spec()->set_jitter_ms(kHour);
  definition.mutable_policies()->set_catchup_window_ms(kScheduleCatchupMinMs);
  Bench bench(definition);
  bench.Jump("2026-01-01T00:00:00Z");
  bench.Run();
  EXPECT_GE(bench.state().counts().missed(), kScheduleCountMax) << "counted up to a limit";
  EXPECT_LE(bench.state().counts().missed(), kScheduleCountMax + 3'600);
  EXPECT_GE(bench.engine.order.size(), 9u);
  EXPECT_LE(bench.engine.order.size(), 11u);
}

TEST(ScheduleCatchup, KeepsWhatDoesNotFitUntilThereIsRoom) {
  v1::Schedule definition = Hourly(v1::SCHEDULE_OVERLAP_BUFFER_ALL);
  definition.mutable_spec()->clear_crons();
  definition.mutable_spec()->add_intervals()->set_every_ms(kMinute);
  Bench bench(definition);
  bench.Jump("2025-01-01T03:00:30Z");
  bench.Run();
  EXPECT_EQ(static_cast<size_t>(bench.state().waiting_size()), kScheduleWaitingMax);
  for (int i = 0; i < 200; ++i) bench.CloseAll();
  EXPECT_EQ(bench.engine.order.size(), 180u);
  EXPECT_TRUE(std::is_sorted(bench.engine.order.begin(), bench.engine.order.end()));
  EXPECT_EQ(bench.state().waiting_size(), 0);
}

// ---- pausing and limits
// ------------------------------------------------------------------------------------------------------

TEST(SchedulePause, WithholdsTimesForGood) {
  Bench bench(Hourly());
  bench.schedule().Pause("holidays", "me", bench.now());
  bench.To("2025-01-01T05:30:00Z");
  EXPECT_THAT(bench.engine.order, IsEmpty());
  EXPECT_EQ(bench.state().note(), "holidays");
  EXPECT_EQ(bench.state().identity(), "me");
  bench.schedule().Resume("back", "you", bench.now());
  bench.To("2025-01-01T06:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("06")));
  EXPECT_EQ(bench.state().counts().missed(), 0u);
  EXPECT_EQ(bench.state().note(), "back");
}

TEST(SchedulePause, HoldsWhatWaitsAndLetsTriggersThrough) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_BUFFER_ALL));
  bench.To("2025-01-01T02:30:00Z");
  bench.schedule().Pause("", "me", bench.now());
  bench.Close(Id("01"));
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"))) << "02 is held";
  ASSERT_TRUE(
      bench.schedule().Trigger(v1::SCHEDULE_OVERLAP_UNSPECIFIED, "me", "", bench.now()).ok());
  bench.Run();
  ASSERT_EQ(bench.engine.order.size(), 2u);
  EXPECT_EQ(bench.engine.order[1], "s-2025-01-01T02:30:00Z-trigger");
  bench.schedule().Resume("", "me", bench.now());
  bench.Run();
  EXPECT_EQ(bench.engine.order.size(), 2u) << "the trigger's run is open";
  bench.Close("s-2025-01-01T02:30:00Z-trigger");
  EXPECT_EQ(bench.engine.order.back(), Id("02"));
}

TEST(SchedulePause, ComesByItselfAfterAFailureIfAskedFor) {
  for (const auto& [status, pauses] : std::vector<std::pair<v1::ExecutionStatus, bool>>{
           {v1::EXECUTION_STATUS_FAILED, true},
           {v1::EXECUTION_STATUS_COMPLETED, false},
           {v1::EXECUTION_STATUS_SKIPPED, false},
           {v1::EXECUTION_STATUS_CANCELLED, false},
           {v1::EXECUTION_STATUS_TERMINATED, false}}) {
    v1::Schedule definition = Hourly();
    definition.mutable_policies()->set_pause_on_failure(true);
    Bench bench(definition);
    bench.To("2025-01-01T01:30:00Z");
    bench.Close(Id("01"), status);
    EXPECT_EQ(bench.state().paused(), pauses) << v1::ExecutionStatus_Name(status);
    if (pauses) {
      EXPECT_EQ(bench.state().note(), "execution " + Id("01") + " failed: broken: no ink");
    }
    EXPECT_EQ(bench.state().recent(0).status(), status);
  }
  Bench without(Hourly());
  without.To("2025-01-01T01:30:00Z");
  without.Close(Id("01"), v1::EXECUTION_STATUS_FAILED);
  EXPECT_FALSE(without.state().paused());
}

TEST(ScheduleLimit, StartsSoManyAndNoMore) {
  v1::Schedule definition = Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  definition.mutable_policies()->set_max_actions(2);
  Bench bench(definition);
  bench.Jump("2025-01-01T04:30:00Z");  // all due at once
  bench.Run();
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02")));
  EXPECT_EQ(bench.state().actions_left(), 0u);
  EXPECT_THAT(bench.schedule().NextTimes(bench.now(), 5), IsEmpty());
  ASSERT_TRUE(
      bench.schedule().Trigger(v1::SCHEDULE_OVERLAP_UNSPECIFIED, "me", "", bench.now()).ok());
  bench.To("2025-01-01T06:30:00Z");
  EXPECT_EQ(bench.engine.order.size(), 3u) << "triggers do not count";
  // A new limit holds from now on: what passed meanwhile is not made up for.
  definition.mutable_policies()->set_max_actions(1);
  v1::StoredSchedule stored;
  *stored.mutable_schedule() = definition;
  bench.schedule().Replace(stored, *Spec::Compile(definition.spec(), 7), false, bench.now());
  bench.To("2025-01-01T09:30:00Z");
  EXPECT_EQ(bench.engine.order.size(), 4u);
  EXPECT_EQ(bench.engine.order.back(), Id("07"));
}

TEST(ScheduleUpdate, HoldsFromNowOn) {
  v1::Schedule definition = Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  definition.mutable_spec()->set_crons(0, "0 0 * * *");
  Bench bench(definition);
  bench.To("2025-01-01T20:30:00Z");
  definition.mutable_spec()->set_crons(0, "@hourly");
  v1::StoredSchedule stored;
  *stored.mutable_schedule() = definition;
  bench.schedule().Replace(stored, *Spec::Compile(definition.spec(), 7), true, bench.now());
  bench.To("2025-01-01T21:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("21"))) << "and no hour of the past";
}

// ---- starts that are refused
// ------------------------------------------------------------------------------------------------------

TEST(ScheduleRefusal, IsRepeatedAfterAGrowingPauseWhileItMayPass) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_BUFFER_ONE));
  bench.engine.refusal = absl::ResourceExhaustedError("the disk is nearly full");
  bench.To("2025-01-01T01:00:00Z");
  ASSERT_EQ(bench.state().waiting_size(), 1);
  EXPECT_TRUE(bench.state().waiting(0).starting());
  EXPECT_EQ(bench.state().waiting(0).last_error(), "the disk is nearly full");
  EXPECT_EQ(bench.schedule().wake_ms(), bench.now() + kSecond);
  bench.To("2025-01-01T01:30:00Z");
  EXPECT_LE(bench.schedule().wake_ms(), bench.now() + kMinute);
  EXPECT_EQ(bench.state().counts().failed(), 0u);
  bench.Restart();
  bench.engine.refusal = absl::OkStatus();
  bench.To("2025-01-01T01:32:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01")));
  EXPECT_EQ(bench.state().counts().started(), 1u);
}

TEST(ScheduleRefusal, CountsAsOpenForTheTimesBehindIt) {
  Bench bench(Hourly());
  bench.engine.refusal = absl::UnavailableError("shutting down");
  bench.To("2025-01-01T03:30:00Z");
  EXPECT_EQ(bench.state().waiting_size(), 1);
  EXPECT_EQ(bench.state().counts().skipped(), 2u);
  bench.engine.refusal = absl::OkStatus();
  bench.To("2025-01-01T03:32:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"))) << "the one that was decided on";
}

TEST(ScheduleRefusal, ForGoodIsAnActionThatShowsWhy) {
  v1::Schedule definition = Hourly();
  definition.mutable_policies()->set_pause_on_failure(true);
  Bench bench(definition);
  bench.engine.refusal = absl::NotFoundError("unknown workflow \"report\"");
  bench.engine.final = true;
  bench.To("2025-01-01T01:30:00Z");
  const v1::ScheduleState state = bench.state();
  EXPECT_EQ(state.counts().failed(), 1u);
  EXPECT_EQ(state.counts().started(), 0u);
  EXPECT_EQ(state.waiting_size(), 0);
  ASSERT_EQ(state.recent_size(), 1);
  EXPECT_EQ(state.recent(0).error(), "unknown workflow \"report\"");
  EXPECT_EQ(state.recent(0).status(), v1::EXECUTION_STATUS_UNSPECIFIED);
  EXPECT_TRUE(state.paused());
  EXPECT_THAT(state.note(), HasSubstr("was refused: unknown workflow"));
}

TEST(ScheduleRefusal, IsCutAtACharacter) {
  std::string message(499, 'x');
  for (int i = 0; i < 100; ++i) message += "é";
  const std::string cut = std::string(499, 'x') + "…";
  v1::Schedule definition = Hourly();
  definition.mutable_policies()->set_pause_on_failure(true);
  Bench bench(definition);
  bench.engine.refusal = absl::UnavailableError(message);
  bench.To("2025-01-01T01:00:30Z");
  ASSERT_EQ(bench.state().waiting_size(), 1);
  EXPECT_EQ(bench.state().waiting(0).last_error(), cut);
  bench.engine.refusal = absl::NotFoundError(message);
  bench.engine.final = true;
  bench.To("2025-01-01T01:30:00Z");
  const v1::ScheduleState state = bench.state();
  ASSERT_EQ(state.recent_size(), 1);
  EXPECT_EQ(state.recent(0).error(), cut);
  EXPECT_THAT(state.note(), HasSubstr(cut));
  v1::ScheduleState read;
  EXPECT_TRUE(read.ParseFromString(state.SerializeAsString()));
}

TEST(ScheduleRefusal, EndsWithTheCatchupWindow) {
  v1::Schedule definition = Hourly();
  definition.mutable_policies()->set_catchup_window_ms(10 * kMinute);
  Bench bench(definition);
  bench.engine.refusal = absl::UnavailableError("not now");
  bench.To("2025-01-01T01:30:00Z");
  EXPECT_EQ(bench.state().counts().failed(), 1u);
  EXPECT_EQ(bench.state().waiting_size(), 0);
}

// ---- clocks
// ------------------------------------------------------------------------------------------------------

TEST(ScheduleClock, SetBackALittleRepeatsNothing) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL));
  bench.To("2025-01-01T02:00:00Z");
  bench.Jump("2025-01-01T01:55:00Z");
  bench.To("2025-01-01T02:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02")));
  EXPECT_EQ(bench.state().counts().started(), 2u);
  EXPECT_THAT(bench.notes, IsEmpty());
}

TEST(ScheduleClock, SetBackALotIsFollowedAndStillDoublesNothing) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL));
  bench.To("2025-01-01T04:00:00Z");
  bench.Jump("2025-01-01T02:30:00Z");
  bench.Run();
  ASSERT_EQ(bench.notes.size(), 1u);
  EXPECT_THAT(bench.notes[0], HasSubstr("follows the clock"));
  bench.To("2025-01-01T05:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02"), Id("03"), Id("04"), Id("05")));
}

TEST(ScheduleClock, SetForwardIsADowntime) {
  Bench bench(Hourly());
  bench.Run();
  bench.Jump("2025-01-02T00:30:00Z");
  bench.Run();
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01")));
  EXPECT_EQ(bench.state().counts().skipped(), 23u);
}

// ---- triggers and backfills
// ------------------------------------------------------------------------------------------------------

TEST(ScheduleTrigger, SaysWhatBecameOfIt) {
  Bench bench(Hourly());
  const auto trigger = [&bench](v1::ScheduleOverlap overlap) {
    auto entry = bench.schedule().Trigger(overlap, "me", "", bench.now());
    EXPECT_TRUE(entry.ok()) << entry.status();
    bench.outcomes.clear();
    bench.Run();
    EXPECT_EQ(bench.outcomes.size(), 1u);
    return bench.outcomes.empty() ? Schedule::Outcome() : bench.outcomes[0];
  };
  const Schedule::Outcome started = trigger(v1::SCHEDULE_OVERLAP_UNSPECIFIED);
  EXPECT_EQ(started.outcome, v1::TRIGGER_OUTCOME_STARTED);
  EXPECT_EQ(started.workflow_id, "s-2025-01-01T00:00:30Z-trigger");
  EXPECT_EQ(started.run_id, "run1");
  const Schedule::Outcome skipped = trigger(v1::SCHEDULE_OVERLAP_UNSPECIFIED);
  EXPECT_EQ(skipped.outcome, v1::TRIGGER_OUTCOME_SKIPPED);
  EXPECT_THAT(skipped.detail, HasSubstr("s-2025-01-01T00:00:30Z-trigger is open"));
  EXPECT_EQ(trigger(v1::SCHEDULE_OVERLAP_BUFFER_ALL).outcome, v1::TRIGGER_OUTCOME_WAITING);
  // Within one millisecond, and yet under an id of its own.
  const Schedule::Outcome beside = trigger(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  EXPECT_EQ(beside.outcome, v1::TRIGGER_OUTCOME_STARTED);
  EXPECT_EQ(beside.workflow_id, "s-2025-01-01T00:00:30.003Z-trigger");
  bench.engine.refusal = absl::InvalidArgumentError("takes 1 input(s)");
  bench.engine.final = true;
  const Schedule::Outcome failed = trigger(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  EXPECT_EQ(failed.outcome, v1::TRIGGER_OUTCOME_FAILED);
  EXPECT_EQ(failed.detail, "takes 1 input(s)");
  bench.engine.refusal = absl::UnavailableError("a moment");
  bench.engine.final = false;
  EXPECT_EQ(trigger(v1::SCHEDULE_OVERLAP_ALLOW_ALL).outcome, v1::TRIGGER_OUTCOME_WAITING);
}

TEST(ScheduleTrigger, IsRefusedWhereTooMuchWaits) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_BUFFER_ALL));
  const auto trigger = [&](const std::string& request) {
    auto entry =
        bench.schedule().Trigger(v1::SCHEDULE_OVERLAP_UNSPECIFIED, "me", request, bench.now());
    bench.Run();
    return entry.status();
  };
  for (size_t i = 0; i <= kScheduleWaitingMax; ++i) {
    EXPECT_TRUE(trigger(absl::StrCat("r", i)).ok()) << i;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(trigger("last")));
  EXPECT_EQ(bench.schedule().Seen("last"), nullptr);
  EXPECT_EQ(bench.schedule().Seen(""), nullptr);
  ASSERT_NE(bench.schedule().Seen("r99"), nullptr);
  EXPECT_EQ(bench.schedule().Seen("r0"), nullptr) << "the oldest are forgotten";
  EXPECT_EQ(bench.state().seen_size(), kScheduleSeenMax);
}

TEST(ScheduleBackfill, RunsThroughItsRangeAFewAtATime) {
  Bench bench(Hourly(), "2025-01-03T00:00:30Z");
  v1::BackfillScheduleRequest request;
  request.set_from_time_ms(At("2025-01-01T01:00:00Z"));
  request.set_to_time_ms(At("2025-01-01T23:00:00Z"));
  request.set_request_id("once");
  auto response = bench.schedule().Backfill(request, bench.now());
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->times(), 23u);
  EXPECT_EQ(response->backfill(), 1u);
  ASSERT_NE(bench.schedule().Seen("once"), nullptr);
  bench.Run();
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"))) << "one after the other unless told else";
  EXPECT_LE(static_cast<size_t>(bench.state().waiting_size()), kScheduleBackfillWaitingMax);
  bench.Restart();
  for (int i = 0; i < 30; ++i) bench.CloseAll();
  EXPECT_EQ(bench.engine.order.size(), 23u);
  EXPECT_EQ(bench.engine.order.back(), Id("23"));
  EXPECT_EQ(bench.state().backfills_size(), 0);
  // Again: the same workflow ids, but starts of their own.
  request.set_overlap(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  request.set_request_id("twice");
  ASSERT_TRUE(bench.schedule().Backfill(request, bench.now()).ok());
  bench.Run();
  EXPECT_EQ(bench.engine.order.size(), 46u);
  EXPECT_EQ(bench.state().last_time_ms(), At("2025-01-03T00:00:30Z")) << "the clock's own go on";
}

TEST(ScheduleBackfill, DoesNotHoldUpTheClock) {
  Bench bench(Hourly(v1::SCHEDULE_OVERLAP_ALLOW_ALL), "2025-01-03T00:00:30Z");
  v1::BackfillScheduleRequest request;
  request.set_from_time_ms(1);
  request.set_to_time_ms(At("2025-01-01T00:00:00Z"));
  request.set_overlap(v1::SCHEDULE_OVERLAP_BUFFER_ALL);
  ASSERT_TRUE(bench.schedule().Backfill(request, bench.now()).ok());
  bench.To("2025-01-03T02:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre("s-1970-01-01T01:00:00Z", "s-2025-01-03T01:00:00Z",
                                              "s-2025-01-03T02:00:00Z"));
}

TEST(ScheduleBackfill, SaysWhatIsWrongWithItsRange) {
  Bench bench(Hourly());
  const auto backfill = [&](int64_t from, int64_t to) {
    v1::BackfillScheduleRequest request;
    request.set_from_time_ms(from);
    request.set_to_time_ms(to);
    return bench.schedule().Backfill(request, bench.now()).status();
  };
  EXPECT_TRUE(absl::IsInvalidArgument(backfill(0, 5)));
  EXPECT_TRUE(absl::IsInvalidArgument(backfill(5, 4)));
  EXPECT_THAT(std::string(Message(backfill(5, bench.now() + 1))), HasSubstr("future"));
  for (int i = 0; i < kScheduleBackfillsMax; ++i) EXPECT_TRUE(backfill(5, 6).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(backfill(5, 6)));
  bench.Run();
  EXPECT_TRUE(backfill(5, 6).ok()) << "empty ones end at once";
}

// ---- looking at runs
// ------------------------------------------------------------------------------------------------------

TEST(ScheduleRuns, ThatWereDeletedAreNotOpen) {
  Bench bench(Hourly());
  bench.To("2025-01-01T01:30:00Z");
  bench.engine.by_request.clear();
  bench.To("2025-01-01T02:30:00Z");
  EXPECT_THAT(bench.engine.order, ElementsAre(Id("01"), Id("02")));
  EXPECT_EQ(bench.state().recent(1).error(), "deleted");
}

TEST(ScheduleRuns, AreAskedForOnlyWhenItMatters) {
  Bench bench(Hourly());
  bench.To("2025-01-01T01:00:00Z");
  v1::ScheduleState state = bench.state();
  // After a restart the run is asked for within a minute, and then ever more seldom.
  int asked = 0;
  Schedule::Wants wants;
  int64_t now = bench.now();
  Bench other(Hourly());
  other.Load(Hourly(), state);
  for (const int64_t end = now + 50 * kMinute; now < end; now += kSecond) {
    wants = {};
    other.schedule().Advance(now, &wants);
    for (const Schedule::Question& question : wants.questions) {
      ++asked;
      v1::GetResultResponse open;
      open.set_status(v1::EXECUTION_STATUS_RUNNING);
      other.schedule().Looked(question, open, now);
    }
  }
  EXPECT_GE(asked, 4);
  EXPECT_LE(asked, 8);
  other.schedule().Look();
  wants = {};
  other.schedule().Advance(now, &wants);
  EXPECT_TRUE(other.schedule().Looking());
  ASSERT_EQ(wants.questions.size(), 1u);
  EXPECT_FALSE(wants.questions[0].wait);
}

}  // namespace
}  // namespace flux::engine::testing
