// Mistakes that flux-sim found in the loop, each with its cause and the seed that showed it.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

// A queue that holds one; the executions of the rest leave memory when they have been idle so long.
EngineOptions OneInMemory(absl::Duration idle = EngineOptions().idle_before_eviction) {
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 1;
  options.dispatch.refill_below = 1;
  options.idle_before_eviction = idle;
  return options;
}

// Executions id0, id1, ... complete with the worker, and no token is handed out twice.
void ExpectAllRunOnce(World& world, StreamId worker, int executions) {
  for (int round = 0; round < 200; ++round) {
    world.RunWorker(worker);
    world.Advance(500);
  }
  for (int i = 0; i < executions; ++i) {
    EXPECT_EQ(world.Result(absl::StrCat("id", i)).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
  }
  EXPECT_GE(world.handed_out().size(), static_cast<size_t>(executions));
  for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
}

// flux-sim seed 205: after a restart, a step that some worker may have in hand and that the queue
// had no room for was offered later as if nobody ever had it, under the number that the worker has.
TEST(FoundBySimulation, AStepSpilledByARestartIsNotHandedOutUnderItsOldNumber) {
  World world(OneInMemory());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const StreamId before = world.Connect("s1", {"t"}, 4);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  }
  ASSERT_EQ(world.stream(before).tasks.size(), 4u);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  // The worker is back and runs none of them: the stream broke before they arrived.
  const StreamId after = world.Connect("s1", {"t"}, 4);
  ExpectAllRunOnce(world, after, 4);
}

// The same with another worker, while the first may still come back.
TEST(FoundBySimulation, AStepSpilledByARestartWaitsForTheWorkerThatMayHaveIt) {
  World world(OneInMemory());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const StreamId before = world.Connect("s1", {"t"}, 4);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  }
  ASSERT_EQ(world.stream(before).tasks.size(), 4u);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  const StreamId other = world.Connect("s2", {"t"}, 4);
  ExpectAllRunOnce(world, other, 4);
}

// flux-sim seed 11106: a step that had been handed out two restarts ago, and had waited on disk
// meanwhile, was offered after a pause under the number it was handed out with.
TEST(FoundBySimulation, AStepThatWaitedOnDiskIsNotHandedOutUnderItsOldNumberAfterAPause) {
  World world(OneInMemory(absl::Milliseconds(100)));
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const StreamId before = world.Connect("s1", {"t"}, 4);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  }
  ASSERT_EQ(world.stream(before).tasks.size(), 3u);
  for (int restart = 0; restart < 2; ++restart) {
    world.Crash();
    ASSERT_TRUE(world.Open().ok());
    world.Advance(5'000);
  }
  ASSERT_GE(world.Counter("evictions"), 2u);
  // The last one, in memory, keeps the others on disk until they are paused.
  for (const char* operation : {"pause {}", "resume {}"}) {
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(world.Operate(absl::StrCat("id", i), operation).ok());
    }
  }
  const StreamId after = world.Connect("s2", {"t"}, 4);
  ExpectAllRunOnce(world, after, 3);
}

// flux-sim seed 19918: the queue was full again by the time that steps on disk were to fill it, and
// one of them was redelivered and put back without end.
TEST(FoundBySimulation, ARefillOfAQueueThatIsFullMeanwhileLeavesTheStepsOnDisk) {
  World world(OneInMemory(absl::Milliseconds(100)));
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  }
  world.Advance(5'000);
  ASSERT_GE(world.Counter("evictions"), 2u) << "those that the queue has no room for";
  for (int round = 0; round < 2; ++round) {  // from the disk, and from memory
    ASSERT_TRUE(world.Verify("id1").ok());
    world.engine().Refill("default", {{"t", 2}});
    world.Settle();
  }
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  ExpectAllRunOnce(world, worker, 3);
}

// flux-sim seed 55 of operated executions: steps that waited on disk stood in their old queue after
// a migration to a version that names another one, where nobody looked for them: they were loaded
// and put back without end.
TEST(FoundBySimulation, AStepThatWaitsOnDiskMovesToTheQueueOfItsNewVersion) {
  World world(OneInMemory(absl::Milliseconds(100)));
  ASSERT_TRUE(world.Open().ok());
  v1::Definition next = Chain("chain", 1);
  world.Define(next);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
  }
  world.Advance(5'000);
  ASSERT_GE(world.Counter("evictions"), 2u) << "those that the queue has no room for";
  next.set_version("2");
  next.mutable_scopes(0)->mutable_steps(0)->mutable_task()->set_queue("second");
  world.Define(next);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(world.Operate(absl::StrCat("id", i), "migrate {}").ok());
  }
  world.Advance(5'000);
  const StreamId first = world.Connect("s1", {"t"}, 4);  // one was offered there before
  const StreamId second = world.Connect("s2", {"t"}, 4, {}, "second");
  for (int round = 0; round < 20; ++round) {
    world.RunWorker(first);
    world.RunWorker(second);
    world.Advance(500);
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(world.Result(absl::StrCat("id", i)).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
  }
  for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
}

// flux-sim seed 60: a definition that could not be written broke the store, and an idle coordinator
// went on over it, refusing every definition from then on.
TEST(FoundBySimulation, ADefinitionThatCannotBeWrittenStopsTheProcess) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Settle();
  world.store().Inject({.op = store::FaultOp::kWriteSync,
                        .at = world.store().calls(store::FaultOp::kWriteSync) + 1,
                        .kind = store::FaultKind::kDiskFull});
  const auto refused = world.engine().definitions().Put(Chain("chain", 1), world.now_ms());
  EXPECT_TRUE(absl::IsUnavailable(refused.status())) << refused.status();
  world.Settle();
  EXPECT_FALSE(world.fatal().ok()) << "it goes on over a store that takes nothing any more";
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  EXPECT_TRUE(world.engine().definitions().Put(Chain("chain", 1), world.now_ms()).ok());
}

}  // namespace
}  // namespace flux::engine::testing
