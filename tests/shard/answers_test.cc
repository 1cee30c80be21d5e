// What one answer holds: what is larger comes in parts, or is said to be left out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

// A list of a map's results has seven bytes an item: the number, what says that it is one, and the
// place in the list.
constexpr size_t kItems = 100;

std::vector<std::string> ListOf(size_t items) {
  std::string text = "[1";
  for (size_t i = 1; i < items; ++i) text += ",1";
  return {text + "]"};
}

// Its result is the list of what task "t" made of each item.
v1::Definition Many() {
  return Parse(R"(
    name: "many"
    scopes {
      parameters: 1
      steps { name: "each" inputs { parameter: 0 } map { body: 1 } }
      result { step: 0 }
    }
    scopes {
      parameters: 1
      steps { name: "item" inputs { parameter: 0 } task { task: "t" } }
      result { step: 0 }
    })");
}

absl::StatusOr<v1::GetResultResponse> ResultOf(World& world, const std::string& id,
                                               uint32_t wait_ms) {
  v1::GetResultRequest request;
  request.mutable_execution()->set_workflow_id(id);
  request.set_wait_ms(wait_ms);
  return world.Ask<v1::GetResultResponse>(
      [&](auto reply) { world.engine().GetResult(request, std::move(reply)); });
}

TEST(Answers, AResultThatNoAnswerHoldsIsRefusedInWordsAndItsExecutionIsComplete) {
  EngineOptions options;
  options.answer_bytes_max = 7 * kItems;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Many());
  const StreamId worker = world.Connect("s", {"t"}, 1'000);
  ASSERT_TRUE(world.Start("many", "fits", ListOf(kItems)).ok());
  ASSERT_TRUE(world.Start("many", "over", ListOf(kItems + 1)).ok());
  // One asks before it is there, and waits.
  std::optional<absl::StatusOr<v1::GetResultResponse>> waited;
  v1::GetResultRequest request;
  request.mutable_execution()->set_workflow_id("over");
  request.set_wait_ms(60'000);
  world.engine().GetResult(request, [&](auto answer) { waited = std::move(answer); });
  world.RunWorker(worker);
  const auto fits = ResultOf(world, "fits", 0);
  ASSERT_TRUE(fits.ok()) << fits.status();
  EXPECT_EQ(fits->result().data().size(), 7 * kItems);
  ASSERT_TRUE(waited.has_value());
  for (const auto& answer : {*waited, ResultOf(world, "over", 0)}) {
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(answer.status().ToString(),
                HasSubstr("has completed, but its result has 707 bytes and an answer holds at most "
                          "700: read the results of its steps one by one from its history"));
  }
  EXPECT_EQ(world.Describe("over").info().status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_TRUE(world.Verify("over")->equal());
}

TEST(Answers, ADescriptionLeavesPayloadsOutThatItHasNoRoomForAndSaysSo) {
  EngineOptions options;
  options.answer_bytes_max = 7 * kItems;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Many());
  const StreamId worker = world.Connect("s", {"t"}, 1'000);
  ASSERT_TRUE(world.Start("many", "fits", ListOf(kItems)).ok());
  ASSERT_TRUE(world.Start("many", "over", ListOf(kItems + 1)).ok());
  world.RunWorker(worker);
  // The result takes all the room there is.
  const v1::DescribeExecutionResponse fits = world.Describe("fits");
  EXPECT_EQ(fits.result().data().size(), 700u);
  ASSERT_EQ(fits.inputs_size(), 1);
  EXPECT_EQ(fits.inputs(0).encoding(), v1::ENCODING_UNSPECIFIED);
  EXPECT_FALSE(fits.steps(0).has_output());
  EXPECT_EQ(fits.payload_bytes_left_out(), 700u + 201u);
  EXPECT_EQ(fits.steps(0).reason(),
            "its output of 700 bytes is left out: the history has it, or its parts");
  // What is too large leaves its room to what follows.
  const v1::DescribeExecutionResponse over = world.Describe("over");
  EXPECT_FALSE(over.has_result());
  EXPECT_EQ(over.inputs(0).data().size(), 203u);
  EXPECT_EQ(over.payload_bytes_left_out(), 2 * 707u);

  v1::DescribeExecutionRequest request;
  request.mutable_execution()->set_workflow_id("over");
  const auto bare = world.Ask<v1::DescribeExecutionResponse>(
      [&](auto reply) { world.engine().Describe(request, std::move(reply)); });
  ASSERT_TRUE(bare.ok());
  EXPECT_EQ(bare->payload_bytes_left_out(), 0u) << "none was asked for";
  EXPECT_EQ(bare->steps(0).reason(), "");
}

TEST(Answers, APageOfHistoryEndsBehindTheRecordThatMakesItLarge) {
  EngineOptions options;
  options.history_page_bytes = 1'000;
  options.answer_bytes_max = 2'500;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Chain("chain", 20));
  const StreamId worker = world.Connect("s", {"t"}, 4);
  ASSERT_TRUE(world.Start("chain", "a", {"1"}).ok());
  for (int i = 0; i < 20; ++i) {
    // The last is more than a page has room for, and comes again as the result.
    world.Answer(worker, world.Take(worker), std::string(i == 19 ? 2'600 : 400, '1'));
    world.Settle();
  }
  for (const bool payloads : {true, false}) {
    SCOPED_TRACE(payloads);
    v1::GetHistoryRequest request;
    request.mutable_execution()->set_workflow_id("a");
    request.set_payloads(payloads);
    uint64_t completed = 0;
    uint64_t last = 0;
    int pages = 0;
    std::vector<std::string> left_out;
    do {
      const auto page = world.Ask<v1::GetHistoryResponse>(
          [&](auto reply) { world.engine().History(request, std::move(reply)); });
      ASSERT_TRUE(page.ok()) << page.status();
      EXPECT_LT(page->ByteSizeLong(), 1'000u + 700u) << "the limit and one record";
      ++pages;
      for (const v1::HistoryEvent& event : page->events()) {
        EXPECT_TRUE(event.ordinal() == last || event.ordinal() == last + 1);
        last = event.ordinal();
        if (event.type() == "step.completed") ++completed;
        if (event.type() == "step.completed" && completed < 20) {
          EXPECT_EQ(event.payload().data().size(), payloads ? 400u : 0u);
        }
        if (event.detail().find("left out") != std::string::npos) {
          left_out.push_back(event.type());
          EXPECT_THAT(event.detail(), HasSubstr("its payload of 2600 bytes is left out"));
        }
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    EXPECT_EQ(last, 21u);
    EXPECT_EQ(completed, 20u);
    if (payloads) {
      EXPECT_GE(pages, 6) << "of some 9,000 bytes";
      EXPECT_THAT(left_out, ::testing::ElementsAre("step.completed", "execution.completed"));
    } else {
      EXPECT_LE(pages, 5);
      EXPECT_TRUE(left_out.empty());
    }
  }
}

TEST(Answers, EventsWhosePayloadsNoAnswerHoldsAreListedWithoutThem) {
  EngineOptions options;
  options.answer_bytes_max = 200;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Parse(R"(
    name: "waits"
    scopes {
      steps { name: "nap" sleep { duration_ms: 3600000 } }
      steps { name: "turns" inputs { literal { data: "0" encoding: ENCODING_JSON } } after: 0
              loop { body: 1 turns: 1000 } }
      result { step: 1 }
    }
    scopes {
      parameters: 1
      steps { name: "wait" wait_event { event: "go" } }
      result { step: 0 }
    })"));
  ASSERT_TRUE(world.Start("waits", "w").ok());
  const auto list = [&](bool payloads) {
    v1::ListEventsRequest request;
    request.mutable_execution()->set_workflow_id("w");
    request.set_payloads(payloads);
    return world.Ask<v1::ListEventsResponse>(
        [&](auto reply) { world.engine().ListEvents(request, std::move(reply)); });
  };
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(world.SendEvent("w", "go", std::string(100, '1')).ok());
  ASSERT_TRUE(list(true).ok());
  EXPECT_EQ(list(true)->events(1).payload().data().size(), 100u);
  ASSERT_TRUE(world.SendEvent("w", "go", "1").ok());
  const auto over = list(true);
  EXPECT_EQ(over.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(over.status().ToString(),
              HasSubstr("the events' payloads have 201 bytes together and an answer holds at most "
                        "200: list the events without payloads"));
  ASSERT_TRUE(list(false).ok());
  EXPECT_EQ(list(false)->events_size(), 3);
}

}  // namespace
}  // namespace flux::engine::testing
