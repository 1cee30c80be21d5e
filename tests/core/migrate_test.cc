// Moving a running execution to another version of its workflow: the table of migrate.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

const auto kAccepted = Verdict::kAccepted;

// Step "map" over "list", then "end"; a block with an open body; "done" can be undone.
DefinitionBuilder First() {
  DefinitionBuilder b("moves", 1);
  b.Undo(0, b.Task(0, "done", {FromParameter(0)}), "done");
  const uint32_t item = b.Scope(2);
  b.Result(item, FromStep(b.Task(item, "work", {FromParameter(0), FromParameter(1)})));
  b.Map(0, "map", item, {Literal("[1,2,3]"), Literal("\"captured\"")}, 2);
  const uint32_t body = b.Scope(1);
  b.Result(body, FromStep(b.Task(body, "inner", {FromParameter(0)})));
  b.Block(0, "block", body, {FromStep(0)});
  b.Task(0, "end", {FromStep(1), FromStep(2)});
  b.Result(0, FromStep(3));
  return b;
}

std::shared_ptr<const Graph> Second(const DefinitionBuilder& b) {
  v1::Definition definition = b.definition();
  definition.set_version("2");
  auto graph = Graph::Compile(definition, "hash-of-the-second-version-------");
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *graph;
}

std::vector<std::string> InputsOf(const Driver& run, std::string_view path) {
  v1::Task task;
  EXPECT_TRUE(FillTask(run.live, run.Key(path), 1 << 20, &task).ok());
  std::vector<std::string> inputs;
  for (const v1::TaskInput& input : task.inputs()) inputs.push_back(input.payload().data());
  return inputs;
}

struct Change {
  const char* name;
  std::function<void(DefinitionBuilder&)> change;
  const char* refused;  // "": it moves
};

// "done" is completed, items 0 and 1 of the map and the block's body are open.
TEST(Migrate, GoesWhereWhatHasBegunFits) {
  const Change kChanges[] = {
      {"StepsBehind", [](auto& b) { b.Task(0, "more", {FromStep(3)}); }, ""},
      {"PendingStepDoesOtherWork",
       [](auto& b) { b.step(0, 3).mutable_task()->set_task("do.other"); }, ""},
      {"PendingStepIsOfAnotherKind",
       [](auto& b) {
         b.step(0, 3).clear_task();
         b.step(0, 3).mutable_join();
       },
       ""},
      {"SettledStepDoesOtherWork",
       [](auto& b) { b.step(0, 0).mutable_task()->set_task("do.other"); }, ""},
      {"RunningTaskRetriesOtherwise",
       [](auto& b) { b.step(1, 0).mutable_task()->mutable_retry()->set_max_attempts(9); }, ""},
      {"BodyHasMoreSteps", [](auto& b) { b.Task(1, "more", {FromStep(0)}); }, ""},
      {"BegunStepHasAnotherName", [](auto& b) { b.step(0, 1).set_name("other"); },
       "step \"map\" has begun, and is missing or at another place in the new version"},
      {"SettledStepIsOfAnotherKind",
       [](auto& b) {
         b.step(0, 0).clear_undo();
         b.step(0, 0).clear_task();
         b.step(0, 0).mutable_join();
       },
       "step \"done\" has begun as task, in the new version it is join"},
      {"RunningTaskDoesOtherWork",
       [](auto& b) { b.step(1, 0).mutable_task()->set_task("do.other"); },
       "step \"map[0].work\" is under way, and does something else in the new version"},
      {"RunningMapReadsOtherInputs",
       [](auto& b) { *b.step(0, 1).mutable_inputs(1) = Literal("\"other\""); },
       "step \"map\" is under way, and does something else"},
      {"WhatCanBeUndoneCannotAnyMore", [](auto& b) { b.step(0, 0).clear_undo(); },
       "step \"done\" was done and can be undone, which it cannot in the new version"},
  };
  for (const Change& c : kChanges) {
    SCOPED_TRACE(c.name);
    Driver run(First().Compile(), {Json("0")});
    run.Complete("done", "5");
    DefinitionBuilder b = First();
    c.change(b);
    const std::string refused = run.Try(Migrate{Second(b), "ann", "a new version"});
    if (c.refused[0] != '\0') {
      EXPECT_THAT(refused, HasSubstr("cannot move to version \"2\": "));
      EXPECT_THAT(refused, HasSubstr(c.refused));
      EXPECT_EQ(Summarize(run.live).version(), "1");
      continue;
    }
    EXPECT_EQ(refused, "");
    EXPECT_EQ(Summarize(run.live).version(), "2");
    // What is running goes on under its tokens.
    EXPECT_THAT(run.Ready(), UnorderedElementsAre("map[0].work", "map[1].work", "block.inner"));
    EXPECT_EQ(Offer(run.live, run.Key("map[0].work")).delivery, 1u);
    run.Reload();
    for (int i = 0; i < 20 && !run.live.closed(); ++i) {
      ASSERT_FALSE(run.Ready().empty());
      EXPECT_EQ(run.Complete(run.Ready()[0], "1"), kAccepted);
    }
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  }
}

