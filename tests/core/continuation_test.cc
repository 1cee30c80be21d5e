// Continuations: every pair of the table of continuation.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const auto kAccepted = Verdict::kAccepted;

// Task "t", then "next" reads its value.
DefinitionBuilder Base() {
  DefinitionBuilder b("base");
  const uint32_t t = b.Task(0, "t");
  b.Result(0, FromStep(b.Task(0, "next", {FromStep(t)})));
  return b;
}

// A fragment that is one task.
DefinitionBuilder OneTask(const std::string& name) {
  DefinitionBuilder f("one-task");
  f.Result(0, FromStep(f.Task(0, name)));
  return f;
}

TEST(Continuation, TheFragmentsValueIsTheSteps) {
  DefinitionBuilder f("sum", 2);
  const uint32_t x = f.Task(0, "x", {FromParameter(0)});
  f.Task(0, "y", {FromParameter(1), Literal("[7,8]", "/1")});
  f.Result(0, FromStep(f.Join(0, "both", {FromStep(x), FromStep(1)})));
  Driver run(Base().Compile());
  EXPECT_EQ(run.Continue("t", f.definition(), {Json("1"), Json("2")}), kAccepted);
  EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_WAITING);
  EXPECT_EQ(run.ReasonOf("t"), "goes on as sum");
  EXPECT_THAT(run.Ready(), ElementsAre("t.x", "t.y"));
  EXPECT_EQ(InputOf(run, "t.x"), "1");
  EXPECT_EQ(InputOf(run, "t.y"), "2");
  EXPECT_EQ(InputOf(run, "t.y", 1), "[7,8]");
  EXPECT_EQ(*FindStep(run.live, "t.y"), run.Key("t.y"));
  run.Reload();
  run.Complete("t.x", "10");
  run.Reload();
  run.Complete("t.y", "20");
  EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_COMPLETED);
  EXPECT_EQ(run.StateOf("next"), v1::STEP_STATE_SCHEDULED);
  EXPECT_THAT(run.StoryTypes(), Contains("step.continued t"));
  EXPECT_EQ(run.live.state().frames.size(), 1u);
}

// A graph that awaits "go", as that type.
DefinitionBuilder AwaitsGo(const std::string& name, const std::string& type) {
  DefinitionBuilder f(name);
  f.Result(0, FromStep(f.Wait(0, "w", "go")));
  f.step(0, 0).mutable_wait_event()->set_type(type);
  return f;
}

TEST(Continuation, AwaitsAnEventAsTheOthersDo) {
  struct Case {
    const char* type;
    const char* refused;  // "": it goes on
  };
  const Case kOfTheWorkflow[] = {
      {"bool", ""},
      {"", ""},
      {"int",
       "flux.bad_fragment: the task went on as a graph that is refused: it awaits event \"go\" as "
       "int, but workflow base awaits it as bool: readers of one event agree on its type"}};
  for (const Case& c : kOfTheWorkflow) {
    SCOPED_TRACE(c.type);
    DefinitionBuilder b = Base();
    b.Wait(0, "w", "go");
    b.step(0, 2).mutable_wait_event()->set_type("bool");
    Driver run(b.Compile());
    run.Continue("t", AwaitsGo("piece", c.type).definition());
    EXPECT_EQ(run.ResultText(), c.refused);
    EXPECT_EQ(run.status(),
              c.refused[0] == '\0' ? v1::EXECUTION_STATUS_RUNNING : v1::EXECUTION_STATUS_FAILED);
  }
  const Case kOfAFragment[] = {
      {"bool", ""},
      {"int",
       "flux.bad_fragment: the task went on as a graph that is refused: it awaits event \"go\" as "
       "int, but fragment first awaits it as bool: readers of one event agree on its type"}};
  for (const Case& c : kOfAFragment) {
    SCOPED_TRACE(c.type);
    DefinitionBuilder b = Base();
    b.Task(0, "beside");
    Driver run(b.Compile());
    run.Continue("t", AwaitsGo("first", "bool").definition());
    run.Continue("beside", AwaitsGo("second", c.type).definition());
    EXPECT_EQ(run.ResultText(), c.refused);
  }
}

TEST(Continuation, MayBeWithoutAnyTask) {
  DefinitionBuilder f("constant");
  f.Result(0, Literal("9"));
  Driver run(Base().Compile());
  EXPECT_EQ(run.Continue("t", f.definition()), kAccepted);
  EXPECT_EQ(InputOf(run, "next"), "9");
}

