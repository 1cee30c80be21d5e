// Compensation: every pair of the table of undo.cc.
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

const auto kAccepted = Verdict::kAccepted;

// Tasks a, b and c one after the other, each undone by "undo.<name>", then "last".
DefinitionBuilder Three() {
  DefinitionBuilder b("three", 1);
  b.Undo(0, b.Task(0, "a", {FromParameter(0)}), "a");
  b.Undo(0, b.Task(0, "b", {FromStep(0)}), "b");
  b.Undo(0, b.Task(0, "c", {FromStep(1)}), "c");
  b.Result(0, FromStep(b.Task(0, "last", {FromStep(2)})));
  return b;
}

std::unique_ptr<Driver> AtLast() {
  auto run = std::make_unique<Driver>(Three().Compile(), std::vector{Json("0")});
  run->Complete("a", "1");
  run->Complete("b", "2");
  run->Complete("c", "3");
  return run;
}

std::vector<std::string> InputsOf(const Driver& run, std::string_view path) {
  v1::Task task;
  EXPECT_TRUE(FillTask(run.live, run.Key(path), 1 << 20, &task).ok());
  std::vector<std::string> inputs;
  for (const v1::TaskInput& input : task.inputs()) inputs.push_back(input.payload().data());
  return inputs;
}

// Undoes whatever is to be undone and tells the order.
std::vector<std::string> UndoAll(Driver& run) {
  std::vector<std::string> order;
  while (!run.live.closed()) {
    const std::vector<std::string> ready = run.Ready();
    EXPECT_EQ(ready.size(), 1u) << "one at a time";
    if (ready.size() != 1) break;
    order.push_back(ready[0]);
    run.Reload();
    EXPECT_EQ(run.Complete(ready[0], "null"), kAccepted);
  }
  return order;
}

TEST(Undo, GoesFromTheNewestToTheOldestWithInputsAndOutput) {
  struct Case {
    const char* name;
    std::function<void(Driver&)> end;
    v1::ExecutionStatus meanwhile;
    v1::ExecutionStatus then;
  };
  const Case kCases[] = {
      {"Failed", [](Driver& run) { run.FailTask("last", "bad", true); },
       v1::EXECUTION_STATUS_FAILING, v1::EXECUTION_STATUS_FAILED},
      {"Cancelled",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Cancel{"enough", "ann"}), "");
       },
       v1::EXECUTION_STATUS_CANCELLING, v1::EXECUTION_STATUS_CANCELLED},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const auto run = AtLast();
    c.end(*run);
    EXPECT_EQ(run->status(), c.meanwhile);
    EXPECT_FALSE(run->live.closed());
    EXPECT_TRUE(run->effects.all_revoked);
    EXPECT_FALSE(run->effects.closed);
    EXPECT_THAT(InputsOf(*run, "c.undo"), ElementsAre("2", "3"));
    v1::Task task;
    ASSERT_TRUE(FillTask(run->live, run->Key("c.undo"), 1 << 20, &task).ok());
    EXPECT_EQ(task.name(), "undo.c");
    v1::DescribeExecutionResponse shown;
    DescribeExecution(run->live, 1, true, nullptr, &shown);
    ASSERT_EQ(shown.steps_size(), 5);
    EXPECT_EQ(shown.steps(4).name(), "c.undo");
    EXPECT_EQ(shown.steps(4).kind(), "undo");
    EXPECT_EQ(shown.steps(4).state(), v1::STEP_STATE_SCHEDULED);
    EXPECT_THAT(UndoAll(*run), ElementsAre("c.undo", "b.undo", "a.undo"));
    EXPECT_TRUE(run->effects.closed);
    EXPECT_EQ(run->status(), c.then);
    EXPECT_EQ(NextTimerMs(run->live), std::nullopt);
    EXPECT_THAT(run->StoryTypes(), Contains("step.undone c.undo"));
  }
}

TEST(Undo, HappensForWhatCompletedAlone) {
  Driver run(Three().Compile(), {Json("0")});
  run.Complete("a", "1");
  run.SkipResult("b");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_SKIPPED);
  DefinitionBuilder b("none");
  b.Undo(0, b.Task(0, "t"), "t");
  b.Result(0, FromStep(0));
  Driver failing(b.Compile());
  failing.FailTask("t", "bad", true);
  EXPECT_EQ(failing.status(), v1::EXECUTION_STATUS_FAILED);
}

