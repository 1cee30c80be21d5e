// Sleep, map, loop, block, switch, catch, join, fail, skip: every pair of their tables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// A scope that hands its parameter to a task and answers what it does.
uint32_t TaskBody(DefinitionBuilder& b, const std::string& name, uint32_t parameters = 1) {
  const uint32_t body = b.Scope(parameters);
  const uint32_t task = b.Task(body, name, {FromParameter(0)});
  b.Result(body, FromStep(task));
  return body;
}

// A scope that answers its parameter as it is.
uint32_t EchoBody(DefinitionBuilder& b, uint32_t parameters = 1, uint32_t which = 0) {
  const uint32_t body = b.Scope(parameters);
  b.Result(body, FromParameter(which));
  return body;
}

// ---- how a whole graph ends, without any task ----

struct Outcome {
  const char* name;
  std::function<void(DefinitionBuilder&)> build;  // of the root scope; parameter 0 is 5
  v1::ExecutionStatus status;
  std::string result;  // begins with it
};

const v1::ExecutionStatus kDone = v1::EXECUTION_STATUS_COMPLETED;
const v1::ExecutionStatus kFailed = v1::EXECUTION_STATUS_FAILED;
const v1::ExecutionStatus kSkipped = v1::EXECUTION_STATUS_SKIPPED;

