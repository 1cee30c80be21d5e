// The loop and its rules: what is durable first, what survives, what comes back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<std::string> Range(int n) {
  std::string list = "[";
  for (int i = 0; i < n; ++i) absl::StrAppend(&list, i ? "," : "", i);
  return {list + "]"};
}

v1::StartWorkflowRequest StartRequest(const std::string& workflow, const std::string& id) {
  v1::StartWorkflowRequest request;
  request.set_workflow(workflow);
  request.set_workflow_id(id);
  *request.add_inputs() = Json("1");
  return request;
}

TEST(Engine, RunsAChainToItsResult) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 5));
  ASSERT_TRUE(world.Start("chain", "a", {"42"}).ok());
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.RunWorker(worker);
  const v1::GetResultResponse result = world.Result("a");
  EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(result.result().data(), "42");
  ASSERT_EQ(world.stream(worker).acks.size(), 5u);
  for (const auto& ack : world.stream(worker).acks) {
    EXPECT_EQ(ack.status(), v1::ACK_STATUS_RECORDED);
  }
  auto verified = world.Verify("a");
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_TRUE(verified->equal()) << verified->difference();
}

TEST(Engine, AnswersAStartOnlyOnceItIsOnDisk) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  world.Settle();
  auto answer = world.PostStart(StartRequest("chain", "a"));
  world.Turn();
  while (world.RunJob()) {
  }
  world.Turn();
  world.Turn();
  EXPECT_FALSE(answer->has_value()) << "answered before the store was";
  while (world.StepStore()) {
  }
  world.Turn();
  ASSERT_TRUE(answer->has_value());
  EXPECT_TRUE((*answer)->ok());
}

TEST(Engine, HandsATaskOutOnlyOnceItsScheduleIsOnDisk) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.Settle();
  world.PostStart(StartRequest("chain", "a"));
  world.Turn();
  while (world.RunJob()) {
  }
  world.Turn();
  world.Turn();
  EXPECT_TRUE(world.stream(worker).tasks.empty());
  world.Settle();
  EXPECT_EQ(world.stream(worker).tasks.size(), 1u);
}

TEST(Engine, RefusesDoubledLateAndInventedResults) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 2));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  ASSERT_EQ(world.stream(worker).tasks.size(), 1u);
  const v1::Task task = world.stream(worker).tasks.front();
  world.Answer(worker, task, "7");
  world.Answer(worker, task, "8");
  world.Settle();
  v1::Task invented = task;
  invented.mutable_token()->set_delivery(99);
  world.Answer(worker, invented, "9");
  v1::Task other_run = task;
  other_run.mutable_token()->set_run_id(std::string(16, 'x'));
  world.Answer(worker, other_run, "9");
  v1::Task other_store = task;
  other_store.mutable_token()->set_incarnation(77);
  world.Answer(worker, other_store, "9");
  world.Settle();
  const auto& acks = world.stream(worker).acks;
  ASSERT_EQ(acks.size(), 5u);
  EXPECT_EQ(acks[0].status(), v1::ACK_STATUS_RECORDED);
  EXPECT_EQ(acks[1].status(), v1::ACK_STATUS_DUPLICATE);
  EXPECT_EQ(acks[2].status(), v1::ACK_STATUS_STALE);
  EXPECT_EQ(acks[3].status(), v1::ACK_STATUS_STALE);
  EXPECT_EQ(acks[4].status(), v1::ACK_STATUS_STALE);
  EXPECT_EQ(world.Describe("a").steps(0).output().data(), "7");
  EXPECT_EQ(world.Counter("results_stale"), 3u);
  EXPECT_EQ(world.Counter("results_duplicate"), 1u);
}

