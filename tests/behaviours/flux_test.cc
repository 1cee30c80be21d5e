// What users of Flipkart's Flux rely on, each behaviour under its number, through the whole engine.
// Where that system is wrong, the test holds what is right. F31 (a workflow run inline in a unit
// test) is in tests/client/inline_runner_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/bridge.h"
#include "tests/shard/world.h"

namespace flux::engine::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// Three tasks in a row, the first of which waits for event "go".
constexpr char kEventChain[] = R"(
  name: "wf"
  scopes {
    steps { name: "wait" wait_event { event: "go" } }
    steps { name: "a" inputs { step: 0 } task { task: "t" } on_exhausted: ON_EXHAUSTED_PARK }
    steps { name: "b" inputs { step: 1 } task { task: "t" } }
    result { step: 2 }
  })";

// root; two branches, each two steps long and begun by an event of its own; a join.
constexpr char kReplayable[] = R"(
  name: "wf"
  scopes {
    steps { name: "root" task { task: "t" } }
    steps { name: "wait1" wait_event { event: "e1" } }
    steps { name: "wait2" wait_event { event: "e2" } }
    steps { name: "a1" inputs { step: 1 } inputs { step: 0 } task { task: "t" } }
    steps { name: "a2" inputs { step: 3 } task { task: "t" } }
    steps { name: "b1" inputs { step: 2 } inputs { step: 0 } task { task: "t" } }
    steps { name: "b2" inputs { step: 5 } task { task: "t" } }
    steps { name: "join" inputs { step: 4 } inputs { step: 6 } join {} }
    result { step: 7 }
  })";

class F : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(world_.Open().ok());
    worker_ = world_.Connect("s1", {"t"}, 100);
    world_.Settle();
  }
  void Define(const std::string& text) { world_.Define(Parse(text)); }
  void Start() { ASSERT_TRUE(world_.Start("wf", "w").ok()); }
  v1::ExecutionStatus Status() { return world_.Result("w").status(); }
  std::string Result() { return world_.Result("w").result().data(); }
  v1::StepInfo Step(const std::string& name) {
    const v1::DescribeExecutionResponse described = world_.Describe("w");
    for (const v1::StepInfo& step : described.steps()) {
      if (step.name() == name) return step;
    }
    ADD_FAILURE() << "no step " << name;
    return {};
  }
  // Runs everything and answers which steps ran, in order, as "step:attempt".
  std::vector<std::string> RunAll() {
    std::vector<std::string> ran;
    world_.Settle();
    while (!world_.stream(worker_).tasks.empty()) {
      const v1::Task task = world_.Take(worker_);
      ran.push_back(task.step());
      const bool given =
          task.inputs_size() > 0 && task.inputs(0).payload().encoding() == v1::ENCODING_JSON;
      world_.Answer(worker_, task, given ? task.inputs(0).payload().data() : "1");
      world_.Settle();
    }
    return ran;
  }
  std::vector<v1::HistoryEvent> AllTold(const std::string& type) {
    std::vector<v1::HistoryEvent> told = world_.History("w");
    std::erase_if(told, [&](const v1::HistoryEvent& event) { return event.type() != type; });
    return told;
  }
  int Told(const std::string& type) { return static_cast<int>(AllTold(type).size()); }

  World world_;
  StreamId worker_ = 0;
};

constexpr v1::ExecutionStatus kRunning = v1::EXECUTION_STATUS_RUNNING;
constexpr v1::ExecutionStatus kCompleted = v1::EXECUTION_STATUS_COMPLETED;

TEST_F(F, F1_ThreeTasksInARowEachSeeTheOnesBeforeAndTheResultIsThere) {
  world_.Define(Chain("wf", 3));
  ASSERT_TRUE(world_.Start("wf", "w", {"5"}).ok());
  EXPECT_THAT(RunAll(), ElementsAre("s0", "s1", "s2"));
  EXPECT_EQ(Status(), kCompleted);
  EXPECT_EQ(Result(), "5");
}

TEST_F(F, F2_AnIdInUseIsRefusedAndTheSameRequestGetsTheSameExecution) {
  world_.Define(Chain("wf", 1));
  v1::StartWorkflowRequest request;
  request.set_workflow("wf");
  request.set_workflow_id("w");
  request.set_request_id("r");
  *request.add_inputs() = Json("1");
  const auto first = world_.Start(request);
  ASSERT_TRUE(first.ok());
  const auto again = world_.Start(request);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->run_id(), first->run_id());
  EXPECT_FALSE(again->started());
  EXPECT_EQ(world_.Start("wf", "w", {"1"}).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(F, F3_AMalformedDefinitionIsRefusedWithWhatIsWrong) {
  const auto put = world_.engine().definitions().Put(Parse(R"(
    name: "wf"
    scopes { steps { name: "a" inputs { step: 1 } task { task: "t" } } result { step: 0 } })"),
                                                     1);
  EXPECT_EQ(put.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(put.status())), HasSubstr("step \"a\""));
}

