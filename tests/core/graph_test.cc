// Definitions that are refused: each with a message that names the step and the way out, and
// nothing compiled.
#include "engine/core/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// read -> work -> out, with a body for a map to be made of.
DefinitionBuilder Sound() {
  DefinitionBuilder b("sound", 1);
  b.Task(0, "read", {FromParameter(0)});
  const uint32_t work = b.Task(0, "work", {FromStep(0)});
  b.step(0, work).set_location("flow.cc:12");
  b.Result(0, FromStep(work));
  return b;
}

struct Refusal {
  const char* name;
  std::function<void(DefinitionBuilder&)> spoil;
  const char* message;  // part of it
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

const Refusal kRefusals[] = {
    {"NoName", [](auto& b) { b.definition().set_name(""); }, "workflow's name is empty"},
    {"LongName", [](auto& b) { b.definition().set_name(std::string(300, 'n')); },
     "300 bytes, the limit is 256"},
    {"ControlCharacterInName", [](auto& b) { b.definition().set_name("a\nb"); }, "a\\nb"},
    {"NewerFormat", [](auto& b) { b.definition().set_format(2); }, "format 2"},
    {"LongVersion", [](auto& b) { b.definition().set_version(std::string(300, 'v')); }, "version"},
    {"NegativeTimeout", [](auto& b) { b.definition().set_execution_timeout_ms(-1); },
     "execution timeout of -1"},
    {"NoScopes", [](auto& b) { b.definition().clear_scopes(); }, "no scopes"},
    {"NoResult", [](auto& b) { b.definition().mutable_scopes(0)->clear_result(); },
     "has no result"},
    {"EmptyStepName", [](auto& b) { b.step(0, 1).set_name(""); },
     "step 1 of scope 0 (flow.cc:12): the step's name is empty"},
    {"ControlCharacterInStepName", [](auto& b) { b.step(0, 1).set_name("a\x01"); }, "a\\001"},
    {"LongLabelName",
     [](auto& b) { (*b.step(0, 1).mutable_labels())[std::string(300, 'n')] = "v"; },
     "step \"work\" (flow.cc:12): the label's name has 300 bytes, the limit is 256"},
    {"ControlCharacterInLabel", [](auto& b) { (*b.step(0, 1).mutable_labels())["n"] = "a\nb"; },
     "the value of label \"n\" \"a\\nb\""},
    {"TooManyLabels",
     [](auto& b) {
       for (int i = 0; i < 65; ++i) (*b.step(0, 1).mutable_labels())[std::to_string(i)] = "v";
     },
     "it has 65 labels; at most 64"},
    {"TwoStepsOfOneName", [](auto& b) { b.step(0, 1).set_name("read"); },
     "step \"read\" (flow.cc:12): another step has that name"},
    {"ReadsItself", [](auto& b) { b.step(0, 1).mutable_inputs(0)->set_step(1); },
     "step \"work\" (flow.cc:12): its input 0 makes a cycle"},
    {"ReadsALaterStep", [](auto& b) { b.step(0, 0).mutable_inputs(0)->set_step(1); },
     "step \"read\": its input 0 makes a cycle: it reads step \"work\""},
    {"ReadsAnUnknownStep", [](auto& b) { b.step(0, 1).mutable_inputs(0)->set_step(9); },
     "refers to step 9, but its scope has only 2"},
    {"ReadsAnUnknownParameter", [](auto& b) { b.step(0, 0).mutable_inputs(0)->set_parameter(3); },
     "refers to parameter 3, but its scope has only 1"},
    {"InputFromNowhere", [](auto& b) { b.step(0, 0).mutable_inputs(0)->clear_source(); },
     "comes from nowhere"},
    {"BadPointer", [](auto& b) { b.step(0, 1).mutable_inputs(0)->set_pointer("a/b"); },
     "not a JSON pointer"},
    {"BadPointerEscape", [](auto& b) { b.step(0, 1).mutable_inputs(0)->set_pointer("/a~2"); },
     "not a JSON pointer"},
    {"LiteralIsNotJson", [](auto& b) { *b.step(0, 1).mutable_inputs(0) = Literal("{"); },
     "is a literal that is not JSON"},
    {"AfterALaterStep", [](auto& b) { b.step(0, 0).add_after(1); },
     "step \"read\": what it comes after makes a cycle"},
    {"AfterAnUnknownStep", [](auto& b) { b.step(0, 0).add_after(7); }, "refers to step 7"},
    {"ResultOfAnUnknownStep", [](auto& b) { b.Result(0, FromStep(5)); },
     "the workflow's result refers to step 5"},
    {"NoKind", [](auto& b) { b.step(0, 1).clear_kind(); },
     "step \"work\" (flow.cc:12): it has no kind"},
    {"NoTaskName", [](auto& b) { b.step(0, 1).mutable_task()->set_task(""); },
     "task's name is empty"},
    {"BadQueueName", [](auto& b) { b.step(0, 1).mutable_task()->set_queue("q\t"); },
     "queue's name"},
    {"NegativeBackoff",
     [](auto& b) { b.step(0, 1).mutable_task()->mutable_retry()->set_initial_backoff_ms(-5); },
     "initial backoff of -5 ms"},
    {"NegativeLongestBackoff",
     [](auto& b) { b.step(0, 1).mutable_task()->mutable_retry()->set_max_backoff_ms(-5); },
     "longest backoff of -5 ms"},
    {"ShrinkingBackoff",
     [](auto& b) { b.step(0, 1).mutable_task()->mutable_retry()->set_factor_permille(999); },
     "factor of 999 permille"},
    {"TooMuchJitter",
     [](auto& b) { b.step(0, 1).mutable_task()->mutable_retry()->set_jitter_permille(1001); },
     "jitter of 1001 permille"},
    {"NegativeTaskTimeout",
     [](auto& b) { b.step(0, 1).mutable_task()->mutable_timeouts()->set_heartbeat_ms(-1); },
     "heartbeat timeout of -1 ms"},
    {"EndlessTaskTimeout",
     [](auto& b) {
       b.step(0, 1).mutable_task()->mutable_timeouts()->set_start_to_close_ms(INT64_MAX);
     },
     "start_to_close timeout of"},
    {"EmptyNonRetriableType", [](auto& b) { b.step(0, 1).mutable_task()->add_non_retriable(""); },
     "non-retriable failure types is empty"},
    {"BadLimitKey", [](auto& b) { b.step(0, 1).mutable_task()->set_limit_key_pointer("x"); },
     "limit key's pointer"},
    {"NegativeSleep", [](auto& b) { b.Sleep(0, "nap", -1); }, "step \"nap\": the sleep of -1 ms"},
    {"SleepWithTwoInputs",
     [](auto& b) {
       b.Sleep(0, "nap", 0, {FromStep(0), FromStep(1)});
     },
     "one input at most"},
    {"SleepWithTwoDurations", [](auto& b) { b.Sleep(0, "nap", 5, {FromStep(0)}); }, "choose"},
    {"MapWithoutList", [](auto& b) { b.Map(0, "m", b.Scope(0), {}); },
     "step \"m\": a map needs a list"},
    {"MapBodyOfOtherArity", [](auto& b) { b.Map(0, "m", b.Scope(2), {FromStep(0)}); },
     "its body takes 2 parameters, but the item and the captures are 1"},
    {"BodyIsUnknown", [](auto& b) { b.Map(0, "m", 9, {FromStep(0)}); },
     "its body is scope 9, but there are only 1"},
    {"BodyIsTheRoot", [](auto& b) { b.Map(0, "m", 0, {FromStep(0)}); }, "scope 0, which is"},
    {"BodyIsShared",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Map(0, "m", body, {FromStep(0)});
       b.Map(0, "n", body, {FromStep(0)});
     },
     "step \"n\": its body, scope 1, is the body of step \"m\" too"},
    {"BodyContainsItself",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Map(body, "m", body, {FromParameter(0)});
     },
     "step \"m\": its body, scope 1, contains itself"},
    {"ScopeOfNoStep", [](auto& b) { b.Scope(1); }, "scope 1 is the body of no step"},
    {"BodyResultIsUnknown",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Result(body, FromStep(4));
       b.Map(0, "m", body, {FromStep(0)});
     },
     "the result of the body of step \"m\" refers to step 4"},
    {"LoopWithoutState", [](auto& b) { b.Loop(0, "l", b.Scope(0), {}, 3); },
     "needs its first state"},
    {"LoopBodyWithoutResult", [](auto& b) { b.Loop(0, "l", b.Scope(1), {FromStep(0)}, 3); },
     "step \"l\": its body has no result"},
    {"EndlessLoop",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Result(body, FromParameter(0));
       b.Loop(0, "l", body, {FromStep(0)}, 0);
     },
     "step \"l\": it would never end"},
    {"LoopConditionIsUnknown",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       b.Result(body, FromParameter(0));
       b.Loop(0, "l", body, {FromStep(0)}, 0, FromStep(2));
     },
     "step \"l\": its condition refers to step 2"},
    {"BlockBodyOfOtherArity", [](auto& b) { b.Block(0, "k", b.Scope(0), {FromStep(0)}); },
     "takes 0 parameters, but its inputs are 1"},
    {"SwitchWithoutCondition",
     [](auto& b) {
       b.Switch(0, "w", {}, {{"1", b.Scope(0)}});
     },
     "needs its condition"},
    {"SwitchWithoutCases", [](auto& b) { b.Switch(0, "w", {FromStep(0)}, {}); },
     "at least one case or a default"},
    {"SwitchCaseIsNotJson",
     [](auto& b) {
       b.Switch(0, "w", {FromStep(0)}, {{"yes", b.Scope(0)}});
     },
     "the case \"yes\" is not JSON"},
    {"SwitchCaseTwice",
     [](auto& b) {
       const uint32_t one = b.Scope(0);
       b.Switch(0, "w", {FromStep(0)}, {{"1", one}, {"1", b.Scope(0)}});
     },
     "two cases match 1"},
    {"CatchBodyOfOtherArity", [](auto& b) { b.Catch(0, 1, {}, b.Scope(0)); },
     "takes 0 parameters, but the failure and the captures are 1"},
    {"CatchesAnEmptyType", [](auto& b) { b.Catch(0, 1, {""}, b.Scope(1)); }, "empty failure type"},
    {"CatchCapturesTheStepItself", [](auto& b) { b.Catch(0, 1, {}, b.Scope(2), {FromStep(1)}); },
     "capture 0 of a catch clause makes a cycle"},
    {"FailWithoutType", [](auto& b) { b.Fail(0, "f", ""); }, "step \"f\": it fails without a type"},
    {"FailWithReservedType", [](auto& b) { b.Fail(0, "f", "flux.mine"); }, "reserved"},
    {"ParksAJoin",
     [](auto& b) { b.step(0, b.Join(0, "j", {})).set_on_exhausted(v1::ON_EXHAUSTED_PARK); },
     "step \"j\": only a task can be parked"},
    {"EventWithoutName", [](auto& b) { b.step(0, b.Add(0, "e")).mutable_wait_event(); },
     "step \"e\": the event's name is empty"},
    {"EventDefaultWithoutTimeout",
     [](auto& b) {
       v1::WaitEventStep* wait = b.step(0, b.Add(0, "e")).mutable_wait_event();
       wait->set_event("go");
       *wait->mutable_default_value() = Json("1");
     },
     "a default but no timeout"},
    {"EventOfTwoTypes",  // F5
     [](auto& b) {
       for (const char* type : {"bool", "int"}) {
         v1::WaitEventStep* wait = b.step(0, b.Add(0, type)).mutable_wait_event();
         wait->set_event("go");
         wait->set_type(type);
       }
     },
     "awaits event \"go\" as int, but step \"bool\" awaits it as bool"},
    {"ChildWithoutWorkflow", [](auto& b) { b.step(0, b.Add(0, "c")).mutable_child(); },
     "the child's workflow is empty"},
    {"ChildWithTwoIds",
     [](auto& b) {
       v1::ChildStep* child = b.step(0, b.Add(0, "c", {FromStep(0)})).mutable_child();
       child->set_workflow("w");
       child->set_workflow_id("x");
       child->set_id_input(true);
     },
     "choose"},
    {"EmitWithoutName",
     [](auto& b) {
       b.step(0, b.Add(0, "e", {FromStep(0), FromStep(0)})).mutable_emit();
     },
     "the event's name is empty"},
    {"EmitToNobody",
     [](auto& b) { b.step(0, b.Add(0, "e", {FromStep(0)})).mutable_emit()->set_event("go"); },
     "takes the payload and the target's workflow id"},
    {"UndoWithoutTask", [](auto& b) { b.step(0, 1).mutable_undo(); },
     "the undo task's name is empty"},
    {"UndoOfAJoin",
     [](auto& b) { b.step(0, b.Join(0, "j", {})).mutable_undo()->mutable_task()->set_task("u"); },
     "only a task or a child can be undone"},
    {"JoinOfMoreThanItHas",
     [](auto& b) { b.step(0, b.Join(0, "j", {FromStep(0)})).mutable_join()->set_first(2); },
     "the first 2 of its inputs, but has only 1"},
    {"MapPagesWithoutResult",
     [](auto& b) {
       const uint32_t body = b.Scope(1);
       const uint32_t pages = b.Scope(1);
       b.step(0, b.Map(0, "m", body, {FromStep(0)})).mutable_map()->set_page_body(pages);
     },
     "what gets its pages has no result"},
};

