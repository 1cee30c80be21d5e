// The cache of executions: what is over its limit leaves it, though nobody takes its tasks, and
// comes back for those who do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/shard/keys.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

constexpr size_t kInputBytes = 20'000;

// Room for fifty executions, and a floor of eight tasks.
EngineOptions SmallCache() {
  EngineOptions options;
  options.cache_bytes_max = 50 * kInputBytes;
  options.dispatch.ready_floor = 8;
  return options;
}

std::string Large() { return "\"" + std::string(kInputBytes - 2, 'x') + "\""; }

void StartMany(World& world, const std::string& workflow, int count) {
  for (int i = 0; i < count; ++i) {
    ASSERT_TRUE(world.Start(workflow, absl::StrCat(workflow, i), {Large()}).ok());
    world.Advance(20, 20);
  }
}

// A tenth of a second, in which the worker finishes ten of the tasks it has at most.
void WorkAWhile(World& world, StreamId worker) {
  world.Settle();
  for (int i = 0; i < 10 && !world.stream(worker).tasks.empty(); ++i) {
    world.Answer(worker, world.Take(worker), Large());
  }
  world.Pass(worker, 100, /*work=*/false);
}

void ExpectAllDoneOnce(World& world, const std::string& workflow, int count) {
  for (int i = 0; i < count; ++i) {
    const v1::GetResultResponse result = world.Result(absl::StrCat(workflow, i));
    EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_COMPLETED) << workflow << i;
  }
  for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1) << token;
}

v1::Definition OfTask(const std::string& name, const std::string& task) {
  v1::Definition definition = Chain(name, 1);
  definition.mutable_scopes(0)->mutable_steps(0)->mutable_task()->set_task(task);
  return definition;
}

