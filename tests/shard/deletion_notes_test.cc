// Who had which executions deleted, and why, is known when they are there no more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/shard/keys.h"
#include "engine/shard/loader.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

absl::Status Delete(World& world, const std::string& id, const std::string& who,
                    const std::string& why) {
  v1::OperateExecutionRequest request;
  request.mutable_execution()->set_workflow_id(id);
  request.mutable_operation()->mutable_delete_();
  request.set_identity(who);
  request.set_reason(why);
  return world
      .Ask<v1::OperateExecutionResponse>(
          [&](auto reply) { world.engine().Operate(request, std::move(reply)); })
      .status();
}

absl::StatusOr<v1::ListDeletionsResponse> Ask(World& world, v1::ListDeletionsRequest request) {
  return world.Ask<v1::ListDeletionsResponse>(
      [&](auto reply) { world.engine().ListDeletions(std::move(request), std::move(reply)); });
}

std::vector<v1::DeletedExecution> Deletions(World& world, const std::string& id = "",
                                            const std::string& ns = "") {
  v1::ListDeletionsRequest request;
  request.set_workflow_id(id);
  request.set_namespace_(ns);
  const auto page = Ask(world, std::move(request));
  EXPECT_TRUE(page.ok()) << page.status();
  if (!page.ok()) return {};
  return {page->deletions().begin(), page->deletions().end()};
}

std::vector<std::string> Ids(const std::vector<v1::DeletedExecution>& deletions) {
  std::vector<std::string> ids;
  for (const v1::DeletedExecution& each : deletions) ids.push_back(each.workflow_id());
  return ids;
}

// Executions "NAME0", "NAME1", …, each completed.
void Complete(World& world, const std::string& name, int count) {
  static int session = 0;
  const StreamId worker = world.Connect(absl::StrCat("w", session++), {"t"}, 4);
  for (int i = 0; i < count; ++i) {
    ASSERT_TRUE(world.Start("chain", absl::StrCat(name, i), {"1"}).ok());
  }
  world.RunWorker(worker);
  world.Disconnect(worker);
}

TEST(DeletionNotes, SayWhoAndWhyOfWhatIsInMemoryAndOnDisk) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  for (const bool evicted : {false, true}) {
    SCOPED_TRACE(evicted);
    const std::string name = evicted ? "disk" : "memory";
    Complete(world, name, 1);
    if (evicted) world.Advance(60'000, 1'000);
    const v1::GetResultResponse result = world.Result(name + "0");
    ASSERT_TRUE(Delete(world, name + "0", "ann", "no longer ours").ok());
    const std::vector<v1::DeletedExecution> known = Deletions(world, name + "0");
    ASSERT_THAT(known, SizeIs(1));
    EXPECT_EQ(known[0].run_id(), result.run_id());
    EXPECT_EQ(known[0].workflow(), "chain");
    EXPECT_EQ(known[0].status(), v1::EXECUTION_STATUS_COMPLETED);
    EXPECT_GT(known[0].close_time_ms(), 0);
    EXPECT_EQ(known[0].delete_time_ms(), world.now_ms());
    EXPECT_EQ(known[0].identity(), "ann");
    EXPECT_EQ(known[0].reason(), "no longer ours");
  }
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  EXPECT_THAT(Deletions(world), SizeIs(2)) << "acknowledged with the deletion";
}

TEST(DeletionNotes, AreThereForEachRunOfAnIdAndForNoRefusal) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  world.Define(Nap("nap", 10'000'000));
  Complete(world, "a", 1);
  ASSERT_TRUE(Delete(world, "a0", "ann", "first").ok());
  world.Advance(1'000);
  Complete(world, "a", 1);
  ASSERT_TRUE(Delete(world, "a0", "bob", "second").ok());
  ASSERT_TRUE(world.Start("nap", "open", {"1"}).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Delete(world, "open", "ann", "")));
  EXPECT_TRUE(absl::IsNotFound(Delete(world, "never", "ann", "")));
  const std::vector<v1::DeletedExecution> known = Deletions(world);
  ASSERT_THAT(known, SizeIs(2));
  EXPECT_EQ(known[0].reason(), "second") << "the newest first";
  EXPECT_EQ(known[1].reason(), "first");
  EXPECT_NE(known[0].run_id(), known[1].run_id());
  EXPECT_THAT(Deletions(world, "b"), IsEmpty());
  EXPECT_THAT(Deletions(world, "", "elsewhere"), IsEmpty());
}

TEST(DeletionNotes, ComeInPagesNewestFirstOverAllShards) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  constexpr int kCount = 23;
  Complete(world, "e", kCount);
  std::vector<std::string> expected;
  for (int i = 0; i < kCount; ++i) {
    world.Advance(10, 10);
    const std::string id = absl::StrCat("e", i);
    ASSERT_TRUE(Delete(world, id, "ann", "").ok());
    expected.insert(expected.begin(), id);
  }
  v1::ListDeletionsRequest request;
  request.set_page_size(4);
  std::vector<std::string> ids;
  int pages = 0;
  do {
    const auto page = Ask(world, request);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_LE(page->deletions_size(), 4);
    EXPECT_EQ(page->server_time_ms(), world.now_ms());
    for (const v1::DeletedExecution& each : page->deletions()) ids.push_back(each.workflow_id());
    request.set_page_token(page->next_page_token());
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(ids, expected);
  EXPECT_EQ(pages, 6);
}