TEST(Continuation, ASkippedOneSkipsTheStep) {
  DefinitionBuilder f("skips");
  f.Result(0, FromStep(f.Skip(0, "s")));
  Driver run(Base().Compile());
  EXPECT_EQ(run.Continue("t", f.definition()), kAccepted);
  EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_SKIPPED);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_SKIPPED);
}

TEST(Continuation, AFailureIsTheStepsFailureAndItsClausesCatchIt) {
  for (const bool caught : {false, true}) {
    DefinitionBuilder b = Base();
    if (caught) {
      const uint32_t handler = b.Scope(1);
      b.Result(handler, FromParameter(0, "/type"));
      b.Catch(0, 0, {"bad"}, handler);
    }
    Driver run(b.Compile());
    run.Continue("t", OneTask("inner").definition());
    run.FailTask("t.inner", "bad", true);
    if (caught) {
      EXPECT_EQ(InputOf(run, "next"), "\"bad\"");
    } else {
      EXPECT_EQ(run.ResultText(), "bad: it went wrong: bad");
      EXPECT_EQ(run.StateOf("t.inner"), v1::STEP_STATE_FAILED);
      EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_FAILED);
      run.Reload();
      EXPECT_EQ(run.Retry(), "");
      EXPECT_THAT(run.Ready(), ElementsAre("t.inner"));
      run.Complete("t.inner", "1");
      EXPECT_EQ(InputOf(run, "next"), "1");
    }
  }
}

TEST(Continuation, ClausesInsideComeFirst) {
  DefinitionBuilder b = Base();
  const uint32_t outer = b.Scope(1);
  b.Result(outer, Literal("\"outer\""));
  b.Catch(0, 0, {}, outer);
  DefinitionBuilder f = OneTask("inner");
  const uint32_t handler = f.Scope(2);
  f.Result(handler, FromParameter(1));
  f.Catch(0, 0, {}, handler, {Literal("\"inside\"")});
  Driver run(b.Compile());
  run.Continue("t", f.definition());
  run.FailTask("t.inner", "bad", true);
  EXPECT_EQ(InputOf(run, "next"), "\"inside\"");
}

TEST(Continuation, ItsResultIsADuplicateOnceItWentOn) {
  Driver run(Base().Compile());
  ReportResult again;
  again.result = run.ResultFor("t");
  *again.result.mutable_value() = Json("1");
  run.Continue("t", OneTask("inner").definition());
  EXPECT_EQ(*run.Do(again), Verdict::kDuplicate);
  run.Complete("t.inner", "2");
  EXPECT_EQ(*run.Do(again), Verdict::kDuplicate);
  EXPECT_EQ(InputOf(run, "next"), "2");
}

TEST(Continuation, IsStaleWhereItsDeliveryIsNotTheCurrentOne) {
  Driver run(Base().Compile());
  ReportResult late;
  late.result = run.ResultFor("t");
  *late.result.mutable_continuation()->mutable_fragment() = OneTask("inner").definition();
  run.Redeliver("t");
  EXPECT_EQ(*run.Do(late), Verdict::kStale);
  EXPECT_THAT(run.Ready(), ElementsAre("t"));
}

// The record itself, where the step has moved on, only counts.
TEST(Continuation, ARecordThatNoLongerAppliesOnlyCounts) {
  Driver run(Base().Compile());
  run.Complete("t", "1");
  v1::Record record;
  record.set_time_ms(run.now_ms);
  record.mutable_step_continued()->set_fragment(OneTask("x").definition().SerializeAsString());
  Apply(run.live, record, nullptr);
  EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_COMPLETED);
  EXPECT_EQ(run.live.state().frames.size(), 1u);
}

struct Bad {
  const char* name;
  std::function<void(v1::Definition&)> make;
  int inputs;
  const char* why;
};

TEST(Continuation, ABadFragmentIsAFailureOfTheTask) {
  const Bad kBad[] = {
      {"Empty", [](auto& f) { f.clear_scopes(); }, 0, "has no scopes"},
      {"NoResult", [](auto& f) { f.mutable_scopes(0)->clear_result(); }, 0, "has no result"},
      {"Cycle", [](auto& f) { f.mutable_scopes(0)->mutable_steps(0)->add_inputs()->set_step(0); },
       0, "makes a cycle"},
      {"TooManyInputs", [](auto&) {}, 1, "it takes 0 inputs, but was given 1"},
      {"TooFewInputs", [](auto& f) { f.mutable_scopes(0)->set_parameters(2); }, 1,
       "it takes 2 inputs, but was given 1"},
      {"NewerFormat", [](auto& f) { f.set_format(99); }, 0, "has format 99"},
  };
  for (const Bad& c : kBad) {
    SCOPED_TRACE(c.name);
    v1::Definition f = OneTask("inner").definition();
    c.make(f);
    Driver run(Base().Compile());
    EXPECT_EQ(run.Continue("t", f, std::vector<v1::Payload>(static_cast<size_t>(c.inputs))),
              kAccepted);
    EXPECT_THAT(run.ResultText(),
                StartsWith("flux.bad_fragment: the task went on as a graph that is refused: "));
    EXPECT_THAT(run.ResultText(), HasSubstr(c.why));
  }
}