TEST(Engine, MapsInOrderWhateverOrderItemsEnd) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(MapAndSum("map", 3));
  const StreamId worker = world.Connect("s1", {"t", "sum"}, 100);
  ASSERT_TRUE(world.Start("map", "a", Range(10)).ok());
  int most = 0;
  std::optional<v1::Task> sum;
  while (!sum) {
    auto& tasks = world.stream(worker).tasks;
    ASSERT_FALSE(tasks.empty());
    most = std::max(most, static_cast<int>(tasks.size()));
    const v1::Task task = tasks.back();  // the youngest first
    tasks.pop_back();
    if (task.name() == "sum") {
      sum = task;
    } else {
      world.Answer(worker, task, task.inputs(0).payload().data());
      world.Settle();
    }
  }
  EXPECT_EQ(most, 3);
  v1::PayloadList list;
  ASSERT_TRUE(list.ParseFromString(sum->inputs(0).payload().data()));
  ASSERT_EQ(list.items_size(), 10);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(list.items(i).data(), absl::StrCat(i));
}

// Crashes after every number of store writes: whatever was acknowledged is there afterwards,
// everything ends, and no step's outcome is recorded twice.
TEST(Engine, SurvivesACrashAtEveryWrite) {
  for (size_t kept = 0; kept < 2; ++kept) {
    for (int crash_at = 0; crash_at < 60; ++crash_at) {
      SCOPED_TRACE(absl::StrCat("crash at completion ", crash_at, ", queued writes kept ", kept));
      World world;
      ASSERT_TRUE(world.Open().ok());
      world.Define(Chain("chain", 4));
      StreamId worker = world.Connect("s1", {"t"}, 4);
      world.Settle();
      std::set<std::string> acknowledged;
      std::map<std::string,
               std::shared_ptr<std::optional<absl::StatusOr<v1::StartWorkflowResponse>>>>
          starts;
      for (int i = 0; i < 3; ++i) {
        v1::StartWorkflowRequest request = StartRequest("chain", absl::StrCat("id", i));
        request.set_request_id(absl::StrCat("request", i));
        starts[request.workflow_id()] = world.PostStart(request);
      }
      int completions = 0;
      std::vector<v1::Task> unacked;
      const auto pump = [&](int until) {
        for (int idle = 0; idle < 3;) {
          world.Turn();
          bool moved = world.RunJob();
          if (completions < until && world.StepStore()) {
            ++completions;
            moved = true;
          }
          auto& stream = world.stream(worker);
          while (!stream.tasks.empty()) {
            unacked.push_back(stream.tasks.front());
            world.Answer(worker, stream.tasks.front(), "5");
            stream.tasks.pop_front();
            moved = true;
          }
          idle = moved ? 0 : idle + 1;
        }
      };
      pump(crash_at);
      for (auto& [id, answer] : starts) {
        if (*answer && (*answer)->ok()) acknowledged.insert(id);
      }
      std::set<std::string> recorded;
      for (const auto& ack : world.stream(worker).acks) {
        if (ack.status() == v1::ACK_STATUS_RECORDED)
          recorded.insert(ack.token().SerializeAsString());
      }
      world.Crash({.queued_written = kept, .torn_tail = kept == 0});
      ASSERT_TRUE(world.Open().ok());
      // The worker comes back with what it holds: results without an ack.
      std::vector<v1::RunningTask> running;
      std::vector<v1::Task> resend;
      for (const v1::Task& task : unacked) {
        if (recorded.contains(task.token().SerializeAsString())) continue;
        v1::RunningTask claim;
        *claim.mutable_token() = task.token();
        claim.set_finished(true);
        running.push_back(claim);
        resend.push_back(task);
      }
      worker = world.Connect("s1", {"t"}, 4, running);
      for (const v1::Task& task : resend) world.Answer(worker, task, "5");
      world.Settle();
      for (const std::string& id : acknowledged) {
        EXPECT_NE(world.Describe(id).info().workflow_id(), "") << "lost " << id;
      }
      for (const auto& [id, answer] : starts) {
        v1::StartWorkflowRequest request = StartRequest("chain", id);
        request.set_request_id(absl::StrCat("request", id.substr(2)));
        auto again = world.Start(request);
        ASSERT_TRUE(again.ok()) << again.status();
        if (acknowledged.contains(id)) {
          EXPECT_FALSE(again->started()) << id;
        }
      }
      for (int round = 0; round < 60; ++round) {
        world.RunWorker(worker);
        world.Advance(500);
      }
      for (const auto& [id, answer] : starts) {
        EXPECT_EQ(world.Result(id).status(), v1::EXECUTION_STATUS_COMPLETED) << id;
        auto verified = world.Verify(id);
        ASSERT_TRUE(verified.ok()) << verified.status();
        EXPECT_TRUE(verified->equal()) << verified->difference();
        EXPECT_EQ(world.Describe(id).info().steps_completed(), 4u);
      }
      for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
    }
  }
}

