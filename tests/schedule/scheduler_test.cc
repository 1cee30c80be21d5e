// Schedules on the real engine: what is durable when, what a crash leaves, what a request is told.
#include "engine/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"
#include "tests/schedule/schedule_world.h"
#include "tests/schedule/times.h"

namespace flux::engine::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr int64_t kSecond = 1'000;
constexpr int64_t kMinute = 60 * kSecond;
// The world begins at 2023-11-14T22:13:20Z.
constexpr char kFirst[] = "minutely-2023-11-14T22:14:00Z";
constexpr char kSecond_[] = "minutely-2023-11-14T22:15:00Z";

v1::Schedule Minutely(const std::string& id = "minutely") {
  v1::Schedule schedule;
  schedule.set_schedule_id(id);
  schedule.mutable_spec()->add_crons("* * * * *");
  schedule.mutable_start()->set_workflow("chain");
  *schedule.mutable_start()->add_inputs() = Json("7");
  return schedule;
}

v1::Schedule Minutely(v1::ScheduleOverlap overlap) {
  v1::Schedule schedule = Minutely();
  schedule.mutable_policies()->set_overlap(overlap);
  return schedule;
}

class SchedulerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(w.Open().ok());
    w.world.Define(Chain("chain", 1));
  }
  // The process dies and is started again.
  void Restart(int64_t downtime_ms = 0, store::CrashOptions crash = {}) {
    w.Crash(crash);
    ASSERT_TRUE(w.world.Open().ok());
    if (downtime_ms > 0) w.world.Advance(downtime_ms, downtime_ms);
    ASSERT_TRUE(w.OpenScheduler().ok());
  }

  template <typename Request>
  Request Named(const std::string& id = "minutely") {
    Request request;
    request.set_schedule_id(id);
    return request;
  }

  ScheduleWorld w;
};

TEST_F(SchedulerTest, StartsWhatIsDueAndShowsWhatBecameOfIt) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  const StreamId worker = w.world.Connect("s1", {"t"}, 4);
  w.Advance(35 * kSecond);
  EXPECT_THAT(w.Executions(), IsEmpty());
  w.Advance(5 * kSecond);
  EXPECT_THAT(w.Executions(), ElementsAre(Pair(kFirst, 1)));
  v1::GetScheduleResponse shown = w.Get("minutely");
  ASSERT_EQ(shown.state().recent_size(), 1);
  EXPECT_EQ(shown.state().recent(0).status(), v1::EXECUTION_STATUS_RUNNING);
  EXPECT_EQ(shown.state().running_size(), 1);
  ASSERT_EQ(shown.next_time_ms_size(), 5);
  EXPECT_EQ(Text(shown.next_time_ms(0)), "2023-11-14T22:15:00Z");
  EXPECT_EQ(Text(shown.next_time_ms(4)), "2023-11-14T22:19:00Z");
  EXPECT_EQ(shown.server_time_ms(), w.WallMs());

  w.world.RunWorker(worker);
  shown = w.Get("minutely");
  EXPECT_EQ(shown.state().recent(0).status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(shown.state().running_size(), 0);
  EXPECT_EQ(w.world.Result(kFirst).result().data(), "7");
  const v1::DescribeExecutionResponse execution = w.world.Describe(kFirst);
  EXPECT_EQ(execution.info().labels().at("flux.schedule"), "minutely");
  EXPECT_EQ(execution.info().labels().at("flux.schedule_time"), "2023-11-14T22:14:00Z");
}