TEST(Graph, RefusesWhatCannotRunAndNamesIt) {
  for (const Refusal& refusal : kRefusals) {
    SCOPED_TRACE(refusal.name);
    DefinitionBuilder b = Sound();
    refusal.spoil(b);
    const auto graph = Graph::Compile(b.definition(), "h");
    ASSERT_FALSE(graph.ok());
    EXPECT_EQ(graph.status().code(), refusal.code);
    EXPECT_THAT(std::string(Message(graph.status())), HasSubstr(refusal.message));
  }
}

TEST(Graph, LimitsAreNamedAndHoldAtTheirFigure) {
  struct Case {
    const char* name;
    std::function<void(GraphLimits&, bool over)> limit;
    const char* message;
  };
  // Sound() has two steps, one scope, one input a step.
  const Case kCases[] = {
      {"Steps", [](auto& l, bool over) { l.steps_max = over ? 1 : 2; }, "2 steps, the limit is 1"},
      {"Inputs", [](auto& l, bool over) { l.inputs_max = over ? 0 : 1; }, "the limit is 0"},
      {"Scopes", [](auto& l, bool over) { l.scopes_max = over ? 0 : 1; },
       "1 scopes, the limit is 0"},
      {"Bytes", [](auto& l, bool over) { l.definition_bytes_max = over ? 10 : 10'000; },
       "the limit is 10"},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    GraphLimits limits;
    c.limit(limits, false);
    EXPECT_TRUE(Graph::Compile(Sound().definition(), "h", limits).ok());
    c.limit(limits, true);
    const auto graph = Graph::Compile(Sound().definition(), "h", limits);
    EXPECT_EQ(graph.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(Message(graph.status())), HasSubstr(c.message));
  }
}

TEST(Graph, BodiesNestUpToTheLimit) {
  for (const uint32_t depth : {3u, 4u}) {
    DefinitionBuilder b("deep", 0);
    b.Result(0, Literal("1"));
    uint32_t outer = 0;
    for (uint32_t i = 0; i < depth; ++i) {
      const uint32_t body = b.Scope(0);
      b.Block(outer, absl::StrCat("b", i), body);
      outer = body;
    }
    GraphLimits limits;
    limits.depth_max = 3;
    const auto graph = Graph::Compile(b.definition(), "h", limits);
    EXPECT_EQ(graph.ok(), depth == 3) << graph.status();
    if (!graph.ok()) {
      EXPECT_THAT(std::string(Message(graph.status())), HasSubstr("step \"b3\": bodies nest"));
    }
  }
}

TEST(Graph, WarnsOfWhatItCapsOrWhatNeverMatters) {
  DefinitionBuilder b = Sound();
  b.step(0, 1).mutable_task()->mutable_retry()->set_max_attempts(20'000);
  b.step(0, 1).mutable_task()->mutable_timeouts()->set_heartbeat_ms(400'000);
  b.Map(0, "m", b.Scope(1), {FromStep(0)}, 200'000);
  b.Catch(0, 1, {}, b.Scope(1));
  b.Catch(0, 1, {"late"}, b.Scope(1));
  std::vector<std::string> warnings;
  const auto graph = Graph::Compile(b.definition(), "h", {}, &warnings);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("a catch clause after one that catches all"),
                                    HasSubstr("20000 attempts are capped to 10000"),
                                    HasSubstr("heartbeat timeout (400000 ms) is longer"),
                                    HasSubstr("max_parallel of 200000 is capped to 100000")));
  EXPECT_EQ((*graph)->scopes()[0].steps[1].task.retry().max_attempts(), 10'000u);
  EXPECT_EQ((*graph)->scopes()[0].steps[2].max_parallel, 100'000u);
}

TEST(Graph, FillsDefaultsIn) {
  const auto graph = Sound().Compile();
  const v1::TaskStep& task = graph->scopes()[0].steps[0].task;
  EXPECT_EQ(task.queue(), "default");
  EXPECT_EQ(task.retry().max_attempts(), 5u);
  EXPECT_EQ(task.retry().initial_backoff_ms(), 1'000);
  EXPECT_EQ(task.retry().factor_permille(), 2'000u);
  EXPECT_EQ(task.retry().max_backoff_ms(), 60'000);
  EXPECT_EQ(task.retry().jitter_permille(), 200u);
  EXPECT_EQ(task.timeouts().start_to_close_ms(), 300'000);
  EXPECT_EQ(task.timeouts().heartbeat_ms(), 0);
  EXPECT_THAT(graph->tasks(), ElementsAre("do.read", "do.work"));
}

TEST(Graph, CountsDistinctDependenciesAndKeepsCapturesOfBodiesApart) {
  DefinitionBuilder b("deps", 1);
  const uint32_t a = b.Task(0, "a", {FromParameter(0)});
  const uint32_t c = b.Task(0, "c", {FromStep(a), FromStep(a, "/x"), FromParameter(0)});
  b.After(0, c, a);
  const uint32_t block = b.Block(0, "block", b.Scope(2), {FromStep(a), FromStep(c)});
  b.After(0, block, a);
  b.Result(0, FromStep(c));
  const auto graph = b.Compile();
  const Graph::ScopePlan& root = graph->scopes()[0];
  EXPECT_EQ(root.steps[c].waits_for, 1u);
  EXPECT_THAT(root.steps[a].dependants, ElementsAre(c, block));
  EXPECT_EQ(root.steps[block].waits_for, 1u);
  EXPECT_THAT(root.steps[c].lazy_dependants, ElementsAre(block));
  EXPECT_THAT(root.parameter_dependants[0], ElementsAre(a, c));
  EXPECT_THAT(root.roots, ElementsAre(a));
  EXPECT_EQ(graph->scopes()[1].role, Graph::Role::kBlock);
  EXPECT_EQ(graph->scopes()[1].owner_step, block);
}

}  // namespace
}  // namespace flux::engine::testing
