// A start that comes again is answered with the run it began, whatever became of that (rule 10).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

constexpr int64_t kHourMs = 3'600'000;

v1::StartWorkflowRequest StartOf(const std::string& request_id) {
  v1::StartWorkflowRequest request;
  request.set_workflow("nap");
  request.set_workflow_id("a");
  request.set_request_id(request_id);
  request.set_conflict_policy(v1::CONFLICT_POLICY_TERMINATE_EXISTING);
  *request.add_inputs() = Json("1");
  return request;
}

void Delete(World& world, const std::string& run) {
  v1::OperateExecutionRequest request;
  request.mutable_execution()->set_workflow_id("a");
  request.mutable_execution()->set_run_id(run);
  request.mutable_operation()->mutable_delete_();
  const auto deleted = world.Ask<v1::OperateExecutionResponse>(
      [&](auto reply) { world.engine().Operate(request, std::move(reply)); });
  ASSERT_TRUE(deleted.ok()) << deleted.status();
}

class RequestIds : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(world_.Open().ok());
    world_.Define(Nap("nap", 1'000 * kHourMs));
  }
  // The run that answers it, and whether it is new.
  std::pair<std::string, bool> Start(const std::string& request_id) {
    const auto started = world_.Start(StartOf(request_id));
    EXPECT_TRUE(started.ok()) << started.status();
    return started.ok() ? std::pair(started->run_id(), started->started()) : std::pair("", false);
  }
  World world_;
};

TEST_F(RequestIds, AreKnownWhileTheReplacedRunIsStillInMemory) {
  const auto one = world_.PostStart(StartOf("r1"));
  const auto two = world_.PostStart(StartOf("r2"));
  const auto again = world_.PostStart(StartOf("r1"));
  world_.Settle();
  ASSERT_TRUE(one->has_value() && (*one)->ok());
  ASSERT_TRUE(two->has_value() && (*two)->ok());
  ASSERT_TRUE(again->has_value() && (*again)->ok());
  EXPECT_TRUE((**two)->started());
  EXPECT_FALSE((**again)->started());
  EXPECT_EQ((**again)->run_id(), (**one)->run_id());
  EXPECT_EQ(world_.Describe("a").info().run_id(), (**two)->run_id()) << "the newest runs on";
}

TEST_F(RequestIds, AreKnownHoweverManyRunsFollow) {
  std::vector<std::string> runs;
  for (int i = 0; i < 100; ++i) runs.push_back(Start(absl::StrCat("r", i)).first);
  for (const bool restarted : {false, true}) {
    SCOPED_TRACE(restarted);
    if (restarted) {
      world_.Crash();
      ASSERT_TRUE(world_.Open().ok());
    }
    world_.Advance(10'000);  // all but the newest have left memory
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(Start(absl::StrCat("r", i)), std::pair(runs[i], false)) << i;
    }
  }
}

TEST_F(RequestIds, AreForgottenADayAfterTheCloseIfMoreRunsFollowThanAreLookedAt) {
  const std::string first = Start("r0").first;
  for (int i = 1; i < 20; ++i) Start(absl::StrCat("r", i));
  world_.Advance(23 * kHourMs, 60'000);
  EXPECT_EQ(Start("r0"), std::pair(first, false));
  world_.Advance(2 * kHourMs, 60'000);
  EXPECT_TRUE(Start("r0").second);
}

TEST_F(RequestIds, AreKnownForADayThoughTheRunIsDeleted) {
  const std::string first = Start("r1").first;
  const std::string second = Start("r2").first;
  Delete(world_, first);
  EXPECT_EQ(Start("r1"), std::pair(first, false));
  world_.Advance(10'000);
  EXPECT_EQ(Start("r1"), std::pair(first, false)) << "read from its row";
  world_.Crash();
  ASSERT_TRUE(world_.Open().ok());
  EXPECT_EQ(Start("r1"), std::pair(first, false));
  EXPECT_EQ(Start("r2"), std::pair(second, false));

  world_.Advance(25 * kHourMs, 60'000);
  EXPECT_EQ(CountRows(world_, keys::Table::kRequest), 0u);
  EXPECT_EQ(CountRows(world_, keys::Table::kForget), 0u);
  EXPECT_TRUE(Start("r1").second);
}

TEST_F(RequestIds, AreKnownBetweenADeletionAndItsCommit) {
  const std::string first = Start("r1").first;
  v1::TerminateExecutionRequest terminate;
  terminate.mutable_execution()->set_workflow_id("a");
  ASSERT_TRUE(world_
                  .Ask<v1::TerminateExecutionResponse>(
                      [&](auto reply) { world_.engine().Terminate(terminate, std::move(reply)); })
                  .ok());
  world_.Advance(10'000);  // it has left memory
  v1::OperateExecutionRequest request;
  request.mutable_execution()->set_workflow_id("a");
  request.mutable_operation()->mutable_delete_();
  world_.engine().Operate(request, [](absl::StatusOr<v1::OperateExecutionResponse>) {});
  // Decided, while the disk has nothing of it yet.
  for (int i = 0; i < 5; ++i) {
    world_.Turn();
    while (world_.RunJob()) {
    }
  }
  const auto again = world_.PostStart(StartOf("r1"));
  world_.Settle();
  ASSERT_TRUE(again->has_value() && (*again)->ok());
  EXPECT_FALSE((**again)->started());
  EXPECT_EQ((**again)->run_id(), first);
}

TEST_F(RequestIds, OfDeletedRunsLeaveNothingOnceTheyAreOld) {
  const std::string first = Start("r1").first;
  Start("r2");
  world_.Advance(25 * kHourMs, 60'000);
  Delete(world_, first);
  world_.Advance(1'000);
  EXPECT_EQ(CountRows(world_, keys::Table::kRequest), 0u) << "a day had passed already";
}

}  // namespace
}  // namespace flux::engine::testing