TEST(Engine, EvictsASleeperAndWakesItInTime) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("nap", "a", {"3"}).ok());
  world.Advance(10'000);
  EXPECT_GE(world.Counter("evictions"), 1u);
  EXPECT_EQ(world.Counter("log_tail_bytes"), 0u) << "an idle execution holds no log";
  for (int minute = 0; minute < 59; ++minute) {
    for (uint64_t ping : std::exchange(world.stream(worker).pings, {})) {
      v1::ConnectRequest pong;
      pong.set_pong(ping);
      world.Message(worker, pong);
    }
    world.Advance(59'000, 5'000);
    for (uint64_t ping : std::exchange(world.stream(worker).pings, {})) {
      v1::ConnectRequest pong;
      pong.set_pong(ping);
      world.Message(worker, pong);
    }
  }
  EXPECT_EQ(world.handed_out().size(), 0u) << "woken early";
  world.Advance(120'000, 1'000);
  const StreamId again = world.Connect("s2", {"t"}, 4);
  world.RunWorker(worker);
  world.RunWorker(again);
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
}

TEST(Engine, WakesASleeperAfterARestart) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 60'000));
  ASSERT_TRUE(world.Start("nap", "a", {"3"}).ok());
  world.Advance(5'000);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  world.Advance(56'000, 500);
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.RunWorker(worker);
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
}

TEST(Engine, KeepsALongBacklogOnDiskAndRunsAllOfIt) {
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 10;
  options.dispatch.refill_below = 5;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 2));
  for (int i = 0; i < 100; ++i)
    ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  world.Advance(5'000);
  EXPECT_GE(world.Counter("evictions"), 80u) << "the backlog stays in memory";
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (int round = 0; round < 200; ++round) {
    world.RunWorker(worker);
    world.Advance(100);
  }
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(world.Result(absl::StrCat("id", i)).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
  }
  for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
}