TEST(Continuation, LabelsOfItsTaskAreTheExecutions) {
  Driver run(Base().Compile());
  ReportResult command;
  command.result = run.ResultFor("t");
  *command.result.mutable_continuation()->mutable_fragment() = OneTask("inner").definition();
  (*command.result.mutable_labels())["stage"] = "inner";
  (*command.result.mutable_labels())["team"] = "";
  EXPECT_EQ(*run.Do(std::move(command)), kAccepted);
  run.Reload();
  ReportResult done;
  done.result = run.ResultFor("t.inner");
  *done.result.mutable_value() = Json("1");
  (*done.result.mutable_labels())["pages"] = "7";
  EXPECT_EQ(*run.Do(std::move(done)), kAccepted);
  run.Reload();
  const v1::ExecutionSummary summary = Summarize(run.live);
  EXPECT_EQ(summary.labels().at("stage"), "inner");
  EXPECT_EQ(summary.labels().at("pages"), "7");
  EXPECT_EQ(summary.labels().at("env"), "b");
  EXPECT_EQ(summary.labels().count("team"), 0u) << "taken away";
}

// ---- depth ----

TEST(Continuation, AChainInTailPositionNeedsNoDepthAndConstantMemory) {
#ifdef NDEBUG
  constexpr int kLinks = 100'000;
#else
  constexpr int kLinks = 5'000;
#endif
  DefinitionBuilder f("link", 1);
  f.Result(0, FromStep(f.Task(0, "go", {FromParameter(0), Literal("\"a literal\"")})));
  Driver run(Base().Compile());
  run.check_each = run.keep_records = false;
  run.effects.story = nullptr;
  ASSERT_EQ(run.Continue("t", f.definition(), {Json("1234567")}), kAccepted);
  size_t memory = 0, snapshot = 0;
  for (int i = 1; i < kLinks; ++i) {
    ASSERT_EQ(run.Continue("t.go", f.definition(), {Json("1234567")}), kAccepted);
    if (i == 1'000) {
      memory = MemoryBytes(run.live);
      snapshot = SaveSnapshot(run.live).size();
    }
  }
  EXPECT_EQ(run.live.state().frames.size(), 2u);
  EXPECT_EQ(MemoryBytes(run.live), memory);
  EXPECT_LT(SaveSnapshot(run.live).size(), snapshot + 32);
  run.CheckNow();
  run.Complete("t.go", "5");
  EXPECT_EQ(InputOf(run, "next"), "5");
}

TEST(Continuation, WhatHasMoreToDoIsNotInTailPosition) {
  struct Case {
    const char* name;
    std::function<void(DefinitionBuilder&)> change;  // of a fragment whose step 0 goes on
    size_t frames;
  };
  const Case kCases[] = {
      {"Tail", [](auto&) {}, 2},
      {"AStepBesideIt", [](auto& f) { f.Task(0, "beside"); }, 3},
      {"AStepAfterIt", [](auto& f) { f.Task(0, "after", {FromStep(0)}); }, 3},
      {"AnotherResult", [](auto& f) { f.Result(0, Literal("1")); }, 3},
      {"APartOfItsResult", [](auto& f) { f.Result(0, FromStep(0, "/a")); }, 3},
      {"ACatchClause",
       [](auto& f) {
         const uint32_t handler = f.Scope(1);
         f.Result(handler, Literal("1"));
         f.Catch(0, 0, {"bad"}, handler);
       },
       3},
      {"AnUndoTask", [](auto& f) { f.Undo(0, 0, "go"); }, 3},
      {"AResultThatMayBeSkipped", [](auto& f) { f.Result(0, Optional(FromStep(0))); }, 3},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    DefinitionBuilder f = OneTask("go");
    c.change(f);
    Driver run(Base().Compile());
    run.Continue("t", f.definition());
    run.Continue("t.go", OneTask("last").definition());
    EXPECT_EQ(run.live.state().frames.size(), c.frames);
    run.Reload();
    const char* last = c.frames == 2 ? "t.last" : "t.go.last";
    EXPECT_EQ(run.Complete(last, "{\"a\":1}"), kAccepted);
  }
}

