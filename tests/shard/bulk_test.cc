// Operations by query: previewed, paced, counted, and resumed after a crash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

v1::StartBulkOperationRequest Request(const std::string& query) {
  v1::StartBulkOperationRequest request;
  request.mutable_filter()->set_query(query);
  request.mutable_operation()->mutable_terminate();
  request.set_identity("tester");
  request.set_reason("spring cleaning");
  return request;
}

absl::StatusOr<v1::StartBulkOperationResponse> StartBulk(
    World& world, const v1::StartBulkOperationRequest& request) {
  return world.Ask<v1::StartBulkOperationResponse>(
      [&](auto reply) { world.engine().StartBulk(request, std::move(reply)); });
}

v1::BulkOperation Get(World& world, const std::string& id) {
  v1::GetBulkOperationRequest request;
  request.set_id(id);
  const auto got = world.Ask<v1::GetBulkOperationResponse>(
      [&](auto reply) { world.engine().GetBulk(request, std::move(reply)); });
  EXPECT_TRUE(got.ok()) << got.status();
  return got.ok() ? got->operation() : v1::BulkOperation();
}

uint64_t Count(World& world, const std::string& query) {
  v1::CountExecutionsRequest request;
  request.mutable_filter()->set_query(query);
  const auto counted = world.Ask<v1::CountExecutionsResponse>(
      [&](auto reply) { world.engine().Count(request, std::move(reply)); });
  EXPECT_TRUE(counted.ok()) << counted.status();
  return counted.ok() ? counted->count() : 0;
}

void StartNaps(World& world, int count, const std::string& tenant) {
  for (int i = 0; i < count; ++i) {
    v1::StartWorkflowRequest request;
    request.set_workflow("nap");
    request.set_workflow_id(absl::StrCat(tenant, "-", i));
    *request.add_inputs() = Json("1");
    (*request.mutable_labels())["tenant"] = tenant;
    world.PostStart(std::move(request));
  }
  world.Settle();
}

TEST(Bulk, ShowsWhatItWouldDoAndThenDoesIt) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  StartNaps(world, 30, "acme");
  StartNaps(world, 5, "other");
  v1::StartBulkOperationRequest request = Request(R"(label.tenant = "acme")");
  request.set_preview(true);
  request.set_preview_rows(3);
  const auto preview = StartBulk(world, request);
  ASSERT_TRUE(preview.ok()) << preview.status();
  EXPECT_EQ(preview->matched(), 30u);
  EXPECT_EQ(preview->first_size(), 3);
  EXPECT_FALSE(preview->has_operation());
  EXPECT_EQ(Count(world, R"(status = "running")"), 35u);

  request.set_preview(false);
  const auto begun = StartBulk(world, request);
  ASSERT_TRUE(begun.ok()) << begun.status();
  EXPECT_EQ(begun->operation().state(), v1::BULK_STATE_RUNNING);
  EXPECT_EQ(begun->matched(), 30u);
  StartNaps(world, 1, "acme-late");
  world.Advance(1'000);
  const v1::BulkOperation done = Get(world, begun->operation().id());
  EXPECT_EQ(done.state(), v1::BULK_STATE_COMPLETED);
  EXPECT_EQ(done.done(), 30u);
  EXPECT_EQ(done.refused() + done.failed(), 0u);
  EXPECT_GT(done.end_time_ms(), done.start_time_ms());
  EXPECT_EQ(Count(world, R"(status = "terminated" and label.tenant = "acme")"), 30u);
  EXPECT_EQ(Count(world, R"(status = "running")"), 6u);

  // Who and why stand in each execution's own history.
  v1::GetHistoryRequest history;
  history.mutable_execution()->set_workflow_id("acme-7");
  const auto events = world.Ask<v1::GetHistoryResponse>(
      [&](auto reply) { world.engine().History(history, std::move(reply)); });
  ASSERT_TRUE(events.ok());
  bool told = false;
  for (const v1::HistoryEvent& event : events->events()) {
    told = told || (event.identity() == "tester" &&
                    event.detail().find("spring cleaning (bulk operation " + done.id() + ")") !=
                        std::string::npos);
  }
  EXPECT_TRUE(told) << events->DebugString();
}

