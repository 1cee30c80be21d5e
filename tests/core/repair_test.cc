// What each operators' command does beyond the tables of operators_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/core/states.h"

namespace flux::engine::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Matcher;
using ::testing::UnorderedElementsAre;

const auto kAccepted = Verdict::kAccepted;

// ---- on what is not there, or has closed ----

TEST(Operators, AStepThatIsNotThereIsNotFound) {
  for (const bool closed : {false, true}) {
    const auto run = In(closed ? State::kClosedFailed : State::kScheduled);
    for (const StepKey key : {StepKey{0, 99}, StepKey{99, 0}}) {
      engine::Retry retry;
      retry.step = key;
      engine::Resolve resolve;
      resolve.step = key;
      const Command kCommands[] = {retry, resolve, engine::Park{key, "ann", ""},
                                   engine::Rewind{key, "ann", ""}};
      for (const Command& command : kCommands) {
        const auto answer = run->Do(command);
        ASSERT_FALSE(answer.ok());
        if (!(closed && std::holds_alternative<engine::Park>(command))) {
          EXPECT_EQ(answer.status().code(), absl::StatusCode::kNotFound);
          EXPECT_THAT(std::string(answer.status().message()), HasSubstr("has no such step"));
        }
      }
    }
  }
}

TEST(Operators, AreRefusedOnWhatHasClosed) {
  struct Case {
    const char* name;
    std::function<void(Driver&)> end;
    const char* status;
  };
  const Case kCases[] = {
      {"Completed", [](Driver& run) { RunAll(run, "1"); }, "COMPLETED"},
      {"Cancelled",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
       },
       "CANCELLED"},
      {"Terminated",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Terminate{"", "ann"}), "");
       },
       "TERMINATED"},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const auto run = In(State::kScheduled);
    c.end(*run);
    const Matcher<std::string> is = HasSubstr(absl::StrCat(" is ", c.status, ": only "));
    EXPECT_THAT(run->Retry(), AllOf(is, HasSubstr("only a failed execution can be retried; rewind "
                                                  "it to a step instead")));
    EXPECT_THAT(run->Retry("s"), is);
    EXPECT_THAT(run->Park("s"), is);
    EXPECT_THAT(run->Unpark("s"), is);
    EXPECT_THAT(run->Resolve("s", "1"), is);
    EXPECT_THAT(run->SkipStep("s"), is);
    EXPECT_THAT(run->Try(Pause{"ann", ""}), is);
    EXPECT_THAT(run->Try(Resume{"ann", ""}), is);
    // What is done already may be asked for again.
    const std::string name = c.name;
    EXPECT_THAT(run->Try(Cancel{"", "ann"}), name == "Cancelled" ? Matcher<std::string>("") : is);
    EXPECT_THAT(run->Try(Terminate{"", "ann"}),
                name == "Terminated" ? Matcher<std::string>("") : is);
    EXPECT_THAT(run->Edit("go", "1"), is);
    EXPECT_EQ(run->Rewind("s"), "");
    EXPECT_TRUE(run->effects.reopened);
    RunAll(*run, "1");
    EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_COMPLETED);
  }
}

// ---- pause ----

TEST(Pause, WithholdsHandOutsAndNothingElse) {
  const auto run = In(State::kScheduled);
  EXPECT_EQ(run->Try(Pause{"ann", "lunch"}), "");
  EXPECT_TRUE(run->effects.paused);
  EXPECT_TRUE(IsPaused(run->live));
  EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_PAUSED);
  EXPECT_EQ(run->ReasonOf("s"), "the execution is paused");
  EXPECT_THAT(run->Try(Pause{"ann", ""}), HasSubstr("is paused already"));
  run->Reload();
  EXPECT_EQ(run->Complete("s", "1"), kAccepted) << "results count";
  EXPECT_EQ(run->StateOf("next"), v1::STEP_STATE_SCHEDULED);
  EXPECT_EQ(run->Retry("next"), "");
  EXPECT_EQ(run->Try(Resume{"ann", ""}), "");
  EXPECT_TRUE(run->effects.resumed);
  EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_RUNNING);
  EXPECT_THAT(run->Try(Resume{"ann", ""}), HasSubstr("is not paused"));
}

TEST(Pause, EndsWithTheExecution) {
  for (const bool cancelled : {true, false}) {
    const auto run = In(State::kScheduled);
    EXPECT_EQ(run->Try(Pause{"ann", ""}), "");
    if (cancelled) {
      EXPECT_EQ(run->Try(Cancel{"", "ann"}), "");
    } else {
      RunAll(*run, "1");
    }
    EXPECT_TRUE(run->live.closed());
    EXPECT_FALSE(IsPaused(run->live));
    EXPECT_EQ(run->Rewind("s"), "");
    EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_RUNNING);
  }
}