TEST(DeletionNotes, RefuseWhatIsNoQuestion) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  for (const char* token :
       {"x", "00", "6a6a", "zz6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a"}) {
    v1::ListDeletionsRequest request;
    request.set_page_token(token);
    const auto page = Ask(world, request);
    EXPECT_TRUE(absl::IsInvalidArgument(page.status())) << token;
    EXPECT_THAT(page.status().message(), HasSubstr("page token"));
  }
  v1::ListDeletionsRequest request;
  request.set_workflow_id("a\nb");
  EXPECT_TRUE(absl::IsInvalidArgument(Ask(world, request).status()));
}

TEST(DeletionNotes, OfABulkOperationNameItsCaller) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  Complete(world, "a", 3);
  world.Advance(3'000);
  v1::StartBulkOperationRequest request;
  request.mutable_filter()->set_query("status = \"completed\"");
  request.mutable_operation()->mutable_delete_();
  request.set_identity("ann");
  request.set_reason("the contract ended");
  ASSERT_TRUE(world
                  .Ask<v1::StartBulkOperationResponse>(
                      [&](auto reply) { world.engine().StartBulk(request, std::move(reply)); })
                  .ok());
  world.Advance(10'000);
  const std::vector<v1::DeletedExecution> known = Deletions(world);
  EXPECT_THAT(Ids(known), UnorderedElementsAre("a0", "a1", "a2"));
  for (const v1::DeletedExecution& each : known) {
    EXPECT_EQ(each.identity(), "ann");
    EXPECT_THAT(each.reason(), StartsWith("the contract ended (bulk operation "));
  }
}

TEST(DeletionNotes, AreNotMadeByRetention) {
  EngineOptions options;
  options.retention = absl::Minutes(10);
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  Complete(world, "a", 3);
  world.Advance(15 * 60'000, 10'000);
  EXPECT_EQ(world.Counter("retention_deletions"), 3u);
  EXPECT_THAT(Deletions(world), IsEmpty());
}

TEST(DeletionNotes, AreForgottenAfterNinetyDays) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 1));
  Complete(world, "a", 2);
  ASSERT_TRUE(Delete(world, "a0", "ann", "").ok());
  world.Advance(kDeletionNotesKeptMs / 2, kDeletionNotesKeptMs / 10);
  ASSERT_TRUE(Delete(world, "a1", "ann", "").ok());
  world.Advance(kDeletionNotesKeptMs / 2 - 60'000, kDeletionNotesKeptMs / 20);
  world.Advance(30'000, 10'000);
  EXPECT_THAT(Ids(Deletions(world)), ElementsAre("a1", "a0"));
  world.Advance(10 * 60'000, 10'000);
  EXPECT_THAT(Ids(Deletions(world)), ElementsAre("a1"));
  EXPECT_EQ(CountRows(world, keys::Table::kDeleted), 1u) << "its row is gone";
}

// Whenever the process ends, what is deleted has its note, and what has a note is deleted.
TEST(DeletionNotes, GoWithTheDeletionThroughACrash) {
  int noted = 0, there = 0;
  for (int steps = 0; steps < 20; ++steps) {
    for (const size_t kept : {size_t{0}, size_t{1}, size_t{100}}) {
      SCOPED_TRACE(absl::StrCat(steps, " steps, ", kept, " unsynced writes kept"));
      World world;
      ASSERT_TRUE(world.Open().ok());
      world.Define(Chain("chain", 1));
      Complete(world, "a", 1);
      v1::ExecutionRef ref;
      ref.set_workflow_id("a0");
      world.engine().Delete(ref, "ann", "",
                            [](const absl::StatusOr<v1::OperateExecutionResponse>&) {});
      for (int step = 0; step < steps; ++step) {
        if (step % 3 == 0) world.Turn();
        if (step % 3 == 1) world.RunJob();
        if (step % 3 == 2) world.StepStore();
      }
      world.Crash({.unsynced_kept = kept});
      ASSERT_TRUE(world.Open().ok());
      v1::GetResultRequest request;
      request.mutable_execution()->set_workflow_id("a0");
      const bool found = world
                             .Ask<v1::GetResultResponse>([&](auto reply) {
                               world.engine().GetResult(request, std::move(reply));
                             })
                             .ok();
      EXPECT_THAT(Deletions(world), SizeIs(found ? 0 : 1));
      ++(found ? there : noted);
    }
  }
  EXPECT_GT(noted, 5);
  EXPECT_GT(there, 2);
}

}  // namespace
}  // namespace flux::engine::testing
