// Results that count for nothing: which of them history tells, in every state of a step.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/core/states.h"

namespace flux::engine::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Token {
  uint64_t delivery = 1;
  uint32_t generation = 0;
};

ReportResult ResultOf(const StepKey& key, const Token& token) {
  ReportResult command;
  v1::TaskToken* to = command.result.mutable_token();
  to->set_frame(key.frame);
  to->set_step(key.step);
  to->set_delivery(token.delivery);
  to->set_generation(token.generation);
  *command.result.mutable_value() = Json("\"late\"");
  command.worker_id = "worker-9";
  return command;
}

// Its verdict is that it is stale.
void Late(Driver& run, const StepKey& key, const Token& token) {
  EXPECT_EQ(*run.Do(ResultOf(key, token)), Verdict::kStale);
}

// The deliveries whose refused results history tells, in order.
std::vector<uint64_t> Told(const Driver& run) {
  std::vector<uint64_t> told;
  for (const v1::HistoryEvent& event : run.story) {
    if (event.type() == "result.stale") told.push_back(event.delivery());
  }
  return told;
}

TEST(StaleResult, IsToldOnceInEachStateWhereItsDeliveryWasGivenUp) {
  struct Case {
    State state;
    bool told;
    Verdict verdict = Verdict::kStale;
  };
  const Case kCases[] = {
      {State::kPending, false},
      {State::kScheduled, true},
      {State::kBackingOff, true},
      {State::kParked, true},
      {State::kSleeping, false},
      {State::kAwaiting, false},
      {State::kSending, false},
      {State::kChild, false},
      {State::kUnderWay, false},
      {State::kBlock, false},
      {State::kLoop, false},
      {State::kSwitch, false},
      {State::kCatch, true},
      {State::kContinued, false, Verdict::kDuplicate},
      {State::kCompleted, false, Verdict::kDuplicate},
      {State::kSkipped, false, Verdict::kDuplicate},
      {State::kCancelled, true},
      {State::kClosedFailed, false},
  };
  ASSERT_EQ(std::size(kCases), std::size(kStates));
  for (size_t i = 0; i < std::size(kCases); ++i) {
    const Case& c = kCases[i];
    ASSERT_EQ(c.state, kStates[i].state);
    SCOPED_TRACE(kStates[i].name);
    const auto run = In(c.state);
    const StepKey s{0, kStepS};
    if (c.state == State::kScheduled) run->Redeliver("s");
    const v1::StepState before = run->StateOf("s");
    const uint64_t ordinal = run->live.ordinal();
    for (int again = 0; again < 3; ++again) {
      EXPECT_EQ(*run->Do(ResultOf(s, {})), c.verdict);
      EXPECT_EQ(run->live.ordinal(), ordinal + (c.told ? 1 : 0));
      EXPECT_EQ(run->StateOf("s"), before);
      run->Reload();
    }
    EXPECT_EQ(Told(*run).size(), c.told ? 1u : 0u);
    if (!c.told) continue;
    // It stays told when the step is something else: "beside" keeps the execution open.
    if (before != v1::STEP_STATE_CANCELLED) {
      EXPECT_EQ(run->Resolve("s", "5"), "");
    }
    run->Reload();
    Late(*run, s, {});
    EXPECT_EQ(run->Rewind("note"), "");
    Late(*run, s, {});
    EXPECT_EQ(Told(*run).size(), 1u);
    EndIt(*run);
    EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_COMPLETED);
  }
}

TEST(StaleResult, SaysWhatCameAndFromWhom) {
  const auto run = In(State::kBackingOff);
  Late(*run, {0, kStepS}, {});
  const v1::HistoryEvent& told = run->story.back();
  EXPECT_EQ(told.type(), "result.stale");
  EXPECT_EQ(told.step(), "s");
  EXPECT_EQ(told.delivery(), 1u);
  EXPECT_EQ(told.attempt(), 0u);
  EXPECT_EQ(told.identity(), "worker-9");
  EXPECT_EQ(told.detail(), "a result of delivery 1 came when it was wanted no more");
  EXPECT_FALSE(told.derived());
}

TEST(StaleResult, OfATokenThatWasNeverHandedOutIsNotTold) {
  struct Case {
    const char* name;
    StepKey key;
    Token token;
    bool told;
  };
  // "s" is scheduled as delivery 2 of generation 1.
  const Case kCases[] = {
      {"OldGeneration", {0, kStepS}, {1, 0}, true},
      {"CurrentDeliveryOfTheOldGeneration", {0, kStepS}, {2, 0}, false},
      {"FutureDelivery", {0, kStepS}, {3, 1}, false},
      {"FutureDeliveryOfTheOldGeneration", {0, kStepS}, {3, 0}, false},
      {"FutureGeneration", {0, kStepS}, {1, 2}, false},
      {"NoDelivery", {0, kStepS}, {0, 1}, false},
      {"UnknownStep", {0, 50}, {1, 0}, false},
      {"UnknownFrame", {7, 0}, {1, 0}, false},
      {"AStepThatIsNoTask", {0, 1}, {1, 0}, false},
      {"AStepThatHasNotBegun", {0, kStepS + 2}, {1, 0}, false},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const auto run = In(State::kScheduled);
    ASSERT_EQ(run->Rewind("s"), "");
    ASSERT_EQ(Offer(run->live, run->Key("s")).delivery, 2u);
    const std::string before = SaveSnapshot(run->live);
    Late(*run, c.key, c.token);
    EXPECT_EQ(Told(*run).size(), c.told ? 1u : 0u);
    EXPECT_EQ(SaveSnapshot(run->live) != before, c.told);
  }
}