// ---- retry ----

TEST(Retry, F11AParkedStepBeginsAnewWithItsCountersAtOne) {
  const auto run = In(State::kParked);
  EXPECT_EQ(run->Retry("s"), "");
  const TaskOffer offer = Offer(run->live, run->Key("s"));
  EXPECT_EQ(offer.attempt, 1u);
  EXPECT_EQ(offer.delivery, 2u);
  run->Complete("s", "3");
  EXPECT_EQ(InputOf(*run, "next"), "3");
}

TEST(Retry, AScheduledStepIsRevokedAndItsOldResultIsStale) {
  const auto run = In(State::kScheduled);
  ReportResult old;
  old.result = run->ResultFor("s");
  *old.result.mutable_value() = Json("1");
  EXPECT_EQ(run->Retry("s"), "");
  EXPECT_THAT(run->effects.revoked, ElementsAre(std::pair(run->Key("s"), uint64_t{1})));
  EXPECT_EQ(*run->Do(old), Verdict::kStale);
}

TEST(Retry, OfAllTakesEveryParkedStep) {
  DefinitionBuilder b("park");
  const uint32_t item = b.Scope(1);
  b.Result(item, FromStep(b.Task(item, "work", {FromParameter(0)})));
  b.step(item, 0).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  b.Result(0, FromStep(b.Map(0, "m", item, {Literal("[1,2,3]")})));
  Driver run(b.Compile());
  EXPECT_THAT(run.Retry(), HasSubstr("has no failed or parked step to retry"));
  run.FailTask("m[0].work", "io", true);
  run.FailTask("m[2].work", "io", true);
  EXPECT_THAT(run.Ready(), ElementsAre("m[1].work"));
  EXPECT_EQ(run.Retry(), "");
  EXPECT_THAT(run.Ready(), ElementsAre("m[0].work", "m[1].work", "m[2].work"));
}

TEST(Retry, OfAFailedExecutionGoesOnFromTheStepItFailedAt) {
  DefinitionBuilder b("fails");
  const uint32_t item = b.Scope(1);
  b.Task(item, "work", {FromParameter(0)});
  b.step(item, 0).mutable_task()->mutable_timeouts()->set_schedule_to_close_ms(60'000);
  b.Result(item, FromStep(0));
  b.Map(0, "m", item, {Literal("[1,2,3]")});
  b.Wait(0, "w", "go");
  b.Sleep(0, "z", 5'000);
  b.Task(0, "off");
  b.Result(0, FromStep(b.Task(0, "next", {FromStep(0)})));
  Driver run(b.Compile());
  run.Complete("m[1].work", "20");
  run.FailTask("off", "io");
  run.FailTask("m[0].work", "bad", true);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.StateOf("m"), v1::STEP_STATE_FAILED);
  run.Reload();
  EXPECT_THAT(run.Retry("m[2].work"), HasSubstr("failed at step \"m[0].work\": retry that one"));
  // What went on beside it goes on; time spent closed counts against no task.
  run.now_ms += 3'600'000;
  EXPECT_EQ(run.Retry(), "");
  EXPECT_EQ(run.StateOf("m"), v1::STEP_STATE_WAITING);
  EXPECT_EQ(Offer(run.live, run.Key("m[2].work")).delivery, 2u);
  run.Advance(0);
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("m[0].work", "m[2].work", "off"));
  EXPECT_EQ(run.StateOf("z"), v1::STEP_STATE_COMPLETED);
  run.Reload();
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  RunAll(run, "9");
  EXPECT_EQ(run.ResultText(), "9");
}

// Found by seed 1451 of the simulation: the execution stayed open for ever.
TEST(Retry, OfAFailedExecutionTakesItsParkedStepsToo) {
  DefinitionBuilder b("fails");
  const uint32_t body = b.Scope(0);
  b.Task(body, "inner");
  b.Task(body, "other");
  b.step(body, 1).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  b.Task(0, "parked");
  b.step(0, 0).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  b.Block(0, "block", body, {});
  b.Result(0, FromStep(b.Task(0, "fails")));
  Driver run(b.Compile());
  run.FailTask("parked", "bad", true);
  run.FailTask("block.other", "bad", true);
  run.FailTask("fails", "bad", true);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.Retry("fails"), "");
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("fails", "block.inner"));
  run.FailTask("fails", "bad", true);
  run.Reload();
  EXPECT_EQ(run.Retry(), "");
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("fails", "parked", "block.inner", "block.other"));
  RunAll(run, "1");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
}