TEST_F(F, F4_AnEventByWorkflowIdRunsTheStepThatWaitsAndAllBehindIt) {
  Define(kEventChain);
  Start();
  EXPECT_TRUE(RunAll().empty());
  ASSERT_TRUE(world_.SendEvent("w", "go", "7").ok());
  EXPECT_THAT(RunAll(), ElementsAre("a", "b"));
  EXPECT_EQ(Result(), "7");
}

TEST_F(F, F5_TwoStepsThatWaitForOneNameBothRun) {
  Define(R"(
    name: "wf"
    scopes {
      steps { name: "one" wait_event { event: "go" type: "int" } }
      steps { name: "two" wait_event { event: "go" type: "int" } }
      steps { name: "join" inputs { step: 0 } inputs { step: 1 } join {} }
      steps { name: "use" inputs { step: 0 } inputs { step: 2 } task { task: "t" } }
      result { step: 3 }
    })");
  Start();
  ASSERT_TRUE(world_.SendEvent("w", "go", "7").ok());
  EXPECT_THAT(RunAll(), ElementsAre("use"));
  EXPECT_EQ(Status(), kCompleted);
  const auto put = world_.engine().definitions().Put(Parse(R"(
    name: "other"
    scopes {
      steps { name: "one" wait_event { event: "go" type: "int" } }
      steps { name: "two" wait_event { event: "go" type: "bool" } }
      result { step: 1 }
    })"),
                                                     1);
  EXPECT_THAT(std::string(Message(put.status())), HasSubstr("agree on its type"));
}

