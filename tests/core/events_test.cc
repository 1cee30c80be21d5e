// Events and the steps that wait for them: every pair of the tables of event.cc, and what senders
// and operators are told.
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
using ::testing::Not;
using ::testing::UnorderedElementsAre;

const auto kAccepted = Verdict::kAccepted;

// "w" waits for event "go", task "next" reads it.
DefinitionBuilder OneWait(int64_t timeout_ms = 0, std::string_view default_json = "") {
  DefinitionBuilder b("one");
  const uint32_t w = b.Wait(0, "w", "go", timeout_ms, default_json);
  b.Result(0, FromStep(b.Task(0, "next", {FromStep(w)})));
  return b;
}

// A loop of `turns` turns, each of which takes an event "go" and hands it to task "work".
DefinitionBuilder Stream(uint64_t turns) {
  DefinitionBuilder b("stream");
  const uint32_t turn = b.Scope(1);
  const uint32_t w = b.Wait(turn, "w", "go");
  b.Result(turn, FromStep(b.Task(turn, "work", {FromStep(w)})));
  b.Result(0, FromStep(b.Loop(0, "l", turn, {Literal("0")}, turns)));
  return b;
}

// Data of the first input of a scheduled task.
size_t EventsKept(const Driver& run) { return run.live.state().events.size(); }

const v1::HistoryEvent* Told(const Driver& run, std::string_view type) {
  for (const v1::HistoryEvent& event : run.story) {
    if (event.type() == type) return &event;
  }
  return nullptr;
}

// ---- the step ----

TEST(WaitEvent, TakesItsEventWhetherItCameBeforeOrAfter) {
  for (const bool before : {true, false}) {
    DefinitionBuilder b("one");
    b.Task(0, "first");
    const uint32_t w = b.Wait(0, "w", "go");
    b.After(0, w, 0);
    b.Result(0, FromStep(b.Task(0, "next", {FromStep(w)})));
    Driver run(b.Compile());
    EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_PENDING);
    if (before) {
      EXPECT_EQ(*run.Send("go", "7"), kAccepted);
    }
    run.Complete("first", "0");
    if (!before) {
      EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_WAITING);
      EXPECT_EQ(run.ReasonOf("w"), "waits for event go");
      EXPECT_EQ(*run.Send("go", "7"), kAccepted);
    }
    EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_COMPLETED);
    EXPECT_EQ(InputOf(run, "next"), "7");
    run.Complete("next", "8");
    EXPECT_EQ(run.ResultText(), "8");
    EXPECT_THAT(run.StoryTypes(), Contains("event.received"));
  }
}

TEST(WaitEvent, TakesAPayloadThatLiesInABlob) {
  Driver run(OneWait().Compile());
  const std::string large(kBlobBytesMin + 1, '7');
  EXPECT_EQ(*run.Send("go", large), kAccepted);
  EXPECT_EQ(run.blobs.size(), 1u);
  EXPECT_LT(run.records.back().size(), 200u);
  run.Reload();
  EXPECT_EQ(InputOf(run, "next"), large);
}

struct Timeout {
  const char* name;
  const char* default_json;
  int64_t event_after_ms;  // < 0: none comes
  v1::ExecutionStatus status;
  const char* result;  // of the execution, or what "next" is given
};