TEST(Retry, OfAFailedExecutionDropsWhatIsParkedInTheFailedStep) {
  DefinitionBuilder b("fails");
  const uint32_t item = b.Scope(1);
  b.Task(item, "work", {FromParameter(0)});
  b.step(item, 0).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  b.Result(item, FromParameter(0, "/none"));
  b.Result(0, FromStep(b.Map(0, "m", item, {Literal("[1,2]")})));
  Driver run(b.Compile());
  run.FailTask("m[0].work", "bad", true);
  run.Complete("m[1].work", "1");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.Retry(), "");
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("m[0].work", "m[1].work"));
}

// The failure strikes amid what follows from one record: the rest follows once it runs again.
TEST(Retry, DerivesWhatTheFailureCutOff) {
  DefinitionBuilder b("cut", 1);
  const uint32_t t = b.Task(0, "t");
  b.Map(0, "no-list", b.Scope(1), {FromStep(t)});
  b.Task(0, "after", {FromStep(t)});
  const uint32_t body = b.Scope(1);
  b.Task(body, "inner", {FromParameter(0)});
  b.Result(body, FromStep(0));
  b.Block(0, "block", body, {FromStep(t)});
  b.Early(0, "early", {FromStep(t), FromStep(2)}, 1);
  b.Result(0, FromStep(b.Join(0, "all", {FromStep(2), FromStep(3), FromStep(4)})));
  Driver run(b.Compile(), {Json("1")});
  run.Complete("t", "5");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  run.Reload();
  EXPECT_EQ(run.Resolve("no-list", "[]"), "");
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("after", "block.inner"));
  run.Complete("after", "6");
  run.Complete("block.inner", "7");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
}

TEST(Retry, OfAStepWithBodiesDropsThem) {
  DefinitionBuilder b("page");
  const uint32_t page = b.Scope(1);
  b.Result(page, FromStep(b.Task(page, "fetch", {FromParameter(0)})));
  const uint32_t item = b.Scope(1);
  b.Result(item, FromStep(b.Task(item, "work", {FromParameter(0)})));
  b.Result(0, FromStep(b.Pages(0, "m", page, item, {Literal("0")}, 4)));
  Driver run(b.Compile());
  run.Complete("m[page].fetch", "{\"items\":[1,2],\"next\":1}");
  run.Complete("m[page].fetch", "\"no page\"");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.StateOf("m"), v1::STEP_STATE_FAILED);
  EXPECT_TRUE(run.Exists("m[0].work"));
  EXPECT_THAT(run.Rewind("m[0].work"),
              HasSubstr("lies in step \"m\", which failed: rewind to that one"));
  run.Reload();
  EXPECT_EQ(run.Retry(), "");
  EXPECT_THAT(run.Ready(), ElementsAre("m[page].fetch"));
  run.Complete("m[page].fetch", "{\"items\":[1]}");
  run.Complete("m[0].work", "5");
  EXPECT_EQ(run.ResultText(), "[5]");
}

TEST(Retry, OfAnExecutionThatFailedAtNoStepIsRefused) {
  DefinitionBuilder b("fails", 1);
  b.Task(0, "t", {FromParameter(0)});
  b.Result(0, FromStep(0, "/gone"));
  Driver run(b.Compile(), {Json("1")});
  run.Complete("t", "{}");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_THAT(run.Retry(), HasSubstr("failed at no step: rewind it to the one to go on from"));
  EXPECT_EQ(run.Rewind("t"), "");
  run.Complete("t", "{\"gone\":3}");
  EXPECT_EQ(run.ResultText(), "3");
}

TEST(Retry, AFailStepFailsAgainUnlessItIsResolved) {
  DefinitionBuilder b("fails");
  b.Result(0, FromStep(b.Fail(0, "f", "mine")));
  Driver run(b.Compile());
  EXPECT_EQ(run.Retry(), "");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.Resolve("f", "5"), "");
  EXPECT_EQ(run.ResultText(), "5");
}

// ---- park ----

TEST(Park, LeavesTheStepToTheOperator) {
  for (const State state : {State::kScheduled, State::kBackingOff}) {
    const auto run = In(state);
    ReportResult old;
    old.result = run->ResultFor("s");
    *old.result.mutable_value() = Json("1");
    EXPECT_EQ(run->Park("s"), "");
    EXPECT_EQ(NextTimerMs(run->live), std::nullopt);
    EXPECT_EQ(*run->Do(old), Verdict::kStale);
    EXPECT_EQ(run->ReasonOf("s"), state == State::kScheduled
                                      ? "parked after 1 attempt: flux.parked: aside"
                                      : "parked after 1 attempt: io: it went wrong: io");
    run->Reload();
    run->Complete("beside", "1");
    run->Complete("first", "1");
    EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_RUNNING);
    EXPECT_EQ(run->Retry(), "");
    run->Complete("s", "2");
    EXPECT_EQ(InputOf(*run, "next"), "2");
  }
}

