// What a rewind takes back, and what it leaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

const auto kAccepted = Verdict::kAccepted;

// a -> b -> c -> end, x -> y -> end.
DefinitionBuilder Branches() {
  DefinitionBuilder b("branches", 1);
  b.Task(0, "a", {FromParameter(0)});
  b.Task(0, "b", {FromStep(0)});
  b.Task(0, "c", {FromStep(1)});
  b.Task(0, "x");
  b.Task(0, "y", {FromStep(3)});
  b.Result(0, FromStep(b.Task(0, "end", {FromStep(2), FromStep(4)})));
  return b;
}

TEST(Rewind, TakesBackWhatIsDownstreamAndNothingElse) {
  Driver run(Branches().Compile(), {Json("0")});
  RunAll(run, "\"old\"");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  run.Reload();
  run.story.clear();
  EXPECT_EQ(run.Rewind("b"), "");
  EXPECT_TRUE(run.effects.reopened);
  EXPECT_EQ(run.ResultText(), "");
  for (const char* step : {"b", "c", "end"}) {
    EXPECT_EQ(GenerationOf(run, step), 1u);
    EXPECT_THAT(run.StoryTypes(), Contains(absl::StrCat("step.superseded ", step)));
  }
  for (const char* step : {"a", "x", "y"}) {
    EXPECT_EQ(GenerationOf(run, step), 0u);
    EXPECT_EQ(run.StateOf(step), v1::STEP_STATE_COMPLETED);
  }
  EXPECT_THAT(run.Ready(), ElementsAre("b"));
  EXPECT_EQ(InputOf(run, "b"), "\"old\"") << "upstream keeps its results";
  EXPECT_EQ(run.StateOf("end"), v1::STEP_STATE_PENDING);
  EXPECT_EQ(run.ReasonOf("end"), "waits for step c");
  run.Reload();
  RunAll(run, "\"new\"");
  EXPECT_EQ(run.ResultText(), "\"new\"");
}

TEST(Rewind, SeveralInTurnEachGiveANewGeneration) {
  Driver run(Branches().Compile(), {Json("0")});
  const char* kSteps[] = {"c", "a", "y", "b", "end", "x"};
  uint32_t generation = 0;
  for (const char* step : kSteps) {
    if (generation % 2 == 0) RunAll(run, "1");
    if (run.StateOf(step) == v1::STEP_STATE_PENDING) continue;
    EXPECT_EQ(run.Rewind(step), "");
    EXPECT_EQ(GenerationOf(run, step), ++generation);
    EXPECT_EQ(GenerationOf(run, "end"), generation);
    if (generation % 3 == 0) run.Reload();
  }
  RunAll(run, "\"last\"");
  EXPECT_EQ(run.ResultText(), "\"last\"");
}

TEST(Rewind, FencesTheOldGeneration) {
  Driver run(Branches().Compile(), {Json("0")});
  run.Complete("a", "1");
  ReportResult old;
  old.result = run.ResultFor("b");
  *old.result.mutable_value() = Json("1");
  ReportResult beside;
  beside.result = run.ResultFor("x");
  *beside.result.mutable_value() = Json("1");
  EXPECT_EQ(run.Rewind("a"), "");
  EXPECT_THAT(run.effects.revoked, ElementsAre(std::pair(run.Key("b"), uint64_t{1})));
  EXPECT_EQ(*run.Do(old), Verdict::kStale);
  EXPECT_EQ(*run.Do(beside), kAccepted) << "another branch goes on as it was";
  run.Complete("a", "1");
  EXPECT_EQ(*run.Do(old), Verdict::kStale) << "though it is scheduled again";
  EXPECT_EQ(Offer(run.live, run.Key("b")).delivery, 2u) << "no number is given twice";
}

TEST(Rewind, OfAFailedExecutionLeavesTheFailedStepParkedIfItLiesElsewhere) {
  Driver run(Branches().Compile(), {Json("0")});
  run.Complete("a", "1");
  run.FailTask("x", "bad", true);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.Rewind("a"), "");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  EXPECT_EQ(run.StateOf("x"), v1::STEP_STATE_PARKED);
  EXPECT_THAT(run.Ready(), ElementsAre("a"));
  EXPECT_EQ(run.Retry(), "");
  RunAll(run, "1");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
}

// Found by seed 46141 of the simulation: the failure cut off what followed from "a", the reopening
// queued it, and the rewind took "a" back before it began.
TEST(Rewind, WhatAFailureCutOffWaitsForWhatIsTakenBack) {
  DefinitionBuilder b("cut", 1);
  const uint32_t a = b.Task(0, "a");
  b.step(0, b.Join(0, "fails", {FromStep(a, "/none")})).set_name("fails");
  b.Result(0, FromStep(b.Task(0, "reader", {FromStep(a)})));
  Driver run(b.Compile(), {Json("0")});
  run.Complete("a", "1");
  ASSERT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.Rewind("a"), "");
  EXPECT_THAT(run.Ready(), ElementsAre("a"));
}

