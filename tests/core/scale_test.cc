// Width, depth and length: memory that depends on what is live, and stacks that depend on nothing.
#include <gtest/gtest.h>
#include <malloc.h>

#include <deque>

#include "absl/strings/str_cat.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

// The sanitizers' allocators count for themselves.
#ifdef FLUX_SANITIZED
constexpr bool kHeapIsKnown = false;
#else
constexpr bool kHeapIsKnown = true;
#endif

size_t HeapBytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// Reports a value for a scheduled step's first delivery and takes what became ready. False: the
// execution closed.
void Answer(Execution& execution, const StepKey& key, std::string json,
            std::deque<StepKey>* ready) {
  ReportResult command;
  command.result.mutable_token()->set_frame(key.frame);
  command.result.mutable_token()->set_step(key.step);
  command.result.mutable_token()->set_delivery(1);
  *command.result.mutable_value() = Json(json);
  auto decision = Decide(execution, std::move(command), 2'000);
  ASSERT_TRUE(decision.ok());
  ASSERT_EQ(decision->verdict, Verdict::kAccepted);
  Effects effects;
  for (v1::Record& record : decision->records) Apply(execution, std::move(record), &effects);
  ready->insert(ready->end(), effects.ready.begin(), effects.ready.end());
}

Execution Started(const std::shared_ptr<const Graph>& graph, std::vector<v1::Payload> inputs,
                  std::deque<StepKey>* ready) {
  v1::ExecutionStarted started;
  started.set_run_id(std::string(16, 'r'));
  for (v1::Payload& input : inputs) *started.add_inputs() = std::move(input);
  Effects effects;
  Execution execution = Create(graph, *DecideStart(*graph, std::move(started), 1'000), &effects);
  ready->assign(effects.ready.begin(), effects.ready.end());
  return execution;
}

TEST(Scale, AHundredThousandItemsStayBelowTwoHundredBytesEach) {
  constexpr int kItems = 100'000;
  constexpr size_t kBytesAnItemMax = 200;
  DefinitionBuilder b("wide", 1);
  const uint32_t body = b.Scope(1);
  b.Task(body, "t", {FromParameter(0)});
  b.Result(body, FromStep(0));
  b.Map(0, "m", body, {FromParameter(0)}, 1'000);
  b.Result(0, FromStep(0));
  const auto graph = b.Compile();
  std::string list = "[";
  for (int i = 0; i < kItems; ++i) absl::StrAppend(&list, i == 0 ? "" : ",", "\"item-", i, "\"");
  list += "]";

  const size_t before = HeapBytes();
  std::deque<StepKey> ready;
  Execution execution = Started(graph, {Json(list)}, &ready);
  EXPECT_EQ(ready.size(), 1'000u);
  size_t peak = 0;
  size_t counted = 0;
  for (int done = 0; done < kItems; ++done) {
    ASSERT_FALSE(ready.empty());
    const StepKey key = ready.front();
    ready.pop_front();
    Answer(execution, key, absl::StrCat("\"out-", done, "\""), &ready);
    if (done % 10'000 == 9'999) {
      peak = std::max(peak, HeapBytes() - before);
      counted = std::max(counted, MemoryBytes(execution));
    }
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(execution.status(), v1::EXECUTION_STATUS_COMPLETED);
  RecordProperty("bytes_an_item", static_cast<int>(peak / kItems));
  EXPECT_LT(counted / kItems, kBytesAnItemMax);
  if (kHeapIsKnown) {
    EXPECT_LT(peak / kItems, kBytesAnItemMax);
    // The count that bounds the cache is neither far below nor far above what is used.
    EXPECT_GT(counted, peak / 2);
    EXPECT_LT(counted, peak * 3);
  }
  v1::GetResultResponse response;
  FillResult(execution, &response);
  v1::PayloadList results;
  ASSERT_TRUE(results.ParseFromString(response.result().data()));
  ASSERT_EQ(results.items_size(), kItems);
  EXPECT_EQ(results.items(0).data(), "\"out-0\"");
}

TEST(Scale, ALoopOfManyTurnsUsesConstantMemory) {
  constexpr int kTurns = 200'000;
  DefinitionBuilder b("long", 0);
  const uint32_t body = b.Scope(1);
  b.Task(body, "t", {FromParameter(0)});
  b.Result(body, FromStep(0));
  b.Loop(0, "l", body, {Literal("0")}, kTurns);
  b.Result(0, FromStep(0));
  const auto graph = b.Compile();
  std::deque<StepKey> ready;
  Execution execution = Started(graph, {}, &ready);
  size_t memory = 0, heap = 0, snapshot = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    ASSERT_EQ(ready.size(), 1u);
    const StepKey key = ready.front();
    ready.pop_front();
    Answer(execution, key, "123456", &ready);
    if (HasFatalFailure()) return;
    if (turn == 1'000) {
      memory = MemoryBytes(execution);
      heap = HeapBytes();
      snapshot = SaveSnapshot(execution).size();
    }
    if (turn == kTurns - 2) {
      EXPECT_EQ(MemoryBytes(execution), memory);
      EXPECT_LT(HeapBytes(), heap + 64 * 1024);
      // Only the varints of its counters grow.
      EXPECT_LT(SaveSnapshot(execution).size(), snapshot + 32);
    }
  }
  EXPECT_EQ(execution.status(), v1::EXECUTION_STATUS_COMPLETED);
}

// Each join is derived from the one before, all in the record that starts the execution.
TEST(Scale, AChainOfFiftyThousandJoinsNeedsNoDeepStack) {
  constexpr uint32_t kSteps = 50'000;
  DefinitionBuilder b("deep", 0);
  for (uint32_t i = 0; i < kSteps; ++i) {
    const uint32_t step = b.Join(0, absl::StrCat("j", i), {});
    if (i > 0) b.After(0, step, i - 1);
  }
  b.Result(0, FromStep(kSteps - 1));
  std::deque<StepKey> ready;
  Execution execution = Started(b.Compile(), {}, &ready);
  EXPECT_EQ(execution.status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(Summarize(execution).steps_completed(), kSteps);
}

TEST(Scale, AChainOfTasksCostsTheSameAtItsEndAsAtItsBeginning) {
  constexpr uint32_t kSteps = 50'000;
  DefinitionBuilder b("chain", 0);
  for (uint32_t i = 0; i < kSteps; ++i) {
    b.Task(0, absl::StrCat("t", i),
           i == 0 ? std::vector<v1::Input>{} : std::vector{FromStep(i - 1)});
  }
  b.Result(0, FromStep(kSteps - 1));
  std::deque<StepKey> ready;
  Execution execution = Started(b.Compile(), {}, &ready);
  for (uint32_t i = 0; i < kSteps; ++i) {
    ASSERT_EQ(ready.size(), 1u);
    const StepKey key = ready.front();
    ready.pop_front();
    Answer(execution, key, "1", &ready);
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(execution.status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(execution.ordinal(), kSteps + 1);
}

// One task that a thousand others read, all in one record; and their join is a counter.
TEST(Scale, AFanOfManyStepsJoinsOnce) {
  constexpr uint32_t kFan = 1'000;
  DefinitionBuilder b("fan", 0);
  b.Task(0, "one");
  std::vector<v1::Input> all;
  for (uint32_t i = 0; i < kFan; ++i) {
    all.push_back(FromStep(b.Task(0, absl::StrCat("t", i), {FromStep(0)})));
  }
  b.Task(0, "end", all);
  b.Result(0, FromStep(kFan + 1));
  std::deque<StepKey> ready;
  Execution execution = Started(b.Compile(), {}, &ready);
  uint32_t answered = 0;
  while (!ready.empty()) {
    const StepKey key = ready.front();
    ready.pop_front();
    Answer(execution, key, "1", &ready);
    ++answered;
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(answered, kFan + 2);
  EXPECT_EQ(execution.status(), v1::EXECUTION_STATUS_COMPLETED);
}

}  // namespace
}  // namespace flux::engine::testing