// ---- resolve ----

TEST(Resolve, GivesAnyStepAValueOrSkipsIt) {
  DefinitionBuilder b("bodies");
  const uint32_t item = b.Scope(1);
  b.Task(item, "work", {FromParameter(0)});
  b.Result(item, FromStep(b.Task(item, "more", {FromStep(0)})));
  const uint32_t m = b.Map(0, "m", item, {Literal("[1,2,3]")});
  b.Result(0, FromStep(b.Task(0, "next", {FromStep(m)})));
  {
    // Steps of a body: pending ones, too.
    Driver run(b.Compile());
    EXPECT_EQ(run.Resolve("m[0].more", "10"), "");
    EXPECT_EQ(run.StateOf("m[0].work"), v1::STEP_STATE_SCHEDULED) << "it runs all the same";
    run.Complete("m[0].work", "0");
    EXPECT_EQ(run.SkipStep("m[1].work"), "");
    EXPECT_FALSE(run.Exists("m[1].more")) << "skipped, and with it the item";
    EXPECT_EQ(run.Resolve("m[2].work", "30"), "");
    EXPECT_EQ(InputOf(run, "m[2].more"), "30");
    run.Complete("m[2].more", "31");
    run.Complete("next", "0");
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  }
  {
    // The map as a whole, with a value too large for its record.
    Driver run(b.Compile());
    const std::string large = "\"" + std::string(kBlobBytesMin, '7') + "\"";
    EXPECT_EQ(run.Resolve("m", large), "");
    EXPECT_LT(run.records.back().size(), 200u);
    EXPECT_EQ(run.live.state().frames.size(), 1u);
    EXPECT_EQ(run.effects.revoked.size(), 3u);
    run.Reload();
    EXPECT_EQ(InputOf(run, "next"), large);
  }
}

TEST(Resolve, FencesWhatRunsAndWhatComesLater) {
  const auto run = In(State::kScheduled);
  ReportResult old;
  old.result = run->ResultFor("s");
  *old.result.mutable_value() = Json("1");
  EXPECT_EQ(run->Resolve("s", "7"), "");
  EXPECT_EQ(*run->Do(old), Verdict::kStale);
  EXPECT_EQ(InputOf(*run, "next"), "7");
}

TEST(Resolve, APendingStepIsNotRunOnceItsSourcesAreDone) {
  const auto run = In(State::kPending);
  EXPECT_EQ(run->Resolve("s", "7"), "");
  EXPECT_EQ(InputOf(*run, "next"), "7");
  run->Complete("first", "1");
  EXPECT_EQ(run->StateOf("s"), v1::STEP_STATE_COMPLETED);
  EXPECT_THAT(run->Ready(), UnorderedElementsAre("beside", "next"));
}

// ---- finding steps ----

TEST(FindStep, FollowsPathsIntoEveryKindOfBody) {
  DefinitionBuilder b("paths");
  b.Task(0, "a");
  const uint32_t item = b.Scope(1);
  const uint32_t inner = b.Scope(1);
  b.Result(inner, FromStep(b.Task(inner, "deep", {FromParameter(0)})));
  b.Result(item, FromStep(b.Loop(item, "loop", inner, {FromParameter(0)}, 2)));
  b.Map(0, "map", item, {Literal("[1,2]")});
  b.Task(0, "ab");
  b.Task(0, "risky");
  const uint32_t handler = b.Scope(1);
  b.Result(handler, FromStep(b.Task(handler, "mend")));
  b.Catch(0, 3, {}, handler);
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  run.FailTask("risky", "bad", true);
  for (const char* path :
       {"a", "ab", "map", "map[1].loop", "map[1].loop[0].deep", "risky.catch.mend"}) {
    const auto key = FindStep(run.live, path);
    ASSERT_TRUE(key.ok()) << path;
    EXPECT_EQ(run.PathOf(*key), path);
  }
  for (const char* path : {"", "x", "a.b", "map[2].loop", "map[1]", "map[1].", "map[01].loop",
                           "map[1].loop[1].deep", "risky.mend", "a "}) {
    EXPECT_EQ(FindStep(run.live, path).status().code(), absl::StatusCode::kNotFound) << path;
  }
}

}  // namespace
}  // namespace flux::engine::testing