TEST(Engine, BacklogSurvivesARestart) {
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 10;
  options.dispatch.refill_below = 5;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  world.Advance(5'000);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (int round = 0; round < 100; ++round) {
    world.RunWorker(worker);
    world.Advance(200);
  }
  for (int i = 0; i < 60; ++i) {
    EXPECT_EQ(world.Result(absl::StrCat("id", i)).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
  }
}

// Of ten steps two wait in memory, the others beyond it.
void ExpectGivenUpUnstarted(absl::Duration idle_before_eviction, bool restart) {
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 2;
  options.dispatch.refill_below = 1;
  options.idle_before_eviction = idle_before_eviction;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  v1::Definition definition = Chain("chain", 1);
  v1::TaskStep* task = definition.mutable_scopes(0)->mutable_steps(0)->mutable_task();
  task->mutable_timeouts()->set_schedule_to_start_ms(60'000);
  task->mutable_retry()->set_max_attempts(1);
  world.Define(definition);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  world.Advance(55'000);
  if (restart) {
    world.Crash();
    ASSERT_TRUE(world.Open().ok());
    world.Settle();
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(world.Result(absl::StrCat("id", i)).status(), v1::EXECUTION_STATUS_RUNNING) << i;
  }
  // Who may have had it before the restart did not come back: it waits anew.
  world.Advance(restart ? 65'000 : 10'000);
  for (int i = 0; i < 10; ++i) {
    const v1::GetResultResponse result = world.Result(absl::StrCat("id", i));
    EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_FAILED) << i;
    EXPECT_EQ(result.failure().type(), "flux.timeout.schedule_to_start") << i;
    EXPECT_TRUE(world.Verify(absl::StrCat("id", i)).ok()) << i;
  }
}

TEST(Engine, AStepThatWaitsOnDiskIsGivenUpOnceItsScheduleToStartHasPassed) {
  ExpectGivenUpUnstarted(absl::Seconds(1), false);
}

TEST(Engine, AStepThatFoundNoRoomIsGivenUpOnceItsScheduleToStartHasPassed) {
  ExpectGivenUpUnstarted(absl::Hours(1), false);
}

TEST(Engine, AStepThatWaitedOnDiskBeforeARestartIsGivenUpAfterIt) {
  ExpectGivenUpUnstarted(absl::Seconds(1), true);
}

TEST(Engine, AStepThatGaveItsPlaceToAMoreUrgentOneIsGivenUpInTime) {
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 1;
  options.dispatch.refill_below = 1;
  options.idle_before_eviction = absl::Hours(1);  // nothing else arms its timer
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  for (const int32_t priority : {0, 5}) {
    v1::Definition definition = Chain(absl::StrCat("priority-", priority), 1);
    v1::TaskStep* task = definition.mutable_scopes(0)->mutable_steps(0)->mutable_task();
    task->set_priority(priority);
    task->mutable_retry()->set_max_attempts(1);
    if (priority == 0) task->mutable_timeouts()->set_schedule_to_start_ms(2'000);
    world.Define(definition);
  }
  ASSERT_TRUE(world.Start("priority-0", "patient", {"1"}).ok());
  ASSERT_TRUE(world.Start("priority-5", "urgent", {"1"}).ok());
  world.Advance(4'000, 100);
  EXPECT_EQ(world.Result("patient").failure().type(), "flux.timeout.schedule_to_start");
  EXPECT_EQ(world.Result("urgent").status(), v1::EXECUTION_STATUS_RUNNING);
}

TEST(Engine, AStepThatWaitsOnDiskAndIsGivenUpMayBeTriedAgain) {
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 1;
  options.dispatch.refill_below = 1;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  v1::Definition definition = Chain("chain", 1);
  v1::TaskStep* task = definition.mutable_scopes(0)->mutable_steps(0)->mutable_task();
  task->mutable_timeouts()->set_schedule_to_start_ms(60'000);
  task->mutable_retry()->set_max_attempts(5);
  world.Define(definition);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  world.Advance(90'000);
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (int round = 0; round < 50; ++round) {
    world.RunWorker(worker);
    world.Advance(1'000, 100);
  }
  for (int i = 0; i < 5; ++i) {
    const std::string id = absl::StrCat("id", i);
    EXPECT_EQ(world.Result(id).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
    EXPECT_EQ(world.Describe(id).steps(0).attempt(), 2u) << i;
  }
  for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1) << token;
}

TEST(Engine, ALongExecutionDoesNotHoldTheLog) {
  EngineOptions options;
  options.log_tail_bytes_max = 64 * 1024;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Rounds("chain", 3'000));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  uint64_t most = 0;
  for (int i = 0; i < 2'950; ++i) {
    ASSERT_FALSE(world.stream(worker).tasks.empty()) << i;
    world.Answer(worker, world.stream(worker).tasks.front(), "1");
    world.stream(worker).tasks.pop_front();
    world.Advance(10, 10);
    if (i % 100 == 0) most = std::max(most, world.Counter("log_tail_bytes"));
  }
  EXPECT_LT(most, 128u * 1024);
  EXPECT_GE(world.Counter("snapshots"), 1u);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  auto verified = world.Verify("a");
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_TRUE(verified->equal()) << verified->difference();
  const StreamId again = world.Connect("s1", {"t"}, 4);
  world.RunWorker(again);
  world.Advance(15'000);
  world.RunWorker(again);
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
}

TEST(Engine, StopsForGoodAfterAFailedWrite) {
  for (auto kind : {store::FaultKind::kNotCommitted, store::FaultKind::kUnknownCommitted,
                    store::FaultKind::kUnknownNotCommitted, store::FaultKind::kFenced,
                    store::FaultKind::kDiskFull}) {
    World world;
    ASSERT_TRUE(world.Open().ok());
    world.Define(Chain("chain", 1));
    const StreamId worker = world.Connect("s1", {"t"}, 4);
    world.Settle();
    const uint64_t appends = world.store().Stats().appends;
    for (uint64_t at = appends; at < appends + 3; ++at) {
      world.store().Inject({.op = store::FaultOp::kAppend, .at = at + 1, .kind = kind});
    }
    auto answer = world.PostStart(StartRequest("chain", "a"));
    for (int i = 0; i < 10; ++i) {
      world.Turn();
      while (world.RunJob() || world.StepStore()) {
      }
    }
    EXPECT_FALSE(world.fatal().ok());
    EXPECT_FALSE(answer->has_value()) << "answered though the store refused";
    EXPECT_TRUE(world.stream(worker).tasks.empty());
    // Reopened, a start with the same id is either the one that made it to disk, or new: never two.
    world.Crash();
    ASSERT_TRUE(world.Open().ok());
    auto again = world.Start("chain", "a", {"1"});
    EXPECT_EQ(again.ok(), kind != store::FaultKind::kUnknownCommitted) << again.status();
  }
}

TEST(Engine, RefusesStartsAndEventsOnANearlyFullDiskAndFinishesTheRest) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 2));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  world.store().SetBelowReserve(true);
  auto refused = world.Start("chain", "b", {"1"});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("nearly full"), HasSubstr("starts are refused")));
  auto event = world.SendEvent("a", "news", "1");
  EXPECT_EQ(event.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(event.status().message()),
              AllOf(HasSubstr("nearly full"), HasSubstr("events are refused")));
  auto info = world.Ask<v1::GetServerInfoResponse>(
      [&](auto reply) { world.engine().Info(std::move(reply)); });
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_TRUE(info->degraded());
  EXPECT_THAT(info->degraded_reason(), HasSubstr("starts, events and new schedules are refused"));
  world.RunWorker(worker);
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
}

// The store gives its ballast back when it is asked: work that brings results alone has to ask.
TEST(Engine, LooksAfterTheDiskWhileOnlyResultsCome) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 8));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  const uint64_t before = world.store().reserve_checks();
  for (int second = 1; second <= 6; ++second) {
    world.Answer(worker, world.Take(worker), "1");
    world.Advance(1'000);
    EXPECT_GE(world.store().reserve_checks() - before, static_cast<uint64_t>(second));
  }
  EXPECT_LE(world.store().reserve_checks() - before, 7u) << "it asks the operating system";
}

TEST(Engine, StartPolicies) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  auto first = world.Start("chain", "a", {"1"});
  ASSERT_TRUE(first.ok());
  for (bool evicted : {false, true}) {
    if (evicted) {
      world.Crash();
      ASSERT_TRUE(world.Open().ok());
      world.Advance(5'000);
    }
    auto rejected = world.Start("chain", "a", {"1"});
    EXPECT_EQ(rejected.status().code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(rejected.status().message()), HasSubstr(first->run_id()));
    v1::StartWorkflowRequest request = StartRequest("chain", "a");
    request.set_conflict_policy(v1::CONFLICT_POLICY_USE_EXISTING);
    auto existing = world.Start(request);
    ASSERT_TRUE(existing.ok());
    EXPECT_EQ(existing->run_id(), first->run_id());
    EXPECT_FALSE(existing->started());
  }
  v1::StartWorkflowRequest replace = StartRequest("chain", "a");
  replace.set_conflict_policy(v1::CONFLICT_POLICY_TERMINATE_EXISTING);
  auto replaced = world.Start(replace);
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_NE(replaced->run_id(), first->run_id());
  EXPECT_EQ(world.Describe("a").info().run_id(), replaced->run_id());

  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.RunWorker(worker);
  ASSERT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
  world.Advance(5'000);  // closed and evicted
  v1::StartWorkflowRequest reuse = StartRequest("chain", "a");
  reuse.set_reuse_policy(v1::REUSE_POLICY_REJECT);
  EXPECT_EQ(world.Start(reuse).status().code(), absl::StatusCode::kAlreadyExists);
  reuse.set_reuse_policy(v1::REUSE_POLICY_ALLOW_IF_FAILED);
  EXPECT_EQ(world.Start(reuse).status().code(), absl::StatusCode::kAlreadyExists);
  reuse.set_reuse_policy(v1::REUSE_POLICY_ALLOW);
  auto reused = world.Start(reuse);
  ASSERT_TRUE(reused.ok());
  EXPECT_TRUE(reused->started());
}

TEST(Engine, AStartThatIsRefusedTerminatesNothing) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  world.Define(MapAndSum("wide"));
  const auto first = world.Start("nap", "a", {"1"});
  ASSERT_TRUE(first.ok());
  v1::StartWorkflowRequest request = StartRequest("wide", "a");
  request.set_conflict_policy(v1::CONFLICT_POLICY_TERMINATE_EXISTING);
  *request.mutable_inputs(0) = Json("5");
  v1::StartWorkflowRequest late = request;
  *late.mutable_inputs(0) = Json("[5]");
  late.set_execution_timeout_ms(INT64_MAX);
  for (const auto& [start, words] :
       {std::pair{request, "step \"map\" cannot map over input 0"},
        std::pair{late, "execution_timeout_ms is 9223372036854775807; it must be"}}) {
    const auto refused = world.Start(start);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(refused.status().ToString(), HasSubstr(words));
    EXPECT_EQ(world.engine().ValidateStart(start), refused.status()) << "schedules ask for it";
    EXPECT_EQ(world.Describe("a").info().run_id(), first->run_id());
    EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_RUNNING);
  }
  late.set_execution_timeout_ms(1'000);
  EXPECT_TRUE(world.Start(late).ok());
}

TEST(Engine, TheSameRequestIdIsTheSameStartWhateverThePolicy) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  v1::StartWorkflowRequest request = StartRequest("chain", "a");
  request.set_request_id("r1");
  auto first = world.Start(request);
  ASSERT_TRUE(first.ok());
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.RunWorker(worker);
  world.Advance(5'000);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  auto again = world.Start(request);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->run_id(), first->run_id());
  EXPECT_FALSE(again->started());
}

TEST(Engine, ListsAndCountsWhatIsInMemoryAndOnDiskAlike) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  world.Define(Nap("nap", 3'600'000));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(world.Start(i % 3 == 0 ? "nap" : "chain", absl::StrCat("id", i), {"1"}).ok());
    world.RunWorker(worker);
    world.Advance(10, 10);
    if (i == 15) world.Advance(5'000);
  }
  const auto count = [&](v1::ExecutionFilter filter) {
    v1::CountExecutionsRequest request;
    *request.mutable_filter() = filter;
    auto response = world.Ask<v1::CountExecutionsResponse>(
        [&](auto reply) { world.engine().Count(request, std::move(reply)); });
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? response->count() : 0;
  };
  v1::ExecutionFilter filter;
  EXPECT_EQ(count(filter), 30u);
  filter.add_statuses(v1::EXECUTION_STATUS_RUNNING);
  EXPECT_EQ(count(filter), 10u);
  filter.set_workflow("chain");
  EXPECT_EQ(count(filter), 0u);
  filter.Clear();
  filter.set_workflow_id_prefix("id2");
  EXPECT_EQ(count(filter), 11u);

  // Pages: newest first, none twice, none missed.
  std::vector<std::string> ids;
  std::string token;
  do {
    v1::ListExecutionsRequest request;
    request.set_page_size(7);
    request.set_page_token(token);
    auto page = world.Ask<v1::ListExecutionsResponse>(
        [&](auto reply) { world.engine().List(request, std::move(reply)); });
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& info : page->executions()) {
      ids.push_back(info.workflow_id());
      EXPECT_NE(info.workflow(), "");
    }
    token = page->next_page_token();
  } while (!token.empty());
  ASSERT_EQ(ids.size(), 30u);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(ids[i], absl::StrCat("id", 29 - i));
}

