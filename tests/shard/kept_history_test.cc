// A run that goes round and round does not grow on disk.
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

EngineOptions Small() {
  EngineOptions options;
  options.log_tail_bytes_max = 4 * 1024;
  options.payload_inline_bytes = 200;
  options.snapshot_records_min = 20;
  options.history = {.records_min = 300, .turns_min = 20, .records_most = 2'000};
  return options;
}

struct OnDisk {
  size_t history = 0;
  size_t payloads = 0;
  size_t snapshots = 0;
};

OnDisk Look(World& world) {
  return {.history = CountRows(world, keys::Table::kHistory),
          .payloads = CountRows(world, keys::Table::kPayload),
          .snapshots = CountRows(world, keys::Table::kSnapshot)};
}

// Answers the worker's one task, with its own input or as said, and lets rows be written.
void TakeTurn(World& world, StreamId worker, const std::string& state = "") {
  ASSERT_FALSE(world.stream(worker).tasks.empty());
  const v1::Task task = world.Take(worker);
  world.Answer(worker, task, state.empty() ? task.inputs(0).payload().data() : state);
  world.Advance(30, 10);
}

void ExpectEqualReplay(World& world, const std::string& id) {
  const auto verified = world.Verify(id);
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_TRUE(verified->equal()) << verified->difference();
}

TEST(KeptHistory, ALoopOfManyTurnsIsConstantOnDisk) {
  World world(Small());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Rounds("rounds", 4'000));
  StreamId worker = world.Connect("s1", {"t"}, 1);
  ASSERT_TRUE(world.Start("rounds", "a", {"1"}).ok());
  OnDisk most;
  for (int turn = 0; turn < 3'990; ++turn) {
    TakeTurn(world, worker);
    if (HasFatalFailure()) return;
    if (turn % 50 == 0) {
      const OnDisk now = Look(world);
      most.history = std::max(most.history, now.history);
      most.snapshots = std::max(most.snapshots, now.snapshots);
    }
    if (turn % 500 == 499) {
      ExpectEqualReplay(world, "a");
      world.Crash({.unsynced_kept = static_cast<size_t>(turn) / 500});
      ASSERT_TRUE(world.Open().ok());
      worker = world.Connect(absl::StrCat("after", turn), {"t"}, 1);
      world.Pass(worker, 15'000, false);
    }
  }
  // Twice what is kept at least, in chunks of a flush each.
  EXPECT_LT(most.history, 700u);
  EXPECT_LE(most.snapshots, 3u) << "the base, the next one, and the newest";
  world.RunWorker(worker);
  EXPECT_EQ(world.Result("a").status(), v1::EXECUTION_STATUS_COMPLETED);
  ExpectEqualReplay(world, "a");
}

TEST(KeptHistory, SaysWhatItDroppedAndTellsTheRest) {
  World world(Small());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Rounds("rounds", 2'000));
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  ASSERT_TRUE(world.Start("rounds", "a", {"1"}).ok());
  for (int turn = 0; turn < 100; ++turn) TakeTurn(world, worker);
  if (HasFatalFailure()) return;
  EXPECT_EQ(world.History("a").front().type(), "execution.started") << "nothing is dropped so soon";
  for (int turn = 0; turn < 1'900; ++turn) TakeTurn(world, worker);
  if (HasFatalFailure()) return;
  const std::vector<v1::HistoryEvent> events = world.History("a");
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.front().type(), "history.dropped");
  EXPECT_THAT(events.front().detail(),
              HasSubstr(absl::StrCat("records 1 to ", events.front().ordinal(), " are not kept")));
  EXPECT_GT(events.front().ordinal(), 1'000u);
  EXPECT_LT(events.front().ordinal(), 1'700u);
  EXPECT_EQ(events[1].ordinal(), events.front().ordinal() + 1) << "nothing between is missing";
  EXPECT_EQ(events.back().type(), "execution.completed");

  // Read page by page, from somewhere that is gone by now.
  v1::GetHistoryRequest request;
  request.mutable_execution()->set_workflow_id("a");
  request.set_page_token("50");
  request.set_page_size(100);
  const auto page = world.Ask<v1::GetHistoryResponse>(
      [&](auto reply) { world.engine().History(request, std::move(reply)); });
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_THAT(page->events(0).detail(), HasSubstr("records 50 to "));
  EXPECT_EQ(page->next_page_token(), absl::StrCat(events.front().ordinal() + 101));
}

TEST(KeptHistory, PayloadsOfOldTurnsGoWithThem) {
  World world(Small());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Rounds("rounds", 3'000));
  StreamId worker = world.Connect("s1", {"t"}, 1);
  const std::string input = absl::StrCat("\"", std::string(300, 'i'), "\"");
  ASSERT_TRUE(world.Start("rounds", "a", {input}).ok());
  const auto state = [](int turn) { return absl::StrCat("\"", turn, std::string(300, 's'), "\""); };
  size_t most = 0;
  for (int turn = 0; turn < 2'500; ++turn) {
    TakeTurn(world, worker, state(turn));
    if (HasFatalFailure()) return;
    if (turn % 50 == 0) most = std::max(most, Look(world).payloads);
    if (turn % 500 == 499) {
      ExpectEqualReplay(world, "a");
      world.Crash();
      ASSERT_TRUE(world.Open().ok());
      worker = world.Connect(absl::StrCat("after", turn), {"t"}, 1);
      world.Pass(worker, 15'000, false);
      ASSERT_EQ(world.stream(worker).tasks.size(), 1u);
      EXPECT_EQ(world.stream(worker).tasks.front().inputs(0).payload().data(), state(turn));
    }
  }
  EXPECT_LT(most, 900u);
  EXPECT_EQ(world.Describe("a").steps(0).state(), v1::STEP_STATE_WAITING);
  ExpectEqualReplay(world, "a");
}

TEST(KeptHistory, AnExecutionThatDoesNotRepeatKeepsAll) {
  EngineOptions options = Small();
  options.history.records_most = 100;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 600));
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  for (int step = 0; step < 600; ++step) TakeTurn(world, worker);
  if (HasFatalFailure()) return;
  EXPECT_EQ(world.History("a").front().type(), "execution.started");
  EXPECT_GT(world.Counter("snapshots"), 0u);
  ExpectEqualReplay(world, "a");
}

// The inner loop begins anew in each turn of the outer one.
TEST(KeptHistory, LoopsInLoopsAreConstantOnDisk) {
  World world(Small());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Parse(R"pb(
    name: "nested"
    scopes {
      parameters: 1
      steps {
        name: "outer"
        inputs { parameter: 0 }
        loop { body: 1 turns: 1000 }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      steps {
        name: "inner"
        inputs { parameter: 0 }
        loop { body: 2 turns: 15 }
      }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      steps {
        name: "turn"
        inputs { parameter: 0 }
        task { task: "t" }
      }
      result { step: 0 }
    }
  )pb"));
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  ASSERT_TRUE(world.Start("nested", "a", {"1"}).ok());
  size_t most = 0;
  for (int turn = 0; turn < 4'000; ++turn) {
    TakeTurn(world, worker);
    if (HasFatalFailure()) return;
    if (turn % 50 == 0) most = std::max(most, Look(world).history);
  }
  EXPECT_LT(most, 1'300u);
  EXPECT_EQ(world.History("a").front().type(), "history.dropped");
  ExpectEqualReplay(world, "a");
}

}  // namespace
}  // namespace flux::engine::testing