// Whether or not other steps of the fragment are done by then.
TEST(Continuation, ASkippedValueThatMayBeSkippedIsNothingWhereverItComesFrom) {
  for (const bool beside : {false, true}) {
    SCOPED_TRACE(beside);
    DefinitionBuilder f = OneTask("go");
    if (beside) f.Task(0, "beside");
    f.Result(0, Optional(FromStep(0)));
    DefinitionBuilder skips("skips");
    skips.Result(0, FromStep(skips.Skip(0, "s")));
    Driver run(Base().Compile());
    run.Continue("t", f.definition());
    run.Continue("t.go", skips.definition());
    if (beside) run.Complete("t.beside", "1");
    EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_COMPLETED);
    EXPECT_EQ(InputOf(run, "next"), "") << "nothing";
  }
}

TEST(Continuation, HistorySaysWhichFragmentItTookThePlaceOf) {
  Driver run(Base().Compile());
  run.Continue("t", OneTask("go").definition());
  run.Continue("t.go", OneTask("last").definition());
  std::vector<std::string> details;
  for (const v1::HistoryEvent& event : run.story) {
    if (event.type() == "step.continued") details.push_back(event.step() + " " + event.detail());
  }
  EXPECT_THAT(details, ElementsAre("t as one-task, 1 step",
                                   "t.go as one-task, 1 step, in place of one-task"));
}

TEST(Continuation, InABodyOfAFragmentIsNotInTailPosition) {
  DefinitionBuilder f("body");
  const uint32_t body = f.Scope(0);
  f.Result(body, FromStep(f.Task(body, "go")));
  f.Result(0, FromStep(f.Block(0, "block", body)));
  Driver run(Base().Compile());
  run.Continue("t", f.definition());
  run.Continue("t.block.go", OneTask("last").definition());
  EXPECT_EQ(run.live.state().frames.size(), 4u);
  run.Complete("t.block.go.last", "1");
  EXPECT_EQ(InputOf(run, "next"), "1");
}

TEST(Continuation, OthersNestUpToALimit) {
  DefinitionBuilder f = OneTask("go");
  f.Task(0, "after", {FromStep(0)});
  Driver run(Base().Compile());
  run.check_each = false;
  run.effects.story = nullptr;
  // Paths as long as these are not looked for: the step is the first of the newest frame.
  const auto go_on = [&] {
    const StepKey key{run.live.state().frames.rbegin()->first, 0};
    ReportResult command;
    command.result.mutable_token()->set_frame(key.frame);
    command.result.mutable_token()->set_step(key.step);
    command.result.mutable_token()->set_delivery(1);
    *command.result.mutable_continuation()->mutable_fragment() = f.definition();
    return *run.Do(std::move(command));
  };
  for (uint32_t i = 0; i < internal::kFrameDepthMax; ++i) ASSERT_EQ(go_on(), kAccepted);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  run.CheckNow();
  run.Reload();
  // What is shown does not nest deeper than a message may.
  v1::DescribeExecutionResponse shown, read;
  DescribeExecution(run.live, 10, true, nullptr, &shown);
  EXPECT_TRUE(read.ParseFromString(shown.SerializeAsString()));
  EXPECT_EQ(go_on(), kAccepted);
  EXPECT_THAT(run.ResultText(),
              StartsWith("flux.limit.depth: continuations nest more than 512 deep: let the last"));
  run.CheckNow();
}

// ---- snapshots of what a fragment holds ----

