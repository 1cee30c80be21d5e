// Bounds inside the loop: what a wide execution, a slow disk or a lost worker piles up is given to
// the store in pieces it takes, and what callers bring meanwhile is bounded in bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string JsonOf(size_t bytes) { return absl::StrCat("\"", std::string(bytes, 'x'), "\""); }

std::string ListOf(int items, size_t bytes) {
  std::string list = "[";
  for (int i = 0; i < items; ++i) absl::StrAppend(&list, i == 0 ? "" : ",", JsonOf(bytes));
  return list + "]";
}

v1::StartWorkflowRequest StartOf(const std::string& workflow, const std::string& id,
                                 std::vector<std::string> inputs = {}) {
  v1::StartWorkflowRequest request;
  request.set_workflow(workflow);
  request.set_workflow_id(id);
  for (const std::string& input : inputs) *request.add_inputs() = Json(input);
  return request;
}

// Like World::Settle, and says how many bytes the largest commit had.
uint64_t SettleAndMeasure(World& world) {
  uint64_t most = 0;
  for (bool moved = true; moved && world.fatal().ok();) {
    world.Turn();
    moved = world.engine().inbox().size() > 0;
    while (world.RunJob()) moved = true;
    for (;;) {
      const store::StoreStats before = world.store().Stats();
      if (!world.StepStore()) break;
      moved = true;
      most = std::max(most, world.store().Stats().appended_bytes - before.appended_bytes);
    }
  }
  EXPECT_TRUE(world.fatal().ok()) << world.fatal();
  return most;
}

// ---- row images
// -----------------------------------------------------------------------------------------------

constexpr int kItems = 40;
constexpr size_t kItemBytes = 25'000;

EngineOptions SmallWrites() {
  EngineOptions options;
  options.snapshot_records_min = 1;
  options.row_write_bytes_max = 64 * 1024;
  return options;
}

// A map of large inline outputs that is done but for its last task, which is returned.
v1::Task RunWide(World& world, StreamId worker, const std::string& id) {
  EXPECT_TRUE(world.Start("map", id, {ListOf(kItems, kItemBytes)}).ok());
  for (;;) {
    v1::Task task = world.Take(worker);
    if (task.name() == "sum") return task;
    world.Answer(worker, task, task.inputs(0).payload().data());
  }
}