TEST(Engine, TellsHowManyExecutionsAreOpenWhetherTheyAreInMemoryOrNot) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  world.Define(Nap("nap", 3'600'000));
  const auto info = [&] {
    return *world.Ask<v1::GetServerInfoResponse>(
        [&](auto reply) { world.engine().Info(std::move(reply)); });
  };
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "done", {"1"}).ok());
  world.RunWorker(worker);
  for (int i = 0; i < 20; ++i) {
    v1::StartWorkflowRequest request = StartRequest("nap", absl::StrCat("nap", i));
    if (i % 2 == 1) request.set_namespace_("other");
    ASSERT_TRUE(world.Start(request).ok());
  }
  EXPECT_EQ(info().executions_open(), 20u) << "no row says so yet";
  world.Advance(5'000);
  ASSERT_TRUE(world.Operate("nap0", "pause {}").ok());
  ASSERT_TRUE(world.Operate("nap2", "terminate {}").ok());
  ASSERT_TRUE(world.Start("chain", "runs", {"1"}).ok());
  EXPECT_EQ(info().executions_open(), 20u);
  EXPECT_LT(info().executions_resident(), 5u);
  world.Advance(5'000);
  EXPECT_EQ(info().executions_open(), 20u);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  EXPECT_EQ(info().executions_open(), 20u);
}

TEST(Engine, RefusesBadRequestsAndSaysWhy) {
  EngineOptions options;
  options.payload_bytes_max = 100;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const auto refused = [&](v1::StartWorkflowRequest request) {
    auto answer = world.Start(std::move(request));
    return answer.ok() ? std::string("OK") : answer.status().ToString();
  };
  EXPECT_THAT(refused(StartRequest("no-such", "a")),
              HasSubstr("NOT_FOUND: unknown workflow \"no-such\""));
  EXPECT_THAT(refused(StartRequest("chain", "a\nb")),
              HasSubstr("control character (0x0a) at byte 1"));
  EXPECT_THAT(refused(StartRequest("chain", std::string(257, 'x'))), HasSubstr("at most 256"));
  v1::StartWorkflowRequest large = StartRequest("chain", "a");
  *large.mutable_inputs(0) = Json(std::string(101, '1'));
  EXPECT_THAT(
      refused(large),
      HasSubstr("input 0 has 101 bytes; the limit is 100, fluxd's payload-bytes-max: pass a "
                "reference to the data instead, or raise it"));
  v1::StartWorkflowRequest none = StartRequest("chain", "a");
  none.clear_inputs();
  EXPECT_THAT(refused(none), HasSubstr("takes 1 input(s), the start gives 0"));
  v1::CancelExecutionRequest cancel;
  cancel.mutable_execution()->set_workflow_id("ghost");
  auto answer = world.Ask<v1::CancelExecutionResponse>(
      [&](auto reply) { world.engine().Cancel(cancel, std::move(reply)); });
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kNotFound);
  v1::CountExecutionsRequest all;
  auto count = world.Ask<v1::CountExecutionsResponse>(
      [&](auto reply) { world.engine().Count(all, std::move(reply)); });
  ASSERT_TRUE(count.ok());
  EXPECT_EQ(count->count(), 0u) << "a refused start changed something";
}