// A state in which something is under way, and what becomes of it.
struct Scene {
  const char* name;
  DefinitionBuilder (*before)();
  void (*drive)(Driver&);
  std::vector<Change> changes;
  const char* input = "1";  // of those that take one
};

// "m" over pages: scope 1 makes a page, scope 2 is an item's.
DefinitionBuilder Paged() {
  DefinitionBuilder b("paged");
  const uint32_t page = b.Scope(2);
  b.Result(page, FromStep(b.Task(page, "fetch", {FromParameter(0), FromParameter(1)})));
  const uint32_t item = b.Scope(2);
  b.Result(item, FromStep(b.Task(item, "work", {FromParameter(0)})));
  const uint32_t m = b.Pages(0, "m", page, item, {Literal("[0]"), Literal("1")}, 1);
  b.Result(0, FromStep(m));
  return b;
}

// The same over a list: the page's scope becomes the body of a step behind.
void OverAList(DefinitionBuilder& b) {
  b.step(0, 0).mutable_map()->clear_page_body();
  b.Block(0, "rest", 1, {Literal("0"), Literal("0")});
}

DefinitionBuilder Listed() {
  DefinitionBuilder b = Paged();
  OverAList(b);
  return b;
}

void OverPages(DefinitionBuilder& b) {
  b.definition().mutable_scopes(0)->mutable_steps()->RemoveLast();
  b.step(0, 0).mutable_map()->set_page_body(1);
}

// "m" over four items, of which one may fail.
DefinitionBuilder Tolerant() {
  DefinitionBuilder b("tolerant");
  const uint32_t item = b.Scope(1);
  b.Result(item, FromStep(b.Task(item, "work", {FromParameter(0)})));
  b.Result(0, FromStep(b.Map(0, "m", item, {Literal("[1,2,3,4]")})));
  b.step(0, 0).mutable_map()->set_tolerated_failures(1);
  return b;
}

// A step behind all there are, which changes nothing about them.
template <uint32_t kScope>
void StepBehind(DefinitionBuilder& b) {
  b.Task(kScope, "behind");
}

// "s" branches on input 0; its bodies wait for "late", so that nothing of them has begun.
DefinitionBuilder Switched() {
  DefinitionBuilder b("switched", 1);
  b.Task(0, "late");
  std::vector<uint32_t> bodies;
  for (const char* name : {"a", "b", "other"}) {
    bodies.push_back(b.Scope(1));
    b.Result(bodies.back(), FromStep(b.Task(bodies.back(), name, {FromParameter(0)})));
  }
  const uint32_t s = b.Switch(0, "s", {FromParameter(0), FromStep(0)},
                              {{"1", bodies[0]}, {"2", bodies[1]}}, bodies[2]);
  b.Result(0, FromStep(s));
  return b;
}

// One more case, with a body of its own.
void CaseBehind(DefinitionBuilder& b) {
  const uint32_t body = b.Scope(1);
  b.Result(body, FromStep(b.Task(body, "c", {FromParameter(0)})));
  v1::SwitchStep::Case* one = b.step(0, 1).mutable_switch_()->add_cases();
  *one->mutable_match() = Json("3");
  one->set_body(body);
}