TEST(Bounds, AnImageLargerThanTheStoresQueueIsWrittenInPieces) {
  store::MemoryOptions store;
  store.queued_bytes_max = 1 << 20;
  World world(SmallWrites(), store);
  ASSERT_TRUE(world.Open().ok());
  world.Define(MapAndSum("map"));
  world.Define(Nap("nap", 3'600'000));
  const StreamId worker = world.Connect("s1", {"t", "sum"}, 100);
  world.Answer(worker, RunWide(world, worker, "wide"), "1");
  // Other commits are made all the while.
  for (int i = 0; i < 100 && world.fatal().ok(); ++i) {
    world.PostStart(StartOf("nap", "", {"1"}));
    world.Turn();
    while (world.RunJob()) {
    }
    world.StepStore();
  }
  world.Advance(5'000);
  ASSERT_TRUE(world.fatal().ok()) << world.fatal();
  EXPECT_EQ(world.Counter("executions_spilled_in_memory"), 0u);
  EXPECT_GT(CountRows(world, keys::Table::kSnapshot), 10u);
  EXPECT_EQ(world.Result("wide").status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_TRUE(world.Verify("wide")->equal()) << world.Verify("wide")->difference();
}

// A crash between two pieces leaves rows that nobody takes for the execution's, nor keeps.
TEST(Bounds, ACrashBetweenThePiecesOfAnImageLosesNothingAndLeavesNothing) {
  size_t rows_at_end = 0;
  size_t history_at_end = 0;
  int cut = 0;
  for (int pieces = 0, last = 1'000; pieces <= last; ++pieces) {
    SCOPED_TRACE(pieces);
    World world(SmallWrites());
    ASSERT_TRUE(world.Open().ok());
    world.Define(MapAndSum("map"));
    const StreamId worker = world.Connect("s1", {"t", "sum"}, 100);
    const v1::Task sum = RunWide(world, worker, "wide");
    const uint64_t writes = world.store().calls(store::FaultOp::kWrite);
    world.Answer(worker, sum, "1");
    // The commit that closes it, then as many writes as are to reach the disk.
    world.Turn();
    ASSERT_TRUE(world.StepStore());
    for (int i = 0; i < pieces; ++i) {
      world.Turn();
      if (!world.StepStore()) break;
    }
    world.Turn();
    const auto written = static_cast<int>(world.store().calls(store::FaultOp::kWrite) - writes);
    last = std::min(last, written < pieces ? written : 1'000);
    if (pieces > 0 && CountRows(world, keys::Table::kSnapshot) > 0) ++cut;
    world.Crash({.unsynced_kept = 1'000});
    ASSERT_TRUE(world.Open().ok());
    EXPECT_EQ(world.Result("wide").status(), v1::EXECUTION_STATUS_COMPLETED);
    EXPECT_TRUE(world.Verify("wide")->equal()) << world.Verify("wide")->difference();
    world.Advance(5'000);
    ASSERT_GT(world.Counter("evictions"), 0u);
    EXPECT_EQ(world.Result("wide").status(), v1::EXECUTION_STATUS_COMPLETED);
    EXPECT_TRUE(world.Verify("wide")->equal()) << world.Verify("wide")->difference();
    if (pieces == 0) {
      rows_at_end = CountRows(world, keys::Table::kSnapshot);
      history_at_end = CountRows(world, keys::Table::kHistory);
    }
    EXPECT_EQ(CountRows(world, keys::Table::kSnapshot), rows_at_end);
    EXPECT_EQ(CountRows(world, keys::Table::kHistory), history_at_end);
    EXPECT_EQ(CountRows(world, keys::Table::kActive), 0u);
    ASSERT_LT(pieces, 100);
  }
  EXPECT_GT(cut, 1) << "images were cut short";
}

// Those of the only snapshot that a root names.
size_t PagesOfRoot(World& world) {
  size_t pages = 0;
  for (store::ShardId shard = 0; shard < world.store().shards(); ++shard) {
    const auto [begin, end] = keys::TableRange(shard, keys::Table::kRoot);
    EXPECT_TRUE(world.store()
                    .rows()
                    .Scan(begin, end,
                          [&](std::string_view, std::string_view value) {
                            v1::RunRoot root;
                            EXPECT_TRUE(root.ParseFromString(std::string(value)));
                            pages += root.snapshot_pages();
                            return true;
                          })
                    .ok());
  }
  return pages;
}

// Nor do the pages of a snapshot that was cut short outlive the next one.
TEST(Bounds, ASnapshotThatACrashCutShortGoesWithTheNextOne) {
  const auto answer_all = [](World& world, StreamId worker, const std::string& name, int most) {
    world.Settle();
    std::deque<v1::Task>& tasks = world.stream(worker).tasks;
    for (size_t left = tasks.size(); left > 0; --left) {
      const v1::Task task = std::move(tasks.front());
      tasks.pop_front();
      if (task.name() != name || most-- <= 0) {
        tasks.push_back(task);
      } else {
        world.Answer(worker, task, task.inputs(0).payload().data());
      }
    }
  };
  size_t rows_at_end = 0;
  int cut = 0;
  for (int writes = 0; writes < 12; ++writes) {
    SCOPED_TRACE(writes);
    EngineOptions options = SmallWrites();
    options.log_tail_bytes_max = 100'000;
    World world(options);
    ASSERT_TRUE(world.Open().ok());
    world.Define(Parse(R"(
      name: "twice"
      scopes {
        parameters: 1
        steps { name: "map" inputs { parameter: 0 } map { body: 1 } }
        result { step: 0 }
      }
      scopes {
        parameters: 1
        steps { name: "one" inputs { parameter: 0 } task { task: "one" } }
        steps { name: "two" inputs { step: 0 } task { task: "two" } }
        result { step: 1 }
      })"));
    ASSERT_TRUE(world.Start("twice", "wide", {ListOf(kItems, kItemBytes)}).ok());
    const StreamId worker = world.Connect("s1", {"one", "two"}, 100);
    answer_all(world, worker, "one", kItems);
    answer_all(world, worker, "two", kItems - 1);
    // One call of the store at a time: the commit, then as many writes as are to reach the disk.
    const auto written = [&] {
      return static_cast<int>(world.store().calls(store::FaultOp::kWrite));
    };
    const int before = written();
    for (int i = 0; i < 100 && written() - before <= writes; ++i) {
      world.Turn();
      world.Sleep(20);
      if (written() - before <= writes) world.StepStore();
    }
    if (CountRows(world, keys::Table::kSnapshot) > PagesOfRoot(world)) ++cut;
    world.Crash({.unsynced_kept = 1'000});
    ASSERT_TRUE(world.Open().ok());
    const StreamId again = world.Connect("s2", {"one", "two"}, 100);
    world.Pass(again, 15'000, true);
    EXPECT_EQ(world.Result("wide").status(), v1::EXECUTION_STATUS_COMPLETED);
    EXPECT_TRUE(world.Verify("wide")->equal()) << world.Verify("wide")->difference();
    world.Advance(5'000);
    if (writes == 0) rows_at_end = CountRows(world, keys::Table::kSnapshot);
    EXPECT_EQ(CountRows(world, keys::Table::kSnapshot), rows_at_end);
  }
  EXPECT_GT(rows_at_end, 10u);
  EXPECT_GT(cut, 0) << "a snapshot was cut short";
}

TEST(Bounds, WideExecutionsThatCloseTogetherAreNotImagedTogether) {
  constexpr int kWide = 8;
  World world(SmallWrites());
  ASSERT_TRUE(world.Open().ok());
  world.Define(MapAndSum("map"));
  const StreamId worker = world.Connect("s1", {"t", "sum"}, 1'000);
  std::vector<v1::Task> last;
  for (int i = 0; i < kWide; ++i) {
    last.push_back(RunWide(world, worker, absl::StrCat("wide", i)));
  }
  world.Advance(5'000);
  for (const v1::Task& task : last) world.Answer(worker, task, "1");
  world.Turn();
  ASSERT_TRUE(world.StepStore());
  // The disk takes no rows: what is built meanwhile stays within bounds.
  uint64_t built = 0;
  for (int i = 0; i < 50; ++i) {
    world.Sleep(50);
    world.engine().Info([&](absl::StatusOr<v1::GetServerInfoResponse> info) {
      built = info->counters().at("row_bytes_under_way");
    });
    world.Turn();
  }
  EXPECT_GT(built, 0u);
  EXPECT_LT(built, 3u * kItems * kItemBytes);
  world.Advance(5'000);
  for (int i = 0; i < kWide; ++i) {
    EXPECT_TRUE(world.Verify(absl::StrCat("wide", i))->equal());
  }
  EXPECT_EQ(world.Counter("row_bytes_under_way"), 0u);
}

// ---- batches
// --------------------------------------------------------------------------------------------------

constexpr size_t kBatchBytes = 200'000;
constexpr size_t kBroughtBytes = 60'000;

EngineOptions SmallBatches() {
  EngineOptions options;
  options.batch_bytes_max = kBatchBytes;
  return options;
}

v1::Definition Waiter() {
  return Parse(R"(
    name: "waiter"
    scopes {
      steps { name: "wait" wait_event { event: "go" } }
      steps { name: "turns" inputs { literal { data: "0" encoding: ENCODING_JSON } } after: 0
              loop { body: 1 turns: 1000 } }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      steps { name: "each" wait_event { event: "other" } }
      result { step: 0 }
    })");
}

TEST(Bounds, WhatWaitedForOneLoadIsDecidedInOrderAndInBatches) {
  constexpr int kEvents = 40;
  World world(SmallBatches());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Waiter());
  const auto started = world.Start(StartOf("waiter", "w"));
  ASSERT_TRUE(started.ok());
  world.Advance(5'000);
  ASSERT_EQ(world.Counter("evictions"), 1u);
  // By id for the first half, which waits for the id's rows, too.
  int answered = 0;
  for (int i = 0; i < kEvents; ++i) {
    v1::SendEventRequest request;
    request.mutable_execution()->set_workflow_id("w");
    if (i >= kEvents / 2) request.mutable_execution()->set_run_id(started->run_id());
    request.set_event("other");
    request.set_event_id(absl::StrCat("e", i));
    *request.mutable_payload() = Json(JsonOf(kBroughtBytes));
    world.engine().SendEvent(request, [&](const absl::StatusOr<v1::SendEventResponse>& answer) {
      EXPECT_TRUE(answer.ok()) << answer.status();
      ++answered;
    });
  }
  EXPECT_LT(SettleAndMeasure(world), kBatchBytes + 2 * kBroughtBytes);
  EXPECT_EQ(answered, kEvents);
  std::vector<std::string> ids;
  const v1::ListEventsResponse events = world.Events("w");
  for (const v1::EventInfo& event : events.events()) ids.push_back(event.event_id());
  ASSERT_EQ(ids.size(), static_cast<size_t>(kEvents));
  std::vector<std::string> by_id, by_run;
  for (const std::string& id : ids) {
    (std::stoi(id.substr(1)) < kEvents / 2 ? by_id : by_run).push_back(id);
  }
  for (int i = 0; i < kEvents / 2; ++i) {
    EXPECT_EQ(by_id[i], absl::StrCat("e", i));
    EXPECT_EQ(by_run[i], absl::StrCat("e", kEvents / 2 + i));
  }
  EXPECT_TRUE(world.Verify("w")->equal()) << world.Verify("w")->difference();
}

TEST(Bounds, StartsThatWaitedForTheRowsOfOneIdAreDecidedInBatches) {
  constexpr int kStarts = 30;
  World world(SmallBatches());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  std::vector<std::shared_ptr<std::optional<absl::StatusOr<v1::StartWorkflowResponse>>>> answers;
  for (int i = 0; i < kStarts; ++i) {
    v1::StartWorkflowRequest request = StartOf("nap", "a", {JsonOf(kBroughtBytes)});
    request.set_conflict_policy(v1::CONFLICT_POLICY_TERMINATE_EXISTING);
    answers.push_back(world.PostStart(std::move(request)));
  }
  EXPECT_LT(SettleAndMeasure(world), kBatchBytes + 2 * kBroughtBytes);
  std::set<std::string> runs;
  for (const auto& answer : answers) {
    ASSERT_TRUE(answer->has_value() && (*answer)->ok());
    runs.insert((**answer)->run_id());
  }
  EXPECT_EQ(runs.size(), static_cast<size_t>(kStarts));
  EXPECT_EQ(world.Describe("a").info().run_id(), (**answers.back())->run_id());
}

TEST(Bounds, TheTasksOfALostWorkerEndInBatches) {
  constexpr int kTasks = 40;
  World world(SmallBatches());
  ASSERT_TRUE(world.Open().ok());
  v1::Definition definition = Chain("chain", 1);
  v1::TaskStep* step = definition.mutable_scopes(0)->mutable_steps(0)->mutable_task();
  step->mutable_retry()->set_initial_backoff_ms(60'000);
  world.Define(definition);
  const StreamId worker = world.Connect("s1", {"t"}, kTasks);
  for (int i = 0; i < kTasks; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat("w", i), {"1"}).ok());
  }
  v1::ConnectRequest message;
  for (const v1::Task& task : world.stream(worker).tasks) {
    v1::Heartbeat* heartbeat = message.add_heartbeats();
    *heartbeat->mutable_token() = task.token();
    *heartbeat->mutable_progress() = Json(JsonOf(kBroughtBytes));
  }
  ASSERT_EQ(message.heartbeats_size(), kTasks);
  world.Message(worker, std::move(message));
  world.Settle();
  world.Disconnect(worker);
  // Its grace, in steps: what looks like a stall of ours would extend it.
  world.Advance(absl::ToInt64Milliseconds(DispatchOptions().session_grace) - 50, 50);
  ASSERT_EQ(world.Counter("tasks_lost"), 0u);
  world.Sleep(50);
  // The first commit is not done yet when the batch behind it is full.
  world.Turn();
  EXPECT_TRUE(world.engine().held_up());
  EXPECT_LT(SettleAndMeasure(world), kBatchBytes + 2 * kBroughtBytes);
  EXPECT_FALSE(world.engine().held_up());
  EXPECT_EQ(world.Counter("tasks_lost"), static_cast<uint64_t>(kTasks));
  for (int i = 0; i < kTasks; ++i) {
    const v1::DescribeExecutionResponse described = world.Describe(absl::StrCat("w", i));
    EXPECT_EQ(described.steps(0).state(), v1::STEP_STATE_BACKING_OFF) << i;
  }
}

// ---- the inbox
// ------------------------------------------------------------------------------------------------

TEST(Bounds, RequestsThatWaitHaveOnlySoManyBytes) {
  EngineOptions options;
  options.inbox_bytes_max = 1'000'000;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  world.Define(Waiter());
  ASSERT_TRUE(world.Start(StartOf("waiter", "w")).ok());
  const auto start = [&](const std::string& id) {
    return world.PostStart(StartOf("nap", id, {JsonOf(300'000)}));
  };
  const auto event = [&] {
    auto answer = std::make_shared<std::optional<absl::StatusOr<v1::SendEventResponse>>>();
    v1::SendEventRequest request;
    request.mutable_execution()->set_workflow_id("w");
    request.set_event("other");
    *request.mutable_payload() = Json(JsonOf(1'000));
    world.engine().SendEvent(request, [answer](absl::StatusOr<v1::SendEventResponse> got) {
      answer->emplace(std::move(got));
    });
    return answer;
  };
  std::vector<std::shared_ptr<std::optional<absl::StatusOr<v1::StartWorkflowResponse>>>> taken;
  for (int i = 0; i < 4; ++i) {
    taken.push_back(start(absl::StrCat("a", i)));
    ASSERT_FALSE(taken.back()->has_value());
  }
  const auto expect_refused = [&] {
    const auto refused = start("b");
    ASSERT_TRUE(refused->has_value()) << "at once";
    EXPECT_EQ((*refused)->status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string((*refused)->status().message()),
                AllOf(HasSubstr("1000000"), HasSubstr("fluxd's inbox-bytes-max"),
                      HasSubstr("send it again later")));
    EXPECT_EQ((*event())->status().code(), absl::StatusCode::kResourceExhausted);
  };
  expect_refused();
  // Taken up is not answered: they lie in the batch that waits for the disk.
  world.Turn();
  while (world.RunJob()) {
  }
  world.Turn();
  expect_refused();
  // Reading goes on.
  const auto result = [&] { return world.Result("w").status(); };
  EXPECT_EQ(result(), v1::EXECUTION_STATUS_RUNNING);
  world.Settle();
  for (const auto& answer : taken) EXPECT_TRUE(answer->has_value() && (*answer)->ok());
  const auto more = start("b");
  const auto told = event();
  world.Settle();
  EXPECT_TRUE(more->has_value() && (*more)->ok());
  EXPECT_TRUE(told->has_value() && (*told)->ok());
}

TEST(Bounds, StreamsPauseWhileTheirMessagesHaveTooManyBytes) {
  EngineOptions options;
  options.inbox_bytes_max = 1'000'000;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  int resumed = 0;
  world.engine().set_resume([&] { ++resumed; });
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  world.Settle();
  const auto send = [&] {
    auto message = std::make_unique<v1::ConnectRequest>();
    v1::TaskResult* result = message->add_results();
    result->mutable_token()->set_run_id(std::string(16, 'x'));
    *result->mutable_value() = Json(JsonOf(300'000));
    return world.engine().OnWorkerMessage(worker, std::move(message));
  };
  EXPECT_TRUE(send());
  EXPECT_TRUE(send());
  EXPECT_TRUE(send());
  EXPECT_FALSE(send());
  EXPECT_EQ(resumed, 0);
  world.Settle();
  EXPECT_EQ(resumed, 1);
  EXPECT_EQ(world.stream(worker).acks.size(), 4u);
  EXPECT_TRUE(send());
  world.Settle();
  EXPECT_EQ(resumed, 1);
}

// ---- queues
// ---------------------------------------------------------------------------------------------------

TEST(Bounds, ARunWithStepsOnDiskIsRememberedOnceHoweverOftenItIsLoaded) {
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 1;
  options.dispatch.refill_below = 1;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  }
  world.Advance(5'000);
  EXPECT_EQ(world.Counter("executions_spilled_in_memory"), 0u);
  for (int round = 0; round < 50; ++round) {
    world.Describe("id1");
    world.Describe("id2");
    ASSERT_EQ(world.Counter("executions_spilled_in_memory"), 2u) << round;
    world.Advance(2'000);
  }
  EXPECT_GE(world.Counter("loads"), 100u);
  EXPECT_EQ(world.Counter("executions_spilled_in_memory"), 0u);
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.Pass(worker, 10'000, true);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(world.Result(absl::StrCat("id", i)).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
  }
}

TEST(Bounds, TheRefusalOfAnUnknownQueueNamesSomeOfThemAndCountsTheRest) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  for (int i = 0; i < 50; ++i) {
    world.Connect(absl::StrCat("s", i), {"t"}, 1, {}, absl::StrCat("queue", 100 + i));
  }
  world.Settle();
  absl::Status status;
  v1::GetTaskQueueRequest request;
  request.set_name("qeue");
  world.engine().GetQueue(request, [&](const absl::StatusOr<v1::GetTaskQueueResponse>& answer) {
    status = answer.status();
  });
  world.Settle();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("\"qeue\""), HasSubstr("queue100, queue101"),
                    HasSubstr("queue119 and 30 more")));
}

v1::Definition Urgent(const std::string& name, int priority) {
  v1::Definition definition = Chain(name, 1);
  definition.mutable_scopes(0)->mutable_steps(0)->mutable_task()->set_priority(priority);
  return definition;
}

TEST(Bounds, AnUrgentStepNeedsNoRoomToGoBeforeOthers) {
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 5;
  options.dispatch.refill_below = 2;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Urgent("usual", 0));
  world.Define(Urgent("urgent", 10));
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(world.Start("usual", absl::StrCat("usual", i), {"1"}).ok());
  }
  world.Advance(5'000);
  ASSERT_TRUE(world.Start("urgent", "urgent", {"1"}).ok());
  world.Advance(5'000);
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  EXPECT_EQ(world.Take(worker).workflow_id(), "urgent");
  for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
  world.Pass(worker, 2'000, false);
  // All of them get their turn, and none is handed out under one number twice.
  const StreamId more = world.Connect("s2", {"t"}, 4);
  for (int round = 0; round < 10; ++round) world.Pass(more, 2'000, true);
  for (int i = 0; i < 20; ++i) {
    const std::string id = absl::StrCat("usual", i);
    EXPECT_EQ(world.Result(id).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
    EXPECT_TRUE(world.Verify(id)->equal()) << i;
  }
  for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
}

TEST(Bounds, AStepThatWaitsInMemoryMovesToTheQueueOfTheNewVersion) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  v1::Definition definition = Chain("chain", 1);
  v1::TaskStep* step = definition.mutable_scopes(0)->mutable_steps(0)->mutable_task();
  step->set_queue("old");
  world.Define(definition);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  ASSERT_TRUE(world.Start("chain", "running", {"1"}).ok());
  const StreamId old = world.Connect("s1", {"t"}, 1, {}, "old");
  world.Settle();
  const v1::Task running = world.Take(old);  // "a"
  step->set_queue("new");
  definition.set_version("2");
  world.Define(definition);
  ASSERT_TRUE(world.Operate("a", "migrate {}").ok());
  ASSERT_TRUE(world.Operate("running", "migrate {}").ok());
  const StreamId fresh = world.Connect("s2", {"t"}, 4, {}, "new");
  world.Settle();
  // What a worker has stays with it.
  ASSERT_EQ(world.stream(fresh).tasks.size(), 1u);
  EXPECT_EQ(world.stream(fresh).tasks.front().workflow_id(), "running");
  world.RunWorker(fresh);
  world.Answer(old, running, "1");
  world.Settle();
  EXPECT_TRUE(world.stream(old).tasks.empty()) << "nothing of it is left in the old queue";
  for (const std::string id : {"a", "running"}) {
    EXPECT_EQ(world.Result(id).status(), v1::EXECUTION_STATUS_COMPLETED) << id;
    EXPECT_TRUE(world.Verify(id)->equal()) << id;
  }
  for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
}

}  // namespace
}  // namespace flux::engine::testing
