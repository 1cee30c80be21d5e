// Deletion and retention: all of it goes, or none; whenever the process ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/shard/index.h"
#include "engine/shard/keys.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

v1::ExecutionRef Ref(const std::string& id, const std::string& run = "") {
  v1::ExecutionRef ref;
  ref.set_workflow_id(id);
  ref.set_run_id(run);
  return ref;
}

absl::Status Delete(World& world, const v1::ExecutionRef& ref) {
  v1::OperateExecutionRequest request;
  *request.mutable_execution() = ref;
  request.mutable_operation()->mutable_delete_();
  request.set_identity("tester");
  return world
      .Ask<v1::OperateExecutionResponse>(
          [&](auto reply) { world.engine().Operate(request, std::move(reply)); })
      .status();
}

absl::Status Terminate(World& world, const std::string& id) {
  v1::TerminateExecutionRequest request;
  *request.mutable_execution() = Ref(id);
  return world
      .Ask<v1::TerminateExecutionResponse>(
          [&](auto reply) { world.engine().Terminate(request, std::move(reply)); })
      .status();
}

std::vector<std::string> List(World& world, const std::string& query = "") {
  v1::ListExecutionsRequest request;
  request.mutable_filter()->set_query(query);
  const auto page = world.Ask<v1::ListExecutionsResponse>(
      [&](auto reply) { world.engine().List(request, std::move(reply)); });
  EXPECT_TRUE(page.ok()) << page.status();
  std::vector<std::string> ids;
  if (!page.ok()) return ids;
  for (const v1::ExecutionInfo& info : page->executions()) ids.push_back(info.workflow_id());
  return ids;
}

uint64_t CountAll(World& world, const std::string& query = "") {
  v1::CountExecutionsRequest request;
  request.mutable_filter()->set_query(query);
  const auto counted = world.Ask<v1::CountExecutionsResponse>(
      [&](auto reply) { world.engine().Count(request, std::move(reply)); });
  EXPECT_TRUE(counted.ok()) << counted.status();
  return counted.ok() ? counted->count() : 0;
}

// Keys of rows that name the run, but for the note that somebody had it deleted
// (deletion_notes_test.cc).
std::vector<std::string> RowsOf(World& world, const std::string& run_text) {
  const RunId run = *RunId::FromText(run_text);
  const std::string bytes = run.Bytes();
  const std::string reversed = RunId{~run.high, ~run.low}.Bytes();
  std::vector<std::string> found;
  EXPECT_TRUE(world.store()
                  .rows()
                  .Scan(std::string(1, '\0'), "\xff\xff",
                        [&](std::string_view key, std::string_view) {
                          if (key.substr(2, 1) == "J") return true;
                          if (key.find(bytes) != std::string_view::npos ||
                              key.find(reversed) != std::string_view::npos) {
                            found.emplace_back(key.substr(2));
                          }
                          return true;
                        })
                  .ok());
  return found;
}

v1::StartWorkflowRequest LargeStart(const std::string& workflow, const std::string& id) {
  v1::StartWorkflowRequest request;
  request.set_workflow(workflow);
  request.set_workflow_id(id);
  *request.add_inputs() = Json('"' + std::string(100'000, 'x') + '"');
  (*request.mutable_labels())["tenant"] = "acme";
  return request;
}

TEST(Delete, TakesEveryRowAlong) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 2));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  const auto started = world.Start(LargeStart("chain", "a"));
  ASSERT_TRUE(started.ok());
  ASSERT_TRUE(world.Start("chain", "other", {"1"}).ok());
  world.RunWorker(worker);
  world.Advance(3'000);
  EXPECT_GE(RowsOf(world, started->run_id()).size(), 8u);
  ASSERT_TRUE(Delete(world, Ref("a")).ok());
  EXPECT_THAT(List(world), UnorderedElementsAre("other"));
  EXPECT_THAT(List(world, "label.tenant = \"acme\""), IsEmpty());
  EXPECT_EQ(CountAll(world), 1u);
  EXPECT_TRUE(absl::IsNotFound(Delete(world, Ref("a"))));
  EXPECT_TRUE(absl::IsNotFound(Delete(world, Ref("a", started->run_id()))));
  world.Advance(2'000);
  EXPECT_THAT(RowsOf(world, started->run_id()), IsEmpty());
  EXPECT_EQ(CountAll(world), 1u);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  EXPECT_TRUE(absl::IsNotFound(Delete(world, Ref("a"))));
  EXPECT_THAT(List(world), UnorderedElementsAre("other"));
  EXPECT_EQ(CountAll(world), 1u);
  EXPECT_EQ(world.Result("other").status(), v1::EXECUTION_STATUS_COMPLETED);
}

TEST(Delete, RefusesWhatIsOpenInMemoryAndOnDisk) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  const auto started = world.Start("nap", "a", {"1"});
  ASSERT_TRUE(started.ok());
  for (int round = 0; round < 2; ++round) {
    const absl::Status refused = Delete(world, Ref("a"));
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("is running: cancel or terminate it"));
    world.Advance(3'000);
  }
  EXPECT_TRUE(absl::IsNotFound(Delete(world, Ref("none"))));
  EXPECT_TRUE(absl::IsNotFound(Delete(world, Ref("b", started->run_id()))));
  EXPECT_TRUE(absl::IsNotFound(Delete(world, Ref("a", std::string(32, '0')))));
  v1::ExecutionRef elsewhere = Ref("a", started->run_id());
  elsewhere.set_namespace_("elsewhere");
  EXPECT_TRUE(absl::IsNotFound(Delete(world, elsewhere)));
  EXPECT_EQ(CountAll(world), 1u);
}