// "t" fails with "io", which its first clause takes: that body waits for "late", the second of its
// values.
DefinitionBuilder Caught() {
  DefinitionBuilder b("caught", 1);
  b.Task(0, "late");
  b.Task(0, "later");
  const uint32_t t = b.Task(0, "t");
  b.step(0, t).mutable_task()->mutable_retry()->set_max_attempts(1);
  const uint32_t body = b.Scope(3);
  b.Result(body, FromStep(b.Task(body, "mend", {FromParameter(1), FromParameter(2)})));
  b.Catch(0, t, {"io"}, body, {FromParameter(0), FromStep(0)});
  b.Result(0, FromStep(t));
  return b;
}

// "l" goes round until "turn" says true.
DefinitionBuilder Looped() {
  DefinitionBuilder b("looped");
  const uint32_t body = b.Scope(1);
  b.Result(body, FromStep(b.Task(body, "turn", {FromParameter(0)})));
  b.Result(0, FromStep(b.Loop(0, "l", body, {Literal("0")}, 9, FromStep(0, "/done"))));
  return b;
}

DefinitionBuilder Continued() {
  DefinitionBuilder b("continued");
  b.Result(0, FromStep(b.Task(0, "t")));
  return b;
}

DefinitionBuilder AwaitsGo(const std::string& type) {
  DefinitionBuilder f("awaits-go");
  f.Result(0, FromStep(f.Wait(0, "w", "go")));
  f.step(0, 0).mutable_wait_event()->set_type(type);
  return f;
}

// "j" takes the first two of "a" to "d"; "end" reads it.
DefinitionBuilder Joined() {
  DefinitionBuilder b("joined");
  for (const char* name : {"a", "b", "c", "d"}) b.Task(0, name);
  for (uint32_t i = 0; i < 4; ++i)
    b.step(0, i).mutable_task()->mutable_retry()->set_max_attempts(1);
  b.Early(0, "j", {FromStep(0), FromStep(1), FromStep(2), FromStep(3)}, 2, 1);
  b.Result(0, FromStep(b.Task(0, "end", {FromStep(4)})));
  return b;
}