const Outcome kOutcomes[] = {
    // Results of the workflow itself.
    {"ResultIsALiteral", [](auto& b) { b.Result(0, Literal("3")); }, kDone, "3"},
    {"ResultIsAnInput", [](auto& b) { b.Result(0, FromParameter(0)); }, kDone, "5"},
    {"ResultIsProjected", [](auto& b) { b.Result(0, Literal("{\"a\":[8]}", "/a/0")); }, kDone, "8"},
    {"ResultLeadsNowhere", [](auto& b) { b.Result(0, Literal("{\"a\":1}", "/b")); }, kFailed,
     "flux.bad_projection: the result of the workflow cannot be read: the pointer /b leads "
     "nowhere"},
    {"ResultIsSkipped", [](auto& b) { b.Result(0, FromStep(b.Skip(0, "s"))); }, kSkipped, ""},
    {"OptionalResultIsSkipped", [](auto& b) { b.Result(0, Optional(FromStep(b.Skip(0, "s")))); },
     kDone, ""},

    // Skipping.
    {"RequiredInputSkipped",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       b.Result(0, FromStep(b.Join(0, "j", {FromParameter(0), FromStep(s)})));
     },
     kSkipped, ""},
    {"OptionalInputSkippedIsLeftOut",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       b.Result(0,
                FromStep(b.Join(0, "j", {FromParameter(0), Optional(FromStep(s)), Literal("6")})));
     },
     kDone, "[5,6]"},
    {"AllOptionalInputsSkipped",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       b.Result(0, FromStep(b.Join(0, "j", {Optional(FromStep(s)), Optional(FromStep(s))})));
     },
     kSkipped, ""},
    {"SkippingGoesOnAndOn",
     [](auto& b) {
       uint32_t s = b.Skip(0, "s");
       for (int i = 0; i < 5; ++i) s = b.Join(0, absl::StrCat("j", i), {FromStep(s)});
       b.Result(0, FromStep(s));
     },
     kSkipped, ""},
    {"AfterASkippedStepIsOrderOnly",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       const uint32_t j = b.Join(0, "j", {Literal("1")});
       b.After(0, j, s);
       b.Result(0, FromStep(j));
     },
     kDone, "[1]"},
    {"SkippedFailDoesNotFail",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       b.Result(0, FromStep(b.Fail(0, "f", "mine", {FromStep(s)})));
     },
     kSkipped, ""},

    // Join.
    {"EmptyJoin", [](auto& b) { b.Result(0, FromStep(b.Join(0, "j", {}))); }, kDone, "[]"},
    {"JoinProjects", [](auto& b) { b.Result(0, FromStep(b.Join(0, "j", {Literal("[7]", "/0")}))); },
     kDone, "[7]"},
    {"JoinLeadsNowhere",
     [](auto& b) { b.Result(0, FromStep(b.Join(0, "j", {Literal("[]", "/0")}))); }, kFailed,
     "flux.bad_projection: its input 0 cannot be read"},

    // Fail.
    {"Fails", [](auto& b) { b.Result(0, FromStep(b.Fail(0, "f", "mine"))); }, kFailed, "mine: "},
    {"ProjectsAListValue",
     [](auto& b) { b.Result(0, FromStep(b.Join(0, "j", {Literal("1")}), "/0")); }, kFailed,
     "flux.bad_projection: the result of the workflow cannot be read: expected JSON, got a list"},

    // Sleep.
    {"SleepsForNothing",
     [](auto& b) {
       b.Result(0, Literal("1", ""));
       b.Sleep(0, "z", 0);
     },
     v1::EXECUTION_STATUS_RUNNING, ""},
    {"SleepsForGarbage",
     [](auto& b) { b.Result(0, FromStep(b.Sleep(0, "z", 0, {Literal("\"soon\"")}))); }, kFailed,
     "flux.bad_projection: the milliseconds to sleep cannot be read"},
    {"SleepsForHalfAMillisecond",
     [](auto& b) { b.Result(0, FromStep(b.Sleep(0, "z", 0, {Literal("0.5")}))); }, kFailed,
     "flux.bad_projection: the milliseconds to sleep cannot be read: expected a whole number"},

    // Map.
    {"MapsInOrder",
     [](auto& b) { b.Result(0, FromStep(b.Map(0, "m", EchoBody(b), {Literal("[3,1,2]")}, 1))); },
     kDone, "[3,1,2]"},
    {"MapOfNothing",
     [](auto& b) { b.Result(0, FromStep(b.Map(0, "m", EchoBody(b), {Literal("[]")}))); }, kDone,
     "[]"},
    {"MapOfNoValue",
     [](auto& b) {
       const uint32_t z = b.Block(0, "nothing", b.Scope(0));
       b.Result(0, FromStep(b.Map(0, "m", EchoBody(b), {FromStep(z)})));
     },
     kDone, "[]"},
    {"MapGivesCaptures",
     [](auto& b) {
       b.Result(0,
                FromStep(b.Map(0, "m", EchoBody(b, 2, 1), {Literal("[1,2]"), FromParameter(0)})));
     },
     kDone, "[5,5]"},
    {"MapOverAMap",
     [](auto& b) {
       const uint32_t first = b.Map(0, "m", EchoBody(b), {Literal("[1,2]")});
       b.Result(0, FromStep(b.Map(0, "n", EchoBody(b), {FromStep(first)})));
     },
     kDone, "[1,2]"},
    {"MapLeavesSkippedItemsOut",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       const uint32_t keep = b.Switch(body, "keep", {FromParameter(0), FromParameter(0)},
                                      {{"2", EchoBody(b)}, {"4", EchoBody(b)}});
       b.Result(body, FromStep(keep));
       b.Result(0, FromStep(b.Map(0, "m", body, {Literal("[1,2,3,4]")})));
     },
     kDone, "[2,4]"},
    {"MapOverNoList",
     [](auto& b) { b.Result(0, FromStep(b.Map(0, "m", EchoBody(b), {Literal("{}")}))); }, kFailed,
     "flux.bad_projection: the list to map over cannot be read: expected a JSON array"},
    {"MapOverAMember",
     [](auto& b) {
       b.Result(0, FromStep(b.Map(0, "m", EchoBody(b), {Literal("{\"l\":[4]}", "/l")})));
     },
     kDone, "[4]"},
    {"MapOverNowhere",
     [](auto& b) {
       b.Result(0, FromStep(b.Map(0, "m", EchoBody(b), {Literal("{\"l\":[4]}", "/k")})));
     },
     kFailed, "flux.bad_projection: the list to map over"},
    {"MapCaptureLeadsNowhere",
     [](auto& b) {
       b.Result(0, FromStep(b.Map(0, "m", EchoBody(b, 2), {Literal("[1]"), Literal("{}", "/k")})));
     },
     kFailed, "flux.bad_projection: its input 1 cannot be read"},
    {"MapCaptureSkipped",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       b.Result(0, FromStep(b.Map(0, "m", EchoBody(b, 2), {Literal("[1]"), FromStep(s)})));
     },
     kSkipped, ""},
    {"MapItemResultLeadsNowhere",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Result(body, FromParameter(0, "/k"));
       b.Result(0, FromStep(b.Map(0, "m", body, {Literal("[{\"k\":1},{}]")})));
     },
     kFailed, "flux.bad_projection: the result of m[1] cannot be read"},
    {"MapItemFails",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Fail(body, "f", "mine");
       b.Result(body, FromParameter(0));
       b.Result(0, FromStep(b.Map(0, "m", body, {Literal("[1,2]")})));
     },
     kFailed, "mine: "},

    // Loop.
    {"LoopsForItsTurns",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Result(body, FromStep(b.Join(body, "wrap", {FromParameter(0)})));
       const uint32_t l = b.Loop(0, "l", body, {Literal("1")}, 3);
       b.Result(0, FromStep(b.Map(0, "m", EchoBody(b), {FromStep(l)})));
     },
     kDone, "[\n"},
    {"LoopsUntilDone",
     [](auto& b) {
       b.Result(0, FromStep(b.Loop(0, "l", EchoBody(b), {Literal("true")}, 0, FromParameter(0))));
     },
     kDone, "true"},
    {"LoopConditionIsNoJson",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       const uint32_t list = b.Join(body, "list", {});
       b.Result(body, FromParameter(0));
       b.Result(0, FromStep(b.Loop(0, "l", body, {Literal("1")}, 0, FromStep(list))));
     },
     kFailed, "flux.bad_projection: its condition after turn 0 cannot be read: expected JSON"},
    {"LoopConditionSkipped",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       const uint32_t s = b.Skip(body, "s");
       b.Result(body, FromParameter(0));
       b.Result(0, FromStep(b.Loop(0, "l", body, {Literal("1")}, 9, FromStep(s))));
     },
     kSkipped, ""},
    {"LoopStateSkipped",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Result(body, FromStep(b.Skip(body, "s")));
       b.Result(0, FromStep(b.Loop(0, "l", body, {Literal("1")}, 9)));
     },
     kSkipped, ""},
    {"LoopFirstStateSkipped",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       b.Result(0, FromStep(b.Loop(0, "l", EchoBody(b), {FromStep(s)}, 9)));
     },
     kSkipped, ""},
    {"LoopFirstStateLeadsNowhere",
     [](auto& b) { b.Result(0, FromStep(b.Loop(0, "l", EchoBody(b), {Literal("{}", "/a")}, 9))); },
     kFailed, "flux.bad_projection: its first state cannot be read"},
    {"LoopTurnFails",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Fail(body, "f", "mine");
       b.Result(body, FromParameter(0));
       b.Result(0, FromStep(b.Loop(0, "l", body, {Literal("1")}, 9)));
     },
     kFailed, "mine: "},
    {"LoopWrapsListsWithoutEnd",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Result(body, FromStep(b.Join(body, "wrap", {FromParameter(0)})));
       b.Result(0, FromStep(b.Loop(0, "l", body, {Literal("1")}, 1'000'000)));
     },
     kFailed, "flux.limit.list_depth: the list nests more than 32 lists deep"},

    // Block.
    {"BlockGivesItsResult",
     [](auto& b) { b.Result(0, FromStep(b.Block(0, "k", EchoBody(b), {FromParameter(0)}))); },
     kDone, "5"},
    {"BlockWithoutResult", [](auto& b) { b.Result(0, FromStep(b.Block(0, "k", b.Scope(0)))); },
     kDone, ""},
    {"BlockOfASkippedCaptureIsSkippedWhereItReadsIt",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       b.Result(0, FromStep(b.Block(0, "k", EchoBody(b), {FromStep(s)})));
     },
     kSkipped, ""},
    {"BlockRunsWhatDoesNotReadTheSkippedCapture",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       const uint32_t body = b.Scope(1);
       b.Join(body, "reads", {FromParameter(0)});
       b.Result(body, FromStep(b.Join(body, "free", {Literal("1")})));
       b.Result(0, FromStep(b.Block(0, "k", body, {FromStep(s)})));
     },
     kDone, "[1]"},
    {"BlockCaptureLeadsNowhere",
     [](auto& b) { b.Result(0, FromStep(b.Block(0, "k", EchoBody(b), {FromParameter(0, "/x")}))); },
     kFailed, "flux.bad_projection: its input 0 cannot be read"},
    {"BlockResultLeadsNowhere",
     [](auto& b) {
       const uint32_t body = b.Scope(0);
       b.Result(body, Literal("{}", "/q"));
       b.Result(0, FromStep(b.Block(0, "k", body)));
     },
     kFailed, "flux.bad_projection: the result of k cannot be read"},

    // Switch.
    {"SwitchTakesTheCaseThatFits",
     [](auto& b) {
       const uint32_t no = EchoBody(b);
       const uint32_t yes = EchoBody(b, 2, 1);
       b.definition().mutable_scopes(static_cast<int>(no))->set_parameters(2);
       b.Result(0, FromStep(b.Switch(0, "w", {FromParameter(0), Literal("10"), Literal("20")},
                                     {{"4", no}, {"5.0", yes}})));
     },
     kDone, "20"},
    {"SwitchTakesTheDefault",
     [](auto& b) {
       const uint32_t otherwise = b.Scope(0);
       b.Result(otherwise, Literal("\"else\""));
       b.Result(0, FromStep(b.Switch(0, "w", {FromParameter(0)}, {{"4", b.Scope(0)}}, otherwise)));
     },
     kDone, "\"else\""},
    {"SwitchWithoutFitIsSkipped",
     [](auto& b) {
       b.Result(0, FromStep(b.Switch(0, "w", {FromParameter(0)}, {{"4", b.Scope(0)}})));
     },
     kSkipped, ""},
    {"SwitchConditionSkipped",
     [](auto& b) {
       const uint32_t s = b.Skip(0, "s");
       b.Result(0, FromStep(b.Switch(0, "w", {FromStep(s)}, {}, b.Scope(0))));
     },
     kSkipped, ""},
    {"SwitchConditionIsNoJson",
     [](auto& b) {
       const uint32_t list = b.Join(0, "list", {});
       b.Result(0, FromStep(b.Switch(0, "w", {FromStep(list)}, {{"4", b.Scope(0)}})));
     },
     kFailed, "flux.bad_projection: its condition cannot be read"},

    // Catch.
    {"CatchTakesItsType",
     [](auto& b) {
       const uint32_t f = b.Fail(0, "f", "mine");
       const uint32_t handler = b.Scope(1);
       b.Result(handler, FromParameter(0, "/type"));
       b.Catch(0, f, {"mine"}, handler);
       b.Result(0, FromStep(f));
     },
     kDone, "\"mine\""},
    {"CatchLeavesOtherTypes",
     [](auto& b) {
       const uint32_t f = b.Fail(0, "f", "mine");
       b.Catch(0, f, {"yours"}, EchoBody(b));
       b.Result(0, FromStep(f));
     },
     kFailed, "mine: "},
    {"TheFirstClauseThatFits",
     [](auto& b) {
       const uint32_t f = b.Fail(0, "f", "mine");
       b.Catch(0, f, {"yours"}, EchoBody(b));
       const uint32_t any = b.Scope(2);
       b.Result(any, FromParameter(1));
       b.Catch(0, f, {}, any, {FromParameter(0)});
       b.Result(0, FromStep(f));
     },
     kDone, "5"},
    {"CatchOfABodyTakesWhatFailsInside",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Fail(body, "f", "mine");
       const uint32_t m = b.Map(0, "m", body, {Literal("[1,2,3]")});
       const uint32_t handler = b.Scope(1);
       b.Result(handler, Literal("\"caught\""));
       b.Catch(0, m, {}, handler);
       b.Result(0, FromStep(m));
     },
     kDone, "\"caught\""},
    {"CatchBodyThatFailsIsNotCaughtAgain",
     [](auto& b) {
       const uint32_t f = b.Fail(0, "f", "mine");
       const uint32_t handler = b.Scope(1);
       b.Fail(handler, "g", "worse");
       b.Catch(0, f, {}, handler);
       b.Result(0, FromStep(f));
     },
     kFailed, "worse: "},
    {"CatchBodyThatFailsIsCaughtFurtherOut",
     [](auto& b) {
       const uint32_t inner = b.Scope(0);
       const uint32_t f = b.Fail(inner, "f", "mine");
       const uint32_t handler = b.Scope(1);
       b.Fail(handler, "g", "worse");
       b.Catch(inner, f, {}, handler);
       const uint32_t k = b.Block(0, "k", inner);
       const uint32_t outer = b.Scope(1);
       b.Result(outer, FromParameter(0, "/type"));
       b.Catch(0, k, {}, outer);
       b.Result(0, FromStep(k));
     },
     kDone, "\"worse\""},
    {"CatchCaptureLeadsNowhere",
     [](auto& b) {
       const uint32_t f = b.Fail(0, "f", "mine");
       b.Catch(0, f, {}, EchoBody(b, 2), {FromParameter(0, "/x")});
       b.Result(0, FromStep(f));
     },
     kFailed, "flux.bad_projection: in its catch clause, its input 0 cannot be read"},
    {"CatchResultLeadsNowhere",
     [](auto& b) {
       const uint32_t f = b.Fail(0, "f", "mine");
       const uint32_t handler = b.Scope(1);
       b.Result(handler, FromParameter(0, "/nowhere"));
       b.Catch(0, f, {}, handler);
       b.Result(0, FromStep(f));
     },
     kFailed, "flux.bad_projection: the result of f.catch cannot be read"},
    {"CatchMaySkip",
     [](auto& b) {
       const uint32_t f = b.Fail(0, "f", "mine");
       const uint32_t handler = b.Scope(1);
       b.Result(handler, FromStep(b.Skip(handler, "s")));
       b.Catch(0, f, {}, handler);
       b.Result(0, FromStep(f));
     },
     kSkipped, ""},
    {"CatchTakesABadProjection",
     [](auto& b) {
       const uint32_t m = b.Map(0, "m", EchoBody(b), {Literal("3")});
       const uint32_t handler = b.Scope(1);
       b.Result(handler, FromParameter(0, "/type"));
       b.Catch(0, m, {"flux.bad_projection"}, handler);
       b.Result(0, FromStep(m));
     },
     kDone, "\"flux.bad_projection\""},
};

