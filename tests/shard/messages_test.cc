// Events, children, emits and operators' commands through the whole engine, with crashes in
// between.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

// Calls child "inner" with its input, then task "t" with the child's result.
v1::Definition Outer(const std::string& policy = "PARENT_CLOSE_POLICY_CANCEL") {
  return Parse(absl::StrCat(R"(
    name: "outer"
    scopes {
      parameters: 1
      steps { name: "child" inputs { parameter: 0 } child { workflow: "inner" parent_close: )",
                            policy, R"( } }
      steps { name: "after" inputs { step: 0 } task { task: "t" } }
      result { step: 1 }
    })"));
}

v1::Definition Inner() {
  return Parse(R"(
    name: "inner"
    scopes {
      parameters: 1
      steps { name: "work" inputs { parameter: 0 } task { task: "t" } }
      result { step: 0 }
    })");
}

// Waits for event "go", then task "t" with its payload.
v1::Definition Waiter() {
  return Parse(R"(
    name: "waiter"
    scopes {
      steps { name: "wait" wait_event { event: "go" } }
      steps { name: "use" inputs { step: 0 } task { task: "t" } on_exhausted: ON_EXHAUSTED_PARK }
      result { step: 1 }
    })");
}

v1::Definition Sender() {
  return Parse(R"(
    name: "sender"
    scopes {
      parameters: 1
      steps {
        name: "send"
        inputs { parameter: 0 }
        inputs { literal { data: "\"w\"" encoding: ENCODING_JSON } }
        emit { event: "go" }
      }
      result { literal { data: "1" encoding: ENCODING_JSON } }
    })");
}

class Messages : public ::testing::Test {
 protected:
  absl::StatusOr<v1::SendEventResponse> SendEvent(const std::string& id, const std::string& json,
                                                  const std::string& event_id = "",
                                                  int64_t deliver_ms = 0,
                                                  const std::string& name = "go") {
    return world_.SendEvent(id, name, json, event_id, deliver_ms);
  }
  absl::StatusOr<v1::OperateExecutionResponse> Operate(const std::string& id,
                                                       const std::string& operation) {
    return world_.Operate(id, operation);
  }

  void Open() {
    ASSERT_TRUE(world_.Open().ok());
    worker_ = world_.Connect(absl::StrCat("s", ++sessions_), {"t", "undo"}, 100);
    world_.Settle();
  }

  void ExpectVerified(const std::string& id) {
    const auto verified = world_.Verify(id);
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_TRUE(verified->equal()) << id;
  }

  v1::Task Take() { return world_.Take(worker_); }

  World world_;
  StreamId worker_ = 0;
  int sessions_ = 0;
};

TEST_F(Messages, AChildsResultIsItsStepsValue) {
  Open();
  world_.Define(Inner());
  world_.Define(Outer());
  ASSERT_TRUE(world_.Start("outer", "p", {"7"}).ok());
  world_.RunWorker(worker_);
  const v1::GetResultResponse result = world_.Result("p");
  EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(result.result().data(), "7");
  EXPECT_EQ(world_.Result("p/child").status(), v1::EXECUTION_STATUS_COMPLETED);
  ExpectVerified("p");
  ExpectVerified("p/child");
  // Nothing keeps either of them in memory.
  world_.Advance(5'000);
  EXPECT_EQ(world_.Counter("cache_bytes"), 0u);
}

TEST_F(Messages, ParentAndChildSurviveACrashAfterEveryWrite) {
  int crashes = 0;
  for (int writes = 1;; ++writes) {
    SCOPED_TRACE(writes);
    World world;
    ASSERT_TRUE(world.Open().ok());
    world.Define(Inner());
    world.Define(Outer());
    StreamId worker = world.Connect("a", {"t"}, 100);
    world.Settle();
    v1::StartWorkflowRequest start;
    start.set_workflow("outer");
    start.set_workflow_id("p");
    start.set_request_id("r");
    *start.add_inputs() = Json("7");
    const auto started = world.PostStart(start);
    int done = 0;
    bool moved = true;
    while (moved && done < writes) {
      moved = false;
      world.Turn();
      while (world.RunJob()) moved = true;
      if (world.StepStore()) {
        ++done;
        moved = true;
      }
      auto& tasks = world.stream(worker).tasks;
      while (!tasks.empty()) {
        const v1::Task task = std::move(tasks.front());
        tasks.pop_front();
        world.Answer(worker, task, task.inputs(0).payload().data());
        moved = true;
      }
      moved = moved || world.engine().inbox().size() > 0;
    }
    if (done < writes) break;
    ++crashes;
    world.Crash();
    ASSERT_TRUE(world.Open().ok());
    worker = world.Connect("b", {"t"}, 100);
    // Only what was acknowledged must be there.
    if (!*started) {
      ASSERT_TRUE(world.Start(start).ok());
    }
    world.Pass(worker, 40'000, /*work=*/true);
    EXPECT_EQ(world.Result("p").status(), v1::EXECUTION_STATUS_COMPLETED);
    EXPECT_EQ(world.Result("p").result().data(), "7");
    EXPECT_EQ(world.Result("p/child").status(), v1::EXECUTION_STATUS_COMPLETED);
    for (const char* id : {"p", "p/child"}) {
      auto verified = world.Verify(id);
      ASSERT_TRUE(verified.ok()) << verified.status();
      EXPECT_TRUE(verified->equal());
    }
    for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
  }
  EXPECT_GT(crashes, 5);
}

TEST_F(Messages, ACancelledParentTakesItsChildAlong) {
  for (const auto& [policy, status] :
       {std::pair<std::string, v1::ExecutionStatus>{"PARENT_CLOSE_POLICY_CANCEL",
                                                    v1::EXECUTION_STATUS_CANCELLED},
        {"PARENT_CLOSE_POLICY_TERMINATE", v1::EXECUTION_STATUS_TERMINATED},
        {"PARENT_CLOSE_POLICY_ABANDON", v1::EXECUTION_STATUS_RUNNING}}) {
    SCOPED_TRACE(policy);
    World world;
    ASSERT_TRUE(world.Open().ok());
    world.Define(Inner());
    world.Define(Outer(policy));
    ASSERT_TRUE(world.Start("outer", "p", {"7"}).ok());
    world.Settle();
    ASSERT_EQ(world.Result("p/child").status(), v1::EXECUTION_STATUS_RUNNING);
    v1::CancelExecutionRequest cancel;
    cancel.mutable_execution()->set_workflow_id("p");
    ASSERT_TRUE(world
                    .Ask<v1::CancelExecutionResponse>(
                        [&](auto reply) { world.engine().Cancel(cancel, std::move(reply)); })
                    .ok());
    world.Settle();
    EXPECT_EQ(world.Result("p").status(), v1::EXECUTION_STATUS_CANCELLED);
    EXPECT_EQ(world.Result("p/child").status(), status);
  }
}

TEST_F(Messages, AChildThatFailsFailsItsStepWithItsType) {
  Open();
  world_.Define(Inner());
  world_.Define(Outer());
  ASSERT_TRUE(world_.Start("outer", "p", {"7"}).ok());
  world_.AnswerFailure(worker_, Take(), "bad_page", /*final=*/true);
  world_.Settle();
  EXPECT_EQ(world_.Result("p").status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(world_.Result("p").failure().type(), "bad_page");
  EXPECT_THAT(world_.Result("p").failure().message(), HasSubstr("child p/child: "));
}

// A value that a map made was never one message: it is looked at before it goes into a record of
// another execution, which the log might not take.
TEST(LargeMessages, AComposedValueGoesToAnotherExecutionUpToThePayloadLimit) {
  const std::string map_of = R"(
      parameters: 1
      steps { name: "each" inputs { parameter: 0 } map { body: 1 } }
    )";
  const std::string body = R"(
    scopes {
      parameters: 1
      steps { name: "item" inputs { parameter: 0 } task { task: "t" } }
      result { step: 0 }
    })";
  // Seven bytes an item: the number, what says that it is one, and the place in the list.
  constexpr size_t kItems = 100;
  EngineOptions options;
  options.payload_bytes_max = 7 * kItems;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Parse(absl::StrCat("name: 'many' scopes {", map_of, "result { step: 0 } }", body)));
  world.Define(Parse(R"(
    name: "asks"
    scopes {
      parameters: 1
      steps { name: "child" inputs { parameter: 0 } child { workflow: "many" } }
      result { literal { data: "1" encoding: ENCODING_JSON } }
    })"));
  world.Define(Parse(absl::StrCat("name: 'emits' scopes {", map_of, R"(
      steps {
        name: "send"
        inputs { step: 0 }
        inputs { literal { data: "\"w\"" encoding: ENCODING_JSON } }
        emit { event: "go" }
      }
      result { literal { data: "1" encoding: ENCODING_JSON } } })",
                                  body)));
  world.Define(Parse(absl::StrCat("name: 'starts' scopes {", map_of, R"(
      steps { name: "child" inputs { step: 0 } child { workflow: "inner" } }
      result { literal { data: "1" encoding: ENCODING_JSON } } })",
                                  body)));
  world.Define(Inner());
  world.Define(Waiter());
  ASSERT_TRUE(world.Start("waiter", "w").ok());
  const StreamId worker = world.Connect("s", {"t"}, 1'000);
  const auto list = [](size_t items) {
    std::string text = "[1";
    for (size_t i = 1; i < items; ++i) text += ",1";
    return text + "]";
  };
  struct Case {
    const char* workflow;
    const char* words;
  };
  for (const auto& [workflow, words] :
       {Case{"asks",
             "child over-asks/child: the result has 707 bytes; the limit is 700, fluxd's "
             "payload-bytes-max: return a reference to the data instead, or raise it"},
        Case{"emits", "the event's payload has 707 bytes; the limit is 700"},
        Case{"starts", "input 0 has 707 bytes; the limit is 700"}}) {
    SCOPED_TRACE(workflow);
    ASSERT_TRUE(world.Start(workflow, absl::StrCat("fits-", workflow), {list(kItems)}).ok());
    ASSERT_TRUE(world.Start(workflow, absl::StrCat("over-", workflow), {list(kItems + 1)}).ok());
    world.RunWorker(worker);
    EXPECT_EQ(world.Result(absl::StrCat("fits-", workflow)).status(),
              v1::EXECUTION_STATUS_COMPLETED);
    const v1::GetResultResponse over = world.Result(absl::StrCat("over-", workflow));
    EXPECT_EQ(over.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_EQ(over.failure().type(), "flux.payload_too_large");
    EXPECT_THAT(over.failure().message(), HasSubstr(words));
    const auto verified = world.Verify(absl::StrCat("over-", workflow));
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_TRUE(verified->equal());
  }
  EXPECT_EQ(world.Result("over-asks/child").status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(world.Events("w").events_size(), 1) << "the one that fits";
  EXPECT_TRUE(world.fatal().ok()) << world.fatal();
}

TEST(LargeMessages, AChildsInputsAreHeldToTheirLimitTogether) {
  EngineOptions options;
  options.payload_bytes_max = 100;
  options.task_input_bytes_max = 180;
  World world(options);
  ASSERT_TRUE(world.Open().ok());
  world.Define(Parse(R"(
    name: "outer"
    scopes {
      parameters: 1
      steps { name: "child" inputs { parameter: 0 } inputs { parameter: 0 } child { workflow: "two" } }
      result { literal { data: "1" encoding: ENCODING_JSON } }
    })"));
  world.Define(Parse(R"(
    name: "two"
    scopes {
      parameters: 2
      result { parameter: 0 }
    })"));
  ASSERT_TRUE(world.Start("outer", "fits", {std::string(90, '1')}).ok());
  ASSERT_TRUE(world.Start("outer", "over", {std::string(91, '1')}).ok());
  world.Settle();
  EXPECT_EQ(world.Result("fits").status(), v1::EXECUTION_STATUS_COMPLETED);
  const v1::GetResultResponse over = world.Result("over");
  EXPECT_EQ(over.failure().type(), "flux.payload_too_large");
  EXPECT_THAT(over.failure().message(),
              HasSubstr("the inputs have 182 bytes together; the limit is 180"));
}

TEST_F(Messages, AChildOfAnUnknownWorkflowFailsItsStep) {
  Open();
  world_.Define(Outer());
  ASSERT_TRUE(world_.Start("outer", "p", {"7"}).ok());
  world_.Settle();
  EXPECT_EQ(world_.Result("p").failure().type(), "flux.not_found");
}

TEST_F(Messages, AnEventReachesItsReaderWhetherItCameBeforeOrAfter) {  // F4
  Open();
  world_.Define(Waiter());
  ASSERT_TRUE(world_.Start("waiter", "w").ok());
  world_.Advance(5'000);  // evicted meanwhile
  EXPECT_EQ(world_.Counter("cache_bytes"), 0u);
  const auto sent = SendEvent("w", "42", "e1");
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_FALSE(sent->duplicate());
  EXPECT_TRUE(SendEvent("w", "43", "e1")->duplicate());
  world_.RunWorker(worker_);
  EXPECT_EQ(world_.Result("w").result().data(), "42");
  // F21
  EXPECT_EQ(SendEvent("w", "44", "e2").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(SendEvent("w", "44", "e1")->duplicate());
  ExpectVerified("w");
}

TEST_F(Messages, AnEventForNobodyIsRefusedWithTheNamesThatAreKnown) {  // F6
  Open();
  world_.Define(Waiter());
  EXPECT_EQ(SendEvent("w", "1").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(world_.Start("waiter", "w").ok());
  const absl::Status status = SendEvent("w", "1", "", 0, "stop").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("those it knows: go"));
  EXPECT_EQ(SendEvent("w", "{", "").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(Messages, ADelayedEventComesWhenItIsDueAndSurvivesACrash) {  // F7
  Open();
  world_.Define(Waiter());
  ASSERT_TRUE(world_.Start("waiter", "w").ok());
  const int64_t due = world_.now_ms() + 3'600'000;
  ASSERT_TRUE(SendEvent("w", "1", "e", due + 60'000).ok());
  EXPECT_TRUE(SendEvent("w", "2", "e", due)->replaced());
  world_.Advance(5'000);
  world_.Crash();
  Open();
  const v1::ListEventsResponse events = world_.Events("w");
  ASSERT_EQ(events.events_size(), 1);
  EXPECT_EQ(events.events(0).deliver_time_ms(), due);
  world_.Pass(worker_, due - world_.now_ms() - 1'000, /*work=*/true);
  EXPECT_EQ(world_.Result("w").status(), v1::EXECUTION_STATUS_RUNNING);
  world_.Pass(worker_, 2'000, /*work=*/true);
  EXPECT_EQ(world_.Result("w").result().data(), "2");
}

TEST_F(Messages, AnEmittedEventArrivesOnceThoughTheSenderCrashesAfterEveryWrite) {
  int crashes = 0;
  for (int writes = 1;; ++writes) {
    SCOPED_TRACE(writes);
    World world;
    ASSERT_TRUE(world.Open().ok());
    world.Define(Waiter());
    world.Define(Sender());
    StreamId worker = world.Connect("a", {"t"}, 100);
    ASSERT_TRUE(world.Start("waiter", "w").ok());
    v1::StartWorkflowRequest start;
    start.set_workflow("sender");
    start.set_workflow_id("s");
    start.set_request_id("r");
    *start.add_inputs() = Json("5");
    const auto started = world.PostStart(start);
    int done = 0;
    for (bool moved = true; moved && done < writes;) {
      world.Turn();
      moved = world.RunJob() || world.engine().inbox().size() > 0;
      if (world.StepStore()) {
        ++done;
        moved = true;
      }
    }
    if (done < writes) break;
    ++crashes;
    world.Crash();
    ASSERT_TRUE(world.Open().ok());
    worker = world.Connect("b", {"t"}, 100);
    if (!*started) {
      ASSERT_TRUE(world.Start(start).ok());
    }
    world.Pass(worker, 15'000, /*work=*/true);
    EXPECT_EQ(world.Result("s").status(), v1::EXECUTION_STATUS_COMPLETED);
    EXPECT_EQ(world.Result("w").result().data(), "5");
  }
  EXPECT_GT(crashes, 1);
}

TEST_F(Messages, AnEmitToNobodyFailsItsStep) {
  Open();
  world_.Define(Sender());
  ASSERT_TRUE(world_.Start("sender", "s", {"5"}).ok());
  world_.Settle();
  EXPECT_EQ(world_.Result("s").failure().type(), "flux.not_found");
}

TEST_F(Messages, APausedExecutionIsHandedOutOnlyOnceItIsResumed) {
  ASSERT_TRUE(world_.Open().ok());
  world_.Define(Inner());
  ASSERT_TRUE(world_.Start("inner", "i", {"3"}).ok());
  ASSERT_TRUE(Operate("i", "pause {}").ok());
  EXPECT_EQ(Operate("i", "pause {}").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(world_.Result("i").status(), v1::EXECUTION_STATUS_PAUSED);
  for (const bool crash : {false, true}) {
    if (crash) {
      world_.Crash();
      ASSERT_TRUE(world_.Open().ok());
    }
    worker_ = world_.Connect(absl::StrCat("s", ++sessions_), {"t"}, 10);
    world_.Pass(worker_, 30'000, /*work=*/false);
    EXPECT_TRUE(world_.stream(worker_).tasks.empty());
  }
  ASSERT_TRUE(Operate("i", "resume {}").ok());
  world_.Pass(worker_, 30'000, /*work=*/true);
  EXPECT_EQ(world_.Result("i").status(), v1::EXECUTION_STATUS_COMPLETED);
  ExpectVerified("i");
}

TEST(Pause, ExecutionsTakeNoMemoryWhileTheyWait) {
  for (const bool crash : {false, true}) {
    SCOPED_TRACE(crash);
    EngineOptions options;
    // Some lie in the queue, the others on disk behind it.
    options.dispatch.ready_per_queue_max = 10;
    options.dispatch.refill_below = 5;
    World world(options);
    ASSERT_TRUE(world.Open().ok());
    world.Define(Chain("chain", 2));
    constexpr int kRuns = 40;
    const auto operate = [&](int i, const std::string& operation) {
      const auto done = world.Operate(absl::StrCat("id", i), operation);
      EXPECT_TRUE(done.ok()) << done.status();
    };
    for (int i = 0; i < kRuns; ++i) {
      ASSERT_TRUE(world.Start("chain", absl::StrCat("id", i), {"1"}).ok());
    }
    world.Advance(5'000);
    for (int i = 0; i < kRuns; ++i) operate(i, "pause {}");
    const uint64_t before = world.Counter("evictions");
    world.Advance(5'000);
    EXPECT_GE(world.Counter("evictions"), before + kRuns);
    if (crash) {
      world.Crash();
      ASSERT_TRUE(world.Open().ok());
    }
    const StreamId worker = world.Connect("s1", {"t"}, 4);
    world.Pass(worker, 30'000, /*work=*/true);
    EXPECT_TRUE(world.handed_out().empty());
    for (int i = 0; i < kRuns; ++i) operate(i, "resume {}");
    for (int round = 0; round < 100; ++round) {
      world.RunWorker(worker);
      world.Advance(200);
    }
    for (int i = 0; i < kRuns; ++i) {
      EXPECT_EQ(world.Result(absl::StrCat("id", i)).status(), v1::EXECUTION_STATUS_COMPLETED) << i;
    }
    for (const auto& [token, times] : world.handed_out()) EXPECT_EQ(times, 1);
  }
}

TEST_F(Messages, AResultOfAPausedExecutionStillCounts) {
  Open();
  world_.Define(Chain("chain", 2));
  ASSERT_TRUE(world_.Start("chain", "c", {"3"}).ok());
  const v1::Task first = Take();
  ASSERT_TRUE(Operate("c", "pause {}").ok());
  world_.Answer(worker_, first, "4");
  world_.Advance(5'000);
  EXPECT_TRUE(world_.stream(worker_).tasks.empty());
  EXPECT_EQ(world_.Describe("c").steps(0).state(), v1::STEP_STATE_COMPLETED);
  ASSERT_TRUE(Operate("c", "resume {}").ok());
  world_.RunWorker(worker_);
  EXPECT_EQ(world_.Result("c").result().data(), "4");
}

TEST_F(Messages, AFailedExecutionGoesOnWhereItFailedWhenItIsRetried) {
  Open();
  world_.Define(Chain("chain", 3));
  ASSERT_TRUE(world_.Start("chain", "c", {"3"}).ok());
  world_.Answer(worker_, Take(), "4");
  world_.AnswerFailure(worker_, Take(), "bad", /*final=*/true);
  world_.Settle();
  ASSERT_EQ(world_.Result("c").status(), v1::EXECUTION_STATUS_FAILED);
  world_.Advance(5'000);
  world_.Crash();
  Open();
  const auto retried = Operate("c", "retry {}");
  ASSERT_TRUE(retried.ok()) << retried.status();
  EXPECT_EQ(retried->detail(), "1 step is tried again") << "reopening is no step";
  const v1::Task again = Take();
  EXPECT_EQ(again.step(), "s1");
  EXPECT_EQ(again.attempt(), 1u);
  EXPECT_EQ(again.inputs(0).payload().data(), "4");
  world_.Answer(worker_, again, "5");
  world_.RunWorker(worker_);
  EXPECT_EQ(world_.Result("c").status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(world_.Result("c").result().data(), "5");
  ExpectVerified("c");
}

TEST_F(Messages, OnlyTheNewestRunOfAnIdIsReopened) {
  Open();
  world_.Define(Chain("chain", 1));
  const auto first = world_.Start("chain", "c", {"3"});
  ASSERT_TRUE(first.ok());
  world_.AnswerFailure(worker_, Take(), "bad", /*final=*/true);
  world_.Settle();
  ASSERT_TRUE(world_.Start("chain", "c", {"4"}).ok());
  v1::OperateExecutionRequest request;
  request.mutable_execution()->set_workflow_id("c");
  request.mutable_execution()->set_run_id(first->run_id());
  request.mutable_operation()->mutable_retry();
  const auto refused = world_.Ask<v1::OperateExecutionResponse>(
      [&](auto reply) { world_.engine().Operate(request, std::move(reply)); });
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(refused.status())), HasSubstr("only the newest run"));
}

TEST_F(Messages, ARewoundExecutionRunsWhatIsDownstreamAgain) {  // F24, F26
  Open();
  world_.Define(Chain("chain", 3));
  ASSERT_TRUE(world_.Start("chain", "c", {"3"}).ok());
  world_.RunWorker(worker_);
  ASSERT_EQ(world_.Result("c").status(), v1::EXECUTION_STATUS_COMPLETED);
  ASSERT_TRUE(Operate("c", "rewind { step: \"s1\" }").ok());
  const v1::Task old = Take();
  EXPECT_EQ(old.step(), "s1");
  ASSERT_TRUE(Operate("c", "rewind { step: \"s1\" }").ok());
  const v1::Task again = Take();
  EXPECT_GT(again.token().generation(), old.token().generation());
  world_.Answer(worker_, old, "99");
  world_.Settle();
  EXPECT_EQ(world_.stream(worker_).acks.back().status(), v1::ACK_STATUS_STALE);
  world_.Answer(worker_, again, "8");
  world_.RunWorker(worker_);
  EXPECT_EQ(world_.Result("c").result().data(), "8");
  EXPECT_EQ(Operate("c", "rewind { step: \"nowhere\" }").status().code(),
            absl::StatusCode::kNotFound);
  ExpectVerified("c");
}

TEST_F(Messages, AParkedReaderRunsAgainOnceItsEventIsEdited) {  // F10, F22
  Open();
  world_.Define(Waiter());
  ASSERT_TRUE(world_.Start("waiter", "w").ok());
  ASSERT_TRUE(SendEvent("w", "\"wrong\"").ok());
  world_.AnswerFailure(worker_, Take(), "bad_data", /*final=*/true);
  world_.Settle();
  EXPECT_EQ(world_.Describe("w").steps(1).state(), v1::STEP_STATE_PARKED);
  const auto edited =
      Operate("w",
              "edit_event { event: \"go\" payload { data: \"\\\"right\\\"\" encoding: "
              "ENCODING_JSON } }");
  ASSERT_TRUE(edited.ok()) << edited.status();
  world_.RunWorker(worker_);
  EXPECT_EQ(world_.Result("w").result().data(), "\"right\"");
  bool told = false;
  for (const v1::HistoryEvent& event : world_.History("w")) {
    told = told || (event.type() == "event.edited" && event.identity() == "ann" &&
                    event.detail() == "go: because");
  }
  EXPECT_TRUE(told);
}

TEST_F(Messages, WhatWasDoneIsUndoneWhenALaterStepFails) {
  Open();
  world_.Define(Parse(R"(
    name: "saga"
    scopes {
      steps { name: "a" task { task: "t" } undo { task { task: "undo" } } }
      steps { name: "b" after: 0 task { task: "t" } undo { task { task: "undo" } } }
      steps { name: "c" after: 1 task { task: "t" } }
      result { step: 2 }
    })"));
  ASSERT_TRUE(world_.Start("saga", "s").ok());
  world_.Answer(worker_, Take(), "\"did a\"");
  world_.Answer(worker_, Take(), "\"did b\"");
  world_.AnswerFailure(worker_, Take(), "bad", /*final=*/true);
  world_.Settle();
  EXPECT_EQ(world_.Result("s").status(), v1::EXECUTION_STATUS_FAILING);
  world_.Crash();
  Open();
  for (const char* step : {"b", "a"}) {
    world_.Pass(worker_, 30'000, /*work=*/false);
    const v1::Task undo = Take();
    EXPECT_EQ(undo.name(), "undo");
    EXPECT_EQ(undo.step(), absl::StrCat(step, ".undo"));
    EXPECT_EQ(undo.inputs(0).payload().data(), absl::StrCat("\"did ", step, "\""));
    world_.Answer(worker_, undo, "null");
  }
  world_.Settle();
  EXPECT_EQ(world_.Result("s").status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(world_.Result("s").failure().type(), "bad");
  EXPECT_EQ(Operate("s", "retry {}").status().code(), absl::StatusCode::kFailedPrecondition);
  ExpectVerified("s");
}

TEST_F(Messages, ALargePayloadOfAnEventLiesApartAndComesBack) {
  Open();
  world_.Define(Waiter());
  ASSERT_TRUE(world_.Start("waiter", "w").ok());
  const std::string large = absl::StrCat("\"", std::string(200'000, 'x'), "\"");
  ASSERT_TRUE(SendEvent("w", large).ok());
  world_.Crash();
  Open();
  world_.Pass(worker_, 30'000, /*work=*/true);
  EXPECT_EQ(world_.Result("w").result().data(), large);
  ExpectVerified("w");
}

TEST_F(Messages, ARunningExecutionMovesToAVersionThatItsDoneStepsFit) {
  Open();
  const auto version = [](const std::string& number, const std::string& steps) {
    v1::Definition definition = Parse(absl::StrCat("name: \"wf\" scopes { ", steps, " }"));
    definition.set_version(number);
    return definition;
  };
  world_.Define(version("1", R"(
    steps { name: "a" inputs { literal { data: "5" encoding: ENCODING_JSON } } task { task: "t" } }
    steps { name: "nap" sleep { duration_ms: 3600000 } after: 0 }
    steps { name: "b" inputs { step: 0 } after: 1 task { task: "t" } }
    result { step: 2 })"));
  ASSERT_TRUE(world_.Start("wf", "w").ok());
  world_.RunWorker(worker_);
  const std::string fits = world_.Define(version("2", R"(
    steps { name: "a" inputs { literal { data: "5" encoding: ENCODING_JSON } } task { task: "t" } }
    steps { name: "nap" sleep { duration_ms: 3600000 } after: 0 }
    steps { name: "new" inputs { step: 0 } task { task: "t" } }
    steps { name: "b" inputs { step: 2 } after: 1 task { task: "t" } }
    steps { name: "c" inputs { step: 3 } task { task: "t" } }
    result { step: 4 })"));
  const std::string other = world_.Define(version("3", R"(
    steps { name: "first" task { task: "t" } }
    steps { name: "a" inputs { step: 0 } task { task: "t" } }
    result { step: 1 })"));
  const auto migrate = [&](const std::string& hash, bool dry) {
    v1::OperateExecutionRequest request;
    request.mutable_execution()->set_workflow_id("w");
    request.set_identity("ann");
    request.mutable_operation()->mutable_migrate()->set_definition_hash(hash);
    request.mutable_operation()->mutable_migrate()->set_dry_run(dry);
    return world_.Ask<v1::OperateExecutionResponse>(
        [&](auto reply) { world_.engine().Operate(request, std::move(reply)); });
  };
  const absl::Status refused = migrate(other, true).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(refused)), HasSubstr("step \"a\" has begun"));
  const auto dry = migrate(fits, true);
  ASSERT_TRUE(dry.ok()) << dry.status();
  EXPECT_EQ(world_.Describe("w").info().version(), "1");
  ASSERT_TRUE(migrate(fits, false).ok());
  EXPECT_EQ(world_.Describe("w").info().version(), "2");
  EXPECT_EQ(migrate(fits, false).status().code(), absl::StatusCode::kFailedPrecondition);
  world_.Advance(5'000);
  world_.Crash();
  Open();
  ExpectVerified("w");
  world_.Pass(worker_, 3'700'000, /*work=*/true);
  EXPECT_EQ(world_.Result("w").status(), v1::EXECUTION_STATUS_COMPLETED);
  EXPECT_EQ(world_.Result("w").result().data(), "5");
  const v1::DescribeExecutionResponse described = world_.Describe("w");
  EXPECT_EQ(described.steps_size(), 5);
  for (const v1::StepInfo& step : described.steps()) {
    EXPECT_EQ(step.state(), v1::STEP_STATE_COMPLETED) << step.name();
  }
  ExpectVerified("w");
}

}  // namespace
}  // namespace flux::engine::testing