TEST(Rewind, OfACancelledOrTerminatedExecutionHandsOutAnew) {
  for (const bool cancelled : {true, false}) {
    Driver run(Branches().Compile(), {Json("0")});
    run.Complete("a", "1");
    if (cancelled) {
      EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
    } else {
      EXPECT_EQ(run.Try(Terminate{"", "ann"}), "");
    }
    EXPECT_EQ(run.Rewind("b"), "");
    EXPECT_THAT(run.effects.ready, UnorderedElementsAre(run.Key("b"), run.Key("x")));
    EXPECT_EQ(Offer(run.live, run.Key("x")).delivery, 2u);
    RunAll(run, "1");
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  }
}

TEST(Rewind, InABodyStaysInIt) {
  DefinitionBuilder b("bodies");
  const uint32_t item = b.Scope(1);
  b.Task(item, "one", {FromParameter(0)});
  b.Task(item, "two", {FromStep(0)});
  b.Result(item, FromStep(b.Task(item, "three", {FromStep(1)})));
  b.Result(0, FromStep(b.Map(0, "m", item, {Literal("[1,2]")})));
  Driver run(b.Compile());
  run.Complete("m[0].one", "1");
  run.Complete("m[0].two", "1");
  run.Complete("m[1].one", "1");
  EXPECT_EQ(run.Rewind("m[0].one"), "");
  EXPECT_THAT(run.Ready(), ElementsAre("m[0].one", "m[1].two"));
  run.Complete("m[1].two", "2");
  run.Complete("m[1].three", "2");
  EXPECT_FALSE(run.Exists("m[1].one"));
  // A body that is gone cannot be rewound to; its step can.
  EXPECT_EQ(FindStep(run.live, "m[1].one").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(FindStep(run.live, "m[1].one").status().message()),
              HasSubstr("has no step \"m[1].one\" now: `workflow show` lists the steps"));
  EXPECT_EQ(run.Rewind("m"), "");
  EXPECT_THAT(run.Ready(), ElementsAre("m[0].one", "m[1].one"));
  RunAll(run, "5");
  EXPECT_EQ(run.ResultText(), "[5,5]");
}

TEST(Rewind, TakesALoopBackToItsFirstTurnOrAStepOfTheOpenTurn) {
  DefinitionBuilder b("loop");
  const uint32_t turn = b.Scope(1);
  b.Result(turn, FromStep(b.Task(turn, "work", {FromParameter(0)})));
  b.Result(0, FromStep(b.Loop(0, "l", turn, {Literal("0")}, 3)));
  Driver run(b.Compile());
  run.Complete("l[0].work", "1");
  EXPECT_EQ(run.Rewind("l[1].work"), "");
  EXPECT_EQ(InputOf(run, "l[1].work"), "1");
  EXPECT_EQ(run.Rewind("l"), "");
  EXPECT_EQ(InputOf(run, "l[0].work"), "0");
  RunAll(run, "7");
  EXPECT_EQ(run.ResultText(), "7");
}

TEST(Rewind, ABodyGivenLateValuesIsDownstreamOfThem) {
  DefinitionBuilder b("lazy");
  b.Task(0, "a");
  const uint32_t body = b.Scope(1);
  b.Task(body, "early");
  b.Result(body, FromStep(b.Task(body, "late", {FromParameter(0)})));
  b.Block(0, "block", body, {FromStep(0)});
  b.Task(0, "risky");
  const uint32_t handler = b.Scope(2);
  b.Result(handler, FromStep(b.Task(handler, "mend", {FromParameter(1)})));
  b.Catch(0, 2, {}, handler, {FromStep(0)});
  b.Result(0, FromStep(b.Join(0, "all", {FromStep(1), FromStep(2)})));
  Driver run(b.Compile());
  run.FailTask("risky", "bad", true);
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("a", "block.early"));
  run.Complete("a", "1");
  EXPECT_EQ(InputOf(run, "block.late"), "1");
  EXPECT_EQ(InputOf(run, "risky.catch.mend"), "1");
  EXPECT_EQ(run.Rewind("a"), "");
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("a", "block.early", "risky"));
  run.Reload();
  run.Complete("a", "2");
  run.FailTask("risky", "bad", true);
  EXPECT_EQ(InputOf(run, "block.late"), "2");
  EXPECT_EQ(InputOf(run, "risky.catch.mend"), "2");
  RunAll(run, "3");
  EXPECT_EQ(run.ResultText(), "[3,3]");
}