TEST(Cache, ABacklogThatNobodyTakesIsHeldToTheLimitAndRunsOnceSomebodyDoes) {
  constexpr int kRuns = 300;
  World world(SmallCache());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 2));
  StartMany(world, "chain", kRuns);
  world.Advance(5'000);
  EXPECT_LE(world.Counter("cache_bytes"), 50 * kInputBytes);
  EXPECT_THAT(world.Describe("chain0").steps(0).reason(), HasSubstr("no worker has task t"));
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  world.Advance(15'000);
  EXPECT_LE(world.Counter("cache_bytes"), 50 * kInputBytes);
  // Nothing moves while nobody asks.
  const uint64_t loads = world.Counter("loads");
  const uint64_t records = world.Counter("records");
  world.Advance(60'000, 1'000);
  EXPECT_EQ(world.Counter("loads"), loads);
  EXPECT_EQ(world.Counter("records"), records);

  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (int round = 0; round < 1'000 && world.handed_out().size() < 2 * kRuns; ++round) {
    WorkAWhile(world, worker);
    EXPECT_LE(world.Counter("cache_bytes"), 100 * kInputBytes);
  }
  ExpectAllDoneOnce(world, "chain", kRuns);
  // Each was read once for each of its tasks, about, and redelivered as often.
  EXPECT_LT(world.Counter("loads") - loads, 4u * kRuns);
  EXPECT_LT(world.Counter("records") - records, 6u * kRuns);
}

TEST(Cache, ASlowWorkersBacklogIsReadOnceAndNotPutBack) {
  constexpr int kRuns = 200;
  World world(SmallCache());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  const StreamId worker = world.Connect("s1", {"t"}, 1);
  StartMany(world, "chain", kRuns);
  world.Pass(worker, 5'000, /*work=*/false);
  EXPECT_LE(world.Counter("cache_bytes"), 50 * kInputBytes);
  const uint64_t loads = world.Counter("loads");
  const uint64_t evictions = world.Counter("evictions");
  world.Pass(worker, 30'000, /*work=*/false);
  EXPECT_EQ(world.Counter("loads"), loads) << "it has eight before it, and takes none";
  EXPECT_EQ(world.Counter("evictions"), evictions);
  for (int round = 0; round < kRuns; ++round) WorkAWhile(world, worker);
  EXPECT_LT(world.Counter("loads") - loads, 3u * kRuns / 2);
  ExpectAllDoneOnce(world, "chain", kRuns);
}

TEST(Cache, AWorkerIsGivenItsTasksThoughOthersWithoutWorkersFillTheCache) {
  constexpr int kRuns = 150;
  World world(SmallCache());
  ASSERT_TRUE(world.Open().ok());
  world.Define(OfTask("lonely", "nobody"));
  world.Define(OfTask("served", "t"));
  StartMany(world, "lonely", kRuns);
  StartMany(world, "served", kRuns);
  world.Advance(5'000);
  const uint64_t loads = world.Counter("loads");
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (int round = 0; round < 100; ++round) WorkAWhile(world, worker);
  EXPECT_LE(world.Counter("cache_bytes"), 50 * kInputBytes);
  ExpectAllDoneOnce(world, "served", kRuns);
  // Those that wait in vain are not read for it.
  EXPECT_LT(world.Counter("loads") - loads, 3u * kRuns);
  const StreamId other = world.Connect("s2", {"nobody"}, 4);
  for (int round = 0; round < 100; ++round) WorkAWhile(world, other);
  ExpectAllDoneOnce(world, "lonely", kRuns);
}

TEST(Cache, AFastWorkerOfManyNamesIsNotHeldUpByThoseItHasNoneOf) {
  constexpr int kRuns = 300;
  World world(SmallCache());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  StartMany(world, "chain", kRuns);
  world.Advance(5'000);
  const StreamId worker = world.Connect("s1", {"t", "u", "v"}, 100);
  // Six seconds, in which it could finish twice as many.
  for (int round = 0; round < 60; ++round) WorkAWhile(world, worker);
  ExpectAllDoneOnce(world, "chain", kRuns);
}

// The rows of what it has in hand are passed by, not waited for.
TEST(Cache, AWorkerWithMoreSlotsThanAFloorGetsAllItCanHold) {
  constexpr int kRuns = 200;
  World world(SmallCache());
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  StartMany(world, "chain", kRuns);
  world.Advance(5'000);
  const StreamId worker = world.Connect("s1", {"t"}, 150);
  world.Pass(worker, 2'000, /*work=*/false);
  EXPECT_EQ(world.stream(worker).tasks.size(), 150u);
  for (int round = 0; round < 60; ++round) WorkAWhile(world, worker);
  ExpectAllDoneOnce(world, "chain", kRuns);
}

TEST(Cache, AQueueFullOfTasksThatNobodyHasLeavesRoomForThoseThatSomebodyHas) {
  constexpr int kRuns = 30;
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 20;
  options.dispatch.refill_below = 10;
  options.dispatch.ready_floor = 4;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(OfTask("lonely", "nobody"));
  world.Define(OfTask("served", "t"));
  const StreamId worker = world.Connect("s1", {"t"}, 2);
  StartMany(world, "lonely", kRuns);
  StartMany(world, "served", kRuns);
  for (int round = 0; round < 30; ++round) WorkAWhile(world, worker);
  ExpectAllDoneOnce(world, "served", kRuns);
  EXPECT_THAT(world.Describe("lonely29").steps(0).reason(), HasSubstr("no worker has task nobody"));
  const StreamId other = world.Connect("s2", {"nobody"}, 2);
  for (int round = 0; round < 30; ++round) WorkAWhile(world, other);
  ExpectAllDoneOnce(world, "lonely", kRuns);
}

TEST(Cache, ReadyRowsWithoutNamesAreLoadedByARestart) {
  constexpr int kRuns = 10;
  EngineOptions options;
  options.dispatch.ready_per_queue_max = 2;
  options.dispatch.refill_below = 1;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  world.Connect("s1", {"t"}, 0);
  StartMany(world, "chain", kRuns);
  world.Advance(5'000);
  ASSERT_GE(world.Counter("evictions"), 8u);
  // As a version before named tasks wrote them.
  size_t rows = 0;
  for (store::ShardId shard = 0; shard < world.store().shards(); ++shard) {
    store::RowBatch batch;
    batch.shard = shard;
    batch.epoch = world.store().log().Claim(shard)->epoch;
    const auto [begin, end] = keys::TableRange(shard, keys::Table::kReady);
    ASSERT_TRUE(world.store()
                    .rows()
                    .Scan(begin, end,
                          [&](std::string_view key, std::string_view names) {
                            EXPECT_EQ(names, "t");
                            batch.puts.push_back({std::string(key), ""});
                            return true;
                          })
                    .ok());
    rows += batch.puts.size();
    ASSERT_TRUE(world.store().rows().WriteSync(std::move(batch)).ok());
  }
  EXPECT_GE(rows, 8u);
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  world.Advance(3'000);  // some are held for the session, others leave memory again
  const StreamId worker = world.Connect("s1", {"t"}, 4);
  for (int round = 0; round < 20; ++round) WorkAWhile(world, worker);
  ExpectAllDoneOnce(world, "chain", kRuns);
}

}  // namespace
}  // namespace flux::engine::testing
