// The interpreter, by hand: small graphs whose end anybody can see.
#include "tests/sim/reference.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "engine/core/graph.h"
#include "tests/sim/dice.h"
#include "tests/sim/fates.h"
#include "tests/sim/graphs.h"
#include "tests/sim/script.h"

namespace flux::sim {
namespace {

v1::Input FromStep(uint32_t step) {
  v1::Input input;
  input.set_step(step);
  return input;
}

v1::Input FromParameter(uint32_t parameter) {
  v1::Input input;
  input.set_parameter(parameter);
  return input;
}

v1::Input Literal(const std::string& json) {
  v1::Input input;
  *input.mutable_literal() = Json(json);
  return input;
}

// Tasks answer as told, by step name; the others with their first input.
class Told final : public Oracle {
 public:
  TaskEnd Task(const std::string& path, const v1::Step& step,
               const std::vector<Datum>& inputs) override {
    ran.insert(path);
    if (const auto it = endings.find(step.name()); it != endings.end()) return {it->second, {}, {}};
    if (const auto it = fragment_of.find(path); it != fragment_of.end()) {
      return {{}, &it->second, {}};
    }
    if (const auto it = fragments.find(step.name()); it != fragments.end()) {
      return {{}, &it->second, {}};
    }
    return {Ending::Value(inputs.empty() ? Datum::Of(Json("1")) : inputs[0]), {}, {}};
  }
  std::string FragmentPlace(const std::string& path) override {
    const auto it = places.find(path);
    return it == places.end() ? Oracle::FragmentPlace(path) : it->second;
  }
  Ending Event(const std::string&, const v1::Step& step) override {
    const auto it = endings.find(step.name());
    return it == endings.end() ? Ending::Never() : it->second;
  }
  Ending Child(const std::string&, const v1::Step& step, const std::vector<Datum>&) override {
    return endings[step.name()];
  }
  Ending Emit(const std::string&) override { return Ending::Value(Datum()); }
  std::optional<v1::Failure> Caught(const std::string&) override { return std::nullopt; }
  std::optional<Ending> Decreed(const std::string& path) override {
    const auto it = decreed.find(path);
    if (it == decreed.end()) return std::nullopt;
    return it->second;
  }
  std::optional<uint64_t> Completed(const std::string& path) override {
    const auto it = completed.find(path);
    if (it == completed.end()) return std::nullopt;
    return it->second;
  }
  std::optional<uint64_t> Skipped(const std::string& path) override {
    const auto it = skipped.find(path);
    if (it == skipped.end()) return std::nullopt;
    return it->second;
  }
  bool Tolerated(const std::string& path) override { return tolerated.contains(path); }

  std::map<std::string, Ending> endings;              // by step name
  std::map<std::string, v1::Definition> fragments;    // by step name
  std::map<std::string, v1::Definition> fragment_of;  // by path
  std::map<std::string, std::string> places;          // of fragments, by path
  std::map<std::string, Ending> decreed;              // by path
  std::map<std::string, uint64_t> completed, skipped;
  std::set<std::string> tolerated;
  std::set<std::string> ran;
};

Ending Fails(const std::string& type) {
  Foreseen foreseen;
  foreseen.failure.set_type(type);
  foreseen.failure.set_source("test");
  return Ending::Failed({foreseen});
}

class Reference : public ::testing::Test {
 protected:
  uint32_t Scope(uint32_t parameters) {
    definition_.add_scopes()->set_parameters(parameters);
    return static_cast<uint32_t>(definition_.scopes_size() - 1);
  }
  v1::Step& Add(uint32_t scope, const std::string& name, std::vector<v1::Input> inputs = {}) {
    v1::Step* step = definition_.mutable_scopes(static_cast<int>(scope))->add_steps();
    step->set_name(name);
    for (v1::Input& input : inputs) *step->add_inputs() = std::move(input);
    return *step;
  }
  void Result(uint32_t scope, v1::Input input) {
    *definition_.mutable_scopes(static_cast<int>(scope))->mutable_result() = std::move(input);
  }
  std::string Run(std::vector<v1::Payload> inputs = {}) {
    definition_.set_name("graph");
    definition_.set_format(1);
    // What the interpreter is asked is what the engine would take.
    const auto graph = engine::Graph::Compile(definition_, "hash");
    EXPECT_TRUE(graph.ok()) << graph.status();
    return TextOf(Interpret(definition_, inputs, &told_));
  }