TEST(Engine, AQueueIsOfAllNamespaces) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (const char* ns : {"prod", "test"}) {
    v1::StartWorkflowRequest request = StartRequest("chain", "a");
    request.set_namespace_(ns);
    ASSERT_TRUE(world.Start(request).ok());
  }
  ASSERT_EQ(world.stream(worker).tasks.size(), 2u);
  EXPECT_EQ(world.stream(worker).tasks[0].namespace_(), "prod");
  EXPECT_EQ(world.stream(worker).tasks[1].namespace_(), "test");
}

TEST(Engine, CancelTellsTheWorkerAndFencesIt) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 2));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  ASSERT_EQ(world.stream(worker).tasks.size(), 1u);
  v1::CancelExecutionRequest cancel;
  cancel.mutable_execution()->set_workflow_id("a");
  cancel.set_reason("enough");
  auto answer = world.Ask<v1::CancelExecutionResponse>(
      [&](auto reply) { world.engine().Cancel(cancel, std::move(reply)); });
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(world.stream(worker).cancels.size(), 1u);
  world.Answer(worker, world.stream(worker).tasks.front(), "1");
  world.Settle();
  ASSERT_FALSE(world.stream(worker).acks.empty());
  EXPECT_EQ(world.stream(worker).acks.back().status(), v1::ACK_STATUS_STALE);
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_CANCELLED);
  // Its sender may not have had the answer.
  const uint64_t records = world.Counter("records");
  auto again = world.Ask<v1::CancelExecutionResponse>(
      [&](auto reply) { world.engine().Cancel(cancel, std::move(reply)); });
  EXPECT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(world.Counter("records"), records);
}