TEST(WaitEvent, TimesOutToItsDefaultOrToAFailure) {
  const Timeout kTimeouts[] = {
      {"Default", "5", -1, v1::EXECUTION_STATUS_RUNNING, "5"},
      {"DefaultNotNeeded", "5", 1'999, v1::EXECUTION_STATUS_RUNNING, "1"},
      {"NoDefault", "", -1, v1::EXECUTION_STATUS_FAILED,
       "flux.timeout.event: event go did not come within 2s"},
      {"NoDefaultNotNeeded", "", 1'999, v1::EXECUTION_STATUS_RUNNING, "1"},
      {"EventAfterTheDefault", "5", 2'001, v1::EXECUTION_STATUS_RUNNING, "5"},
  };
  for (const Timeout& c : kTimeouts) {
    SCOPED_TRACE(c.name);
    Driver run(OneWait(2'000, c.default_json).Compile());
    EXPECT_EQ(NextTimerMs(run.live), run.now_ms + 2'000);
    EXPECT_THAT(run.ReasonOf("w"), HasSubstr("waits for event go until 1970-01-01T00:16:42.000Z"));
    run.Reload();
    if (c.event_after_ms >= 0) {
      run.Advance(c.event_after_ms);
      EXPECT_EQ(*run.Send("go", "1"), kAccepted);
    }
    run.Advance(5'000);
    EXPECT_EQ(NextTimerMs(run.live), std::nullopt);
    EXPECT_EQ(run.status(), c.status);
    if (run.live.closed()) {
      EXPECT_EQ(run.ResultText(), c.result);
    } else {
      EXPECT_EQ(InputOf(run, "next"), c.result);
    }
  }
}

TEST(WaitEvent, ATimeoutIsCaughtByItsType) {
  DefinitionBuilder b = OneWait(1'000);
  const uint32_t handler = b.Scope(1);
  b.Result(handler, Literal("\"nobody came\""));
  b.Catch(0, 0, {"flux.timeout.event"}, handler);
  Driver run(b.Compile());
  run.Advance(1'000);
  EXPECT_EQ(InputOf(run, "next"), "\"nobody came\"");
}

TEST(WaitEvent, IsSkippedWithARequiredInput) {
  DefinitionBuilder b("skip");
  const uint32_t s = b.Skip(0, "s");
  b.Result(0, FromStep(b.Wait(0, "w", "go", 0, "", {FromStep(s)})));
  Driver run(b.Compile());
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_SKIPPED);
}

TEST(WaitEvent, ALaterRecordOfItsTimerChangesNothing) {
  Driver run(OneWait(1'000).Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  v1::Record record;
  record.set_time_ms(run.now_ms);
  record.mutable_timer_fired()->set_timer(v1::TIMER_KIND_EVENT_TIMEOUT);
  Apply(run.live, record, nullptr);
  EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_COMPLETED);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
}

TEST(WaitEvent, F5AllReadersOfANameSeeTheSameEventHoweverLate) {
  DefinitionBuilder b("two");
  b.Wait(0, "w1", "go");
  b.Wait(0, "w2", "go");
  b.Task(0, "gate");
  const uint32_t late = b.Wait(0, "w3", "go");
  b.After(0, late, 2);
  b.Task(0, "t1", {FromStep(0)});
  b.Task(0, "t2", {FromStep(1)});
  b.Task(0, "t3", {FromStep(late)});
  b.Result(0, FromStep(6));
  Driver run(b.Compile());
  EXPECT_EQ(*run.Send("go", "\"first\""), kAccepted);
  EXPECT_THAT(run.Ready(), UnorderedElementsAre("gate", "t1", "t2"));
  EXPECT_EQ(*run.Send("go", "\"second\""), kAccepted);
  run.Reload();
  run.Complete("gate", "0");
  for (const char* task : {"t1", "t2", "t3"}) EXPECT_EQ(InputOf(run, task), "\"first\"");
  v1::ListEventsResponse list;
  FillEvents(run.live, true, &list);
  ASSERT_EQ(list.events_size(), 1);
  EXPECT_EQ(list.events(0).readers(), 3u);
  EXPECT_TRUE(list.events(0).delivered());
  EXPECT_EQ(list.events(0).payload().data(), "\"first\"");
}

// ---- loops ----

TEST(EventStream, EachTurnTakesTheNextEventAndItIsForgotten) {
  Driver run(Stream(3).Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(*run.Send("go", "2"), kAccepted);
  EXPECT_EQ(EventsKept(run), 1u);
  EXPECT_EQ(InputOf(run, "l[0].work"), "1");
  run.Complete("l[0].work", "0");
  EXPECT_EQ(EventsKept(run), 0u);
  EXPECT_EQ(InputOf(run, "l[1].work"), "2");
  run.Reload();
  run.Complete("l[1].work", "0");
  EXPECT_EQ(run.StateOf("l[2].w"), v1::STEP_STATE_WAITING);
  EXPECT_EQ(*run.Send("go", "3"), kAccepted);
  EXPECT_EQ(InputOf(run, "l[2].work"), "3");
  run.Complete("l[2].work", "9");
  EXPECT_EQ(run.ResultText(), "9");
}

TEST(EventStream, TenThousandTurnsLeaveTheStateAsItWas) {
  constexpr int kTurns = 10'000;
  DefinitionBuilder b("stream");
  const uint32_t turn = b.Scope(1);
  b.Result(turn, FromStep(b.Wait(turn, "w", "go")));
  b.Result(0, FromStep(b.Loop(0, "l", turn, {Literal("0")}, kTurns)));
  Driver run(b.Compile());
  run.check_each = run.keep_records = false;
  run.effects.story = nullptr;
  size_t memory = 0, snapshot = 0;
  for (int i = 0; i < kTurns; ++i) {
    ASSERT_EQ(*run.Send("go", "123456"), kAccepted);
    if (i == 100) {
      memory = MemoryBytes(run.live);
      snapshot = SaveSnapshot(run.live).size();
    }
    if (i == kTurns - 2) {
      EXPECT_EQ(MemoryBytes(run.live), memory);
      EXPECT_LT(SaveSnapshot(run.live).size(), snapshot + 32);
      run.CheckNow();
    }
  }
  EXPECT_EQ(run.ResultText(), "123456");
}

TEST(EventStream, TwoReadersInATurnSeeTheSameEventWhichGoesWithTheTurn) {
  DefinitionBuilder b("stream");
  const uint32_t turn = b.Scope(1);
  b.Wait(turn, "a", "go");
  b.Task(turn, "between");
  const uint32_t late = b.Wait(turn, "b", "go");
  b.After(turn, late, 1);
  b.Result(turn, FromStep(b.Join(turn, "j", {FromStep(0), FromStep(late)})));
  b.Result(0, FromStep(b.Loop(0, "l", turn, {Literal("0")}, 2)));
  Driver run(b.Compile());
  for (const char* data : {"1", "2"}) EXPECT_EQ(*run.Send("go", data), kAccepted);
  EXPECT_EQ(EventsKept(run), 2u);
  run.Complete("l[0].between", "0");
  EXPECT_EQ(EventsKept(run), 1u);
  EXPECT_EQ(run.StateOf("l[1].a"), v1::STEP_STATE_COMPLETED);
  run.Reload();
  run.Complete("l[1].between", "0");
  EXPECT_EQ(run.ResultText(), "[2,2]");
  EXPECT_EQ(EventsKept(run), 0u);
}

TEST(EventStream, AnInnerLoopTakesEventsThatTheOuterOneForgets) {
  DefinitionBuilder b("nested");
  const uint32_t outer = b.Scope(1);
  const uint32_t inner = b.Scope(1);
  b.Result(inner, FromStep(b.Wait(inner, "w", "go")));
  b.Result(outer, FromStep(b.Loop(outer, "in", inner, {FromParameter(0)}, 2)));
  b.Result(0, FromStep(b.Loop(0, "out", outer, {Literal("0")}, 2)));
  Driver run(b.Compile());
  for (const char* data : {"1", "2", "3"}) EXPECT_EQ(*run.Send("go", data), kAccepted);
  EXPECT_EQ(EventsKept(run), 0u);
  run.Reload();
  EXPECT_EQ(*run.Send("go", "4"), kAccepted);
  EXPECT_EQ(run.ResultText(), "4");
}

TEST(EventStream, ItemsOfAMapEachReadAllEventsInTheirLoops) {
  DefinitionBuilder b("map");
  const uint32_t item = b.Scope(1);
  const uint32_t turn = b.Scope(1);
  const uint32_t w = b.Wait(turn, "w", "go");
  b.Result(turn, FromStep(b.Join(turn, "j", {FromParameter(0), FromStep(w)})));
  b.Result(item, FromStep(b.Loop(item, "l", turn, {FromParameter(0)}, 2)));
  b.Result(0, FromStep(b.Map(0, "m", item, {Literal("[10,20]")}, 1)));
  Driver run(b.Compile());
  for (const char* data : {"1", "2"}) EXPECT_EQ(*run.Send("go", data), kAccepted);
  // The second item's loop begins with the first event, which therefore is kept.
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  v1::GetResultResponse response;
  FillResult(run.live, &response);
  v1::PayloadList items;
  ASSERT_TRUE(items.ParseFromString(response.result().data()));
  EXPECT_EQ(items.items_size(), 2);
  EXPECT_EQ(EventsKept(run), 2u);
}

TEST(EventStream, AReaderOutsideOfTheLoopSeesTheFirstEvent) {
  DefinitionBuilder b = Stream(2);
  b.Task(0, "gate");
  const uint32_t w = b.Wait(0, "late", "go");
  b.After(0, w, 1);
  b.Task(0, "last", {FromStep(w)});
  Driver run(b.Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  run.Complete("l[0].work", "0");
  EXPECT_EQ(*run.Send("go", "2"), kAccepted);
  EXPECT_EQ(InputOf(run, "l[1].work"), "2");
  run.Complete("gate", "0");
  EXPECT_EQ(InputOf(run, "last"), "1");
}

// ---- sending ----

TEST(SendEvent, F6AnUnknownNameIsRefusedWithThoseItKnows) {
  Driver run(OneWait().Compile());
  const auto refused = run.Send("gone", "1");
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.status().message(),
            "workflow one waits for no event \"gone\"; those it knows: go");
  DefinitionBuilder b("none");
  b.Result(0, FromStep(b.Task(0, "t")));
  Driver other(b.Compile());
  EXPECT_THAT(std::string(other.Send("go", "1").status().message()),
              HasSubstr("it waits for none"));
}

TEST(SendEvent, F21WhatHasEndedTakesNoEvents) {
  struct Case {
    const char* name;
    std::function<void(Driver&)> end;
    const char* status;
  };
  const Case kCases[] = {
      {"Cancelled",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Cancel{"enough", "ann"}), "");
       },
       "CANCELLED"},
      {"Terminated",
       [](Driver& run) {
         EXPECT_EQ(run.Try(Terminate{"enough", "ann"}), "");
       },
       "TERMINATED"},
      {"Failed", [](Driver& run) { run.Advance(1'000); }, "FAILED"},
      {"Completed",
       [](Driver& run) {
         EXPECT_EQ(*run.Send("go", "1"), kAccepted);
         run.Complete("next", "1");
       },
       "COMPLETED"},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Driver run(OneWait(1'000).Compile());
    c.end(run);
    const uint64_t ordinal = run.live.ordinal();
    const auto refused = run.Send("go", "2");
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.status().message()),
                HasSubstr(absl::StrCat("is ", c.status, ": it takes no more events")));
    EXPECT_EQ(run.live.ordinal(), ordinal);
    EXPECT_THAT(run.Ready(), IsEmpty());
  }
}

TEST(SendEvent, AnIdIsTakenOnceEvenAfterTheEnd) {
  Driver run(OneWait().Compile());
  EXPECT_EQ(*run.Send("go", "1", "id-1"), kAccepted);
  const uint64_t ordinal = run.live.ordinal();
  EXPECT_EQ(*run.Send("go", "2", "id-1"), Verdict::kDuplicate);
  run.Complete("next", "1");
  EXPECT_EQ(*run.Send("go", "2", "id-1"), Verdict::kDuplicate);
  EXPECT_EQ(run.live.ordinal(), ordinal + 1);
}

TEST(SendEvent, TenThousandIdsAreRemembered) {
  Driver run(OneWait().Compile());
  run.check_each = run.keep_records = false;
  run.effects.story = nullptr;
  for (size_t i = 0; i <= internal::kEventIdsMax; ++i) {
    ASSERT_EQ(*run.Send("go", "1", absl::StrCat("id-", i)), kAccepted);
  }
  EXPECT_EQ(run.live.state().event_ids.size(), internal::kEventIdsMax);
  EXPECT_EQ(*run.Send("go", "1", "id-1"), Verdict::kDuplicate);
  EXPECT_EQ(*run.Send("go", "1", absl::StrCat("id-", internal::kEventIdsMax)), Verdict::kDuplicate);
  const size_t memory = MemoryBytes(run.live);
  EXPECT_EQ(*run.Send("go", "1", "id-0"), kAccepted) << "the oldest is forgotten";
  EXPECT_LE(MemoryBytes(run.live), memory);
  run.Reload();
  run.CheckNow();
}

TEST(SendEvent, UnreadEventsAreKeptUpToALimit) {
  DefinitionBuilder b("stream");
  b.Task(0, "gate");
  const uint32_t turn = b.Scope(1);
  b.Result(turn, FromStep(b.Wait(turn, "w", "go")));
  const uint32_t l = b.Loop(0, "l", turn, {Literal("0")}, 20'000);
  b.After(0, l, 0);
  b.Result(0, FromStep(l));
  Driver run(b.Compile());
  run.check_each = run.keep_records = false;
  run.effects.story = nullptr;
  ASSERT_EQ(*run.Send("go", "1", "later", run.now_ms + 1'000), kAccepted);
  for (size_t i = 1; i < internal::kEventsMax; ++i) ASSERT_EQ(*run.Send("go", "1"), kAccepted);
  const auto refused = run.Send("go", "1");
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("keeps 10000 events that were not read yet, which is the limit"));
  // A delayed one is replaced all the same.
  EXPECT_EQ(*run.Send("go", "2", "later", run.now_ms + 2'000), kAccepted);
  run.Complete("gate", "0");
  run.CheckNow();
  EXPECT_EQ(EventsKept(run), 1u);
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
}

// ---- delayed events ----

TEST(DelayedEvent, F7IsDeliveredThenAndNotBefore) {
  Driver run(OneWait().Compile());
  const int64_t due = run.now_ms + 5'000;
  EXPECT_EQ(*run.Send("go", "1", "id-1", due), kAccepted);
  EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_WAITING);
  EXPECT_TRUE(IsDelayed(run.live, "id-1"));
  EXPECT_EQ(NextTimerMs(run.live), due);
  v1::ListEventsResponse list;
  FillEvents(run.live, true, &list);
  ASSERT_EQ(list.events_size(), 1);
  EXPECT_EQ(list.events(0).event_id(), "id-1");
  EXPECT_EQ(list.events(0).deliver_time_ms(), due);
  EXPECT_FALSE(list.events(0).delivered());
  run.Reload();
  run.Advance(4'999);
  EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_WAITING);
  run.Advance(1);
  EXPECT_EQ(InputOf(run, "next"), "1");
  EXPECT_FALSE(IsDelayed(run.live, "id-1"));
  EXPECT_EQ(*run.Send("go", "2", "id-1"), Verdict::kDuplicate);
  EXPECT_THAT(run.StoryTypes(), Contains("event.delivered"));
}

TEST(DelayedEvent, F7IsReplacedByTheSameIdUntilItIsDelivered) {
  struct Case {
    const char* name;
    int64_t second_after_ms;  // 0: at once
    int64_t delivered_after_ms;
  };
  const Case kCases[] = {{"Sooner", 1'000, 1'000}, {"Later", 9'000, 9'000}, {"AtOnce", 0, 0}};
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Driver run(OneWait().Compile());
    EXPECT_EQ(*run.Send("go", "1", "id-1", run.now_ms + 5'000), kAccepted);
    EXPECT_EQ(
        *run.Send("go", "2", "id-1", c.second_after_ms == 0 ? 0 : run.now_ms + c.second_after_ms),
        kAccepted);
    if (c.delivered_after_ms > 0) {
      EXPECT_EQ(NextTimerMs(run.live), run.now_ms + c.delivered_after_ms);
      EXPECT_EQ(EventsKept(run), 1u);
      run.Advance(c.delivered_after_ms);
    }
    EXPECT_EQ(InputOf(run, "next"), "2");
    run.Advance(20'000);
    EXPECT_EQ(InputOf(run, "next"), "2");
    EXPECT_EQ(NextTimerMs(run.live), std::nullopt);
  }
}

TEST(DelayedEvent, ATimeThatHasPassedIsNow) {
  Driver run(OneWait().Compile());
  EXPECT_EQ(*run.Send("go", "1", "id-1", run.now_ms), kAccepted);
  EXPECT_EQ(InputOf(run, "next"), "1");
}

TEST(DelayedEvent, ThoseWithoutAnIdStandBesideOneAnother) {
  Driver run(Stream(3).Compile());
  EXPECT_EQ(*run.Send("go", "\"b\"", "", run.now_ms + 2'000), kAccepted);
  EXPECT_EQ(*run.Send("go", "\"a\"", "", run.now_ms + 1'000), kAccepted);
  EXPECT_EQ(EventsKept(run), 2u);
  run.Advance(3'000);
  EXPECT_EQ(InputOf(run, "l[0].work"), "\"a\"");
  run.Complete("l[0].work", "0");
  EXPECT_EQ(InputOf(run, "l[1].work"), "\"b\"");
}

TEST(DelayedEvent, IsCancelledById) {
  Driver run(OneWait().Compile());
  EXPECT_EQ(*run.Send("go", "1", "id-1", run.now_ms + 1'000), kAccepted);
  EXPECT_THAT(run.Try(CancelEvent{"id-2", "ann", ""}),
              HasSubstr("has no delayed event with the id \"id-2\""));
  EXPECT_EQ(run.Try(CancelEvent{"id-1", "ann", "a mistake"}), "");
  EXPECT_EQ(EventsKept(run), 0u);
  run.Advance(5'000);
  EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_WAITING);
  const v1::HistoryEvent* told = Told(run, "event.cancelled");
  ASSERT_NE(told, nullptr);
  EXPECT_EQ(told->identity(), "ann");
  EXPECT_THAT(told->detail(), HasSubstr("a mistake"));
  // Its id may be used again.
  EXPECT_EQ(*run.Send("go", "2", "id-1"), kAccepted);
  EXPECT_THAT(run.Try(CancelEvent{"id-1", "ann", ""}), HasSubstr("it was delivered"));
  run.Complete("next", "1");
  EXPECT_THAT(run.Try(CancelEvent{"id-1", "ann", ""}), HasSubstr("is COMPLETED"));
}

TEST(DelayedEvent, IsKeptByAnExecutionThatCloses) {
  Driver run(OneWait().Compile());
  EXPECT_EQ(*run.Send("go", "1", "id-1", run.now_ms + 1'000), kAccepted);
  EXPECT_EQ(run.Try(Cancel{"", "ann"}), "");
  run.Advance(5'000);
  EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_CANCELLED);
  EXPECT_EQ(run.Rewind("w"), "");
  run.Advance(0);
  EXPECT_EQ(InputOf(run, "next"), "1");
}

// ---- the same event again, edits ----

// "next" is parked with what it was given.
std::unique_ptr<Driver> Parked(const DefinitionBuilder& b, const char* next = "next") {
  auto run = std::make_unique<Driver>(b.Compile());
  EXPECT_EQ(*run->Send("go", "\"bad\"", "id-1"), kAccepted);
  EXPECT_EQ(InputOf(*run, next), "\"bad\"");
  run->FailTask(next, "bad.data", true);
  EXPECT_EQ(run->StateOf(next), v1::STEP_STATE_PARKED);
  return run;
}

DefinitionBuilder OneWaitThatParks() {
  DefinitionBuilder b = OneWait();
  b.step(0, 1).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  return b;
}

TEST(EventAgain, F8RunsNothingAgainUnlessItsReaderCouldNotUseIt) {
  {
    Driver run(OneWait().Compile());
    EXPECT_EQ(*run.Send("go", "1"), kAccepted);
    EXPECT_EQ(*run.Send("go", "2"), kAccepted);
    EXPECT_EQ(InputOf(run, "next"), "1");
    run.Complete("next", "1");
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  }
  DefinitionBuilder b = OneWaitThatParks();
  b.Task(0, "gate");
  const uint32_t late = b.Wait(0, "late", "go");
  b.After(0, late, 2);
  b.Task(0, "last", {FromStep(late)});
  Driver run(b.Compile());
  EXPECT_EQ(*run.Send("go", "\"bad\""), kAccepted);
  run.FailTask("next", "bad.data", true);
  EXPECT_EQ(*run.Send("go", "\"good\""), kAccepted);
  EXPECT_EQ(InputOf(run, "next"), "\"good\"");
  EXPECT_EQ(Offer(run.live, run.Key("next")).attempt, 1u);
  run.Reload();
  // Readers to come see what those before them see.
  run.Complete("gate", "0");
  EXPECT_EQ(InputOf(run, "last"), "\"good\"");
}

TEST(EditEvent, F22AParkedReaderRunsAgainWithTheNewData) {
  const auto parked = Parked(OneWaitThatParks());
  Driver& run = *parked;
  EXPECT_EQ(run.Edit("go", "\"good\""), "");
  EXPECT_THAT(run.Ready(), ElementsAre("next"));
  EXPECT_EQ(InputOf(run, "next"), "\"good\"");
  EXPECT_EQ(Offer(run.live, run.Key("next")).attempt, 1u);
  EXPECT_EQ(Offer(run.live, run.Key("next")).delivery, 2u);
  const v1::HistoryEvent* told = Told(run, "event.edited");
  ASSERT_NE(told, nullptr);
  EXPECT_EQ(told->identity(), "ann");
  EXPECT_EQ(told->detail(), "go: a typo");
  EXPECT_EQ(told->payload().data(), "\"good\"");
  const v1::HistoryEvent* reread = Told(run, "event.reread");
  ASSERT_NE(reread, nullptr) << "which steps hold the new data stands in the history";
  EXPECT_EQ(reread->step(), "w");
  EXPECT_EQ(reread->payload().data(), "\"good\"");
  run.Complete("next", "1");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
}

TEST(EditEvent, F22WorksInALoopWhoseEventsAreForgotten) {
  DefinitionBuilder b = Stream(2);
  b.step(1, 1).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  const auto parked = Parked(b, "l[0].work");
  Driver& run = *parked;
  EXPECT_EQ(EventsKept(run), 0u);
  run.Reload();
  EXPECT_EQ(run.Edit("go", "\"good\""), "");
  EXPECT_EQ(InputOf(run, "l[0].work"), "\"good\"");
  run.Complete("l[0].work", "1");
  EXPECT_EQ(run.StateOf("l[1].w"), v1::STEP_STATE_WAITING);
}

TEST(EditEvent, ReachesThoseThatTookItAndNoOthers) {
  DefinitionBuilder b = Stream(3);
  b.step(1, 1).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  const auto parked = Parked(b, "l[0].work");
  Driver& run = *parked;
  EXPECT_EQ(*run.Send("go", "\"next\""), kAccepted);
  // The newest of that name is the one the next turn will take.
  EXPECT_EQ(run.Edit("go", "\"edited\""), "");
  EXPECT_EQ(run.StateOf("l[0].work"), v1::STEP_STATE_PARKED);
  EXPECT_EQ(run.Edit("go", "\"good\"", 1), "");
  EXPECT_EQ(InputOf(run, "l[0].work"), "\"good\"");
  run.Complete("l[0].work", "1");
  EXPECT_EQ(InputOf(run, "l[1].work"), "\"edited\"");
}

TEST(EditEvent, WorksBeforeAnybodyReads) {
  DefinitionBuilder b("one");
  b.Task(0, "gate");
  const uint32_t w = b.Wait(0, "w", "go");
  b.After(0, w, 0);
  b.Task(0, "slow");
  b.Result(0, FromStep(b.Task(0, "next", {FromStep(w), FromStep(2)})));
  Driver run(b.Compile());
  EXPECT_EQ(*run.Send("go", "1", "id-1", run.now_ms + 1'000), kAccepted);
  EXPECT_EQ(run.Edit("go", "2"), "") << "it is delayed";
  run.Advance(1'000);
  EXPECT_EQ(run.Edit("go", "3"), "") << "it is kept";
  run.Complete("gate", "0");
  EXPECT_EQ(run.StateOf("w"), v1::STEP_STATE_COMPLETED);
  EXPECT_EQ(run.Edit("go", "4"), "") << "it is taken, and its reader waits for another step";
  run.Complete("slow", "0");
  EXPECT_EQ(InputOf(run, "next"), "4");
}

TEST(EditEvent, LeavesADefaultAlone) {
  DefinitionBuilder b = OneWait(1'000, "\"default\"");
  Driver run(b.Compile());
  run.Advance(1'000);
  EXPECT_EQ(InputOf(run, "next"), "\"default\"");
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(run.Edit("go", "2"), "");
  EXPECT_EQ(InputOf(run, "next"), "\"default\"");
}

TEST(EditEvent, F23IsRefusedWhenItDidNotComeOrWasReadAndSaysByWhom) {
  Driver run(OneWait().Compile());
  EXPECT_THAT(run.Edit("go", "2"),
              HasSubstr("has received no event \"go\" that could be edited: send it instead"));
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_THAT(run.Edit("go", "2"), HasSubstr("has been read by next (scheduled): replay it"));
  EXPECT_THAT(run.Edit("go", "2", 99), HasSubstr("has received no event"));
  EXPECT_THAT(run.Edit("other", "2", 1), HasSubstr("has received no event \"other\""));
  run.Complete("next", "1");
  EXPECT_THAT(run.Edit("go", "2"), HasSubstr("is COMPLETED: only a running execution"));
}

// ---- replay ----

// Ten steps: w1 -> a -> b, w2 -> c -> d, both -> e; x -> y beside them.
DefinitionBuilder TenSteps() {
  DefinitionBuilder b("ten");
  b.Wait(0, "w1", "go");
  b.Task(0, "a", {FromStep(0)});
  b.Task(0, "b", {FromStep(1)});
  b.Wait(0, "w2", "on");
  b.Task(0, "c", {FromStep(3)});
  b.Task(0, "d", {FromStep(4)});
  b.Task(0, "x");
  b.Task(0, "y", {FromStep(6)});
  b.Task(0, "e", {FromStep(2), FromStep(5)});
  b.Result(0, FromStep(b.Task(0, "f", {FromStep(8)})));
  return b;
}

TEST(ReplayEvent, F24RunsExactlyWhatIsDownstreamAgain) {
  Driver run(TenSteps().Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(*run.Send("on", "1"), kAccepted);
  RunAll(run, "\"old\"");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  run.story.clear();
  EXPECT_EQ(run.Replay("go", "2"), "");
  EXPECT_TRUE(run.effects.reopened);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  EXPECT_THAT(run.Ready(), ElementsAre("a"));
  EXPECT_EQ(InputOf(run, "a"), "2");
  for (const char* step : {"w1", "a", "b", "e", "f"}) {
    EXPECT_EQ(GenerationOf(run, step), 1u) << step;
    // F28: the old results are marked.
    EXPECT_THAT(run.StoryTypes(), Contains(absl::StrCat("step.superseded ", step)));
  }
  for (const char* step : {"w2", "c", "d", "x", "y"}) {
    EXPECT_EQ(GenerationOf(run, step), 0u) << step;
    EXPECT_EQ(run.StateOf(step), v1::STEP_STATE_COMPLETED) << step;
    EXPECT_THAT(run.StoryTypes(), Not(Contains(absl::StrCat("step.superseded ", step))));
  }
  const v1::HistoryEvent* told = Told(run, "event.replayed");
  ASSERT_NE(told, nullptr);
  EXPECT_EQ(told->identity(), "ann");
  EXPECT_EQ(told->detail(), "go: new data");
  run.Reload();
  RunAll(run, "\"new\"");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(run.ResultText(), "\"new\"");
}

TEST(ReplayEvent, F25SeveralInTurnEachTouchTheirOwnDownstream) {
  Driver run(TenSteps().Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(*run.Send("on", "1"), kAccepted);
  RunAll(run, "0");
  for (uint32_t i = 1; i <= 6; ++i) {
    const bool first = i % 2 == 1;
    EXPECT_EQ(run.Replay(first ? "go" : "on", absl::StrCat(i)), "");
    EXPECT_THAT(run.Ready(), ElementsAre(first ? "a" : "c"));
    EXPECT_EQ(InputOf(run, first ? "a" : "c"), absl::StrCat(i));
    EXPECT_EQ(GenerationOf(run, first ? "b" : "d"), i);
    EXPECT_EQ(GenerationOf(run, first ? "d" : "b"), i - 1);
    EXPECT_EQ(GenerationOf(run, "f"), i);
    EXPECT_EQ(GenerationOf(run, "x"), 0u);
    if (i % 3 == 0) run.Reload();
    RunAll(run, absl::StrCat(i));
    EXPECT_EQ(run.ResultText(), absl::StrCat(i));
  }
}

TEST(ReplayEvent, F26ResultsOfTheOldGenerationAreStale) {
  Driver run(TenSteps().Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  ReportResult old;
  old.result = run.ResultFor("a");
  *old.result.mutable_value() = Json("\"old\"");
  EXPECT_EQ(run.Replay("go", "2"), "");
  EXPECT_THAT(run.effects.revoked, Contains(std::pair(run.Key("a"), uint64_t{1})));
  EXPECT_EQ(*run.Do(old), Verdict::kStale);
  v1::TaskToken mixed = run.ResultFor("a").token();
  EXPECT_TRUE(IsCurrent(run.live, mixed));
  mixed.set_generation(0);
  EXPECT_FALSE(IsCurrent(run.live, mixed));
  old.result.mutable_token()->set_delivery(2);
  EXPECT_EQ(*run.Do(old), Verdict::kStale);
  EXPECT_EQ(InputOf(run, "a"), "2");
}

TEST(ReplayEvent, F27IsRefusedWhereNobodyTookIt) {
  Driver run(OneWait(1'000, "5").Compile());
  EXPECT_THAT(run.Replay("go", "2"), HasSubstr("has taken an event \"go\""));
  run.Advance(1'000);
  EXPECT_THAT(run.Replay("go", "2"), HasSubstr("there is nothing to replay; send it"))
      << "a default is no event";
  DefinitionBuilder b = OneWait();
  b.Undo(0, b.Task(0, "done"), "done");
  Driver undoing(b.Compile());
  EXPECT_EQ(*undoing.Send("go", "1"), kAccepted);
  undoing.Complete("done", "1");
  EXPECT_EQ(undoing.Try(Cancel{"", "ann"}), "");
  EXPECT_THAT(undoing.Replay("go", "2"),
              HasSubstr("is CANCELLING: replay the event once it has closed"));
}

TEST(ReplayEvent, ReachesATurnWhoseEventWasForgottenAndNoLaterOne) {
  Driver run(Stream(3).Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(*run.Send("go", "2"), kAccepted);
  run.Complete("l[0].work", "0");
  EXPECT_EQ(*run.Send("go", "3"), kAccepted);
  EXPECT_EQ(run.Replay("go", "\"again\""), "");
  EXPECT_EQ(InputOf(run, "l[1].work"), "\"again\"");
  EXPECT_EQ(EventsKept(run), 1u);
  run.Reload();
  run.Complete("l[1].work", "0");
  EXPECT_EQ(InputOf(run, "l[2].work"), "3");
}

// The first reset drops the body in which the second reader lies.
TEST(ReplayEvent, ReachesReadersThatLieDownstreamOfOneAnother) {
  DefinitionBuilder b("nested");
  const uint32_t w = b.Wait(0, "w", "go");
  const uint32_t body = b.Scope(1);
  const uint32_t inner = b.Wait(body, "inner", "go");
  b.Result(body, FromStep(b.Task(body, "t", {FromStep(inner), FromParameter(0)})));
  b.Result(0, FromStep(b.Block(0, "block", body, {FromStep(w)})));
  Driver run(b.Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(InputOf(run, "block.t"), "1");
  EXPECT_EQ(run.Replay("go", "2"), "");
  EXPECT_EQ(InputOf(run, "block.t"), "2");
  run.Complete("block.t", "3");
  EXPECT_EQ(run.ResultText(), "3");
}

TEST(ReplayEvent, LeavesAReaderAloneThatTookItsDefault) {
  DefinitionBuilder b("two");
  b.Wait(0, "early", "go", 1'000, "\"default\"");
  b.Task(0, "t1", {FromStep(0)});
  b.Wait(0, "late", "go");
  b.Task(0, "t2", {FromStep(2)});
  b.Result(0, FromStep(3));
  Driver run(b.Compile());
  run.Advance(1'000);
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(run.Replay("go", "2"), "");
  EXPECT_EQ(InputOf(run, "t1"), "\"default\"");
  EXPECT_EQ(GenerationOf(run, "t1"), 0u);
  EXPECT_EQ(InputOf(run, "t2"), "2");
}

TEST(RewoundWait, TakesItsEventAgainThoughItWasForgotten) {
  Driver run(Stream(2).Compile());
  EXPECT_EQ(*run.Send("go", "1"), kAccepted);
  EXPECT_EQ(*run.Send("go", "2"), kAccepted);
  EXPECT_EQ(run.Rewind("l[0].w"), "");
  EXPECT_EQ(InputOf(run, "l[0].work"), "1");
  run.Complete("l[0].work", "0");
  EXPECT_EQ(InputOf(run, "l[1].work"), "2");
  // The loop begins again: what its open turn had is there, what earlier ones had is not.
  EXPECT_EQ(run.Rewind("l"), "");
  EXPECT_EQ(InputOf(run, "l[0].work"), "2");
  run.Complete("l[0].work", "0");
  EXPECT_EQ(run.StateOf("l[1].w"), v1::STEP_STATE_WAITING);
}

}  // namespace
}  // namespace flux::engine::testing