  v1::Definition definition_;
  Told told_;
};

TEST_F(Reference, AChainPassesValuesOn) {
  Scope(1);
  Add(0, "a", {FromParameter(0)}).mutable_task()->set_task("t");
  Add(0, "b", {FromStep(0)}).mutable_task()->set_task("t");
  Result(0, FromStep(1));
  EXPECT_EQ(Run({Json("7")}), "completed with 7");
}

TEST_F(Reference, ASkippedInputSkipsUnlessItIsOptional) {
  Scope(0);
  Add(0, "a").mutable_skip();
  Add(0, "b", {FromStep(0)}).mutable_task()->set_task("t");
  v1::Input optional = FromStep(0);
  optional.set_optional(true);
  Add(0, "c", {optional, Literal("1")}).mutable_join();
  Result(0, FromStep(2));
  EXPECT_EQ(Run(), "completed with list(1)");
  EXPECT_TRUE(told_.ran.empty());
}

TEST_F(Reference, AFailureInOneOfTwoBranchesIsEitherOfThem) {
  Scope(0);
  Add(0, "a").mutable_task()->set_task("t");
  Add(0, "b").mutable_task()->set_task("t");
  Result(0, FromStep(0));
  told_.endings["a"] = Fails("one");
  told_.endings["b"] = Fails("two");
  EXPECT_EQ(Run(), "failed with one from test:  or two from test: ");
}

TEST_F(Reference, WhatFollowsAFailureDoesNotRun) {
  Scope(0);
  Add(0, "a").mutable_task()->set_task("t");
  Add(0, "b", {FromStep(0)}).mutable_task()->set_task("t");
  Result(0, FromStep(1));
  told_.endings["a"] = Fails("one");
  EXPECT_EQ(Run(), "failed with one from test: ");
  EXPECT_FALSE(told_.ran.contains("b"));
}

TEST_F(Reference, ACatchClauseTakesItsTypesOnly) {
  Scope(0);
  v1::Step& step = Add(0, "a");
  step.mutable_task()->set_task("t");
  v1::CatchClause* clause = step.add_catches();
  clause->add_types("one");
  clause->set_body(1);
  Result(0, FromStep(0));
  const uint32_t body = Scope(1);
  v1::Input type = FromParameter(0);
  type.set_pointer("/type");
  Result(body, type);
  told_.endings["a"] = Fails("one");
  EXPECT_EQ(Run(), "completed with \"one\"");
  told_.endings["a"] = Fails("two");
  EXPECT_EQ(Run(), "failed with two from test: ");
}

TEST_F(Reference, AMapLeavesSkippedItemsOutAndKeepsTheOrder) {
  Scope(0);
  v1::Step& map = Add(0, "m", {Literal("[1,2,3]")});
  map.mutable_map()->set_body(1);
  Result(0, FromStep(0));
  Scope(1);
  Add(1, "w", {FromParameter(0)}).mutable_switch_();
  v1::SwitchStep* spec = definition_.mutable_scopes(1)->mutable_steps(0)->mutable_switch_();
  spec->add_cases()->set_body(2);
  *spec->mutable_cases(0)->mutable_match() = Json("2");
  spec->set_default_body(3);
  Result(1, FromStep(0));
  Scope(0);
  Add(2, "none").mutable_skip();
  Result(2, FromStep(0));
  Scope(0);
  Result(3, Literal("true"));
  EXPECT_EQ(Run(), "completed with list(true, true)");
}

TEST_F(Reference, ALoopCarriesItsStateUntilItIsDone) {
  Scope(0);
  v1::Step& loop = Add(0, "l", {Literal("0")});
  loop.mutable_loop()->set_body(1);
  loop.mutable_loop()->set_turns(3);
  Result(0, FromStep(0));
  Scope(1);
  Add(1, "j", {FromParameter(0)}).mutable_join();
  Result(1, FromStep(0));
  EXPECT_EQ(Run(), "completed with list(list(list(0)))");
  *definition_.mutable_scopes(0)->mutable_steps(0)->mutable_loop()->mutable_done() =
      Literal("true");
  EXPECT_EQ(Run(), "completed with list(0)");
}

TEST_F(Reference, AParkedTaskHoldsItsScopeButNotAFailureBesideIt) {
  Scope(0);
  v1::Step& step = Add(0, "a");
  step.mutable_task()->set_task("t");
  step.set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  Result(0, FromStep(0));
  told_.endings["a"] = Fails("one");
  EXPECT_EQ(Run(), "not to end by itself");
  Add(0, "b").mutable_task()->set_task("t");
  told_.endings["b"] = Fails("two");
  EXPECT_EQ(Run(), "failed with two from test: ");
}

TEST_F(Reference, ABlockBeginsWithoutItsCaptures) {
  Scope(0);
  v1::Step& parked = Add(0, "a");
  parked.mutable_task()->set_task("t");
  parked.set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  Add(0, "b", {FromStep(0)}).mutable_block()->set_body(1);
  Result(0, Literal("1"));
  Scope(1);
  Add(1, "free").mutable_task()->set_task("t");
  Add(1, "bound", {FromParameter(0)}).mutable_task()->set_task("t");
  told_.endings["a"] = Fails("one");
  EXPECT_EQ(Run(), "not to end by itself");
  EXPECT_TRUE(told_.ran.contains("b.free"));
  EXPECT_FALSE(told_.ran.contains("b.bound"));
}

TEST_F(Reference, APointerThatLeadsNowhereIsAFailure) {
  Scope(0);
  v1::Input input = Literal("{\"a\":1}");
  input.set_pointer("/b");
  Add(0, "j", {input}).mutable_join();
  Result(0, FromStep(0));
  EXPECT_EQ(Run(), "failed with flux.bad_projection of the coordinator");
}

TEST_F(Reference, AnEventStepComesToWhatCame) {
  Scope(0);
  Add(0, "w").mutable_wait_event()->set_event("e");
  Result(0, FromStep(0));
  EXPECT_EQ(Run(), "not to end by itself");
  told_.endings["w"] = Ending::Value(Datum::Of(Json("7")));
  EXPECT_EQ(Run(), "completed with 7");
}

TEST_F(Reference, AnOperatorsWordIsTheStepsEnd) {
  Scope(0);
  Add(0, "a").mutable_task()->set_task("t");
  Add(0, "b", {FromStep(0)}).mutable_task()->set_task("t");
  Result(0, FromStep(1));
  told_.endings["a"] = Fails("one");
  told_.decreed["a"] = Ending::Value(Datum::Of(Json("9")));
  EXPECT_EQ(Run(), "completed with 9");
  told_.decreed["a"] = Ending::Skipped();
  EXPECT_EQ(Run(), "skipped");
}

TEST_F(Reference, AnEarlyJoinHoldsWhatHadCompletedByThen) {
  Scope(0);
  for (const char* name : {"a", "b", "c"}) Add(0, name).mutable_task()->set_task("t");
  Add(0, "j", {FromStep(0), FromStep(1), FromStep(2)}).mutable_join()->set_first(2);
  Result(0, FromStep(3));
  told_.completed = {{"c", 1}, {"a", 2}, {"j", 3}, {"b", 4}};
  for (const char* name : {"a", "b", "c"}) {
    told_.endings[name] = Ending::Value(Datum::Of(Json(std::string("\"") + name + "\"")));
  }
  EXPECT_EQ(Run(), "completed with list(\"a\", \"c\")");
}

TEST_F(Reference, AnEarlyJoinHoldsNothingForWhatWasSkippedByThen) {
  Scope(0);
  Add(0, "a").mutable_skip();
  v1::Input skipped = FromStep(0);
  skipped.set_optional(true);
  Add(0, "b", {skipped}).mutable_block()->set_body(1);
  Result(0, FromStep(1));
  Scope(1);
  Add(1, "j", {FromParameter(0), Literal("1")}).mutable_join()->set_first(1);
  Result(1, FromStep(0));
  told_.skipped = {{"a", 1}};
  told_.completed = {{"b.j", 2}};
  EXPECT_EQ(Run(), "completed with list(nothing, 1)");
  told_.skipped = {{"a", 3}};
  EXPECT_EQ(Run(), "completed with list(1)");
}

TEST_F(Reference, AMapOverPagesAsksUntilThereIsNoNext) {
  Scope(0);
  v1::Step& map = Add(0, "m", {Literal("0")});
  map.mutable_map()->set_body(1);
  map.mutable_map()->set_page_body(2);
  Result(0, FromStep(0));
  Scope(1);
  Result(1, FromParameter(0));
  Scope(1);
  Result(2, Literal("{\"items\":[1,2]}"));
  EXPECT_EQ(Run(), "completed with list(1, 2)");
}

TEST_F(Reference, AToleratedItemIsLeftOut) {
  Scope(0);
  v1::Step& map = Add(0, "m", {Literal("[1,2]")});
  map.mutable_map()->set_body(1);
  map.mutable_map()->set_tolerated_failures(1);
  Result(0, FromStep(0));
  Scope(1);
  Result(1, FromParameter(0));
  told_.tolerated = {"m[0]"};
  EXPECT_EQ(Run(), "completed with list(2)");
}

TEST_F(Reference, AContinuationTakesItsStepsPlace) {
  Scope(0);
  Add(0, "a").mutable_task()->set_task("t");
  Result(0, FromStep(0));
  v1::Definition fragment;
  v1::Step* step = fragment.add_scopes()->add_steps();
  step->set_name("inner");
  step->mutable_task()->set_task("t");
  fragment.mutable_scopes(0)->mutable_result()->set_step(0);
  told_.fragments["a"] = fragment;
  EXPECT_EQ(Run(), "completed with 1");
  EXPECT_TRUE(told_.ran.contains("a.inner"));
}

TEST_F(Reference, FragmentsThatTookEachOthersPlaceAreToldApart) {
  Scope(0);
  Add(0, "a").mutable_task()->set_task("t");
  Result(0, FromStep(0));
  v1::Definition fragment;
  v1::Step* step = fragment.add_scopes()->add_steps();
  step->set_name("again");
  step->mutable_task()->set_task("t");
  fragment.mutable_scopes(0)->mutable_result()->set_step(0);
  told_.fragments["a"] = fragment;
  told_.fragment_of["a~0.again"] = fragment;
  told_.places = {{"a", "a~0."}, {"a~0.again", "a."}};
  EXPECT_EQ(Run(), "completed with 1");
  EXPECT_TRUE(told_.ran.contains("a~0.again"));
  EXPECT_TRUE(told_.ran.contains("a.again"));
}

// ---- paths ----

v1::HistoryEvent Event(uint64_t ordinal, const char* type, const char* step,
                       const char* detail = "") {
  v1::HistoryEvent event;
  event.set_ordinal(ordinal);
  event.set_type(type);
  event.set_step(step);
  event.set_detail(detail);
  return event;
}

TEST(Fates, TellFragmentsThatTookEachOthersPlaceApart) {
  EXPECT_EQ(RealPath("a~0.b[3].c~12.d"), "a.b[3].c.d");
  EXPECT_EQ(RealPath("a.b~1"), "a.b");
  EXPECT_EQ(RealPath("a[1].b"), "a[1].b");
  std::vector<v1::HistoryEvent> events = {
      Event(1, "step.continued", "a", "as F, 2 steps"),
      Event(2, "step.completed", "a.x"),
      Event(3, "step.continued", "a.y", "as F, 2 steps, in place of F"),
      Event(4, "step.completed", "a.x"),
      Event(5, "step.continued", "a.y", "as F, 2 steps, in place of F"),
      Event(6, "step.completed", "a.x"),
      Event(7, "step.completed", "a.y"),
      Event(8, "step.completed", "a"),
  };
  const Program program;
  const Fates fates(events, program);
  EXPECT_EQ(fates.fault(), "");
  EXPECT_EQ(fates.EarlierFragments("a"), 2u);
  EXPECT_TRUE(fates.GaveWay("a~0.y"));
  EXPECT_TRUE(fates.GaveWay("a~1.y"));
  EXPECT_FALSE(fates.GaveWay("a"));
  EXPECT_EQ(fates.Of("a~0.x").completed, &events[1]);
  EXPECT_EQ(fates.Of("a~1.x").completed, &events[3]);
  EXPECT_EQ(fates.Of("a.x").completed, &events[5]);
  events.push_back(Event(9, "step.retried", "a"));
  EXPECT_EQ(Fates(events, program).EarlierFragments("a"), 0u) << "all below it is taken back";
}

// ---- the graphs ----

TEST(Graphs, AreValidAndReachEveryKindOfStep) {
  std::map<v1::Step::KindCase, int> kinds;
  int catches = 0, undoes = 0, pages = 0, early = 0, fragments = 0, recurring = 0;
  int labelled = 0, keyed = 0, shared_ids = 0;
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    Dice dice(seed);
    Dice child_dice(seed);
    const Program child = MakeProgram("child", {}, child_dice);
    const Program program = MakeProgram("graph",
                                        {.parks = true,
                                         .deadlines = true,
                                         .events = true,
                                         .pages = true,
                                         .continues = true,
                                         .undoes = true,
                                         .early = true,
                                         .children = {&child},
                                         .event_targets = {"other"}},
                                        dice);
    const auto graph = engine::Graph::Compile(program.definition, "hash");
    ASSERT_TRUE(graph.ok()) << "seed " << seed << ": " << graph.status();
    ASSERT_EQ(program.definition.scopes(0).parameters(), program.inputs.size());
    for (const auto& [name, script] : program.scripts) {
      labelled += script.labels;
      if (script.fragment == nullptr) continue;
      ++fragments;
      for (const v1::Scope& scope : script.fragment->scopes()) {
        for (const v1::Step& step : scope.steps()) recurring += step.name() == name;
      }
      const auto piece = engine::Graph::CompileFragment(*script.fragment);
      ASSERT_TRUE(piece.ok()) << "seed " << seed << ": " << piece.status();
    }
    for (const v1::Scope& scope : program.definition.scopes()) {
      for (const v1::Step& step : scope.steps()) {
        ++kinds[step.kind_case()];
        catches += step.catches_size();
        undoes += step.has_undo();
        pages += step.map().has_page_body();
        early += step.join().first() > 0;
        keyed += !step.task().limit_key_pointer().empty();
        shared_ids += step.child().id_input() || !step.child().workflow_id().empty();
        if (step.has_task()) {
          EXPECT_TRUE(program.scripts.contains(step.name()));
        }
      }
    }
  }
  for (const auto kind :
       {v1::Step::kTask, v1::Step::kSleep, v1::Step::kMap, v1::Step::kSwitch, v1::Step::kLoop,
        v1::Step::kBlock, v1::Step::kJoin, v1::Step::kFail, v1::Step::kSkip, v1::Step::kWaitEvent,
        v1::Step::kChild, v1::Step::kEmit}) {
    EXPECT_GT(kinds[kind], 10) << kind;
  }
  EXPECT_GT(catches, 100);
  EXPECT_GT(undoes, 100);
  EXPECT_GT(pages, 100);
  EXPECT_GT(early, 20);
  EXPECT_GT(fragments, 100);
  EXPECT_GT(recurring, 100);
  EXPECT_GT(labelled, 100);
  EXPECT_GT(keyed, 100);
  EXPECT_GT(shared_ids, 20);
}

TEST(Graphs, AreTheSameForTheSameDice) {
  Dice first(7), second(7);
  EXPECT_EQ(MakeProgram("graph", {}, first).definition.SerializeAsString(),
            MakeProgram("graph", {}, second).definition.SerializeAsString());
}

}  // namespace
}  // namespace flux::sim