TEST_F(SchedulerTest, KeepsToItsOverlapPolicy) {
  struct Case {
    v1::ScheduleOverlap overlap;
    size_t executions;
    v1::ExecutionStatus first;
  };
  const StreamId worker = w.world.Connect("s1", {"t"}, 100);
  for (const Case& c :
       std::vector<Case>{{v1::SCHEDULE_OVERLAP_SKIP, 1, v1::EXECUTION_STATUS_RUNNING},
                         {v1::SCHEDULE_OVERLAP_BUFFER_ALL, 1, v1::EXECUTION_STATUS_RUNNING},
                         {v1::SCHEDULE_OVERLAP_TERMINATE_OTHER, 3, v1::EXECUTION_STATUS_TERMINATED},
                         {v1::SCHEDULE_OVERLAP_ALLOW_ALL, 3, v1::EXECUTION_STATUS_RUNNING}}) {
    const std::string id = absl::StrCat("s", static_cast<int>(c.overlap));
    v1::Schedule schedule = Minutely(id);
    schedule.mutable_policies()->set_overlap(c.overlap);
    ASSERT_TRUE(w.Create(schedule).ok());
    w.Advance(3 * kMinute);
    std::map<std::string, int> mine;
    for (const auto& [workflow_id, runs] : w.Executions()) {
      if (absl::StartsWith(workflow_id, id + "-")) mine[workflow_id] = runs;
    }
    ASSERT_EQ(mine.size(), c.executions) << v1::ScheduleOverlap_Name(c.overlap);
    EXPECT_EQ(w.world.Result(mine.begin()->first).status(), c.first)
        << v1::ScheduleOverlap_Name(c.overlap);
    ASSERT_TRUE(w.Ask(&Scheduler::Pause, Named<v1::PauseScheduleRequest>(id)).ok());
  }
  w.world.RunWorker(worker);
}

TEST_F(SchedulerTest, CancelsTheRunBeforeAndStartsOnceItHasClosed) {
  ASSERT_TRUE(w.Create(Minutely(v1::SCHEDULE_OVERLAP_CANCEL_OTHER)).ok());
  w.Advance(100 * kSecond);
  EXPECT_THAT(w.Executions(), ElementsAre(Pair(kFirst, 1), Pair(kSecond_, 1)));
  const v1::GetResultResponse first = w.world.Result(kFirst);
  EXPECT_EQ(first.status(), v1::EXECUTION_STATUS_CANCELLED);
  EXPECT_THAT(first.failure().message(), HasSubstr("overlap policy of schedule \"minutely\""));
}

TEST_F(SchedulerTest, PausesAfterAFailure) {
  v1::Schedule schedule = Minutely();
  schedule.mutable_policies()->set_pause_on_failure(true);
  ASSERT_TRUE(w.Create(schedule).ok());
  const StreamId worker = w.world.Connect("s1", {"t"}, 4);
  w.Advance(kMinute);
  ASSERT_EQ(w.world.stream(worker).tasks.size(), 1u);
  w.world.AnswerFailure(worker, w.world.stream(worker).tasks.front(), "printer.broken",
                        /*final=*/true);
  w.Advance(3 * kMinute);
  EXPECT_EQ(w.Executions().size(), 1u);
  const v1::GetScheduleResponse shown = w.Get("minutely");
  EXPECT_TRUE(shown.state().paused());
  EXPECT_THAT(shown.state().note(), HasSubstr("printer.broken"));
  EXPECT_EQ(shown.next_time_ms_size(), 0);
  auto resumed = w.Ask(&Scheduler::Resume, Named<v1::ResumeScheduleRequest>());
  ASSERT_TRUE(resumed.ok());
  EXPECT_EQ(resumed->next_time_ms_size(), 5);
  w.Advance(kMinute);
  EXPECT_EQ(w.Executions().size(), 2u);
}

// A cut through a character would make a row that protobuf writes and refuses to read.
TEST_F(SchedulerTest, OpensAfterAFailureWhoseMessageIsLong) {
  v1::Schedule schedule = Minutely();
  schedule.mutable_policies()->set_pause_on_failure(true);
  ASSERT_TRUE(w.Create(schedule).ok());
  const StreamId worker = w.world.Connect("s1", {"t"}, 4);
  w.Advance(kMinute);
  ASSERT_EQ(w.world.stream(worker).tasks.size(), 1u);
  v1::ConnectRequest answer;
  v1::TaskResult* result = answer.add_results();
  *result->mutable_token() = w.world.stream(worker).tasks.front().token();
  result->mutable_failure()->set_type("printer.broken");
  result->mutable_failure()->set_non_retriable(true);
  std::string message(499, 'x');
  for (int i = 0; i < 100; ++i) message += "é";
  result->mutable_failure()->set_message(message);
  w.world.Message(worker, std::move(answer));
  w.Advance(kMinute);
  ASSERT_TRUE(w.Get("minutely").state().paused());
  Restart();
  EXPECT_THAT(w.Get("minutely").state().note(), EndsWith("xx…"));
}

// ---- durability
// ------------------------------------------------------------------------------------------------------