TEST_F(F, F6_AnEventForAnUnknownExecutionOrOfAnUnknownNameIsRefusedWithTheKnownOnes) {
  Define(kEventChain);
  EXPECT_EQ(world_.SendEvent("w", "go", "1").status().code(), absl::StatusCode::kNotFound);
  Start();
  const absl::Status status = world_.SendEvent("w", "stop", "1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("those it knows: go"));
}

TEST_F(F, F7_ADelayedEventComesWhenDueMayBeReplacedListedAndCancelled) {
  Define(kEventChain);
  Start();
  const int64_t due = world_.now_ms() + 5'250;
  ASSERT_TRUE(world_.SendEvent("w", "go", "1", "e", due + 60'000).ok());
  EXPECT_TRUE(world_.SendEvent("w", "go", "2", "e", due)->replaced());
  ASSERT_TRUE(world_.SendEvent("w", "go", "3", "other", due + 1'000).ok());
  EXPECT_EQ(world_.Events("w").events_size(), 2);
  ASSERT_TRUE(world_.Operate("w", "cancel_event { event_id: \"other\" }").ok());
  EXPECT_EQ(world_.Events("w").events_size(), 1);
  EXPECT_EQ(world_.Operate("w", "cancel_event { event_id: \"other\" }").status().code(),
            absl::StatusCode::kNotFound);
  // One without an id is given one, by which the same can be done to it.
  const std::string made = world_.SendEvent("w", "go", "4", "", due + 1'000)->event_id();
  const std::string another = world_.SendEvent("w", "go", "5", "", due + 1'000)->event_id();
  EXPECT_NE(made, "");
  EXPECT_NE(another, made);
  EXPECT_TRUE(world_.SendEvent("w", "go", "6", made, due + 2'000)->replaced());
  world_.Crash();
  ASSERT_TRUE(world_.Open().ok());
  worker_ = world_.Connect("s2", {"t"}, 100);
  world_.Settle();
  for (const std::string& id : {made, another}) {
    EXPECT_TRUE(world_.Operate("w", absl::StrCat("cancel_event { event_id: \"", id, "\" }")).ok());
  }
  ASSERT_EQ(world_.Events("w").events_size(), 1);
  EXPECT_EQ(world_.Events("w").events(0).event_id(), "e");
  // Whoever calls an event as the next made one would be called is not mistaken for it.
  const std::string theirs = "flux:delayed:8";
  ASSERT_TRUE(world_.SendEvent("w", "go", "7", theirs, due + 1'000).ok());
  const std::string third = world_.SendEvent("w", "go", "8", "", due + 1'000)->event_id();
  EXPECT_EQ(third, "flux:delayed:9");
  for (const std::string& id : {theirs, third}) {
    EXPECT_TRUE(world_.Operate("w", absl::StrCat("cancel_event { event_id: \"", id, "\" }")).ok());
  }
  world_.Advance(due - world_.now_ms() - 1, 250);
  EXPECT_TRUE(RunAll().empty());
  world_.Advance(1);
  EXPECT_THAT(RunAll(), ElementsAre("a", "b"));
  EXPECT_EQ(Result(), "2");
}

TEST_F(F, F8_AnEventAgainRunsNothingAgainUnlessItsReaderFailed) {
  Define(R"(
    name: "wf"
    scopes {
      steps { name: "wait" wait_event { event: "go" } }
      steps { name: "a" inputs { step: 0 } task { task: "t" } on_exhausted: ON_EXHAUSTED_PARK }
      steps { name: "hold" wait_event { event: "end" } }
      result { step: 1 }
    })");
  Start();
  ASSERT_TRUE(world_.SendEvent("w", "go", "\"bad\"").ok());
  world_.AnswerFailure(worker_, world_.Take(worker_), "bad", /*final=*/true);
  world_.Settle();
  ASSERT_TRUE(world_.SendEvent("w", "go", "\"good\"").ok());
  const v1::Task again = world_.Take(worker_);
  EXPECT_EQ(again.inputs(0).payload().data(), "\"good\"");
  world_.Answer(worker_, again, "1");
  ASSERT_TRUE(world_.SendEvent("w", "go", "\"more\"").ok());
  EXPECT_TRUE(RunAll().empty());
}

TEST_F(F, F9_ATaskThatFailsTwiceCompletesOnTheThirdAttemptWithGrowingGaps) {
  Define(R"(
    name: "wf"
    scopes {
      steps {
        name: "a"
        task { task: "t" retry { max_attempts: 3 initial_backoff_ms: 1000 no_jitter: true } }
      }
      result { step: 0 }
    })");
  Start();
  std::vector<int64_t> gaps;
  for (uint32_t attempt = 1; attempt <= 2; ++attempt) {
    const v1::Task task = world_.Take(worker_);
    EXPECT_EQ(task.attempt(), attempt);
    world_.AnswerFailure(worker_, task, "flaky");
    world_.Settle();
    const int64_t began = world_.now_ms();
    while (world_.stream(worker_).tasks.empty() && world_.now_ms() < began + 10'000) {
      world_.Advance(100, 100);
    }
    gaps.push_back(world_.now_ms() - began);
  }
  EXPECT_GE(gaps[0], 1'000);
  EXPECT_GE(gaps[1], 2'000);
  EXPECT_THAT(RunAll(), ElementsAre("a"));
  EXPECT_EQ(Status(), kCompleted);
}

TEST_F(F, F10_ATaskThatAlwaysTimesOutIsParkedAndTheRestGoesOn) {
  Define(R"(
    name: "wf"
    scopes {
      steps {
        name: "slow"
        task {
          task: "t" timeouts { start_to_close_ms: 1000 }
          retry { max_attempts: 2 initial_backoff_ms: 100 }
        }
        on_exhausted: ON_EXHAUSTED_PARK
      }
      steps { name: "other" task { task: "t" } }
      steps { name: "join" inputs { step: 0 } inputs { step: 1 } join {} }
      result { step: 2 }
    })");
  Start();
  std::set<uint32_t> attempts;
  for (int i = 0; i < 10; ++i) {
    world_.Pass(worker_, 1'000, /*work=*/false);
    while (!world_.stream(worker_).tasks.empty()) {
      const v1::Task task = world_.Take(worker_);
      if (task.step() == "slow") {
        attempts.insert(task.attempt());
      } else {
        world_.Answer(worker_, task, "1");
      }
    }
  }
  EXPECT_THAT(attempts, ElementsAre(1, 2));
  EXPECT_EQ(Step("slow").state(), v1::STEP_STATE_PARKED);
  EXPECT_EQ(Step("other").state(), v1::STEP_STATE_COMPLETED);
  EXPECT_EQ(Status(), kRunning);
  // F11: its cause is mended.
  ASSERT_TRUE(world_.Operate("w", "retry { step: \"slow\" }").ok());
  const v1::Task again = world_.Take(worker_);
  EXPECT_EQ(again.attempt(), 1u);
  world_.Answer(worker_, again, "1");
  world_.Settle();
  EXPECT_EQ(Status(), kCompleted);
}

TEST_F(F, F11_AParkedStepThatIsRetriedBeginsItsAttemptsAnew) {
  Define(R"(
    name: "wf"
    scopes {
      steps {
        name: "a"
        task { task: "t" retry { max_attempts: 1 } }
        on_exhausted: ON_EXHAUSTED_PARK
      }
      result { step: 0 }
    })");
  Start();
  for (int i = 0; i < 3; ++i) {
    const v1::Task task = world_.Take(worker_);
    EXPECT_EQ(task.attempt(), 1u);
    world_.AnswerFailure(worker_, task, "down");
    world_.Settle();
    ASSERT_EQ(Step("a").state(), v1::STEP_STATE_PARKED);
    ASSERT_TRUE(world_.Operate("w", "retry {}").ok());
  }
  EXPECT_THAT(RunAll(), ElementsAre("a"));
  EXPECT_EQ(Status(), kCompleted);
}

TEST_F(F, F12_RetryingAStepWhoseDependencyIsMissingSaysSo) {
  world_.Define(Chain("wf", 2));
  ASSERT_TRUE(world_.Start("wf", "w", {"1"}).ok());
  const absl::Status status = world_.Operate("w", "retry { step: \"s1\" }").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("has not begun"));
  EXPECT_EQ(world_.stream(worker_).tasks.size(), 1u);
}

TEST_F(F, F13_ANonRetriableFailureMakesOneAttempt) {
  Define(R"(
    name: "wf"
    scopes {
      steps {
        name: "a"
        task { task: "t" retry { max_attempts: 4 } non_retriable: "bad_page" }
      }
      result { step: 0 }
    })");
  Start();
  world_.AnswerFailure(worker_, world_.Take(worker_), "bad_page");
  world_.Pass(worker_, 10'000, /*work=*/false);
  EXPECT_TRUE(world_.stream(worker_).tasks.empty());
  EXPECT_EQ(world_.Result("w").failure().type(), "bad_page");
}

TEST_F(F, F14_RetriesAboveTheCapAreCappedAndTheAnswerSaysSo) {
  const auto put = world_.engine().definitions().Put(Parse(R"(
    name: "wf"
    scopes {
      steps { name: "a" task { task: "t" retry { max_attempts: 1000000 } } }
      result { step: 0 }
    })"),
                                                     1);
  ASSERT_TRUE(put.ok());
  ASSERT_EQ(put->warnings_size(), 1);
  EXPECT_THAT(put->warnings(0), HasSubstr("1000000 attempts are capped to 10000"));
}

TEST_F(F, F15_AfterALostCoordinatorAFinishedResultCountsAndALostTaskIsDeliveredAgainWithinSeconds) {
  world_.Define(Chain("wf", 1));
  ASSERT_TRUE(world_.Start("wf", "w", {"1"}).ok());
  ASSERT_TRUE(world_.Start("wf", "lost", {"1"}).ok());
  v1::Task held = world_.Take(worker_);
  v1::Task lost = world_.Take(worker_);
  if (held.workflow_id() != "w") std::swap(held, lost);
  world_.Crash();
  ASSERT_TRUE(world_.Open().ok());
  // The worker is back with one of them, finished meanwhile.
  v1::RunningTask running;
  *running.mutable_token() = held.token();
  running.set_finished(true);
  worker_ = world_.Connect("s1", {"t"}, 100, {running});
  world_.Answer(worker_, held, "9");
  world_.Settle();
  EXPECT_EQ(Result(), "9");
  EXPECT_EQ(world_.stream(worker_).acks.back().status(), v1::ACK_STATUS_RECORDED);
  const int64_t began = world_.now_ms();
  while (world_.stream(worker_).tasks.empty() && world_.now_ms() < began + 30'000) {
    world_.Pass(worker_, 1'000, /*work=*/false);
  }
  EXPECT_LT(world_.now_ms() - began, 15'000);
  const v1::Task again = world_.Take(worker_);
  EXPECT_GT(again.token().delivery(), lost.token().delivery());
}

TEST_F(F, F16_AResultOfAnAttemptThatTimedOutIsIgnoredAndSaidSo) {
  Define(R"(
    name: "wf"
    scopes {
      steps {
        name: "a"
        task {
          task: "t" timeouts { start_to_close_ms: 1000 }
          retry { max_attempts: 2 initial_backoff_ms: 100 }
        }
      }
      result { step: 0 }
    })");
  Start();
  const v1::Task late = world_.Take(worker_);
  world_.Advance(1'500);
  world_.Answer(worker_, late, "\"late\"");
  world_.Settle();
  EXPECT_EQ(world_.stream(worker_).acks.back().status(), v1::ACK_STATUS_STALE);
  EXPECT_EQ(world_.Counter("results_stale"), 1u);
  EXPECT_EQ(Told("attempt.failed"), 1);
  world_.Answer(worker_, late, "\"late\"");
  world_.Settle();
  EXPECT_EQ(world_.Counter("results_stale"), 2u);
  world_.Answer(worker_, world_.Take(worker_), "\"in time\"");
  world_.Settle();
  EXPECT_EQ(Result(), "\"in time\"");
  const std::vector<v1::HistoryEvent> stale = AllTold("result.stale");
  ASSERT_EQ(stale.size(), 1u) << "once, however often it comes";
  EXPECT_EQ(stale[0].step(), "a");
  EXPECT_EQ(stale[0].delivery(), 1u);
  EXPECT_EQ(stale[0].identity(), "worker-s1");
}

TEST_F(F, F17_AForkWhoseWidthIsKnownAtRunTimeOnlyJoinsOnceInOrder) {
  Define(R"(
    name: "wf"
    scopes {
      steps { name: "list" task { task: "t" } }
      steps { name: "map" inputs { step: 0 } map { body: 1 } }
      steps { name: "sum" inputs { step: 1 } task { task: "t" } }
      result { step: 1 }
    }
    scopes {
      parameters: 1
      steps { name: "item" inputs { parameter: 0 } task { task: "t" } }
      result { step: 0 }
    })");
  Start();
  world_.Answer(worker_, world_.Take(worker_), "[30,10,20]");
  std::vector<v1::Task> items;
  for (int i = 0; i < 3; ++i) items.push_back(world_.Take(worker_));
  for (auto it = items.rbegin(); it != items.rend(); ++it) {
    world_.Answer(worker_, *it, it->inputs(0).payload().data());
  }
  EXPECT_THAT(RunAll(), ElementsAre("sum"));
  v1::PayloadList list;
  ASSERT_TRUE(list.ParseFromString(Result()));
  ASSERT_EQ(list.items_size(), 3);
  EXPECT_EQ(list.items(0).data() + list.items(1).data() + list.items(2).data(), "301020");
}

// a forks into b→c and d→e; b skips. The join takes what is there.
constexpr char kFork[] = R"(
  name: "wf"
  scopes {
    steps { name: "a" task { task: "t" } }
    steps { name: "b" inputs { step: 0 } task { task: "t" } }
    steps { name: "c" inputs { step: 1 } task { task: "t" } }
    steps { name: "d" inputs { step: 0 } task { task: "t" } }
    steps { name: "e" inputs { step: 3 } task { task: "t" } }
    steps {
      name: "last"
      inputs { step: 2 optional: true }
      inputs { step: 4 optional: true }
      task { task: "t" }
    }
    result { step: 5 }
  })";

void Skip(World& world, StreamId worker, const v1::Task& task) {
  v1::ConnectRequest message;
  v1::TaskResult* result = message.add_results();
  *result->mutable_token() = task.token();
  result->set_skip(true);
  message.set_credit(1);
  world.Message(worker, std::move(message));
  world.Settle();
}

TEST_F(F, F18_ATaskThatCancelsItsPathSkipsWhatIsBehindItAndTheJoinSeesNothingOfIt) {
  Define(kFork);
  Start();
  world_.Answer(worker_, world_.Take(worker_), "1");
  world_.Settle();
  std::vector<std::string> ran;
  while (!world_.stream(worker_).tasks.empty()) {
    const v1::Task task = world_.Take(worker_);
    ran.push_back(task.step());
    if (task.step() == "b") {
      Skip(world_, worker_, task);
      continue;
    }
    if (task.step() == "last") {
      EXPECT_EQ(task.inputs(0).payload().encoding(), v1::ENCODING_NONE);
      EXPECT_EQ(task.inputs(1).payload().encoding(), v1::ENCODING_JSON);
    }
    world_.Answer(worker_, task, "1");
    world_.Settle();
  }
  EXPECT_THAT(ran, UnorderedElementsAre("b", "d", "e", "last"));
  EXPECT_EQ(Step("c").state(), v1::STEP_STATE_SKIPPED);
  EXPECT_EQ(Status(), kCompleted);
}

TEST_F(F, F19_InATenStepGraphExactlyTheStepsBehindTheSkippedOneAreSkipped) {
  std::string text = R"(name: "wf" scopes {
    steps { name: "s0" task { task: "t" } }
    steps { name: "s1" inputs { step: 0 } task { task: "t" } }
    steps { name: "s2" inputs { step: 1 } task { task: "t" } }
    steps { name: "s3" inputs { step: 2 } task { task: "t" } }
    steps { name: "s4" inputs { step: 2 } task { task: "t" } }
    steps { name: "s5" inputs { step: 0 } task { task: "t" } }
    steps { name: "s6" inputs { step: 5 } task { task: "t" } }
    steps { name: "s7" inputs { step: 5 } task { task: "t" } }
    steps { name: "s8" inputs { step: 6 } inputs { step: 7 } task { task: "t" } }
    steps {
      name: "s9"
      inputs { step: 8 } inputs { step: 3 optional: true } inputs { step: 4 optional: true }
      task { task: "t" }
    }
    result { step: 9 } })";
  Define(text);
  Start();
  world_.Settle();
  while (!world_.stream(worker_).tasks.empty()) {
    const v1::Task task = world_.Take(worker_);
    if (task.step() == "s1") {
      Skip(world_, worker_, task);
    } else {
      world_.Answer(worker_, task, "1");
      world_.Settle();
    }
  }
  EXPECT_EQ(Status(), kCompleted);
  std::set<std::string> skipped;
  const v1::DescribeExecutionResponse described = world_.Describe("w");
  for (const v1::StepInfo& step : described.steps()) {
    if (step.state() == v1::STEP_STATE_SKIPPED) skipped.insert(step.name());
  }
  EXPECT_THAT(skipped, ElementsAre("s1", "s2", "s3", "s4"));
}

TEST_F(F, F20_ACancelledExecutionStartsNothingAndItsRunningTaskIsToldAndFenced) {
  world_.Define(Chain("wf", 4));
  ASSERT_TRUE(world_.Start("wf", "w", {"1"}).ok());
  const v1::Task running = world_.Take(worker_);
  ASSERT_TRUE(world_.Operate("w", "cancel {}").ok());
  EXPECT_EQ(Status(), v1::EXECUTION_STATUS_CANCELLED);
  ASSERT_EQ(world_.stream(worker_).cancels.size(), 1u);
  const v1::DescribeExecutionResponse described = world_.Describe("w");
  for (const v1::StepInfo& step : described.steps()) {
    EXPECT_EQ(step.state(), v1::STEP_STATE_CANCELLED);
  }
  world_.Answer(worker_, running, "1");
  world_.Settle();
  EXPECT_EQ(world_.stream(worker_).acks.back().status(), v1::ACK_STATUS_STALE);
  EXPECT_TRUE(world_.stream(worker_).tasks.empty());
}

TEST_F(F, F21_AnEventForACancelledExecutionIsRefusedWithItsState) {
  Define(kEventChain);
  Start();
  ASSERT_TRUE(world_.Operate("w", "cancel {}").ok());
  const absl::Status status = world_.SendEvent("w", "go", "1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("CANCELLED"));
  EXPECT_TRUE(RunAll().empty());
}

TEST_F(F, F22_AnEditedEventRunsItsParkedReaderAndTheHistorySaysWhoAndWhy) {
  Define(kEventChain);
  Start();
  ASSERT_TRUE(world_.SendEvent("w", "go", "\"wrong\"").ok());
  world_.AnswerFailure(worker_, world_.Take(worker_), "bad", /*final=*/true);
  world_.Settle();
  ASSERT_EQ(Step("a").state(), v1::STEP_STATE_PARKED);
  ASSERT_TRUE(
      world_
          .Operate("w",
                   "edit_event { event: \"go\" payload { data: \"5\" encoding: ENCODING_JSON } }")
          .ok());
  EXPECT_THAT(RunAll(), ElementsAre("a", "b"));
  EXPECT_EQ(Result(), "5");
  bool told = false;
  for (const v1::HistoryEvent& event : world_.History("w")) {
    told = told || (event.type() == "event.edited" && event.identity() == "ann" &&
                    event.detail() == "go: because" && event.payload().data() == "5");
  }
  EXPECT_TRUE(told);
}

TEST_F(F, F23_AnEventThatDidNotComeOrWasReadIsNotEdited) {
  Define(kEventChain);
  Start();
  const std::string edit =
      "edit_event { event: \"go\" payload { data: \"5\" encoding: ENCODING_JSON } }";
  EXPECT_EQ(world_.Operate("w", edit).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(world_.SendEvent("w", "go", "1").ok());
  for (const char* state : {"a (scheduled)", "a (completed)"}) {
    const absl::Status status = world_.Operate("w", edit).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(Message(status)), HasSubstr(state));
    world_.Answer(worker_, world_.Take(worker_), "2");
    world_.Settle();
  }
}

TEST_F(F, F24_AReplayedEventRunsExactlyWhatIsBehindItInANewGeneration) {
  Define(kReplayable);
  Start();
  ASSERT_TRUE(world_.SendEvent("w", "e1", "1").ok());
  ASSERT_TRUE(world_.SendEvent("w", "e2", "2").ok());
  RunAll();
  ASSERT_EQ(Status(), kCompleted);
  ASSERT_TRUE(
      world_
          .Operate("w",
                   "replay_event { event: \"e1\" payload { data: \"8\" encoding: ENCODING_JSON } }")
          .ok());
  EXPECT_THAT(RunAll(), ElementsAre("a1", "a2"));
  EXPECT_EQ(Status(), kCompleted);
  v1::PayloadList list;
  ASSERT_TRUE(list.ParseFromString(Result()));
  EXPECT_EQ(list.items(0).data(), "8");
  EXPECT_EQ(list.items(1).data(), "2");
  EXPECT_EQ(Step("a1").generation(), 1u);
  EXPECT_EQ(Step("b1").generation(), 0u);
}

TEST_F(F, F25_TwoEventsReplayedInTurnsTouchOnlyWhatIsBehindEach) {
  Define(kReplayable);
  Start();
  ASSERT_TRUE(world_.SendEvent("w", "e1", "1").ok());
  ASSERT_TRUE(world_.SendEvent("w", "e2", "2").ok());
  RunAll();
  for (int turn = 0; turn < 6; ++turn) {
    const bool first = turn % 2 == 0;
    ASSERT_TRUE(world_
                    .Operate("w", absl::StrCat("replay_event { event: \"", first ? "e1" : "e2",
                                               "\" payload { data: \"", 10 + turn,
                                               "\" encoding: ENCODING_JSON } }"))
                    .ok());
    if (first) {
      EXPECT_THAT(RunAll(), ElementsAre("a1", "a2"));
    } else {
      EXPECT_THAT(RunAll(), ElementsAre("b1", "b2"));
    }
  }
  v1::PayloadList list;
  ASSERT_TRUE(list.ParseFromString(Result()));
  EXPECT_EQ(list.items(0).data(), "14");
  EXPECT_EQ(list.items(1).data(), "15");
  const auto verified = world_.Verify("w");
  ASSERT_TRUE(verified.ok());
  EXPECT_TRUE(verified->equal());
}

TEST_F(F, F26_AResultOfAnOldGenerationIsDiscardedAsStale) {
  Define(kEventChain);
  Start();
  ASSERT_TRUE(world_.SendEvent("w", "go", "1").ok());
  const v1::Task old = world_.Take(worker_);
  ASSERT_TRUE(
      world_
          .Operate("w",
                   "replay_event { event: \"go\" payload { data: \"2\" encoding: ENCODING_JSON } }")
          .ok());
  world_.Answer(worker_, old, "\"old\"");
  world_.Settle();
  EXPECT_EQ(world_.stream(worker_).acks.back().status(), v1::ACK_STATUS_STALE);
  EXPECT_EQ(world_.Counter("results_stale"), 1u);
  EXPECT_THAT(RunAll(), ElementsAre("a", "b"));
  EXPECT_EQ(Result(), "2");
  const std::vector<v1::HistoryEvent> stale = AllTold("result.stale");
  ASSERT_EQ(stale.size(), 1u);
  EXPECT_EQ(stale[0].step(), "a");
  EXPECT_EQ(stale[0].detail(),
            "a result of delivery 1 of generation 0 came when it was wanted no more");
}

TEST_F(F, F27_AReplayOfWhatHasNotRunIsRefusedAndARewindWorksOnAnyStep) {
  Define(kEventChain);
  Start();
  EXPECT_EQ(world_
                .Operate("w",
                         "replay_event { event: \"go\" payload { data: \"2\" encoding: "
                         "ENCODING_JSON } }")
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(world_.Operate("w", "rewind { step: \"b\" }").status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(world_.SendEvent("w", "go", "1").ok());
  RunAll();
  ASSERT_TRUE(world_.Operate("w", "rewind { step: \"b\" }").ok());
  EXPECT_THAT(RunAll(), ElementsAre("b"));
  EXPECT_EQ(Status(), kCompleted);
}

TEST_F(F, F28_OldResultsStayInTheHistoryAndAreMarkedSuperseded) {
  Define(kEventChain);
  Start();
  ASSERT_TRUE(world_.SendEvent("w", "go", "1").ok());
  const auto run = [&](const char* a, const char* b) {
    world_.Answer(worker_, world_.Take(worker_), a);
    world_.Settle();
    world_.Answer(worker_, world_.Take(worker_), b);
    world_.Settle();
  };
  run("\"old a\"", "\"old b\"");
  ASSERT_TRUE(world_.Operate("w", "rewind { step: \"a\" }").ok());
  run("\"new a\"", "\"new b\"");
  EXPECT_EQ(Result(), "\"new b\"");
  std::vector<std::string> told;
  for (const v1::HistoryEvent& event : world_.History("w")) {
    if (event.step() != "a" && event.step() != "b") continue;
    if (event.type() == "step.completed") {
      told.push_back(absl::StrCat(event.step(), " ", event.payload().data()));
    } else if (event.type() == "step.superseded") {
      told.push_back(absl::StrCat(event.step(), " superseded"));
    }
  }
  EXPECT_THAT(told, ElementsAre("a \"old a\"", "b \"old b\"", "a superseded", "b superseded",
                                "a \"new a\"", "b \"new b\""));
}

TEST_F(F, F29_FailedAndParkedStepsOfAWorkflowInATimeRangeArePreviewedAndRetriedInBulk) {
  for (const char* name : {"wf", "other"}) {
    Define(absl::StrCat(R"(
      name: ")",
                        name, R"("
      scopes {
        steps { name: "a" task { task: "t" } }
        steps { name: "b" inputs { step: 0 } task { task: "t" } on_exhausted: ON_EXHAUSTED_PARK }
        result { step: 1 }
      })"));
  }
  // `ends`: how many of its steps do well, the next one failing for good.
  const auto start = [&](const char* workflow, const char* id, int ends) {
    ASSERT_TRUE(world_.Start(workflow, id).ok());
    for (int step = 0; step < 2 && step <= ends; ++step) {
      const v1::Task task = world_.Take(worker_);
      if (step == ends) {
        world_.AnswerFailure(worker_, task, "bad", /*final=*/true);
      } else {
        world_.Answer(worker_, task, "1");
      }
      world_.Settle();
    }
  };
  start("wf", "long ago", 0);
  world_.Disconnect(worker_);
  world_.Sleep(7'200'000);
  world_.Settle();
  worker_ = world_.Connect("s2", {"t"}, 100);
  start("wf", "w", 0);
  start("wf", "failed", 0);
  start("wf", "parked", 1);
  start("wf", "fine", 2);
  start("other", "another", 0);
  // Runs as the parked one does, and nothing is wrong with it.
  ASSERT_TRUE(world_.Start("wf", "healthy").ok());
  const v1::Task healthy = world_.Take(worker_);
  v1::StartBulkOperationRequest request;
  request.mutable_filter()->set_query(
      "workflow = \"wf\" and (status = \"failed\" or parked > 0) and started > -1h");
  request.mutable_operation()->mutable_retry();
  request.set_identity("ann");
  request.set_preview(true);
  request.set_preview_rows(10);
  const auto bulk = [&] {
    auto begun = world_.Ask<v1::StartBulkOperationResponse>(
        [&](auto reply) { world_.engine().StartBulk(request, std::move(reply)); });
    EXPECT_TRUE(begun.ok()) << begun.status();
    return begun.ok() ? *std::move(begun) : v1::StartBulkOperationResponse();
  };
  const v1::StartBulkOperationResponse preview = bulk();
  EXPECT_EQ(preview.matched(), 3u);
  EXPECT_FALSE(preview.has_operation());
  std::map<std::string, v1::ExecutionStatus> listed;
  for (const v1::ExecutionInfo& info : preview.first()) {
    listed[info.workflow_id()] = info.status();
    EXPECT_EQ(info.parked_steps(), info.workflow_id() == "parked" ? 1u : 0u);
  }
  EXPECT_THAT(listed, ElementsAre(std::pair("failed", v1::EXECUTION_STATUS_FAILED),
                                  std::pair("parked", v1::EXECUTION_STATUS_RUNNING),
                                  std::pair("w", v1::EXECUTION_STATUS_FAILED)));
  world_.Advance(1'000);
  EXPECT_TRUE(world_.stream(worker_).tasks.empty()) << "a preview does nothing";

  request.set_preview(false);
  const v1::StartBulkOperationResponse begun = bulk();
  EXPECT_EQ(begun.matched(), 3u);
  world_.Advance(1'000);
  v1::GetBulkOperationRequest get;
  get.set_id(begun.operation().id());
  const auto done = world_.Ask<v1::GetBulkOperationResponse>(
      [&](auto reply) { world_.engine().GetBulk(get, std::move(reply)); });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->operation().state(), v1::BULK_STATE_COMPLETED);
  EXPECT_EQ(done->operation().done(), 3u);
  EXPECT_EQ(done->operation().refused(), 0u);
  EXPECT_THAT(RunAll(), UnorderedElementsAre("a", "b", "a", "b", "b"));
  EXPECT_EQ(world_.History("healthy").size(), 2u) << "started, and its first step scheduled";
  world_.Answer(worker_, healthy, "1");
  EXPECT_THAT(RunAll(), ElementsAre("b"));
  for (const char* id : {"w", "failed", "parked", "fine", "healthy"}) {
    EXPECT_EQ(world_.Result(id).status(), kCompleted) << id;
  }
  for (const char* id : {"long ago", "another"}) {
    EXPECT_EQ(world_.Result(id).status(), v1::EXECUTION_STATUS_FAILED) << id;
  }
}

TEST_F(F, F30_TasksGoToTheWorkersOfTheirQueue) {
  Define(R"(
    name: "wf"
    scopes {
      steps { name: "a" task { task: "t" queue: "red" } }
      steps { name: "b" task { task: "t" queue: "blue" } }
      steps { name: "join" inputs { step: 0 } inputs { step: 1 } join {} }
      result { step: 2 }
    })");
  const StreamId red = world_.Connect("red", {"t"}, 10, {}, "red");
  const StreamId blue = world_.Connect("blue", {"t"}, 10, {}, "blue");
  Start();
  EXPECT_EQ(world_.Take(red).step(), "a");
  EXPECT_EQ(world_.Take(blue).step(), "b");
  EXPECT_TRUE(world_.stream(worker_).tasks.empty());
}

TEST_F(F, F32_AWorkerThatStopsGetsNothingNewAndWhatItHandsBackGoesToAnother) {
  world_.Define(Chain("wf", 1));
  ASSERT_TRUE(world_.Start("wf", "w", {"1"}).ok());
  ASSERT_TRUE(world_.Start("wf", "v", {"1"}).ok());
  const v1::Task running = world_.Take(worker_);
  const v1::Task queued = world_.Take(worker_);
  v1::ConnectRequest drain;
  drain.set_draining(true);
  *drain.add_released() = queued.token();
  world_.Message(worker_, std::move(drain));
  ASSERT_TRUE(world_.Start("wf", "new", {"1"}).ok());
  EXPECT_TRUE(world_.stream(worker_).tasks.empty());
  world_.Answer(worker_, running, "1");
  world_.Settle();
  EXPECT_EQ(world_.stream(worker_).acks.back().status(), v1::ACK_STATUS_RECORDED);
  const StreamId other = world_.Connect("s2", {"t"}, 10);
  world_.Settle();
  EXPECT_EQ(world_.stream(other).tasks.size(), 2u);
}

}  // namespace
}  // namespace flux::engine::testing