TEST(Steps, EndAsTheirTablesSay) {
  for (const Outcome& outcome : kOutcomes) {
    SCOPED_TRACE(outcome.name);
    DefinitionBuilder b("outcome", 1);
    outcome.build(b);
    const auto graph = b.Compile();
    ASSERT_NE(graph, nullptr);
    Driver run(graph, {Json("5")});
    EXPECT_EQ(run.status(), outcome.status) << run.ResultText();
    EXPECT_THAT(run.ResultText(), StartsWith(outcome.result));
  }
}

// ---- sleep ----

TEST(Sleep, WaitsForItsTimerAndGivesNoValue) {
  DefinitionBuilder b("sleep", 0);
  b.Sleep(0, "fixed", 1'500);
  b.Sleep(0, "given", 0, {Literal("2500")});
  b.Task(0, "t", {Optional(FromStep(0))});
  b.Result(0, FromStep(2));
  Driver run(b.Compile());
  EXPECT_EQ(run.StateOf("fixed"), v1::STEP_STATE_WAITING);
  EXPECT_EQ(run.ReasonOf("given"), "sleeps until 1970-01-01T00:16:42.500Z");
  EXPECT_EQ(NextTimerMs(run.live), run.now_ms + 1'500);
  run.Advance(1'499);
  EXPECT_THAT(run.Ready(), IsEmpty());
  run.Advance(1);
  EXPECT_THAT(run.Ready(), ElementsAre("t"));
  v1::Task task;
  ASSERT_TRUE(FillTask(run.live, run.Key("t"), 100, &task).ok());
  EXPECT_EQ(task.inputs(0).payload().encoding(), v1::ENCODING_NONE);
  EXPECT_EQ(NextTimerMs(run.live), run.now_ms + 1'000);
}

// ---- map ----

TEST(Map, KeepsItsWidthAndItsOrder) {
  DefinitionBuilder b("map", 1);
  b.Map(0, "codes", TaskBody(b, "parse"), {FromParameter(0)}, 2);
  b.Result(0, FromStep(0));
  Driver run(b.Compile(),
             {ListPayload({Json("\"a\""), Json("\"b\""), Json("\"c\""), Json("\"d\"")})});
  EXPECT_THAT(run.Ready(), ElementsAre("codes[0].parse", "codes[1].parse"));
  EXPECT_EQ(run.ReasonOf("codes"), "0 of 4 items done, 2 in flight");
  run.Complete("codes[1].parse", "1");
  EXPECT_THAT(run.Ready(), ElementsAre("codes[0].parse", "codes[2].parse"));
  v1::Task task;
  ASSERT_TRUE(FillTask(run.live, run.Key("codes[2].parse"), 100, &task).ok());
  EXPECT_EQ(task.inputs(0).payload().data(), "\"c\"");
  EXPECT_EQ(task.step(), "codes[2].parse");
  run.Complete("codes[2].parse", "2");
  run.Complete("codes[3].parse", "3");
  EXPECT_THAT(run.Ready(), ElementsAre("codes[0].parse"));
  EXPECT_EQ(run.ReasonOf("codes"), "3 of 4 items done, 1 in flight");
  run.Complete("codes[0].parse", "0");
  EXPECT_EQ(run.ResultText(), "[0,1,2,3]");
}

TEST(Map, ItemsHaveStepsOfTheirOwn) {
  DefinitionBuilder b("map", 0);
  const uint32_t body = b.Scope(2);
  const uint32_t read = b.Task(body, "read", {FromParameter(0)});
  const uint32_t nap = b.Sleep(body, "nap", 10);
  b.After(body, nap, read);
  const uint32_t code = b.Task(body, "code", {FromStep(read), FromParameter(1)});
  b.After(body, code, nap);
  b.Result(body, FromStep(code));
  b.Map(0, "m", body, {Literal("[1,2]"), Literal("\"shared\"")});
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  run.Complete("m[0].read", "\"x\"");
  EXPECT_EQ(run.ReasonOf("m[0].code"), "waits for step m[0].nap");
  EXPECT_EQ(run.ReasonOf("m[1].code"), "waits for steps m[1].nap, m[1].read");
  run.Advance(10);
  EXPECT_THAT(run.Ready(), ElementsAre("m[0].code", "m[1].read"));
  v1::Task task;
  ASSERT_TRUE(FillTask(run.live, run.Key("m[0].code"), 100, &task).ok());
  EXPECT_EQ(task.inputs(0).payload().data(), "\"x\"");
  EXPECT_EQ(task.inputs(1).payload().data(), "\"shared\"");
}

TEST(Map, NestsWithItsOwnItemsAsLists) {
  DefinitionBuilder b("nested", 1);
  const uint32_t outer = b.Scope(1);
  b.Map(outer, "inner", TaskBody(b, "t"), {FromParameter(0)});
  b.Result(outer, FromStep(0));
  b.Map(0, "outer", outer, {FromParameter(0)});
  b.Result(0, FromStep(0));
  Driver run(b.Compile(), {Json("[[1,2],[],[3]]")});
  EXPECT_THAT(run.Ready(),
              ElementsAre("outer[0].inner[0].t", "outer[0].inner[1].t", "outer[2].inner[0].t"));
  run.Complete("outer[0].inner[0].t", "10");
  run.Reload();
  run.Complete("outer[2].inner[0].t", "30");
  run.Complete("outer[0].inner[1].t", "20");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  v1::GetResultResponse response;
  FillResult(run.live, &response);
  EXPECT_EQ(response.result().SerializeAsString(),
            ListPayload(
                {ListPayload({Json("10"), Json("20")}), ListPayload({}), ListPayload({Json("30")})})
                .SerializeAsString());
}

TEST(Map, AFailedItemDropsTheOthersInOneRecord) {
  DefinitionBuilder b("map", 0);
  b.Map(0, "m", TaskBody(b, "t"), {Literal("[1,2,3]")});
  const uint32_t handler = b.Scope(2);
  b.Task(handler, "mend", {FromParameter(0), FromParameter(1)});
  b.Result(handler, FromStep(0));
  b.Catch(0, 0, {"broken"}, handler, {Literal("1")});
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  const uint64_t before = run.live.ordinal();
  run.FailTask("m[1].t", "broken", true);
  EXPECT_EQ(run.live.ordinal(), before + 1);
  EXPECT_THAT(run.Ready(), ElementsAre("m.catch.mend"));
  // The other two were delivered and are wanted no more; the failed one ended by itself.
  EXPECT_EQ(run.effects.revoked.size(), 2u);
  EXPECT_EQ(run.ReasonOf("m"), "its catch clause handles broken: it went wrong: broken");
  v1::Task task;
  ASSERT_TRUE(FillTask(run.live, run.Key("m.catch.mend"), 1000, &task).ok());
  EXPECT_EQ(task.inputs(0).payload().data(),
            R"({"type":"broken","message":"it went wrong: broken","non_retriable":true,)"
            R"("source":"worker-1"})");
  run.Complete("m.catch.mend", "\"mended\"");
  EXPECT_EQ(run.ResultText(), "\"mended\"");
}

TEST(Map, ResultsOfItemsThatAreGoneAreStale) {
  DefinitionBuilder b("map", 0);
  b.Map(0, "m", TaskBody(b, "t"), {Literal("[1,2]")});
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  ReportResult again;
  again.result = run.ResultFor("m[0].t");
  again.result.mutable_value();
  run.Complete("m[0].t", "1");
  EXPECT_EQ(*run.Do(again), Verdict::kStale);
}

TEST(Map, AFailedExecutionShowsWhichItemFailed) {
  DefinitionBuilder b("map", 0);
  b.Map(0, "m", TaskBody(b, "t"), {Literal("[1,2,3]")});
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  run.FailTask("m[1].t", "broken", true);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.StateOf("m"), v1::STEP_STATE_FAILED);
  EXPECT_EQ(run.StateOf("m[1].t"), v1::STEP_STATE_FAILED);
  EXPECT_EQ(run.StateOf("m[0].t"), v1::STEP_STATE_CANCELLED);
  EXPECT_EQ(run.ReasonOf("m[0].t"), "the execution failed at step m[1].t");
  v1::DescribeExecutionResponse response;
  DescribeExecution(run.live, 1, false, nullptr, &response);
  ASSERT_EQ(response.steps(0).frames_size(), 1);
  EXPECT_EQ(response.steps(0).frames(0).label(), "item 1");
  EXPECT_EQ(response.steps(0).items_failed(), 1u);
}

TEST(Map, ManyItemsWithoutTasksYieldToOthers) {
  constexpr uint64_t kItems = internal::kFramesPerRecordMax * 2 + 5;
  std::string list = "[0";
  for (uint64_t i = 1; i < kItems; ++i) absl::StrAppend(&list, ",", i);
  list += "]";
  DefinitionBuilder b("map", 1);
  b.Map(0, "m", EchoBody(b), {FromParameter(0)});
  b.Result(0, FromStep(0));
  Driver run(b.Compile(), {Json(list)});
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  EXPECT_EQ(NextTimerMs(run.live), run.now_ms);
  run.Reload();
  run.Advance(0);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(run.live.ordinal(), 3u);
  EXPECT_EQ(run.ResultText(), list);
}

// ---- loop ----

TEST(Loop, CarriesItsStateAndDropsEachTurn) {
  DefinitionBuilder b("loop", 0);
  const uint32_t body = b.Scope(2);
  b.Task(body, "poll", {FromParameter(0), FromParameter(1)});
  b.Result(body, FromStep(0, "/next"));
  b.Loop(0, "until", body, {Literal("0"), Literal("\"key\"")}, 0, FromStep(0, "/done"));
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  const uint64_t entries = LiveEntries(run.live);
  for (int turn = 0; turn < 5; ++turn) {
    const std::string path = absl::StrCat("until[", turn, "].poll");
    EXPECT_THAT(run.Ready(), ElementsAre(path));
    EXPECT_EQ(run.ReasonOf("until"), absl::StrCat("turn ", turn, " runs"));
    EXPECT_EQ(LiveEntries(run.live), entries);
    v1::Task task;
    ASSERT_TRUE(FillTask(run.live, run.Key(path), 100, &task).ok());
    EXPECT_EQ(task.inputs(0).payload().data(), absl::StrCat(turn));
    EXPECT_EQ(task.inputs(1).payload().data(), "\"key\"");
    run.Complete(path, absl::StrCat("{\"next\":", turn + 1,
                                    ",\"done\":", turn == 4 ? "true" : "false", "}"));
    run.Reload();
  }
  EXPECT_EQ(run.ResultText(), "5");
}

TEST(Loop, StopsAtItsTurnsAndYieldsWhenItHasNoTasks) {
  constexpr uint64_t kTurns = internal::kFramesPerRecordMax * 3;
  DefinitionBuilder b("loop", 0);
  b.Loop(0, "spin", EchoBody(b), {Literal("9")}, kTurns);
  b.Result(0, FromStep(0));
  Driver run(b.Compile());
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  EXPECT_EQ(run.ReasonOf("spin"), absl::StrCat("turn ", internal::kFramesPerRecordMax, " runs"));
  run.Reload();
  // A spinning loop can be cancelled like anything else.
  const std::string snapshot = SaveSnapshot(run.live);
  run.Advance(0);
  EXPECT_EQ(run.live.ordinal(), 3u);
  EXPECT_EQ(run.ResultText(), "9");
}

// ---- blocks, switches, catches with captures that settle later ----

TEST(Block, BeginsWithoutTheCapturesThatHaveNotSettled) {
  DefinitionBuilder b("lazy", 0);
  const uint32_t slow = b.Task(0, "slow");
  const uint32_t inner = b.Scope(1);
  b.Task(inner, "deep", {FromParameter(0)});
  b.Result(inner, FromStep(0));
  const uint32_t body = b.Scope(1);
  b.Task(body, "free");
  b.Task(body, "bound", {FromParameter(0)});
  b.Block(body, "inside", inner, {FromParameter(0)});
  b.Join(body, "all", {FromStep(0), FromStep(1), FromStep(2)});
  b.Result(body, FromStep(3));
  b.Block(0, "block", body, {FromStep(slow)});
  b.Result(0, FromStep(1));
  Driver run(b.Compile());
  EXPECT_THAT(run.Ready(), ElementsAre("slow", "block.free"));
  EXPECT_EQ(run.ReasonOf("block"), "its body runs");
  EXPECT_EQ(run.ReasonOf("block.bound"), "waits for step slow");
  EXPECT_EQ(run.ReasonOf("block.inside.deep"), "waits for step slow");
  run.Reload();
  run.Complete("slow", "1");
  EXPECT_THAT(run.Ready(), ElementsAre("block.free", "block.bound", "block.inside.deep"));
  run.Complete("block.bound", "2");
  run.Complete("block.inside.deep", "3");
  run.Complete("block.free", "0");
  EXPECT_EQ(run.ResultText(), "[0,2,3]");
}

TEST(Block, ItsResultWaitsForTheCaptureItIs) {
  for (const bool skipped : {false, true}) {
    DefinitionBuilder b("lazy", 0);
    b.Task(0, "slow");
    b.Block(0, "block", EchoBody(b), {FromStep(0)});
    b.Result(0, FromStep(1));
    Driver run(b.Compile());
    EXPECT_EQ(run.StateOf("block"), v1::STEP_STATE_WAITING);
    if (skipped) {
      run.SkipResult("slow");
    } else {
      run.Complete("slow", "4");
    }
    EXPECT_EQ(run.status(), skipped ? kSkipped : kDone);
    EXPECT_EQ(run.ResultText(), skipped ? "" : "4");
  }
}

TEST(Block, ACaptureThatLeadsNowhereFailsItWhenItComes) {
  DefinitionBuilder b("lazy", 0);
  b.Task(0, "slow");
  const uint32_t body = b.Scope(1);
  b.Task(body, "free");
  b.Task(body, "bound", {FromParameter(0)});
  b.Block(0, "block", body, {FromStep(0, "/missing")});
  b.Result(0, Literal("1"));
  Driver run(b.Compile());
  run.Complete("slow", "{}");
  EXPECT_THAT(run.ResultText(),
              HasSubstr("flux.bad_projection: a value its body uses cannot be read"));
}

TEST(Switch, ItsBodyIsGivenCapturesLate) {
  DefinitionBuilder b("lazy", 1);
  b.Task(0, "slow");
  b.Switch(0, "if", {FromParameter(0), FromStep(0)}, {{"true", TaskBody(b, "yes")}},
           TaskBody(b, "no"));
  b.Result(0, FromStep(1));
  Driver run(b.Compile(), {Json("true")});
  EXPECT_EQ(run.ReasonOf("if"), "case true runs");
  EXPECT_EQ(run.ReasonOf("if.yes"), "waits for step slow");
  run.Complete("slow", "1");
  run.Complete("if.yes", "2");
  EXPECT_EQ(run.ResultText(), "2");
}

TEST(Catch, ItsBodyIsGivenCapturesLate) {
  DefinitionBuilder b("lazy", 0);
  b.Task(0, "slow");
  b.Task(0, "risky");
  const uint32_t handler = b.Scope(2);
  b.Task(handler, "mend", {FromParameter(1)});
  b.Result(handler, FromStep(0));
  b.Catch(0, 1, {}, handler, {FromStep(0)});
  b.Result(0, FromStep(1));
  Driver run(b.Compile());
  ReportResult late;
  late.result = run.ResultFor("risky");
  late.result.mutable_value();
  run.FailTask("risky", "broken", true);
  EXPECT_THAT(run.Ready(), ElementsAre("slow"));
  EXPECT_EQ(*run.Do(late), Verdict::kStale);
  EXPECT_EQ(run.ReasonOf("risky.catch.mend"), "waits for step slow");
  run.Reload();
  run.Complete("slow", "1");
  run.Complete("risky.catch.mend", "2");
  EXPECT_EQ(run.ResultText(), "2");
}

TEST(Catch, TakesTimeoutsAndParkedIsForTheUncaught) {
  DefinitionBuilder b("catch", 0);
  b.Task(0, "t");
  b.step(0, 0).mutable_task()->mutable_timeouts()->set_schedule_to_close_ms(100);
  b.step(0, 0).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  b.Catch(0, 0, {"flux.timeout.schedule_to_close"}, TaskBody(b, "mend"));
  b.Result(0, FromStep(0));
  Driver caught(b.Compile());
  caught.Advance(100);
  EXPECT_THAT(caught.Ready(), ElementsAre("t.catch.mend"));
  EXPECT_EQ(caught.effects.revoked.size(), 1u);
  Driver parked(b.Compile());
  parked.FailTask("t", "other", true);
  EXPECT_EQ(parked.StateOf("t"), v1::STEP_STATE_PARKED);
  EXPECT_EQ(NextTimerMs(parked.live), std::nullopt);
}

// ---- the story ----

TEST(Story, TellsWhatHappenedInOrder) {
  DefinitionBuilder b("story", 0);
  b.Map(0, "codes", TaskBody(b, "parse"), {Literal("[1,2]")}, 1);
  b.Task(0, "merge", {FromStep(0)});
  b.Result(0, FromStep(1));
  Driver run(b.Compile());
  run.FailTask("codes[0].parse", "io");
  run.Advance(10'000);
  run.Complete("codes[0].parse", "1");
  run.SkipResult("codes[1].parse");
  run.Complete("merge", "2");
  EXPECT_THAT(
      run.StoryTypes(),
      ElementsAre("execution.started", "map.opened codes", "step.scheduled codes[0].parse",
                  "attempt.failed codes[0].parse", "timer.fired codes[0].parse",
                  "step.scheduled codes[0].parse", "step.completed codes[0].parse",
                  "item.completed codes[0]", "step.scheduled codes[1].parse",
                  "step.skipped codes[1].parse", "item.skipped codes[1]", "step.completed codes",
                  "step.scheduled merge", "step.completed merge", "execution.completed"));
  EXPECT_EQ(run.story[3].ordinal(), 2u);
  EXPECT_EQ(run.story[3].attempt(), 1u);
  EXPECT_EQ(run.story[5].attempt(), 2u);
  EXPECT_EQ(run.story[5].delivery(), 2u);
  EXPECT_TRUE(run.story[5].derived());
  EXPECT_FALSE(run.story[6].derived());
  EXPECT_EQ(run.story[6].identity(), "worker-1");
  EXPECT_EQ(run.story[6].payload().data(), "1");
}

}  // namespace
}  // namespace flux::engine::testing