TEST_F(SchedulerTest, WhatWasAnsweredIsThereAfterACrash) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  ASSERT_TRUE(w.Create(Minutely("other")).ok());
  Restart();
  EXPECT_EQ(w.Get("minutely").revision(), 1u);
  EXPECT_EQ(w.Get("other").schedule().spec().crons(0), "* * * * *");

  auto pause = Named<v1::PauseScheduleRequest>();
  pause.set_note("why not");
  pause.set_identity("me");
  ASSERT_TRUE(w.Ask(&Scheduler::Pause, pause).ok());
  Restart();
  EXPECT_TRUE(w.Get("minutely").state().paused());
  EXPECT_EQ(w.Get("minutely").state().note(), "why not");
  EXPECT_EQ(w.Get("minutely").state().identity(), "me");

  v1::UpdateScheduleRequest update;
  *update.mutable_schedule() = Minutely();
  update.mutable_schedule()->mutable_spec()->set_crons(0, "@daily");
  ASSERT_TRUE(w.Ask(&Scheduler::Update, update).ok());
  Restart();
  EXPECT_EQ(w.Get("minutely").schedule().spec().crons(0), "@daily");
  EXPECT_EQ(w.Get("minutely").revision(), 2u);
  EXPECT_TRUE(w.Get("minutely").state().paused()) << "an update does not resume";

  ASSERT_TRUE(w.Ask(&Scheduler::Delete, Named<v1::DeleteScheduleRequest>()).ok());
  Restart();
  EXPECT_EQ(w.Ask(&Scheduler::Get, Named<v1::GetScheduleRequest>()).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(w.Get("other").revision(), 1u);
}

TEST_F(SchedulerTest, AScheduleMadeAgainUnderItsIdIsANewOne) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  w.Advance(kMinute);
  // In one turn: deleted, and made again.
  auto deleted = w.Post(&Scheduler::Delete, Named<v1::DeleteScheduleRequest>());
  v1::CreateScheduleRequest create;
  *create.mutable_schedule() = Minutely();
  auto created = w.Post(&Scheduler::Create, create);
  w.Settle();
  ASSERT_TRUE((*deleted)->ok());
  ASSERT_TRUE((*created)->ok());
  EXPECT_EQ(w.Get("minutely").state().counts().started(), 0u);
  Restart();
  EXPECT_EQ(w.Get("minutely").state().counts().started(), 0u);
  w.Advance(kMinute);
  EXPECT_EQ(w.Get("minutely").state().counts().started(), 1u);
}