TEST(Rewind, AnEarlyJoinDownstreamCountsWhatItStillHas) {
  DefinitionBuilder b("early");
  for (const char* name : {"a", "b", "c", "d"}) b.Task(0, name);
  b.Early(0, "j", {FromStep(0), FromStep(1), FromStep(2), FromStep(3)}, 2, 1);
  b.Result(0, FromStep(b.Task(0, "end", {FromStep(4)})));
  Driver run(b.Compile());
  run.Complete("a", "1");
  run.FailTask("c", "bad", true);
  EXPECT_EQ(run.StateOf("c"), v1::STEP_STATE_SKIPPED);
  EXPECT_EQ(run.Rewind("a"), "");
  run.Reload();
  // One of two, and the one failure that is tolerated, are counted still.
  run.Complete("b", "2");
  EXPECT_EQ(run.StateOf("j"), v1::STEP_STATE_PENDING);
  run.FailTask("d", "bad", true);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED) << "one failure was tolerated before";
  EXPECT_EQ(run.Retry(), "");
  run.Complete("d", "4");
  EXPECT_EQ(run.StateOf("j"), v1::STEP_STATE_COMPLETED);
  EXPECT_EQ(run.StateOf("a"), v1::STEP_STATE_CANCELLED);
  EXPECT_EQ(run.Rewind("j"), "") << "done again at once: it has its two";
  EXPECT_EQ(run.StateOf("j"), v1::STEP_STATE_COMPLETED);
  EXPECT_EQ(run.Rewind("b"), "");
  EXPECT_EQ(run.StateOf("j"), v1::STEP_STATE_PENDING);
  run.Complete("b", "2");
  RunAll(run, "5");
  EXPECT_EQ(run.ResultText(), "5");
}

TEST(Rewind, AStepWhoseSourceWasCancelledIsSkipped) {
  DefinitionBuilder b("cancelled");
  b.Task(0, "slow");
  b.Task(0, "fast");
  b.Task(0, "k", {FromStep(0)});
  b.Early(0, "j", {FromStep(0), FromStep(1)}, 1);
  b.Task(0, "beside");
  b.Result(0, FromStep(3));
  Driver run(b.Compile());
  EXPECT_EQ(run.Resolve("k", "1"), "");
  run.Complete("fast", "1");
  EXPECT_EQ(run.StateOf("slow"), v1::STEP_STATE_CANCELLED);
  EXPECT_EQ(run.Rewind("k"), "");
  EXPECT_EQ(run.StateOf("k"), v1::STEP_STATE_SKIPPED);
  EXPECT_EQ(run.Rewind("slow"), "") << "its join has enough without it, but k needs it now";
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("slow", "beside"));
  run.Complete("slow", "2");
  EXPECT_EQ(InputOf(run, "k"), "2");
}

// Offered before, taken back, offered again and dropped in one record: the first offer is revoked.
TEST(Rewind, RevokesWhatWasOfferedBeforeThoughItsSuccessorWasNot) {
  DefinitionBuilder b("revoke");
  const uint32_t w = b.Wait(0, "w", "go");
  b.Task(0, "slow", {FromStep(w)});
  const uint32_t body = b.Scope(1);
  b.Result(body, FromParameter(0));
  b.Switch(0, "quick", {FromStep(w), FromStep(w)}, {{"true", body}});
  b.Result(0, FromStep(b.Early(0, "j", {FromStep(1), FromStep(2)}, 1)));
  b.Task(0, "beside");
  Driver run(b.Compile());
  EXPECT_EQ(*run.Send("go", "false"), kAccepted);
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("slow", "beside"));
  EXPECT_EQ(run.Replay("go", "true"), "");
  EXPECT_EQ(run.StateOf("slow"), v1::STEP_STATE_CANCELLED);
  EXPECT_THAT(run.effects.revoked, ElementsAre(std::pair(run.Key("slow"), uint64_t{1})));
  EXPECT_THAT(run.effects.ready, IsEmpty());
}

TEST(Rewind, GivesAnExecutionItsWholeTimeoutAgain) {
  DefinitionBuilder b("timeout");
  b.definition().set_execution_timeout_ms(10'000);
  b.Result(0, FromStep(b.Task(0, "t")));
  Driver run(b.Compile());
  run.Advance(9'000);
  run.Complete("t", "1");
  run.Advance(50'000);
  EXPECT_EQ(run.Rewind("t"), "");
  EXPECT_EQ(NextTimerMs(run.live), run.now_ms + 10'000);
  run.Reload();
  run.Advance(9'999);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  run.Advance(1);
  EXPECT_THAT(run.ResultText(), HasSubstr("flux.timeout.execution"));
  EXPECT_EQ(run.live.state().timers.size(), 0u);
  EXPECT_EQ(run.Rewind("t"), "");
  EXPECT_EQ(NextTimerMs(run.live), run.now_ms + 10'000);
}

TEST(Rewind, ToAStepThatTakesNoTimeMayCloseItAtOnce) {
  DefinitionBuilder b("instant", 1);
  b.Task(0, "t");
  b.Result(0, FromStep(b.Join(0, "j", {FromStep(0), FromParameter(0)})));
  Driver run(b.Compile(), {Json("2")});
  run.Complete("t", "1");
  EXPECT_EQ(run.Rewind("j"), "");
  EXPECT_TRUE(run.effects.reopened);
  EXPECT_TRUE(run.effects.closed);
  EXPECT_EQ(run.ResultText(), "[1,2]");
}

}  // namespace
}  // namespace flux::engine::testing