TEST(Bulk, TheSameRequestWhileItIsCountedIsTheSameOperation) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  StartNaps(world, 5, "acme");
  v1::StartBulkOperationRequest request = Request(R"(label.tenant = "acme")");
  request.set_request_id("once");
  std::vector<std::string> ids;
  for (int i = 0; i < 2; ++i) {
    world.engine().StartBulk(request, [&](absl::StatusOr<v1::StartBulkOperationResponse> begun) {
      ASSERT_TRUE(begun.ok()) << begun.status();
      ids.push_back(begun->operation().id());
    });
  }
  world.Settle();
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[0], ids[1]);
}

TEST(Bulk, KeepsItsPace) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  StartNaps(world, 100, "acme");
  v1::StartBulkOperationRequest request = Request(R"(status = "running")");
  request.set_rate_per_second(10);
  const auto begun = StartBulk(world, request);
  ASSERT_TRUE(begun.ok());
  world.Advance(3'000);
  const uint64_t done = Get(world, begun->operation().id()).done();
  EXPECT_GE(done, 28u);
  EXPECT_LE(done, 33u);
  world.Advance(8'000);
  EXPECT_EQ(Get(world, begun->operation().id()).state(), v1::BULK_STATE_COMPLETED);
}

TEST(Bulk, CountsWhatItsExecutionsRefuse) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  StartNaps(world, 20, "acme");
  StartNaps(world, 15, "closed");
  v1::StartBulkOperationRequest cancel = Request(R"(label.tenant = "closed")");
  cancel.mutable_operation()->mutable_cancel();
  ASSERT_TRUE(StartBulk(world, cancel).ok());
  world.Advance(2'000);
  const auto begun = StartBulk(world, Request("started <= now"));
  ASSERT_TRUE(begun.ok());
  world.Advance(2'000);
  const v1::BulkOperation operation = Get(world, begun->operation().id());
  EXPECT_EQ(operation.matched(), 35u);
  EXPECT_EQ(operation.done(), 20u);
  EXPECT_EQ(operation.refused(), 15u);
  EXPECT_EQ(operation.failed(), 0u);
  ASSERT_EQ(operation.errors_size(), 10);
  EXPECT_THAT(operation.errors(0).workflow_id(), HasSubstr("closed-"));
  EXPECT_FALSE(operation.errors(0).message().empty());
}

TEST(Bulk, DeletesWhatIsClosed) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  StartNaps(world, 300, "acme");
  StartNaps(world, 3, "other");
  v1::StartBulkOperationRequest request = Request(R"(label.tenant = "acme")");
  request.set_rate_per_second(10'000);
  ASSERT_TRUE(StartBulk(world, request).ok());
  world.Advance(3'000);
  request.mutable_filter()->set_query(R"(status = "closed")");
  request.mutable_operation()->mutable_delete_();
  const auto begun = StartBulk(world, request);
  ASSERT_TRUE(begun.ok());
  world.Advance(3'000);
  EXPECT_EQ(Get(world, begun->operation().id()).done(), 300u);
  EXPECT_EQ(Count(world, ""), 3u);
}

TEST(Bulk, GoesOnAfterACrash) {
  for (uint32_t kept : {0u, 1'000u}) {
    World world;
    ASSERT_TRUE(world.Open().ok());
    world.Define(Nap("nap", 3'600'000));
    StartNaps(world, 200, "acme");
    world.Advance(2'000);
    v1::StartBulkOperationRequest request = Request(R"(status = "running")");
    request.set_rate_per_second(50);
    request.set_request_id("once");
    const auto begun = StartBulk(world, request);
    ASSERT_TRUE(begun.ok());
    const std::string id = begun->operation().id();
    for (int crash = 0; crash < 5; ++crash) {
      world.Advance(1'030, 10);
      world.Crash({.unsynced_kept = kept});
      ASSERT_TRUE(world.Open().ok());
      const auto again = StartBulk(world, request);
      ASSERT_TRUE(again.ok());
      EXPECT_EQ(again->operation().id(), id) << "a repeated request began another one";
    }
    world.Advance(5'000);
    const v1::BulkOperation operation = Get(world, id);
    EXPECT_EQ(operation.state(), v1::BULK_STATE_COMPLETED);
    EXPECT_LE(operation.done(), 200u);
    EXPECT_EQ(operation.failed(), 0u);
    EXPECT_EQ(Count(world, R"(status = "terminated")"), 200u);
  }
}

TEST(Bulk, IsCancelledAndListed) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  StartNaps(world, 100, "acme");
  v1::StartBulkOperationRequest request = Request(R"(status = "running")");
  request.set_rate_per_second(10);
  const auto begun = StartBulk(world, request);
  ASSERT_TRUE(begun.ok());
  world.Advance(1'000);
  v1::CancelBulkOperationRequest cancel;
  cancel.set_id(begun->operation().id());
  cancel.set_identity("someone else");
  const auto cancelled = world.Ask<v1::CancelBulkOperationResponse>(
      [&](auto reply) { world.engine().CancelBulk(cancel, std::move(reply)); });
  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  EXPECT_EQ(cancelled->operation().state(), v1::BULK_STATE_CANCELLED);
  world.Advance(3'000);
  const uint64_t open = Count(world, R"(status = "running")");
  EXPECT_GT(open, 80u);
  EXPECT_LT(open, 100u);
  const auto twice = world.Ask<v1::CancelBulkOperationResponse>(
      [&](auto reply) { world.engine().CancelBulk(cancel, std::move(reply)); });
  EXPECT_TRUE(absl::IsFailedPrecondition(twice.status())) << twice.status();
  world.Crash();
  ASSERT_TRUE(world.Open().ok());
  world.Advance(2'000);
  EXPECT_EQ(Count(world, R"(status = "running")"), open);
  const auto list = world.Ask<v1::ListBulkOperationsResponse>(
      [&](auto reply) { world.engine().ListBulks(std::move(reply)); });
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->operations_size(), 1);
  EXPECT_EQ(list->operations(0).failure(), "cancelled by someone else");
}

TEST(Bulk, RefusesWhatItCannotDo) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  StartNaps(world, 20, "acme");
  const auto refused = [&](const v1::StartBulkOperationRequest& request) {
    const auto answer = StartBulk(world, request);
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument) << answer.status();
    return std::string(answer.status().message());
  };
  EXPECT_THAT(refused(Request("  ")), HasSubstr("matches everything"));
  EXPECT_THAT(refused(Request("tenant")), HasSubstr("no field is called"));
  v1::StartBulkOperationRequest request = Request("started <= now");
  request.clear_operation();
  EXPECT_THAT(refused(request), HasSubstr("no operation"));
  request = Request("started <= now");
  request.set_rate_per_second(10'001);
  EXPECT_THAT(refused(request), HasSubstr("at most 10000"));
  request.set_rate_per_second(1);
  request.set_reason(std::string(70'000, 'x'));
  EXPECT_THAT(refused(request), HasSubstr("bytes together"));
  request.set_reason("");
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(StartBulk(world, request).ok());
  const auto ninth = StartBulk(world, request);
  EXPECT_TRUE(absl::IsResourceExhausted(ninth.status())) << ninth.status();
  v1::GetBulkOperationRequest unknown;
  unknown.set_id("none");
  const auto got = world.Ask<v1::GetBulkOperationResponse>(
      [&](auto reply) { world.engine().GetBulk(unknown, std::move(reply)); });
  EXPECT_TRUE(absl::IsNotFound(got.status()));
}

TEST(Bulk, RemembersTheLastHundredThatEnded) {
  World world;
  ASSERT_TRUE(world.Open().ok());
  world.Define(Nap("nap", 3'600'000));
  StartNaps(world, 1, "acme");
  std::string last;
  for (int i = 0; i < 105; ++i) {
    const auto begun = StartBulk(world, Request(R"(workflow = "none")"));
    ASSERT_TRUE(begun.ok()) << begun.status();
    last = begun->operation().id();
    world.Advance(60);
  }
  const auto check = [&] {
    const auto list = world.Ask<v1::ListBulkOperationsResponse>(
        [&](auto reply) { world.engine().ListBulks(std::move(reply)); });
    ASSERT_TRUE(list.ok());
    EXPECT_EQ(list->operations_size(), 100);
    EXPECT_EQ(list->operations(0).id(), last);
  };
  check();
  world.Crash({.unsynced_kept = 1'000});
  ASSERT_TRUE(world.Open().ok());
  check();
}

}  // namespace
}  // namespace flux::engine::testing