TEST(Undo, DoesNotHappenWhenItCompletedOrWasTerminated) {
  const auto done = AtLast();
  done->Complete("last", "4");
  EXPECT_EQ(done->status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_THAT(done->Ready(), IsEmpty());
  const auto ended = AtLast();
  EXPECT_EQ(ended->Try(Terminate{"now", "ann"}), "");
  EXPECT_EQ(ended->status(), v1::EXECUTION_STATUS_TERMINATED);
  EXPECT_THAT(ended->Ready(), IsEmpty());
}

TEST(Undo, IsTriedAgainAsAnyTask) {
  const auto run = AtLast();
  run->FailTask("last", "bad", true);
  EXPECT_EQ(run->FailTask("c.undo", "io"), kAccepted);
  EXPECT_EQ(run->StateOf("c.undo"), v1::STEP_STATE_BACKING_OFF);
  EXPECT_EQ(NextTimerMs(run->live), run->now_ms + 1'000);
  run->Reload();
  run->Advance(1'000);
  EXPECT_EQ(Offer(run->live, run->Key("c.undo")).attempt, 2u);
  EXPECT_EQ(run->Redeliver("c.undo"), kAccepted);
  EXPECT_EQ(run->End("c.undo", AttemptEnd::kWorkerLost), kAccepted);
  // Its two attempts are used up: noted, and the others go on.
  EXPECT_THAT(UndoAll(*run), ElementsAre("b.undo", "a.undo"));
  EXPECT_THAT(run->ResultText(),
              HasSubstr("bad: it went wrong: bad; c could not be undone: flux.worker_lost: "));
}

TEST(Undo, EveryFailureIsToldButTheMessageStaysShort) {
  constexpr int kSteps = 200;
  DefinitionBuilder b("many");
  for (int i = 0; i < kSteps; ++i) {
    b.Undo(0, b.Task(0, absl::StrCat("t", i)), "t");
  }
  b.Result(0, FromStep(0));
  b.Task(0, "last");
  Driver run(b.Compile());
  for (int i = 0; i < kSteps; ++i) run.Complete(absl::StrCat("t", i), "1");
  // All steps of the definition are done but this one.
  run.FailTask("last", "bad", true);
  while (!run.live.closed()) run.FailTask(run.Ready()[0], "worse", true);
  EXPECT_LT(run.ResultText().size(), internal::kUndoNotesBytesMax + 200);
  int told = 0;
  for (const v1::HistoryEvent& event : run.story) told += event.type() == "undo.failed" ? 1 : 0;
  EXPECT_EQ(told, kSteps);
}

TEST(Undo, DoesNotGoOnAsAGraph) {
  const auto run = AtLast();
  run->FailTask("last", "bad", true);
  DefinitionBuilder f("more");
  f.Result(0, FromStep(f.Task(0, "inner")));
  EXPECT_EQ(run->Continue("c.undo", f.definition()), kAccepted);
  EXPECT_THAT(UndoAll(*run), ElementsAre("b.undo", "a.undo"));
  EXPECT_THAT(run->ResultText(),
              HasSubstr("c could not be undone: flux.bad_fragment: the task went "
                        "on as a graph that is refused: an undo task answers"));
}

// ---- while it is undone ----

TEST(Undoing, NothingElseGoesOn) {
  DefinitionBuilder b = Three();
  b.Task(0, "beside");
  b.Wait(0, "w", "go", 1'000);
  Driver run(b.Compile(), {Json("0")});
  run.Complete("a", "1");
  ReportResult late;
  late.result = run.ResultFor("beside");
  *late.result.mutable_value() = Json("1");
  run.FailTask("b", "bad", true);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILING);
  EXPECT_THAT(run.Ready(), ElementsAre("a.undo"));
  EXPECT_EQ(*run.Do(late), Verdict::kStale);
  EXPECT_EQ(run.StateOf("beside"), v1::STEP_STATE_CANCELLED);
  EXPECT_EQ(NextTimerMs(run.live), std::nullopt);
  run.Advance(10'000);
  EXPECT_THAT(run.Try(Cancel{"", "ann"}), HasSubstr("is FAILING already: what it did is being"));
  EXPECT_THAT(run.Try(Pause{"ann", ""}), HasSubstr("is FAILING: only a running execution"));
  EXPECT_THAT(run.Park("a.undo"), HasSubstr("only a running execution can have steps parked"));
  EXPECT_THAT(run.Resolve("a.undo", "1"), HasSubstr("only a running execution can"));
  EXPECT_THAT(run.Retry("b"), HasSubstr("is FAILING"));
  EXPECT_THAT(run.Rewind("a"), HasSubstr("is FAILING: rewind it once it has closed"));
  EXPECT_THAT(std::string(run.Send("go", "1").status().message()), HasSubstr("is FAILING"));
  EXPECT_THAT(UndoAll(run), ElementsAre("a.undo"));
}

// One command decides on all timers that are due: the first begins the undoing.
TEST(Undoing, TimersThatWereDueWithTheOneThatBeganItChangeNothing) {
  DefinitionBuilder b("timers");
  b.definition().set_execution_timeout_ms(2'000);
  b.Undo(0, b.Task(0, "a"), "a");
  b.Wait(0, "w", "go", 1'000);
  b.Wait(0, "other", "on");
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  run.Complete("a", "1");
  EXPECT_EQ(*run.Send("on", "1", "id-1", run.now_ms + 1'500), kAccepted);
  run.Advance(5'000);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILING);
  EXPECT_THAT(UndoAll(run), ElementsAre("a.undo"));
  EXPECT_THAT(run.ResultText(), HasSubstr("flux.timeout.event: "));
  // The delayed event is there for those who wait for it yet.
  EXPECT_EQ(run.Rewind("w"), "");
  run.Advance(0);
  EXPECT_EQ(run.StateOf("other"), v1::STEP_STATE_COMPLETED);
}

TEST(Undoing, ACancelThatComesAgainChangesNothing) {
  const auto run = AtLast();
  EXPECT_EQ(run->Try(Cancel{"enough", "ann"}), "");
  EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_CANCELLING);
  const std::string before = SaveSnapshot(run->live);
  EXPECT_EQ(run->Try(Cancel{"enough", "ann"}), "");
  EXPECT_EQ(SaveSnapshot(run->live), before);
  EXPECT_THAT(UndoAll(*run), ElementsAre("c.undo", "b.undo", "a.undo"));
  EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_CANCELLED);
}

TEST(Undoing, IsLeftAtATerminate) {
  const auto run = AtLast();
  EXPECT_EQ(run->Try(Cancel{"enough", "ann"}), "");
  run->Complete("c.undo", "null");
  EXPECT_EQ(run->Try(Terminate{"now", "ann"}), "");
  EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_TERMINATED);
  EXPECT_THAT(run->Ready(), IsEmpty());
  EXPECT_EQ(run->ResultText(), "flux.terminated: now");
}

TEST(Undoing, LeftAtATerminateItIsTakenUpAgainWithTheExecution) {
  for (const bool backing_off : {false, true}) {
    const auto run = AtLast();
    EXPECT_EQ(run->Try(Cancel{"enough", "ann"}), "");
    run->Complete("c.undo", "null");
    if (backing_off) run->FailTask("b.undo", "io");
    EXPECT_EQ(run->Try(Terminate{"now", "ann"}), "");
    run->Reload();
    EXPECT_EQ(run->Rewind("c"), "");
    EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_RUNNING);
    EXPECT_THAT(run->Ready(), ElementsAre("c")) << "no undo task in a running execution";
    EXPECT_EQ(NextTimerMs(run->live), std::nullopt);
    run->Complete("c", "3");
    run->FailTask("last", "bad", true);
    EXPECT_THAT(UndoAll(*run), ElementsAre("c.undo", "b.undo", "a.undo"));
    EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_FAILED);
  }
}

TEST(Undoing, StopsChildren) {
  DefinitionBuilder b = Three();
  b.Child(0, "child", "sub");
  Driver run(b.Compile(), {Json("0")});
  run.Complete("a", "1");
  run.ChildStarted(run.Pending(v1::OUTBOX_KIND_START_CHILD).number);
  EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
  EXPECT_THAT(run.Outbox(), ElementsAre("CANCEL_CHILD"));
  EXPECT_EQ(run.ChildClosed("child", v1::EXECUTION_STATUS_CANCELLED, "flux.cancelled"),
            Verdict::kStale);
  EXPECT_EQ(run.Settle(2), kAccepted);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_CANCELLING);
  EXPECT_THAT(UndoAll(run), ElementsAre("a.undo"));
}

TEST(Undoing, OfAPausedExecutionWaitsForItUnlessItWasCancelled) {
  const auto failing = AtLast();
  EXPECT_EQ(failing->Try(Pause{"ann", ""}), "");
  failing->FailTask("last", "bad", true);
  EXPECT_EQ(failing->status(), v1::EXECUTION_STATUS_FAILING);
  EXPECT_TRUE(IsPaused(failing->live));
  EXPECT_EQ(failing->ReasonOf("c.undo"), "the execution is paused");
  EXPECT_EQ(failing->Try(Resume{"ann", ""}), "");
  EXPECT_FALSE(IsPaused(failing->live));
  EXPECT_THAT(UndoAll(*failing), ElementsAre("c.undo", "b.undo", "a.undo"));
  const auto cancelled = AtLast();
  EXPECT_EQ(cancelled->Try(Pause{"ann", ""}), "");
  EXPECT_EQ(cancelled->Try(Cancel{"", "ann"}), "");
  EXPECT_FALSE(IsPaused(cancelled->live));
  EXPECT_THAT(UndoAll(*cancelled), ElementsAre("c.undo", "b.undo", "a.undo"));
}

// ---- of steps in bodies, and of other kinds ----

TEST(Undo, OfItemsAndTurnsIsInOrderOfCompletion) {
  DefinitionBuilder b("bodies");
  const uint32_t item = b.Scope(1);
  b.Undo(item, b.Task(item, "work", {FromParameter(0)}), "work");
  b.Result(item, FromStep(0));
  const uint32_t m = b.Map(0, "m", item, {Literal("[10,20,30]")});
  const uint32_t turn = b.Scope(1);
  b.Undo(turn, b.Task(turn, "step", {FromParameter(0)}), "step");
  b.Result(turn, FromStep(0));
  b.Result(0, FromStep(b.Loop(0, "l", turn, {FromStep(m)}, 5)));
  Driver run(b.Compile());
  run.Complete("m[1].work", "\"b\"");
  run.Complete("m[2].work", "\"c\"");
  run.Complete("m[0].work", "\"a\"");
  run.Complete("l[0].step", "\"x\"");
  run.FailTask("l[1].step", "bad", true);
  EXPECT_THAT(InputsOf(run, "l[0].step.undo").back(), "\"x\"");
  EXPECT_THAT(UndoAll(run),
              ElementsAre("l[0].step.undo", "m[0].work.undo", "m[2].work.undo", "m[1].work.undo"));
}

TEST(Undo, OfAnAwaitedChildAndOfAResultSetByHand) {
  DefinitionBuilder b("kinds");
  b.Undo(0, b.Child(0, "child", "sub", {Literal("1")}), "child");
  b.Undo(0, b.Task(0, "t", {FromStep(0)}), "t");
  b.Result(0, FromStep(b.Task(0, "last", {FromStep(1)})));
  Driver run(b.Compile());
  run.ChildStarted(run.Pending(v1::OUTBOX_KIND_START_CHILD).number);
  run.ChildClosed("child", v1::EXECUTION_STATUS_COMPLETED, "2");
  EXPECT_EQ(run.Resolve("t", "3"), "");
  run.FailTask("last", "bad", true);
  EXPECT_THAT(InputsOf(run, "t.undo"), ElementsAre("2", "3"));
  run.Complete("t.undo", "null");
  EXPECT_THAT(InputsOf(run, "child.undo"), ElementsAre("1", "2"));
  EXPECT_THAT(UndoAll(run), ElementsAre("child.undo"));
}

TEST(Undo, OfAStepThatWentOnAsAFragmentIsGivenItsValue) {
  DefinitionBuilder b("goes-on");
  b.Undo(0, b.Task(0, "t", {Literal("1")}), "t");
  b.Result(0, FromStep(b.Task(0, "last", {FromStep(0)})));
  DefinitionBuilder more("more");
  more.Undo(0, more.Task(0, "inner", {Literal("5")}), "inner");
  more.Result(0, FromStep(0));
  Driver run(b.Compile());
  run.Continue("t", more.definition());
  run.Complete("t.inner", "2");
  run.Reload();
  run.FailTask("last", "bad", true);
  EXPECT_THAT(InputsOf(run, "t.undo"), ElementsAre("1", "2"));
  run.Complete("t.undo", "null");
  EXPECT_THAT(InputsOf(run, "t.inner.undo"), ElementsAre("5", "2"));
  EXPECT_THAT(UndoAll(run), ElementsAre("t.inner.undo"));
}

// ---- rewinds ----

TEST(Undo, IsForgottenForWhatIsRewound) {
  const auto run = AtLast();
  const size_t memory = MemoryBytes(run->live);
  EXPECT_EQ(run->Rewind("b"), "");
  EXPECT_EQ(run->live.state().undo.size(), 1u);
  run->Complete("b", "2");
  run->Complete("c", "3");
  EXPECT_EQ(MemoryBytes(run->live), memory) << "and so is what it was counted for";
  run->FailTask("last", "bad", true);
  EXPECT_THAT(UndoAll(*run), ElementsAre("c.undo", "b.undo", "a.undo"));
}

TEST(Undo, IsForgottenForTheBodiesOfWhatIsRewound) {
  DefinitionBuilder b("bodies");
  const uint32_t item = b.Scope(1);
  b.Undo(item, b.Task(item, "work", {FromParameter(0)}), "work");
  b.Result(item, FromStep(0));
  b.Map(0, "m", item, {Literal("[10,20]")});
  b.Undo(0, b.Task(0, "mm"), "mm");  // not a part of m, though its name begins alike
  b.Result(0, FromStep(b.Task(0, "last", {FromStep(0), FromStep(1)})));
  Driver run(b.Compile());
  run.Complete("mm", "0");
  run.Complete("m[0].work", "1");
  run.Complete("m[1].work", "2");
  EXPECT_EQ(run.live.state().undo.size(), 3u);
  EXPECT_EQ(run.Rewind("m"), "");
  ASSERT_EQ(run.live.state().undo.size(), 1u);
  EXPECT_EQ(run.live.state().undo[0].path, "mm");
}

TEST(Undo, AfterItTheExecutionIsNotRetriedButRewound) {
  const auto run = AtLast();
  run->FailTask("last", "bad", true);
  UndoAll(*run);
  EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_THAT(run->Retry(), HasSubstr("has undone what it did: rewind it to the first step"));
  EXPECT_THAT(run->Retry("last"), HasSubstr("has undone what it did"));
  EXPECT_THAT(run->Resolve("last", "1"), HasSubstr("is FAILED: only a running execution"));
  EXPECT_EQ(run->Rewind("a"), "");
  EXPECT_THAT(run->Ready(), ElementsAre("a"));
  // It fails before it has done anything: now a retry is all it needs.
  run->FailTask("a", "bad", true);
  EXPECT_EQ(run->status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run->Retry(), "");
  EXPECT_THAT(run->Ready(), ElementsAre("a"));
  run->Complete("a", "1");
  run->Complete("b", "2");
  run->Complete("c", "3");
  run->Complete("last", "4");
  EXPECT_EQ(run->ResultText(), "4");
}

TEST(Undo, OfACompletedExecutionThatFailsOnceItWasRewound) {
  const auto run = AtLast();
  run->Complete("last", "4");
  EXPECT_EQ(run->Rewind("last"), "");
  run->FailTask("last", "bad", true);
  EXPECT_THAT(UndoAll(*run), ElementsAre("c.undo", "b.undo", "a.undo"));
}

}  // namespace
}  // namespace flux::engine::testing