// Two schedules fire at one time; the process dies after every single step of that, in turn.
TEST_F(SchedulerTest, StartsOnceWhereverTheProcessDies) {
  int died = 0;
  for (int steps = 0;; ++steps) {
    ScheduleWorld world;
    ASSERT_TRUE(world.Open().ok());
    world.world.Define(Chain("chain", 1));
    ASSERT_TRUE(world.Create(Minutely(v1::SCHEDULE_OVERLAP_ALLOW_ALL)).ok());
    ASSERT_TRUE(world.Create(Minutely("skipping")).ok());
    world.Advance(39 * kSecond);
    world.world.Advance(1 * kSecond, 1 * kSecond);
    bool busy = true;
    int quiet = 0;
    for (int i = 0; i < steps; ++i) {
      busy = world.MicroStep();
      quiet = busy ? 0 : quiet + 1;
    }
    if (quiet > 20) break;
    ++died;
    world.Crash({.queued_written = static_cast<size_t>(steps % 3),
                 .torn_tail = steps % 2 == 0,
                 .unsynced_kept = static_cast<size_t>(steps % 4)});
    ASSERT_TRUE(world.Open().ok());
    world.Advance(30 * kSecond);
    SCOPED_TRACE(absl::StrCat("died after ", steps, " steps"));
    EXPECT_THAT(world.Executions(),
                ElementsAre(Pair(kFirst, 1), Pair("skipping-2023-11-14T22:14:00Z", 1)));
    for (const char* id : {"minutely", "skipping"}) {
      const v1::ScheduleState state = world.Get(id).state();
      EXPECT_EQ(state.counts().started(), 1u) << id;
      EXPECT_EQ(state.counts().skipped(), 0u) << id;
      EXPECT_EQ(state.waiting_size(), 0) << id;
      ASSERT_EQ(state.running_size(), 1) << id;
      EXPECT_EQ(world.world.Describe(state.running(0).workflow_id()).info().run_id(),
                state.running(0).run_id());
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(died, 15);
}

TEST_F(SchedulerTest, MakesUpForADowntime) {
  ASSERT_TRUE(w.Create(Minutely(v1::SCHEDULE_OVERLAP_ALLOW_ALL)).ok());
  v1::Schedule strict = Minutely("strict");
  strict.mutable_policies()->set_overlap(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  strict.mutable_policies()->set_catchup_window_ms(90 * kSecond);
  ASSERT_TRUE(w.Create(strict).ok());
  Restart(10 * kMinute);
  w.Settle();
  EXPECT_EQ(w.Get("minutely").state().counts().started(), 10u);
  EXPECT_EQ(w.Get("strict").state().counts().started(), 2u);
  EXPECT_EQ(w.Get("strict").state().counts().missed(), 8u);
  EXPECT_EQ(w.Executions().size(), 12u);
}

TEST_F(SchedulerTest, AfterAFailedWriteNothingIsAnsweredOrStarted) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  w.world.store().Inject({.op = store::FaultOp::kWriteSync,
                          .at = w.world.store().calls(store::FaultOp::kWriteSync) + 1,
                          .kind = store::FaultKind::kDiskFull});
  w.Advance(kMinute);
  EXPECT_FALSE(w.fatal.ok());
  EXPECT_THAT(w.log, ElementsAre(HasSubstr("schedules could not be written")));
  auto answer = w.Post(&Scheduler::Get, Named<v1::GetScheduleRequest>());
  w.scheduler().Turn();
  EXPECT_FALSE(answer->has_value());
  Restart();
  w.Settle();
  EXPECT_THAT(w.Executions(), ElementsAre(Pair(kFirst, 1)));
}

TEST_F(SchedulerTest, WaitsForAFullDisk) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  w.world.store().SetBelowReserve(true);
  EXPECT_EQ(w.Create(Minutely("another")).code(), absl::StatusCode::kResourceExhausted);
  auto trigger = w.Ask(&Scheduler::Trigger, Named<v1::TriggerScheduleRequest>());
  EXPECT_EQ(trigger.status().code(), absl::StatusCode::kResourceExhausted);
  w.Advance(2 * kMinute);
  const v1::ScheduleState state = w.Get("minutely").state();
  ASSERT_EQ(state.waiting_size(), 1);
  EXPECT_THAT(state.waiting(0).last_error(), HasSubstr("nearly full"));
  EXPECT_EQ(state.counts().failed(), 0u);
  EXPECT_TRUE(w.Ask(&Scheduler::Pause, Named<v1::PauseScheduleRequest>()).ok());
  w.world.store().SetBelowReserve(false);
  w.Advance(kMinute);
  EXPECT_THAT(w.Executions(), ElementsAre(Pair(kFirst, 1)));
}

TEST_F(SchedulerTest, ShowsAStartThatIsRefusedForGood) {
  // The newest definition takes no input any more.
  ASSERT_TRUE(w.Create(Minutely()).ok());
  v1::Definition changed = Chain("chain", 1);
  changed.set_version("2");
  changed.mutable_scopes(0)->set_parameters(2);
  w.world.Define(changed);
  w.Advance(kMinute);
  EXPECT_THAT(w.Executions(), IsEmpty());
  const v1::ScheduleState state = w.Get("minutely").state();
  EXPECT_EQ(state.counts().failed(), 1u);
  ASSERT_EQ(state.recent_size(), 1);
  EXPECT_THAT(state.recent(0).error(), HasSubstr("takes 2 input(s)"));
}

TEST_F(SchedulerTest, AnIdThatIsTakenIsARefusalToo) {
  ASSERT_TRUE(w.world.Start("chain", kFirst, {"1"}).ok());
  ASSERT_TRUE(w.Create(Minutely()).ok());
  w.Advance(kMinute);
  EXPECT_THAT(w.Get("minutely").state().recent(0).error(), HasSubstr("in use"));
  EXPECT_EQ(w.Executions().size(), 1u);
}

TEST_F(SchedulerTest, FollowsAClockThatIsSet) {
  ASSERT_TRUE(w.Create(Minutely(v1::SCHEDULE_OVERLAP_ALLOW_ALL)).ok());
  w.Advance(2 * kMinute);
  EXPECT_EQ(w.Executions().size(), 2u);
  w.wall_offset_ms = 60 * kMinute;
  w.Advance(2 * kSecond);
  EXPECT_EQ(w.Executions().size(), 62u);
  w.wall_offset_ms = 0;
  w.Advance(kMinute);
  // What comes again is answered with what there is.
  EXPECT_EQ(w.Executions().size(), 62u);
  EXPECT_THAT(w.log, ElementsAre(HasSubstr("follows the clock")));
  w.Advance(60 * kMinute, 10 * kSecond);
  const std::map<std::string, int> executions = w.Executions();
  EXPECT_EQ(executions.size(), 63u);
  for (const auto& [id, runs] : executions) EXPECT_EQ(runs, 1) << id;
}

// ---- people
// ------------------------------------------------------------------------------------------------------

TEST_F(SchedulerTest, TriggersAnswerWithWhatBecameOfThem) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  auto request = Named<v1::TriggerScheduleRequest>();
  request.set_request_id("r1");
  request.set_identity("me");
  auto first = w.Ask(&Scheduler::Trigger, request);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->outcome(), v1::TRIGGER_OUTCOME_STARTED);
  EXPECT_EQ(first->workflow_id(), "minutely-2023-11-14T22:13:20Z-trigger");
  EXPECT_EQ(w.world.Describe(first->workflow_id()).info().run_id(), first->run_id());
  auto again = w.Ask(&Scheduler::Trigger, request);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->outcome(), v1::TRIGGER_OUTCOME_REPEATED);
  EXPECT_EQ(again->workflow_id(), first->workflow_id());
  Restart();
  EXPECT_EQ(w.Ask(&Scheduler::Trigger, request)->outcome(), v1::TRIGGER_OUTCOME_REPEATED);
  request.set_request_id("r2");
  EXPECT_EQ(w.Ask(&Scheduler::Trigger, request)->outcome(), v1::TRIGGER_OUTCOME_SKIPPED);
  request.set_request_id("r3");
  request.set_overlap(v1::SCHEDULE_OVERLAP_BUFFER_ALL);
  EXPECT_EQ(w.Ask(&Scheduler::Trigger, request)->outcome(), v1::TRIGGER_OUTCOME_WAITING);
  EXPECT_EQ(w.Executions().size(), 1u);
}