// "done", which can be undone where `undoable`, then "last".
v1::Definition Ends(const std::string& name, bool undoable) {
  return Parse(absl::StrCat(R"(
    name: ")",
                            name, R"("
    scopes {
      steps {
        name: "done"
        task { task: "done" }
        )",
                            undoable ? R"(undo { task { task: "undo" } })" : "", R"(
      }
      steps {
        name: "last"
        task { task: "last" }
        inputs { step: 0 }
      }
      result { step: 1 }
    })"));
}

TEST(Delete, IsRefusedInEachOpenStatusAndDoneInEachClosedOne) {
  struct Case {
    v1::ExecutionStatus status;
    bool undoable;
    const char* last;       // what becomes of the last step: "", "1", "fails" or "skips"
    const char* operation;  // after that
    const char* refused;    // "": it is deleted
  };
  const Case kCases[] = {
      {v1::EXECUTION_STATUS_RUNNING, false, "", "", "is running"},
      {v1::EXECUTION_STATUS_PAUSED, false, "", "pause {}", "is paused"},
      {v1::EXECUTION_STATUS_FAILING, true, "fails", "", "is failing"},
      {v1::EXECUTION_STATUS_CANCELLING, true, "", "cancel {}", "is cancelling"},
      {v1::EXECUTION_STATUS_COMPLETED, false, "1", "", ""},
      {v1::EXECUTION_STATUS_SKIPPED, false, "skips", "", ""},
      {v1::EXECUTION_STATUS_FAILED, false, "fails", "", ""},
      {v1::EXECUTION_STATUS_CANCELLED, false, "", "cancel {}", ""},
      {v1::EXECUTION_STATUS_TERMINATED, false, "", "terminate {}", ""},
      {v1::EXECUTION_STATUS_TERMINATED, true, "fails", "terminate {}", ""},
  };
  for (const Case& c : kCases) {
    for (const bool evicted : {false, true}) {
      SCOPED_TRACE(absl::StrCat(v1::ExecutionStatus_Name(c.status), evicted ? ", evicted" : ""));
      World world;
      ASSERT_TRUE(world.Open().ok());
      world.Define(Ends("ends", c.undoable));
      const StreamId worker = world.Connect("s1", {"done", "last"}, 1);
      ASSERT_TRUE(world.Start("ends", "a").ok());
      world.Answer(worker, world.Take(worker), "1");
      world.Settle();
      const std::string last = c.last;
      if (last == "1") world.Answer(worker, world.Take(worker), "1");
      if (last == "fails") world.AnswerFailure(worker, world.Take(worker), "bad", true);
      if (last == "skips") {
        v1::ConnectRequest message;
        *message.add_results()->mutable_token() = world.Take(worker).token();
        message.mutable_results(0)->set_skip(true);
        world.Message(worker, std::move(message));
      }
      world.Settle();
      if (c.operation[0] != '\0') {
        ASSERT_TRUE(world.Operate("a", c.operation).ok());
      }
      ASSERT_EQ(world.Describe("a").info().status(), c.status);
      if (evicted) {
        world.Disconnect(worker);
        world.Advance(60'000, 1'000);
      }
      const absl::Status answer = Delete(world, Ref("a"));
      if (c.refused[0] == '\0') {
        EXPECT_TRUE(answer.ok()) << answer;
        EXPECT_EQ(CountAll(world), 0u);
        continue;
      }
      EXPECT_TRUE(absl::IsFailedPrecondition(answer)) << answer;
      EXPECT_THAT(std::string(answer.message()),
                  HasSubstr(absl::StrCat(c.refused, ": cancel or terminate it first")));
      EXPECT_EQ(world.Describe("a").info().status(), c.status);
      EXPECT_EQ(CountAll(world), 1u);
    }
  }
}