TEST(Continuation, LiteralsAndCapturesOfAFragmentAreInItsSnapshots) {
  // Each turn adds the same literal to a list: read before the snapshot and after it.
  DefinitionBuilder f("literals", 1);
  const uint32_t turn = f.Scope(2);
  const uint32_t t = f.Task(turn, "work", {FromParameter(0)});
  const uint32_t j =
      f.Join(turn, "j", {FromParameter(0), Literal("\"the literal\""), FromParameter(1)});
  f.After(turn, j, t);
  f.Result(turn, FromStep(j));
  f.Result(0, FromStep(f.Loop(0, "l", turn, {Literal("\"start\""), FromParameter(0)}, 6)));
  Driver run(Base().Compile());
  run.Continue("t", f.definition(), {Json("\"" + std::string(2'000, 'c') + "\"")});
  for (int i = 0; i < 6; ++i) {
    if (i % 2 == 1) run.Reload();
    EXPECT_EQ(run.Complete(absl::StrCat("t.l[", i, "].work"), "1"), kAccepted);
  }
  EXPECT_THAT(InputOf(run, "next"), HasSubstr("the literal"));
}

TEST(Continuation, FragmentsInFragmentsAndMapsAreInSnapshots) {
  DefinitionBuilder outer("outer");
  const uint32_t item = outer.Scope(1);
  outer.Result(item, FromStep(outer.Task(item, "work", {FromParameter(0)})));
  outer.Result(0, FromStep(outer.Map(0, "m", item, {Literal("[1,2,3]")}, 2)));
  DefinitionBuilder inner("inner", 1);
  inner.Task(0, "a", {FromParameter(0)});
  inner.Result(0, FromStep(inner.Task(0, "b", {FromStep(0), Literal("7")})));
  Driver run(Base().Compile());
  run.Continue("t", outer.definition());
  run.Continue("t.m[0].work", inner.definition(), {Json("10")});
  run.Reload();
  run.Continue("t.m[1].work", inner.definition(), {Json("20")});
  run.Reload();
  run.Complete("t.m[0].work.a", "1");
  run.Reload();
  EXPECT_EQ(InputOf(run, "t.m[0].work.b", 1), "7");
  run.Complete("t.m[0].work.b", "2");
  run.Complete("t.m[1].work.a", "1");
  run.Complete("t.m[1].work.b", "3");
  run.Complete("t.m[2].work", "4");
  EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_COMPLETED);
}

// ---- other constructs in a fragment ----

TEST(Continuation, AwaitsEventsAndTakesThem) {
  DefinitionBuilder f("waits");
  f.Result(0, FromStep(f.Wait(0, "w", "answer", 1'000)));
  Driver run(Base().Compile());
  EXPECT_THAT(std::string(run.Send("answer", "1").status().message()),
              HasSubstr("waits for no event \"answer\""));
  run.Continue("t", f.definition());
  EXPECT_EQ(run.ReasonOf("t.w").substr(0, 23), "waits for event answer ");
  EXPECT_THAT(std::string(run.Send("other", "1").status().message()),
              HasSubstr("those it knows: answer"));
  run.Reload();
  EXPECT_EQ(*run.Send("answer", "42"), kAccepted);
  EXPECT_EQ(InputOf(run, "next"), "42");
  Driver late(Base().Compile());
  late.Continue("t", f.definition());
  late.Reload();
  late.Advance(1'000);
  EXPECT_THAT(late.ResultText(), StartsWith("flux.timeout.event: "));
}

TEST(Continuation, ALoopInAFragmentTakesOneEventATurn) {
  DefinitionBuilder f("loops");
  const uint32_t turn = f.Scope(1);
  f.Result(turn, FromStep(f.Wait(turn, "w", "go")));
  f.Result(0, FromStep(f.Loop(0, "l", turn, {Literal("0")}, 2)));
  Driver run(Base().Compile());
  run.Continue("t", f.definition());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  run.Reload();
  EXPECT_EQ(run.StateOf("t.l[1].w"), v1::STEP_STATE_WAITING);
  EXPECT_EQ(*run.Send("go", "2"), kAccepted);
  EXPECT_EQ(InputOf(run, "next"), "2");
}

TEST(Continuation, ALoopInAFragmentTakesLaterEventsOfANameThatItsGraphReadsOnce) {
  DefinitionBuilder b = Base();
  b.Wait(0, "once", "go");
  DefinitionBuilder f("loops");
  const uint32_t turn = f.Scope(1);
  f.Task(turn, "work");
  const uint32_t w = f.Wait(turn, "w", "go");
  f.After(turn, w, 0);
  f.Result(turn, FromStep(w));
  f.Result(0, FromStep(f.Loop(0, "l", turn, {Literal("0")}, 2)));
  Driver run(b.Compile());
  run.Continue("t", f.definition());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(*run.Send("go", "2"), kAccepted);
  run.Complete("t.l[0].work", "0");
  run.Reload();
  run.Complete("t.l[1].work", "0");
  EXPECT_EQ(InputOf(run, "next"), "2");
}

TEST(Continuation, ARewindOfTheStepDropsItsFragment) {
  Driver run(Base().Compile());
  run.Continue("t", OneTask("inner").definition());
  ReportResult old;
  old.result = run.ResultFor("t.inner");
  *old.result.mutable_value() = Json("1");
  EXPECT_EQ(run.Rewind("t"), "");
  EXPECT_THAT(run.Ready(), ElementsAre("t"));
  EXPECT_EQ(run.live.state().frames.size(), 1u);
  EXPECT_EQ(*run.Do(old), Verdict::kStale);
  run.Complete("t", "3");
  EXPECT_EQ(InputOf(run, "next"), "3");
}

}  // namespace
}  // namespace flux::engine::testing