TEST_F(SchedulerTest, BackfillsARangeOnce) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  auto request = Named<v1::BackfillScheduleRequest>();
  request.set_from_time_ms(At("2023-11-14T20:00:00Z"));
  request.set_to_time_ms(At("2023-11-14T20:29:59Z"));
  request.set_overlap(v1::SCHEDULE_OVERLAP_ALLOW_ALL);
  request.set_request_id("b1");
  auto first = w.Ask(&Scheduler::Backfill, request);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->times(), 30u);
  EXPECT_EQ(w.Executions().size(), 30u);
  EXPECT_EQ(w.Ask(&Scheduler::Backfill, request)->backfill(), first->backfill());
  EXPECT_EQ(w.Executions().size(), 30u);
  // Another one of the same range is another try at it; what still runs cannot be doubled.
  request.set_request_id("b2");
  ASSERT_TRUE(w.Ask(&Scheduler::Backfill, request).ok());
  const v1::ScheduleState state = w.Get("minutely").state();
  EXPECT_EQ(state.counts().started(), 30u);
  EXPECT_EQ(state.counts().failed(), 30u);
  EXPECT_THAT(state.recent(0).error(), HasSubstr("in use"));
}

TEST_F(SchedulerTest, ListsByIdInPages) {
  for (const char* id : {"b2", "a", "b10", "b1", "c"}) ASSERT_TRUE(w.Create(Minutely(id)).ok());
  v1::Schedule elsewhere = Minutely("b3");
  elsewhere.set_namespace_("other");
  ASSERT_TRUE(w.Create(elsewhere).ok());
  ASSERT_TRUE(w.Ask(&Scheduler::Pause, Named<v1::PauseScheduleRequest>("b1")).ok());
  const auto list = [this](const std::string& prefix, uint32_t size, const std::string& ns = "") {
    std::vector<std::string> ids;
    v1::ListSchedulesRequest request;
    request.set_namespace_(ns);
    request.set_id_prefix(prefix);
    request.set_page_size(size);
    do {
      auto page = w.Ask(&Scheduler::List, request);
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) break;
      EXPECT_LE(page->schedules_size(), static_cast<int>(size == 0 ? 100 : size));
      for (const auto& summary : page->schedules()) {
        ids.push_back(summary.schedule_id());
        EXPECT_EQ(summary.paused(), summary.schedule_id() == "b1");
        EXPECT_EQ(summary.next_time_ms() == 0, summary.paused());
        EXPECT_EQ(summary.workflow(), "chain");
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return ids;
  };
  EXPECT_THAT(list("", 0), ElementsAre("a", "b1", "b10", "b2", "c"));
  EXPECT_THAT(list("", 2), ElementsAre("a", "b1", "b10", "b2", "c"));
  EXPECT_THAT(list("b", 1), ElementsAre("b1", "b10", "b2"));
  EXPECT_THAT(list("", 0, "other"), ElementsAre("b3"));
  EXPECT_THAT(list("zz", 0), IsEmpty());
}

TEST_F(SchedulerTest, RepeatedRequestsChangeThingsOnce) {
  v1::CreateScheduleRequest create;
  *create.mutable_schedule() = Minutely();
  create.set_request_id("c1");
  ASSERT_TRUE(w.Ask(&Scheduler::Create, create).ok());
  ASSERT_TRUE(w.Ask(&Scheduler::Create, create).ok());
  create.set_request_id("c2");
  const auto taken = w.Ask(&Scheduler::Create, create);
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(Message(taken.status())), HasSubstr("\"minutely\""));

  v1::UpdateScheduleRequest update;
  *update.mutable_schedule() = Minutely();
  update.set_revision(1);
  update.set_request_id("u1");
  EXPECT_EQ(w.Ask(&Scheduler::Update, update)->revision(), 2u);
  EXPECT_EQ(w.Ask(&Scheduler::Update, update)->revision(), 2u);
  update.set_request_id("u2");
  const auto late = w.Ask(&Scheduler::Update, update);
  EXPECT_EQ(late.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(Message(late.status())), HasSubstr("revision 2, not 1"));
  update.set_revision(0);
  EXPECT_EQ(w.Ask(&Scheduler::Update, update)->revision(), 3u);
}