TEST(StaleResult, OfAStepThatWasRewoundIsToldBeforeItBeginsAnewAndNotAgain) {
  DefinitionBuilder b("two");
  b.Task(0, "first");
  b.Task(0, "s", {FromStep(0)});
  b.Result(0, FromStep(1));
  Driver run(b.Compile());
  run.Complete("first", "1");
  ASSERT_EQ(run.Rewind("first"), "");
  ASSERT_EQ(run.StateOf("s"), v1::STEP_STATE_PENDING);
  Late(run, {0, 1}, {1, 0});
  EXPECT_THAT(Told(run), ElementsAre(1u));
  EXPECT_EQ(run.story.back().detail(),
            "a result of delivery 1 of generation 0 came when it was wanted no more");
  run.Reload();
  run.Complete("first", "1");
  Late(run, {0, 1}, {1, 0});
  EXPECT_THAT(Told(run), ElementsAre(1u));
}

TEST(StaleResult, OfAStepThatAnOperatorSettledIsTold) {
  const auto run = In(State::kScheduled);
  ASSERT_EQ(run->Resolve("s", "5"), "");
  Late(*run, {0, kStepS}, {});
  Late(*run, {0, kStepS}, {});
  EXPECT_THAT(Told(*run), ElementsAre(1u));
}

TEST(StaleResult, IsToldOfTenDeliveriesOfAStepAndOfNoneBehindTheNewestOfThem) {
  const auto run = In(State::kScheduled);
  const StepKey s{0, kStepS};
  for (int i = 0; i < 20; ++i) run->Redeliver("s");
  Late(*run, s, {3, 0});
  Late(*run, s, {2, 0});
  EXPECT_THAT(Told(*run), ElementsAre(3u));
  for (uint64_t delivery = 4; delivery <= 20; ++delivery) {
    Late(*run, s, {delivery, 0});
    run->Reload();
  }
  EXPECT_EQ(Told(*run).size(), internal::kRefusedResultsMax);
  EXPECT_EQ(Told(*run).back(), 2 + internal::kRefusedResultsMax);
}

// The worker did not hear that its failure was recorded, and sends it again.
TEST(StaleResult, AFailureThatIsRecordedIsNotToldAgain) {
  for (const State state : {State::kBackingOff, State::kParked, State::kCatch}) {
    const auto run = In(state);
    const v1::Failure failure = *run->live.state().FindStep({0, kStepS})->extra->failure;
    ReportResult command = ResultOf({0, kStepS}, {});
    *command.result.mutable_failure() = failure;
    EXPECT_EQ(*run->Do(command), Verdict::kStale);
    EXPECT_THAT(Told(*run), IsEmpty());
    command.result.mutable_failure()->set_message("another");
    EXPECT_EQ(*run->Do(command), Verdict::kStale);
    EXPECT_THAT(Told(*run), ElementsAre(1u));
  }
}

TEST(StaleResult, OfAnUndoTaskIsToldAndOfWhatIsOnlyGivenUpIsNot) {
  const auto run = In(State::kScheduled, {.undoable = true});
  ASSERT_EQ(run->Try(Cancel{"", "ann"}), "");
  ASSERT_EQ(run->status(), v1::EXECUTION_STATUS_CANCELLING);
  Late(*run, {0, kStepS}, {});
  EXPECT_THAT(Told(*run), IsEmpty());
  const StepKey undo = ReadyTasks(run->live).at(0);
  ASSERT_EQ(*run->Do(Redeliver{undo, 1, "its worker went away"}), Verdict::kAccepted);
  Late(*run, undo, {});
  EXPECT_THAT(Told(*run), ElementsAre(1u));
}

TEST(StaleResult, StaysToldInAnotherVersion) {
  const auto run = In(State::kBackingOff);
  Late(*run, {0, kStepS}, {});
  v1::Definition second = DefinitionOf(State::kBackingOff).definition();
  second.set_version("2");
  ASSERT_EQ(run->Try(Migrate{*Graph::Compile(second, "hash-of-the-second-version-------"), "", ""}),
            "");
  Late(*run, {0, kStepS}, {});
  EXPECT_THAT(Told(*run), ElementsAre(1u));
}

}  // namespace
}  // namespace flux::engine::testing