TEST(Delete, AnIdIsFreeAtOnceAndEarlierRunsStay) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  v1::StartWorkflowRequest request;
  request.set_workflow("nap");
  request.set_workflow_id("a");
  *request.add_inputs() = Json("1");
  request.set_reuse_policy(v1::REUSE_POLICY_REJECT);
  std::vector<std::string> runs;
  for (int round = 0; round < 3; ++round) {
    const auto started = world.Start(request);
    ASSERT_TRUE(started.ok()) << started.status();
    ASSERT_TRUE(Terminate(world, "a").ok());
    EXPECT_TRUE(absl::IsAlreadyExists(world.Start(request).status()));
    if (round == 1) world.Advance(3'000);
    ASSERT_TRUE(Delete(world, Ref("a")).ok());
    EXPECT_EQ(CountAll(world), 0u);
    runs.push_back(started->run_id());
  }
  request.set_reuse_policy(v1::REUSE_POLICY_ALLOW);
  const auto first = world.Start(request);
  ASSERT_TRUE(Terminate(world, "a").ok());
  world.Advance(2'000);
  const auto second = world.Start(request);
  ASSERT_TRUE(Terminate(world, "a").ok());
  ASSERT_TRUE(Delete(world, Ref("a")).ok());  // the newest
  EXPECT_EQ(world.Describe("a").info().run_id(), first->run_id());
  EXPECT_NE(second->run_id(), first->run_id());
  const auto third = world.Start(request);
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(world.Describe("a").info().run_id(), third->run_id());
  EXPECT_EQ(CountAll(world), 2u);
}

TEST(Delete, ManyRowsGoByRange) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Rounds("rounds", 30'000));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  const auto started = world.Start("rounds", "a", {"1"});
  ASSERT_TRUE(started.ok());
  world.RunWorker(worker);
  world.Advance(3'000);
  ASSERT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_GT(RowsOf(world, started->run_id()).size(), 100u);
  ASSERT_TRUE(Delete(world, Ref("a")).ok());
  world.Advance(2'000);
  EXPECT_THAT(RowsOf(world, started->run_id()), IsEmpty());
}

// The deletion is stopped by a crash after each of its steps, with more or less of what was written
// kept by the disk.
TEST(Delete, ACrashAtAnyStepLeavesAllOfItOrNothing) {
  for (const bool evicted : {true, false}) {
    int gone = 0;
    int there = 0;
    for (int steps = 0; steps < 30; ++steps) {
      for (size_t kept : {size_t{0}, size_t{1}, size_t{100}}) {
        SCOPED_TRACE(absl::StrCat(evicted ? "evicted" : "in memory", ", ", steps, " steps, ", kept,
                                  " unsynced writes kept"));
        World world;
        ASSERT_TRUE(world.Open().ok());
        world.Define(Chain("chain", 2));
        StreamId worker = world.Connect("s1", {"t"}, 4);
        const auto started = world.Start(LargeStart("chain", "a"));
        ASSERT_TRUE(started.ok());
        ASSERT_TRUE(world.Start("chain", "other", {"1"}).ok());
        world.RunWorker(worker);
        if (evicted) world.Advance(3'000);
        std::optional<absl::Status> answer;
        world.engine().Delete(Ref("a"), "tester", "",
                              [&](const absl::StatusOr<v1::OperateExecutionResponse>& done) {
                                answer = done.status();
                              });
        for (int step = 0; step < steps; ++step) {
          switch (step % 3) {
            case 0:
              world.Turn();
              break;
            case 1:
              world.RunJob();
              break;
            default:
              world.StepStore();
          }
        }
        world.Crash({.unsynced_kept = kept});
        ASSERT_TRUE(world.Open().ok());
        const bool listed = List(world).size() == 2;
        EXPECT_EQ(CountAll(world), listed ? 2u : 1u);
        EXPECT_EQ(CountAll(world, "label.tenant = \"acme\""), listed ? 1u : 0u);
        v1::GetResultRequest request;
        *request.mutable_execution() = Ref("a", started->run_id());
        const auto result = world.Ask<v1::GetResultResponse>(
            [&](auto reply) { world.engine().GetResult(request, std::move(reply)); });
        if (listed) {
          ++there;
          EXPECT_FALSE(answer && answer->ok()) << "an acknowledged deletion was lost";
          ASSERT_TRUE(result.ok()) << result.status();
          EXPECT_EQ(result->status(), v1::EXECUTION_STATUS_COMPLETED);
          const auto verified = world.Verify("a");
          ASSERT_TRUE(verified.ok()) << verified.status();
          EXPECT_TRUE(verified->equal()) << verified->difference();
          ASSERT_TRUE(Delete(world, Ref("a")).ok());
        } else {
          ++gone;
          EXPECT_TRUE(absl::IsNotFound(result.status())) << result.status();
        }
        world.Advance(2'000);
        EXPECT_THAT(RowsOf(world, started->run_id()), IsEmpty());
        EXPECT_EQ(CountAll(world), 1u);
        EXPECT_EQ(CountAll(world, "started > -1h"), 1u);
        worker = world.Connect("s2", {"t"}, 4);
        ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
        world.RunWorker(worker);
        EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
        EXPECT_EQ(world.Result("other").status(), v1::EXECUTION_STATUS_COMPLETED);
      }
    }
    EXPECT_GT(gone, 10);
    EXPECT_GT(there, 5);
  }
}

TEST(Retention, DeletesWhatHasBeenClosedForLongEnough) {
  EngineOptions options;
  options.retention = absl::Hours(1);
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  world.Define(Nap("nap", 10'000'000));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("nap", "open", {"1"}).ok());
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat("old", i), {"1"}).ok());
  }
  world.RunWorker(worker);
  world.Advance(30 * 60'000, 10'000);
  ASSERT_TRUE(world.Start("chain", "young", {"1"}).ok());
  world.RunWorker(world.Connect("s2", {"t"}, 4));
  world.Advance(29 * 60'000, 10'000);
  EXPECT_EQ(CountAll(world), 22u);
  world.Advance(3 * 60'000, 1'000);
  EXPECT_THAT(List(world), UnorderedElementsAre("young", "open"));
  EXPECT_EQ(CountAll(world), 2u);
  EXPECT_EQ(world.Counter("retention_deletions"), 20u);
  world.Advance(30 * 60'000, 10'000);
  EXPECT_THAT(List(world), UnorderedElementsAre("open"));
}

TEST(Retention, IsWhatTheFirstRuleThatFitsSays) {
  EngineOptions options;
  options.retention = absl::Hours(2);
  options.retention_rules = {
      {.workflow = "kept", .keep = absl::ZeroDuration()},
      {.workflow = "", .status = v1::EXECUTION_STATUS_TERMINATED, .keep = absl::Hours(4)},
      {.workflow = "nap", .keep = absl::Hours(1)},
      {.workflow = "chain", .status = v1::EXECUTION_STATUS_TERMINATED, .keep = absl::Hours(1)},
  };
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  for (const char* name : {"kept", "chain"}) world.Define(Chain(name, 1));
  world.Define(Nap("nap", 1'000));
  for (const char* name : {"kept", "chain", "nap"}) {
    ASSERT_TRUE(world.Start(name, absl::StrCat(name, "-ended"), {"1"}).ok());
    ASSERT_TRUE(world.Start(name, absl::StrCat(name, "-stopped"), {"1"}).ok());
    ASSERT_TRUE(Terminate(world, absl::StrCat(name, "-stopped")).ok());
  }
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  world.RunWorker(worker);
  world.Advance(2'000);
  world.RunWorker(worker);
  ASSERT_EQ(CountAll(world, "status = \"completed\""), 3u);
  world.Advance(55 * 60'000, 10'000);
  EXPECT_EQ(CountAll(world), 6u);
  world.Advance(10 * 60'000, 10'000);
  EXPECT_THAT(List(world), UnorderedElementsAre("kept-ended", "kept-stopped", "chain-ended",
                                                "chain-stopped", "nap-stopped"));
  world.Crash();  // the rows say what the rules go by
  ASSERT_TRUE(world.Open().ok());
  world.Advance(60 * 60'000, 10'000);
  EXPECT_THAT(List(world),
              UnorderedElementsAre("kept-ended", "kept-stopped", "chain-stopped", "nap-stopped"));
  world.Advance(120 * 60'000, 10'000);
  EXPECT_THAT(List(world), UnorderedElementsAre("kept-ended", "kept-stopped"));
}

TEST(Retention, GetsPastVeryManyThatAreKept) {
  EngineOptions options;
  options.retention = absl::Minutes(1);
  options.retention_rules = {
      {.workflow = "", .status = v1::EXECUTION_STATUS_FAILED, .keep = absl::ZeroDuration()}};
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  // More than one sweep looks at; nothing but these rows is there of them.
  EndedValue failed;
  failed.status = v1::EXECUTION_STATUS_FAILED;
  failed.ns = "default";
  store::RowBatch batch;
  for (uint64_t i = 1; i <= 45'000; ++i) {
    batch.puts.push_back({keys::Ended(0, static_cast<int64_t>(i), RunId{i, i}), failed.Encode()});
    if (i % 1'000 != 0) continue;
    batch.epoch = world.engine().EpochOf(0);
    const absl::Status written = world.store().rows().WriteSync(std::exchange(batch, {}));
    ASSERT_TRUE(written.ok()) << written;
  }
  world.Define(Chain("chain", 1));
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  world.RunWorker(world.Connect("s1", {"t"}, 4));
  world.Advance(4 * 60'000, 1'000);
  EXPECT_THAT(List(world), IsEmpty());
  EXPECT_EQ(world.Counter("retention_deletions"), 1u);
}

TEST(Retention, OfZeroKeepsEverything) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  world.RunWorker(worker);
  world.Advance(100 * 3'600'000LL, 3'600'000);
  EXPECT_THAT(List(world), UnorderedElementsAre("a"));
}

// What is known of the clock: the world's wall time is its monotonic one, and passes while it is
// down.
class ClockAtStart : public ::testing::Test {
 protected:
  static constexpr int64_t kDay = 24 * 3'600'000;

  static EngineOptions Options(bool accept_clock = false) {
    EngineOptions options;
    options.retention = absl::Hours(30 * 24);
    options.accept_clock = accept_clock;
    return options;
  }
  void Close(World& world, const std::string& id) {
    ASSERT_TRUE(world.Start("chain", id, {"1"}).ok());
    world.RunWorker(world.Connect(id, {"t"}, 4));
    world.Advance(2 * 60'000, 1'000);
  }
  void Begin(World& world) {
    ASSERT_TRUE(world.Open().ok());
    world.Define(Chain("chain", 1));
    Close(world, "a");
  }
  // Killed: what was written is in the system's hands.
  void Restart(World& world, int64_t after_ms) {
    world.Crash({.unsynced_kept = 1'000'000});
    world.Sleep(after_ms);
    ASSERT_TRUE(world.Open().ok());
  }
};

TEST_F(ClockAtStart, FarAheadDeletesNothingForADay) {
  World world(Options());
  Begin(world);
  Restart(world, 40 * kDay);
  world.Advance(10 * 60'000, 10'000);
  EXPECT_THAT(List(world), UnorderedElementsAre("a"));
  // What such a start writes makes the clock no more trustworthy to the next.
  Close(world, "b");
  Restart(world, 1'000);
  world.Advance(23 * 3'600'000, 60'000);
  EXPECT_THAT(List(world), UnorderedElementsAre("a", "b"));
  world.Advance(2 * 3'600'000, 60'000);
  EXPECT_THAT(List(world), UnorderedElementsAre("b"));
}

TEST_F(ClockAtStart, IsRightIfTheOperatorSaysSo) {
  World world(Options(/*accept_clock=*/true));
  Begin(world);
  Restart(world, 40 * kDay);
  world.Advance(3 * 60'000, 1'000);
  EXPECT_THAT(List(world), IsEmpty());
}

TEST_F(ClockAtStart, WithinADayIsTrusted) {
  World world(Options());
  Begin(world);
  for (int day = 0; day < 30; ++day) {
    Restart(world, kDay - 10 * 60'000);
    Close(world, absl::StrCat("day", day));
  }
  Restart(world, kDay - 10 * 60'000);
  world.Advance(3 * 60'000, 1'000);
  EXPECT_EQ(CountAll(world), 30u) << "the first is gone";
}

TEST(Retention, GoesOnThroughMoreThanOneSweep) {
  EngineOptions options;
  options.retention = absl::Seconds(10);
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const StreamId worker = world.Connect("s1", {"t"}, 100);
  for (int i = 0; i < 1'300; ++i) {
    v1::StartWorkflowRequest request;
    request.set_workflow("chain");
    request.set_workflow_id(absl::StrCat("e", i));
    *request.add_inputs() = Json("1");
    world.PostStart(std::move(request));
  }
  world.RunWorker(worker);
  EXPECT_EQ(CountAll(world), 1'300u);
  world.Advance(80'000, 100);
  EXPECT_EQ(CountAll(world), 0u);
  EXPECT_EQ(world.Counter("retention_deletions"), 1'300u);
}

}  // namespace
}  // namespace flux::engine::testing