TEST_F(SchedulerTest, SaysWhatIsWrongWithASchedule) {
  struct Bad {
    std::function<void(v1::Schedule&)> change;
    absl::StatusCode code;
    std::string part;
  };
  const std::vector<Bad> cases = {
      {[](auto& s) { s.set_schedule_id(""); }, absl::StatusCode::kInvalidArgument,
       "schedule id is empty"},
      {[](auto& s) { s.set_schedule_id(std::string(201, 'x')); },
       absl::StatusCode::kInvalidArgument, "201 bytes"},
      {[](auto& s) { s.set_schedule_id("a\nb"); }, absl::StatusCode::kInvalidArgument,
       "control character"},
      {[](auto& s) { s.set_namespace_(std::string("a\0b", 3)); },
       absl::StatusCode::kInvalidArgument, "control character"},
      {[](auto& s) { s.mutable_spec()->set_crons(0, "* * * 13 *"); },
       absl::StatusCode::kInvalidArgument, "month field"},
      {[](auto& s) { s.mutable_spec()->set_time_zone("Nowhere"); },
       absl::StatusCode::kInvalidArgument, "unknown time zone"},
      {[](auto& s) { s.clear_spec(); }, absl::StatusCode::kInvalidArgument, "no times"},
      {[](auto& s) { s.clear_start(); }, absl::StatusCode::kInvalidArgument, "names no workflow"},
      {[](auto& s) { s.mutable_start()->set_workflow("unknown"); }, absl::StatusCode::kNotFound,
       "unknown workflow \"unknown\""},
      {[](auto& s) { s.mutable_start()->clear_inputs(); }, absl::StatusCode::kInvalidArgument,
       "takes 1 input(s)"},
      {[](auto& s) { *s.mutable_start()->mutable_inputs(0) = Json("{"); },
       absl::StatusCode::kInvalidArgument, "JSON"},
      {[](auto& s) { s.mutable_start()->set_request_id("r"); }, absl::StatusCode::kInvalidArgument,
       "request id or a policy"},
      {[](auto& s) { s.mutable_start()->set_conflict_policy(v1::CONFLICT_POLICY_REJECT); },
       absl::StatusCode::kInvalidArgument, "overlap policy"},
      {[](auto& s) { s.mutable_start()->set_namespace_("elsewhere"); },
       absl::StatusCode::kInvalidArgument, "elsewhere"},
      {[](auto& s) { s.mutable_start()->set_workflow_id(std::string(250, 'p')); },
       absl::StatusCode::kInvalidArgument, "workflow id"},
      {[](auto& s) { s.mutable_start()->set_execution_timeout_ms(-1); },
       absl::StatusCode::kInvalidArgument, "execution_timeout_ms"},
      {[](auto& s) { s.mutable_start()->set_execution_timeout_ms(INT64_MAX); },
       absl::StatusCode::kInvalidArgument, "execution_timeout_ms"},
      {[](auto& s) {
         for (int i = 0; i < 63; ++i) {
           (*s.mutable_start()->mutable_labels())[absl::StrCat("l", i)] = "v";
         }
       },
       absl::StatusCode::kInvalidArgument, "65 labels"},
      {[](auto& s) { s.mutable_policies()->set_catchup_window_ms(9'999); },
       absl::StatusCode::kInvalidArgument, "catch-up window of 9999"},
      {[](auto& s) { s.mutable_policies()->set_overlap(static_cast<v1::ScheduleOverlap>(77)); },
       absl::StatusCode::kInvalidArgument, "overlap policy 77"},
      {[](auto& s) {
         *s.mutable_start()->mutable_inputs(0) = Json("\"" + std::string(300'000, 'x') + "\"");
       },
       absl::StatusCode::kResourceExhausted, "at most 262144"},
  };
  for (const Bad& bad : cases) {
    v1::Schedule schedule = Minutely();
    bad.change(schedule);
    const absl::Status status = w.Create(schedule);
    EXPECT_EQ(status.code(), bad.code) << bad.part << ": " << status;
    EXPECT_THAT(std::string(Message(status)), HasSubstr(bad.part));
  }
  EXPECT_THAT(w.Ask(&Scheduler::List, v1::ListSchedulesRequest())->schedules_size(), 0);
  // The longest that is allowed can be started.
  v1::Schedule longest = Minutely(std::string(200, 'x'));
  ASSERT_TRUE(w.Create(longest).ok());
  w.Advance(kMinute);
  EXPECT_EQ(w.Get(longest.schedule_id()).state().counts().started(), 1u);
}

TEST_F(SchedulerTest, NamesAScheduleThatIsNotThere) {
  const auto expect = [](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(Message(status)),
                AllOf(HasSubstr("\"minutely\""), HasSubstr("\"default\"")));
  };
  expect(w.Ask(&Scheduler::Get, Named<v1::GetScheduleRequest>()).status());
  expect(w.Ask(&Scheduler::Delete, Named<v1::DeleteScheduleRequest>()).status());
  expect(w.Ask(&Scheduler::Pause, Named<v1::PauseScheduleRequest>()).status());
  expect(w.Ask(&Scheduler::Resume, Named<v1::ResumeScheduleRequest>()).status());
  expect(w.Ask(&Scheduler::Trigger, Named<v1::TriggerScheduleRequest>()).status());
  expect(w.Ask(&Scheduler::Backfill, Named<v1::BackfillScheduleRequest>()).status());
  v1::UpdateScheduleRequest update;
  *update.mutable_schedule() = Minutely();
  expect(w.Ask(&Scheduler::Update, update).status());
}

TEST_F(SchedulerTest, LimitsNotesIdentitiesAndSchedules) {
  ScheduleWorld small(SchedulerOptions{.schedules_max = 2});
  ASSERT_TRUE(small.Open().ok());
  small.world.Define(Chain("chain", 1));
  ASSERT_TRUE(small.Create(Minutely("a")).ok());
  ASSERT_TRUE(small.Create(Minutely("b")).ok());
  EXPECT_EQ(small.Create(Minutely("c")).code(), absl::StatusCode::kResourceExhausted);
  auto pause = Named<v1::PauseScheduleRequest>("a");
  pause.set_note(std::string(1'001, 'n'));
  EXPECT_EQ(small.Ask(&Scheduler::Pause, pause).status().code(),
            absl::StatusCode::kInvalidArgument);
  pause.set_note(std::string(1'000, 'n'));
  EXPECT_TRUE(small.Ask(&Scheduler::Pause, pause).ok());
  pause.set_identity(std::string(257, 'n'));
  EXPECT_EQ(small.Ask(&Scheduler::Pause, pause).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// ---- many, and the process's ends
// ------------------------------------------------------------------------------------------------------

TEST_F(SchedulerTest, StartsManyAtOnceAFewAtATime) {
  ScheduleWorld many(SchedulerOptions{.starts_in_flight_max = 3});
  ASSERT_TRUE(many.Open().ok());
  many.world.Define(Chain("chain", 1));
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(many.Create(Minutely(absl::StrCat("s", i))).ok());
  many.Advance(kMinute);
  EXPECT_EQ(many.Executions().size(), 300u);
}

TEST_F(SchedulerTest, StartsNothingOnceItShutsDown) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  w.Settle();
  auto trigger = w.Post(&Scheduler::Trigger, Named<v1::TriggerScheduleRequest>());
  w.scheduler().BeginShutdown();
  w.Advance(kMinute);
  ASSERT_TRUE(trigger->has_value());
  EXPECT_EQ((*trigger)->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(w.Ask(&Scheduler::Get, Named<v1::GetScheduleRequest>()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_THAT(w.Executions(), IsEmpty());
  Restart();
  w.Settle();
  EXPECT_THAT(w.Executions(), ElementsAre(Pair(kFirst, 1)));
}

TEST_F(SchedulerTest, OpensWithAZoneItDoesNotKnow) {
  v1::StoredSchedule stored;
  *stored.mutable_schedule() = Minutely("martian");
  stored.mutable_schedule()->set_namespace_("default");
  stored.mutable_schedule()->mutable_spec()->set_time_zone("Mars/Olympus");
  store::RowBatch batch;
  batch.epoch = w.world.engine().EpochOf(0);
  batch.puts = {{keys::ScheduleDefinition("default", "martian"), stored.SerializeAsString()},
                {keys::ScheduleState("default", "martian"), ""}};
  ASSERT_TRUE(w.world.store().rows().WriteSync(batch).ok());
  Restart();
  const v1::GetScheduleResponse shown = w.Get("martian");
  EXPECT_TRUE(shown.state().paused());
  EXPECT_THAT(shown.state().note(), HasSubstr("Mars/Olympus"));
  const auto resumed = w.Ask(&Scheduler::Resume, Named<v1::ResumeScheduleRequest>("martian"));
  EXPECT_EQ(resumed.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(resumed.status())), HasSubstr("Mars/Olympus"));
}

TEST_F(SchedulerTest, RefusesDamagedRowsByName) {
  ASSERT_TRUE(w.Create(Minutely()).ok());
  struct Damage {
    std::function<void(store::RowBatch&)> make;
    std::string part;
  };
  const std::string definition = keys::ScheduleDefinition("default", "minutely");
  const std::string state = keys::ScheduleState("default", "minutely");
  for (const Damage& damage :
       std::vector<Damage>{{[&](auto& batch) {
                              batch.puts = {{state, "\xff\xff"}};
                            },
                            "cannot be parsed"},
                           {[&](auto& batch) { batch.deletes = {state}; }, "is missing"},
                           {[&](auto& batch) {
                              batch.puts = {{definition, "\xff\xff"}, {state, ""}};
                            },
                            "cannot be parsed"},
                           {[&](auto& batch) {
                              batch.puts = {{definition, ""}};
                            },
                            "another schedule"}}) {
    store::RowBatch batch;
    damage.make(batch);
    batch.epoch = w.world.engine().EpochOf(0);
    ASSERT_TRUE(w.world.store().rows().WriteSync(std::move(batch)).ok());
    w.Crash();
    ASSERT_TRUE(w.world.Open().ok());
    const absl::Status opened = w.OpenScheduler();
    EXPECT_EQ(opened.code(), absl::StatusCode::kDataLoss) << opened;
    EXPECT_THAT(std::string(Message(opened)), AllOf(HasSubstr(damage.part), HasSubstr("minutely")));
  }
}

}  // namespace
}  // namespace flux::engine::testing