TEST(Engine, LargePayloadsLieUnderTheirOwnKeyAndComeBack) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 3));
  StreamId worker = world.Connect("s1", {"t"}, 4);
  const std::string large = "\"" + std::string(200'000, 'x') + "\"";
  ASSERT_TRUE(world.Start("chain", "a", {large}).ok());
  world.Answer(worker, world.stream(worker).tasks.front(), large);
  world.Settle();
  EXPECT_LT(world.Counter("row_bytes"), 100'000u) << "written more than once";
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  worker = world.Connect("s2", {"t"}, 4);
  for (int i = 0; i < 40; ++i) {
    world.Advance(500);
    world.RunWorker(worker);
  }
  const auto result = world.Result("a");
  EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(result.result().data(), large);
  auto verified = world.Verify("a");
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_TRUE(verified->equal()) << verified->difference();
}

TEST(Engine, NamesAFewOfManyVersions) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  for (int i = 0; i < 200; ++i) {
    v1::Definition definition = Chain("chain", 1);
    definition.set_version(absl::StrCat("v", i));
    world.Define(definition);
  }
  v1::StartWorkflowRequest request = StartRequest("chain", "a");
  request.set_version("none");
  const auto refused = world.Start(request);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(refused.status().message()),
            "workflow \"chain\" has no version \"none\"; it has: v199, v198, v197, v196, v195, "
            "v194, v193, v192 and 192 more");
}