// "w" awaits "go" as a bool, "w2" likewise, behind "hold".
DefinitionBuilder Awaiting() {
  DefinitionBuilder b("awaiting");
  b.Wait(0, "w", "go", 100'000, "1");
  b.Task(0, "hold");
  b.Wait(0, "w2", "stop");
  b.After(0, 2, 1);
  b.step(0, 0).mutable_wait_event()->set_type("bool");
  b.step(0, 2).mutable_wait_event()->set_type("bool");
  b.Result(0, FromStep(b.Join(0, "end", {FromStep(0), FromStep(2)})));
  return b;
}

// Messages to others, and time.
DefinitionBuilder Sending() {
  DefinitionBuilder b("sending");
  b.Child(0, "child", "other", {Literal("1")});
  b.Emit(0, "emit", "go", Literal("1"), Literal("\"them\""));
  b.Sleep(0, "sleep", 1'000);
  b.Result(0, FromStep(b.Join(0, "end", {FromStep(0), FromStep(1), FromStep(2)})));
  return b;
}

void Nothing(DefinitionBuilder&) {}
void NotDriven(Driver&) {}
void FailT(Driver& run) { run.FailTask("t", "io"); }

std::vector<Scene> Scenes() {
  return {
      {"OpenPage",
       Paged,
       NotDriven,
       {{"Nothing", Nothing, ""},
        {"StepBehindInThePage", StepBehind<1>, ""},
        {"OverAList", OverAList,
         "step \"m\" is under way over pages, in the new version over a list"},
        {"AnotherCursor", [](auto& b) { *b.step(0, 0).mutable_inputs(0) = Literal("[1]"); },
         "step \"m\" is under way, and does something else"},
        {"OtherWork", [](auto& b) { b.step(1, 0).mutable_task()->set_task("do.other"); },
         "step \"m[page].fetch\" is under way, and does something else"}}},
      {"ItemsOpenAndNoPageFetched",
       Paged,
       [](Driver& run) { run.Complete("m[page].fetch", R"({"items":[1,2,3],"next":[2]})"); },
       {{"Nothing", Nothing, ""},
        {"MoreAtATime", [](auto& b) { b.step(0, 0).mutable_map()->set_max_parallel(3); }, ""},
        {"OverAList", OverAList,
         "step \"m\" is under way over pages, in the new version over a list"}}},
      {"ItemsOfAListOpen",
       Listed,
       NotDriven,
       {{"Nothing", Nothing, ""},
        {"OverPages", OverPages,
         "step \"m\" is under way over a list, in the new version over pages"}}},
      {"ItemFailed",
       Tolerant,
       [](Driver& run) { run.FailTask("m[0].work", "io", true); },
       {{"Nothing", Nothing, ""},
        {"AShareIsTolerated",
         [](auto& b) {
           b.step(0, 0).mutable_map()->set_tolerated_failures(0);
           b.step(0, 0).mutable_map()->set_tolerated_failure_permille(500);
         },
         ""},
        {"NoneIsTolerated", [](auto& b) { b.step(0, 0).mutable_map()->set_tolerated_failures(0); },
         "step \"m\" has 1 item that failed, in the new version 0 are tolerated"}}},
      {"CaseOpen",
       Switched,
       NotDriven,
       {{"Nothing", Nothing, ""},
        {"CaseBehind", CaseBehind, ""},
        {"StepBehindInTheBody", StepBehind<1>, ""},
        {"OfAnotherValue",
         [](auto& b) {
           *b.step(0, 1).mutable_switch_()->mutable_cases(0)->mutable_match() = Json("7");
         },
         "step \"s\" has the body of a case open that stands for another value"},
        {"CasesSwapped",
         [](auto& b) { b.step(0, 1).mutable_switch_()->mutable_cases()->SwapElements(0, 1); },
         "step \"s\" has the body of a case open that stands for another value"},
        {"AnotherCondition", [](auto& b) { *b.step(0, 1).mutable_inputs(0) = Literal("1"); },
         "step \"s\" is under way, and does something else"}}},
      {"DefaultOpen",
       Switched,
       NotDriven,
       {{"Nothing", Nothing, ""},
        {"OtherCaseOfAnotherValue",
         [](auto& b) {
           *b.step(0, 1).mutable_switch_()->mutable_cases(1)->mutable_match() = Json("7");
         },
         ""},
        {"CaseBehind", CaseBehind,
         "step \"s\" has the body of a case open that stands for another value"}},
       "5"},
      {"ClauseOpen",
       Caught,
       FailT,
       {{"Nothing", Nothing, ""},
        {"TakesMore", [](auto& b) { b.step(0, 2).mutable_catches(0)->add_types("net"); }, ""},
        {"GivenAnotherOfWhatItHas",
         [](auto& b) { *b.step(0, 2).mutable_catches(0)->mutable_captures(0) = Literal("5"); }, ""},
        {"TakesAnother", [](auto& b) { b.step(0, 2).mutable_catches(0)->set_types(0, "net"); },
         "step \"t.catch\" has the body of a catch clause open that does not take the failure it "
         "runs "
         "for, io, in the new version"},
        {"AnotherTakesItFirst",
         [](auto& b) {
           const uint32_t body = b.Scope(1);
           b.Result(body, FromParameter(0));
           b.Catch(0, 2, {"io"}, body);
           b.step(0, 2).mutable_catches()->SwapElements(0, 1);
         },
         "step \"t.catch\" has an open body of 3 parameters, in the new version of 1"},
        {"WaitsForAnother",
         [](auto& b) { *b.step(0, 2).mutable_catches(0)->mutable_captures(1) = FromStep(1); },
         "step \"t.catch\" has a body open that waits for a value, and for another one"},
        {"NoClause",
         [](auto& b) {
           b.step(0, 2).clear_catches();
           b.Block(0, "rest", 1, {Literal("0"), Literal("0"), Literal("0")});
         },
         "step \"t.catch\" has an open body that the new version lacks"}}},
      {"TurnOpen",
       Looped,
       [](Driver& run) {
         for (int i = 0; i < 3; ++i) {
           run.Complete(absl::StrCat("l[", i, "].turn"), R"({"done":false})");
         }
       },
       {{"Nothing", Nothing, ""},
        {"MoreTurns", [](auto& b) { b.step(0, 0).mutable_loop()->set_turns(20); }, ""},
        {"ThisTurnIsTheLast",
         [](auto& b) {
           b.step(0, 0).mutable_loop()->set_turns(4);
           b.step(0, 0).mutable_loop()->clear_done();
         },
         ""},
        {"NoSuchTurn", [](auto& b) { b.step(0, 0).mutable_loop()->set_turns(3); },
         "step \"l\" is in turn 3 (the first is 0), in the new version it has only 3 turns"},
        {"AnotherState", [](auto& b) { *b.step(0, 0).mutable_inputs(0) = Literal("9"); },
         "step \"l\" is under way, and does something else"}}},
      {"GoesOnAsAFragment",
       Continued,
       [](Driver& run) { run.Continue("t", AwaitsGo("bool").definition()); },
       {{"Nothing", Nothing, ""},
        {"RetriesOtherwise",
         [](auto& b) { b.step(0, 0).mutable_task()->mutable_retry()->set_max_attempts(9); }, ""},
        {"StepBehind", StepBehind<0>, ""},
        {"OtherWork", [](auto& b) { b.step(0, 0).mutable_task()->set_task("do.other"); },
         "step \"t\" is under way, and does something else"},
        {"AwaitsItsEventAsAnotherType",
         [](auto& b) {
           b.Wait(0, "go", "go");
           b.step(0, 1).mutable_wait_event()->set_type("int");
         },
         "event \"go\" is awaited as int, but a fragment, awaits-go, awaits it as bool"}}},
      {"EarlyJoinDone",
       Joined,
       [](Driver& run) {
         run.Complete("a", "1");
         run.Complete("b", "1");
         EXPECT_EQ(run.StateOf("c"), v1::STEP_STATE_CANCELLED);
       },
       {{"Nothing", Nothing, ""},
        {"ReadsWhatIsDone", [](auto& b) { b.Task(0, "more", {FromStep(0)}); }, ""},
        {"ReadsWhatWasCancelled", [](auto& b) { b.Task(0, "more", {FromStep(2)}); },
         "step \"c\" was cancelled as nobody needed it, and is read in the new version"},
        {"IsWhatWasCancelled", [](auto& b) { b.Result(0, FromStep(3)); },
         "step \"d\" was cancelled as nobody needed it, and is read in the new version"}}},
      {"EarlyJoinTakenBack",
       Joined,
       [](Driver& run) {
         run.Complete("a", "1");
         run.Complete("b", "1");
         EXPECT_EQ(run.Rewind("b"), "");
       },
       {{"Nothing", Nothing, ""}}},
      {"FailureTolerated",
       Joined,
       [](Driver& run) {
         run.FailTask("a", "io");
         run.Complete("b", "1");
         EXPECT_EQ(run.StateOf("j"), v1::STEP_STATE_PENDING);
       },
       {{"Nothing", Nothing, ""},
        {"MoreAreTolerated",
         [](auto& b) { b.step(0, 4).mutable_join()->set_tolerated_failures(3); }, ""},
        {"OneIsEnough", [](auto& b) { b.step(0, 4).mutable_join()->set_first(1); }, ""},
        {"NoneIsTolerated", [](auto& b) { b.step(0, 4).mutable_join()->set_tolerated_failures(0); },
         "step \"a\" failed, which was tolerated; in the new version it is not"},
        {"NobodyReadsIt",
         [](auto& b) {
           b.step(0, 4).clear_join();
           b.step(0, 4).clear_inputs();
           b.step(0, 4).mutable_task()->set_task("do.j");
         },
         "step \"a\" failed, which was tolerated; in the new version it is not"},
        {"AnotherReadsIt", [](auto& b) { b.Task(0, "more", {FromStep(0)}); },
         "step \"a\" failed, which was tolerated; in the new version it is not"}}},
      {"WaitBegun",
       Awaiting,
       [](Driver& run) { ASSERT_EQ(*run.Send("stop", "true"), kAccepted); },
       {{"Nothing", Nothing, ""},
        {"AnotherReader", [](auto& b) { b.Wait(0, "w3", "go"); }, ""},
        {"AnotherEvent", [](auto& b) { b.step(0, 0).mutable_wait_event()->set_event("come"); },
         "step \"w\" is under way, and does something else"},
        {"AnotherType", [](auto& b) { b.step(0, 0).mutable_wait_event()->set_type("int"); },
         "step \"w\" is under way, and does something else"},
        {"AnotherDefault",
         [](auto& b) { *b.step(0, 0).mutable_wait_event()->mutable_default_value() = Json("2"); },
         "step \"w\" is under way, and does something else"},
        {"WhatCameIsOfAnotherType",
         [](auto& b) { b.step(0, 2).mutable_wait_event()->set_type("int"); },
         "event \"stop\" is awaited as int, but one that nobody has taken yet was sent as bool"}}},
      {"MessagesUnderWay",
       Sending,
       NotDriven,
       {{"Nothing", Nothing, ""},
        {"AnotherChild", [](auto& b) { b.step(0, 0).mutable_child()->set_workflow("third"); },
         "step \"child\" is under way, and does something else"},
        {"NotAwaited", [](auto& b) { b.step(0, 0).mutable_child()->set_detached(true); },
         "step \"child\" is under way, and does something else"},
        {"AnotherEvent", [](auto& b) { b.step(0, 1).mutable_emit()->set_event("come"); },
         "step \"emit\" is under way, and does something else"},
        {"AnotherSpan", [](auto& b) { b.step(0, 2).mutable_sleep()->set_duration_ms(5); },
         "step \"sleep\" is under way, and does something else"}}},
  };
}

// Does all that the execution waits for.
void Finish(Driver& run) {
  for (int i = 0; i < 40 && !run.live.closed(); ++i) {
    const std::vector<std::string> ready = run.Ready();
    if (!ready.empty()) {
      const bool page = ready[0].find("fetch") != std::string::npos;
      run.Complete(ready[0], page ? R"({"items":[1]})" : R"({"done":true})");
    } else if (!run.Outbox().empty() && run.Outbox()[0] == "EMIT") {
      run.Settle(run.Pending(v1::OUTBOX_KIND_EMIT).number);
    } else if (!run.Outbox().empty()) {
      run.ChildStarted(run.Pending(v1::OUTBOX_KIND_START_CHILD).number);
      run.ChildClosed("child", v1::EXECUTION_STATUS_COMPLETED, "1");
    } else {
      for (const char* event : {"go", "stop"}) run.Send(event, "true").IgnoreError();
      run.Advance(200'000);
    }
  }
}

TEST(Migrate, FitsWhatIsUnderWayOrIsRefused) {
  for (const Scene& scene : Scenes()) {
    for (const Change& c : scene.changes) {
      SCOPED_TRACE(absl::StrCat(scene.name, ": ", c.name));
      DefinitionBuilder b = scene.before();
      std::vector<v1::Payload> inputs;
      if (b.definition().scopes(0).parameters() == 1) inputs.push_back(Json(scene.input));
      Driver run(b.Compile(), std::move(inputs));
      scene.drive(run);
      const std::vector<std::string> ready = run.Ready();
      c.change(b);
      const std::string refused = run.Try(Migrate{Second(b), "ann", "a new version"});
      if (c.refused[0] != '\0') {
        EXPECT_THAT(refused, HasSubstr("cannot move to version \"2\": "));
        EXPECT_THAT(refused, HasSubstr(c.refused));
        EXPECT_EQ(Summarize(run.live).version(), "1");
        continue;
      }
      EXPECT_EQ(refused, "");
      EXPECT_EQ(Summarize(run.live).version(), "2");
      for (const std::string& path : ready) {
        if (run.StateOf(path) == v1::STEP_STATE_CANCELLED) continue;
        EXPECT_THAT(run.Ready(), Contains(path));
      }
      run.Reload();
      Finish(run);
      EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED) << run.ResultText();
    }
  }
}

// What was opened for its next page was the root scope, whose end closed the execution.
TEST(Migrate, AMapOverPagesEndsWithAllItsPages) {
  Driver run(Paged().Compile());
  run.Complete("m[page].fetch", R"({"items":[1,2,3],"next":[2]})");
  DefinitionBuilder b = Paged();
  OverAList(b);
  EXPECT_NE(run.Try(Migrate{Second(b), "ann", ""}), "");
  for (int item = 0; item < 3; ++item) run.Complete(absl::StrCat("m[", item, "].work"), "1");
  run.Complete("m[page].fetch", R"({"items":[4]})");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  run.Complete("m[3].work", "2");
  EXPECT_EQ(run.ResultText(), "[1,1,1,2]");
}

TEST(Migrate, IsRefusedOfAnotherWorkflowTheSameVersionOrOneThatClosed) {
  Driver run(First().Compile(), {Json("0")});
  EXPECT_THAT(run.Try(Migrate{First().Compile(), "ann", ""}),
              HasSubstr("has that version already"));
  DefinitionBuilder other = First();
  other.definition().set_name("other");
  EXPECT_THAT(run.Try(Migrate{Second(other), "ann", ""}),
              HasSubstr("is of workflow moves, not of other"));
  EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
  EXPECT_THAT(run.Try(Migrate{Second(First()), "ann", ""}),
              HasSubstr("is CANCELLED: only a running execution"));
}

TEST(Migrate, LiteralsOfTheOldVersionStayWhatTheyWere) {
  Driver run(First().Compile(), {Json("0")});
  // Another literal stands before those that the map holds.
  DefinitionBuilder b = First();
  const uint32_t handler = b.Scope(2);
  b.Result(handler, FromParameter(1));
  b.Catch(0, 0, {}, handler, {Literal("\"new\"")});
  EXPECT_EQ(run.Try(Migrate{Second(b), "ann", ""}), "");
  run.Reload();
  run.Complete("map[0].work", "1");
  EXPECT_THAT(InputsOf(run, "map[2].work"), ElementsAre("3", "\"captured\""));
  run.Reload();
  EXPECT_THAT(InputsOf(run, "map[2].work"), ElementsAre("3", "\"captured\""));
}

TEST(Migrate, ATaskThatRunsHasTheTimeLimitOfTheNewVersion) {
  const auto limited = [](int64_t limit_ms) {
    DefinitionBuilder b("limits");
    b.Result(0, FromStep(b.Task(0, "t")));
    b.step(0, 0).mutable_task()->mutable_timeouts()->set_schedule_to_close_ms(limit_ms);
    return b;
  };
  for (const bool backing_off : {false, true}) {
    Driver run(limited(10'000).Compile());
    if (backing_off) run.FailTask("t", "io");
    EXPECT_EQ(run.Try(Migrate{Second(limited(50'000)), "ann", ""}), "");
    run.Reload();
    run.Advance(20'000);
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
    run.Advance(30'000);
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  }
  Driver run(limited(10'000).Compile());
  EXPECT_EQ(run.Try(Migrate{Second(limited(0)), "ann", ""}), "");
  EXPECT_EQ(NextTimerMs(run.live), std::nullopt);
}

TEST(Migrate, WhatIsPendingIsOfANewGeneration) {
  Driver run(First().Compile(), {Json("0")});
  EXPECT_EQ(run.Try(Migrate{Second(First()), "ann", "why"}), "");
  EXPECT_EQ(run.live.state().FindStep({0, 3})->generation, 1u);
  EXPECT_EQ(run.live.state().FindStep({0, 1})->generation, 0u);
  const v1::HistoryEvent& told = run.story.back();
  EXPECT_EQ(told.type(), "execution.migrated");
  EXPECT_EQ(told.identity(), "ann");
  EXPECT_EQ(told.detail(), "to version \"2\": why");
}

}  // namespace
}  // namespace flux::engine::testing
