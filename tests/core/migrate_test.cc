// Moving a running execution to another version of its workflow: the table of migrate.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/core/harness.h"

namespace flux::engine::testing {
namespace {

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