TEST(Engine, HistoryTellsTheStoryPageByPage) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 20));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  world.RunWorker(worker);
  std::vector<std::string> types;
  std::string token;
  int pages = 0;
  do {
    v1::GetHistoryRequest request;
    request.mutable_execution()->set_workflow_id("a");
    request.set_page_size(5);
    request.set_page_token(token);
    auto page = world.Ask<v1::GetHistoryResponse>(
        [&](auto reply) { world.engine().History(request, std::move(reply)); });
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& event : page->events()) types.push_back(event.type());
    token = page->next_page_token();
    ++pages;
  } while (!token.empty());
  EXPECT_EQ(pages, 5);
  EXPECT_EQ(types.front(), "execution.started");
  EXPECT_EQ(types.back(), "execution.completed");
  EXPECT_EQ(std::count(types.begin(), types.end(), "step.completed"), 20);
  EXPECT_EQ(std::count(types.begin(), types.end(), "step.scheduled"), 20);
}

TEST(Engine, KeepsWhereAHistoryWasReadToForAMinute) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 20));
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  world.RunWorker(world.Connect("s1", {"t"}, 4));
  v1::GetHistoryRequest request;
  request.mutable_execution()->set_workflow_id("a");
  request.set_page_size(5);
  const auto page = [&] {
    auto answer = world.Ask<v1::GetHistoryResponse>(
        [&](auto reply) { world.engine().History(request, std::move(reply)); });
    EXPECT_TRUE(answer.ok()) << answer.status();
    return *std::move(answer);
  };
  request.set_page_token(page().next_page_token());
  EXPECT_EQ(world.Counter("history_cursors"), 1u);
  world.Advance(55'000, 1'000);
  EXPECT_EQ(world.Counter("history_cursors"), 1u);
  world.Advance(7'000, 1'000);
  EXPECT_EQ(world.Counter("history_cursors"), 0u) << "an execution each, in nobody's accounts";
  const v1::GetHistoryResponse next = page();
  ASSERT_GT(next.events_size(), 0);
  EXPECT_EQ(next.events(0).ordinal(), 6u);
}

}  // namespace
}  // namespace flux::engine::testing
