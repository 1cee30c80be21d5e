// The task step, timers, fencing, and the execution as a whole: every pair of their tables.
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
using ::testing::IsEmpty;
using ::testing::StartsWith;

// One task "t" with a policy to set, and "next", which reads it.
DefinitionBuilder TwoTasks(std::function<void(v1::TaskStep&)> set = nullptr) {
  DefinitionBuilder b("two", 0);
  const uint32_t t = b.Task(0, "t");
  v1::RetryPolicy* retry = b.step(0, t).mutable_task()->mutable_retry();
  retry->set_no_jitter(true);
  retry->set_max_attempts(3);
  if (set) set(*b.step(0, t).mutable_task());
  const uint32_t next = b.Task(0, "next", {FromStep(t)});
  b.Result(0, FromStep(next));
  return b;
}

// ---- the machine of a task: state, input -> state ----

enum class State { kScheduled, kBackingOff, kParked, kCompleted, kSkipped };

std::unique_ptr<Driver> In(State state) {
  DefinitionBuilder b = TwoTasks();
  b.step(0, 0).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  auto run = std::make_unique<Driver>(b.Compile());
  switch (state) {
    case State::kScheduled:
      break;
    case State::kBackingOff:
      run->FailTask("t", "io");
      EXPECT_EQ(run->StateOf("t"), v1::STEP_STATE_BACKING_OFF);
      break;
    case State::kParked:
      run->FailTask("t", "io", true);
      EXPECT_EQ(run->StateOf("t"), v1::STEP_STATE_PARKED);
      break;
    case State::kCompleted:
      run->Complete("t", "1");
      break;
    case State::kSkipped:
      run->SkipResult("t");
      break;
  }
  return run;
}

enum class Input { kValue, kSkip, kFailure, kFatal, kTimeout, kLost, kRedeliver };

Verdict Give(Driver& run, Input input) {
  switch (input) {
    case Input::kValue:
      return run.Complete("t", "2");
    case Input::kSkip:
      return run.SkipResult("t");
    case Input::kFailure:
      return run.FailTask("t", "io");
    case Input::kFatal:
      return run.FailTask("t", "io", true);
    case Input::kTimeout:
      return run.End("t", AttemptEnd::kHeartbeat);
    case Input::kLost:
      return run.End("t", AttemptEnd::kWorkerLost);
    case Input::kRedeliver:
      return run.Redeliver("t");
  }
  return Verdict::kStale;
}

TEST(TaskStep, TakesEachInputInEachStateAsItsTableSays) {
  struct Case {
    State state;
    Input input;
    Verdict verdict;
    v1::StepState then;
  };
  const auto kAccepted = Verdict::kAccepted;
  const auto kStale = Verdict::kStale;
  const auto kDuplicate = Verdict::kDuplicate;
  std::vector<Case> cases = {
      {State::kScheduled, Input::kValue, kAccepted, v1::STEP_STATE_COMPLETED},
      {State::kScheduled, Input::kSkip, kAccepted, v1::STEP_STATE_SKIPPED},
      {State::kScheduled, Input::kFailure, kAccepted, v1::STEP_STATE_BACKING_OFF},
      {State::kScheduled, Input::kFatal, kAccepted, v1::STEP_STATE_PARKED},
      {State::kScheduled, Input::kTimeout, kAccepted, v1::STEP_STATE_BACKING_OFF},
      {State::kScheduled, Input::kLost, kAccepted, v1::STEP_STATE_BACKING_OFF},
      {State::kScheduled, Input::kRedeliver, kAccepted, v1::STEP_STATE_SCHEDULED},
  };
  // In any other state a result, deadline or redelivery changes nothing, whatever it is.
  for (const Input input : {Input::kValue, Input::kSkip, Input::kFailure, Input::kFatal,
                            Input::kTimeout, Input::kLost, Input::kRedeliver}) {
    const bool result = input <= Input::kFatal;
    cases.push_back({State::kBackingOff, input, kStale, v1::STEP_STATE_BACKING_OFF});
    cases.push_back({State::kParked, input, kStale, v1::STEP_STATE_PARKED});
    cases.push_back(
        {State::kCompleted, input, result ? kDuplicate : kStale, v1::STEP_STATE_COMPLETED});
    // "next" reads what was skipped, so that the execution has closed.
    cases.push_back({State::kSkipped, input, result ? kDuplicate : kStale, v1::STEP_STATE_SKIPPED});
  }
  for (const Case& c : cases) {
    SCOPED_TRACE(
        absl::StrCat("state ", static_cast<int>(c.state), " input ", static_cast<int>(c.input)));
    const auto run = In(c.state);
    const uint64_t before = run->live.ordinal();
    EXPECT_EQ(Give(*run, c.input), c.verdict);
    EXPECT_EQ(run->StateOf("t"), c.then);
    // A value is told that comes after its attempt has failed.
    const bool late = c.verdict == kStale && c.input <= Input::kSkip;
    EXPECT_EQ(run->live.ordinal(), before + (c.verdict == kAccepted || late ? 1 : 0));
  }
}

// Records that no longer apply, straight into Apply: each counts and changes nothing else.
TEST(TaskStep, RecordsThatNoLongerApplyOnlyCount) {
  for (const State state : {State::kBackingOff, State::kParked, State::kCompleted}) {
    for (int kind = 0; kind < 6; ++kind) {
      SCOPED_TRACE(absl::StrCat("state ", static_cast<int>(state), " record ", kind));
      const auto run = In(state);
      const v1::StepState before = run->StateOf("t");
      const uint64_t ordinal = run->live.ordinal();
      v1::Record record;
      record.set_time_ms(run->now_ms);
      v1::StepRef ref;
      if (kind == 0) *record.mutable_attempt_failed()->mutable_ref() = ref;
      if (kind == 1) *record.mutable_step_redelivered()->mutable_ref() = ref;
      if (kind == 2) record.mutable_timer_fired()->set_timer(v1::TIMER_KIND_SLEEP);
      if (kind == 3) record.mutable_timer_fired()->set_timer(v1::TIMER_KIND_EVENT_TIMEOUT);
      if (kind == 4) record.mutable_step_completed()->mutable_ref()->set_frame(99);
      if (kind == 5) record.mutable_step_failed()->mutable_ref()->set_step(99);
      Apply(run->live, record, nullptr);
      EXPECT_EQ(run->StateOf("t"), before);
      EXPECT_EQ(run->live.ordinal(), ordinal + 1);
    }
  }
}

TEST(TaskStep, RetriesWithGrowingGapsUntilItsAttemptsAreUsedUp) {
  Driver run(TwoTasks().Compile());
  const int64_t begin = run.now_ms;
  run.FailTask("t", "io");
  EXPECT_EQ(NextTimerMs(run.live), begin + 1000);
  EXPECT_THAT(run.ReasonOf("t"), HasSubstr("after attempt 1 of 3: io: it went wrong"));
  run.Advance(999);
  EXPECT_THAT(run.Ready(), IsEmpty());
  run.Advance(1);
  EXPECT_THAT(run.Ready(), ElementsAre("t"));
  TaskOffer offer = Offer(run.live, run.Key("t"));
  EXPECT_EQ(offer.attempt, 2u);
  EXPECT_EQ(offer.delivery, 2u);
  run.FailTask("t", "io");
  EXPECT_EQ(NextTimerMs(run.live), begin + 1000 + 2000);
  run.Advance(2000);
  EXPECT_EQ(Offer(run.live, run.Key("t")).attempt, 3u);
  run.FailTask("t", "io");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.ResultText(), "io: it went wrong: io");
  EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_FAILED);
  EXPECT_EQ(run.StateOf("next"), v1::STEP_STATE_CANCELLED);
  EXPECT_EQ(run.ReasonOf("next"), "the execution failed at step t");
}

TEST(TaskStep, NonRetriableFailuresAreNotTriedAgain) {
  for (const bool by_worker : {true, false}) {
    Driver run(TwoTasks([](v1::TaskStep& task) { task.add_non_retriable("bad.page"); }).Compile());
    run.FailTask("t", by_worker ? "io" : "bad.page", by_worker);
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_EQ(run.live.ordinal(), 2u);
  }
}

TEST(TaskStep, EndedAttemptsFailWithATypeAndASentence) {
  struct Case {
    AttemptEnd end;
    const char* type;
    const char* message;
  };
  const Case kCases[] = {
      {AttemptEnd::kScheduleToStart, "flux.timeout.schedule_to_start",
       "no worker took task do.t from queue default within its schedule_to_start timeout of 1m"},
      {AttemptEnd::kStartToClose, "flux.timeout.start_to_close",
       "ran longer than its start_to_close timeout of 5m (worker worker-1)"},
      {AttemptEnd::kHeartbeat, "flux.timeout.heartbeat",
       "no heartbeat within its heartbeat timeout of 1.5s"},
      {AttemptEnd::kWorkerLost, "flux.worker_lost", "went away"},
  };
  for (const Case& c : kCases) {
    Driver run(TwoTasks([](v1::TaskStep& task) {
                 task.mutable_timeouts()->set_schedule_to_start_ms(60'000);
                 task.mutable_timeouts()->set_heartbeat_ms(1'500);
               }).Compile());
    EXPECT_EQ(run.End("t", c.end), Verdict::kAccepted);
    EXPECT_EQ(run.StateOf("t"), v1::STEP_STATE_BACKING_OFF);
    v1::Record record;
    ASSERT_TRUE(record.ParseFromString(run.records.back()));
    EXPECT_EQ(record.attempt_failed().failure().type(), c.type);
    EXPECT_THAT(record.attempt_failed().failure().message(), HasSubstr(c.message));
    // The next attempt is handed the last heartbeat's progress.
    run.Advance(1000);
    v1::Task task;
    ASSERT_TRUE(FillTask(run.live, run.Key("t"), 1 << 20, &task).ok());
    EXPECT_EQ(task.progress().data(), "\"half way\"");
    EXPECT_EQ(task.attempt(), 2u);
    EXPECT_EQ(task.token().delivery(), 2u);
  }
}

TEST(TaskStep, ScheduleToCloseEndsItInEveryState) {
  const auto limit = [](v1::TaskStep& task) {
    task.mutable_timeouts()->set_schedule_to_close_ms(5'000);
    task.mutable_retry()->set_max_attempts(100);
  };
  {
    Driver run(TwoTasks(limit).Compile());
    run.Advance(5'000);
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_THAT(run.ResultText(), StartsWith("flux.timeout.schedule_to_close: task do.t was not "
                                             "done within its schedule_to_close timeout of 5s"));
  }
  {
    // While it backs off: 1 s + 2 s have passed, the third gap of 4 s would pass the limit, so
    // there is none.
    Driver run(TwoTasks(limit).Compile());
    run.FailTask("t", "io");
    run.Advance(1'000);
    run.FailTask("t", "io");
    run.Advance(2'000);
    run.FailTask("t", "io");
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_EQ(run.ResultText(), "io: it went wrong: io");
  }
  {
    // Completed in time: its timer is gone.
    Driver run(TwoTasks(limit).Compile());
    run.Complete("t", "1");
    EXPECT_EQ(NextTimerMs(run.live), std::nullopt);
  }
  {
    // A deadline that fires while it backs off, by an older record's retry time.
    Driver run(TwoTasks(limit).Compile());
    run.FailTask("t", "io");
    v1::Record record;
    record.set_time_ms(run.now_ms);
    record.mutable_timer_fired()->set_timer(v1::TIMER_KIND_SCHEDULE_TO_CLOSE);
    Apply(run.live, record, nullptr);
    EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_THAT(run.ResultText(), HasSubstr("the last failure was io: it went wrong"));
  }
}

TEST(TaskStep, ParkedLeavesTheRestRunning) {
  DefinitionBuilder b = TwoTasks();
  b.step(0, 0).set_on_exhausted(v1::ON_EXHAUSTED_PARK);
  b.Task(0, "other");
  Driver run(b.Compile());
  run.FailTask("t", "io", true);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  EXPECT_EQ(run.ReasonOf("t"), "parked after 1 attempt: io: it went wrong: io");
  EXPECT_EQ(run.Complete("other", "1"), Verdict::kAccepted);
  EXPECT_EQ(run.ReasonOf("next"), "waits for step t");
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
}

// ---- fencing ----

TEST(Fencing, OnlyTheCurrentTokenCounts) {
  struct Case {
    const char* name;
    std::function<void(v1::TaskToken&)> change;
    Verdict verdict;
    bool recorded = false;
  };
  const Case kCases[] = {
      {"Current", [](auto&) {}, Verdict::kAccepted, true},
      {"OlderDelivery", [](auto& t) { t.set_delivery(1); }, Verdict::kStale, true},
      {"FutureDelivery", [](auto& t) { t.set_delivery(3); }, Verdict::kStale},
      {"NoDelivery", [](auto& t) { t.set_delivery(0); }, Verdict::kStale},
      {"OtherGeneration", [](auto& t) { t.set_generation(1); }, Verdict::kStale},
      {"UnknownFrame", [](auto& t) { t.set_frame(5); }, Verdict::kStale},
      {"UnknownStep", [](auto& t) { t.set_step(50); }, Verdict::kStale},
      {"StepNotScheduledYet",
       [](auto& t) {
         t.set_step(1);
         t.set_delivery(0);
       },
       Verdict::kStale},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Driver run(TwoTasks().Compile());
    run.Redeliver("t");
    ReportResult command;
    command.result = run.ResultFor("t");
    command.result.mutable_value();
    c.change(*command.result.mutable_token());
    const std::string before = SaveSnapshot(run.live);
    EXPECT_EQ(*run.Do(std::move(command)), c.verdict);
    EXPECT_EQ(SaveSnapshot(run.live) != before, c.recorded);
    EXPECT_EQ(run.StateOf("t"), c.verdict == Verdict::kAccepted ? v1::STEP_STATE_COMPLETED
                                                                : v1::STEP_STATE_SCHEDULED);
  }
}

TEST(Fencing, ADeliveryNumberIsNeverUsedAgain) {
  Driver run(TwoTasks().Compile());
  ReportResult first;
  first.result = run.ResultFor("t");
  *first.result.mutable_value() = Json("\"late\"");
  run.Redeliver("t");
  EXPECT_EQ(Offer(run.live, run.Key("t")).delivery, 2u);
  EXPECT_EQ(Offer(run.live, run.Key("t")).attempt, 1u);
  run.End("t", AttemptEnd::kWorkerLost);
  EXPECT_EQ(*run.Do(first), Verdict::kStale);
  run.Advance(1000);
  EXPECT_EQ(Offer(run.live, run.Key("t")).delivery, 3u);
  EXPECT_EQ(Offer(run.live, run.Key("t")).attempt, 2u);
  EXPECT_EQ(*run.Do(first), Verdict::kStale);
  run.Complete("t", "\"in time\"");
  EXPECT_EQ(*run.Do(first), Verdict::kStale);
}

TEST(Fencing, ARepeatedResultIsADuplicateEvenAfterTheEnd) {
  Driver run(TwoTasks().Compile());
  run.Complete("t", "1");
  ReportResult last;
  last.result = run.ResultFor("next");
  *last.result.mutable_value() = Json("2");
  EXPECT_EQ(*run.Do(last), Verdict::kAccepted);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
  const uint64_t ordinal = run.live.ordinal();
  EXPECT_EQ(*run.Do(last), Verdict::kDuplicate);
  EXPECT_EQ(run.live.ordinal(), ordinal);
}

TEST(Fencing, AnAnswerWithNothingInItIsARetriableFailure) {
  Driver run(TwoTasks().Compile());
  ReportResult command;
  command.result = run.ResultFor("t");
  command.worker_id = "w9";
  EXPECT_EQ(*run.Do(std::move(command)), Verdict::kAccepted);
  EXPECT_THAT(run.ReasonOf("t"), HasSubstr("flux.bad_result: worker w9 answered with no value"));
}

// ---- the execution ----

TEST(Execution, TimeNeverGoesBack) {
  Driver run(TwoTasks().Compile());
  run.Advance(5'000);
  run.Complete("t", "1");
  const int64_t last = run.live.last_time_ms();
  run.now_ms = 10;
  run.Complete("next", "2");
  EXPECT_EQ(run.live.last_time_ms(), last);
  EXPECT_EQ(run.live.close_time_ms(), last);
}

TEST(Execution, ClosesOnceAndThenRefusesOrIgnoresEverything) {
  struct Case {
    const char* name;
    std::function<void(Driver&)> close;
    v1::ExecutionStatus status;
    const char* result;
  };
  const Case kCases[] = {
      {"COMPLETED",
       [](Driver& r) {
         r.Complete("t", "1");
         r.Complete("next", "2");
       },
       v1::EXECUTION_STATUS_COMPLETED, "2"},
      {"SKIPPED", [](Driver& r) { r.SkipResult("t"); }, v1::EXECUTION_STATUS_SKIPPED, ""},
      {"FAILED", [](Driver& r) { r.FailTask("t", "io", true); }, v1::EXECUTION_STATUS_FAILED,
       "io: it went wrong: io"},
      {"CANCELLED",
       [](Driver& r) {
         ASSERT_TRUE(r.Do(Cancel{"enough", "ann"}).ok());
       },
       v1::EXECUTION_STATUS_CANCELLED, "flux.cancelled: enough"},
      {"TERMINATED",
       [](Driver& r) {
         ASSERT_TRUE(r.Do(Terminate{"", "bob"}).ok());
       },
       v1::EXECUTION_STATUS_TERMINATED, "flux.terminated: no reason was given"},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    DefinitionBuilder b = TwoTasks();
    b.definition().set_execution_timeout_ms(3'600'000);
    Driver run(b.Compile());
    ReportResult late;
    late.result = run.ResultFor("t");
    late.result.mutable_value();
    c.close(run);
    EXPECT_EQ(run.status(), c.status);
    EXPECT_EQ(run.ResultText(), c.result);
    EXPECT_TRUE(run.live.closed());
    EXPECT_TRUE(run.effects.closed);
    EXPECT_TRUE(run.effects.all_revoked);
    EXPECT_THAT(run.effects.ready, IsEmpty());
    EXPECT_EQ(run.live.close_time_ms(), run.now_ms);
    EXPECT_EQ(NextTimerMs(run.live), std::nullopt);
    EXPECT_EQ(Summarize(run.live).status(), c.status);

    const std::string before = SaveSnapshot(run.live);
    EXPECT_NE(*run.Do(late), Verdict::kAccepted);
    EXPECT_EQ(run.Redeliver("t"), Verdict::kStale);
    EXPECT_EQ(run.End("t", AttemptEnd::kHeartbeat), Verdict::kStale);
    EXPECT_EQ(*run.Do(FireTimers{}), Verdict::kAccepted);
    const uint64_t ordinal = run.live.ordinal();
    for (const Command& command : {Command(Cancel{"x", "y"}), Command(Terminate{"x", "y"})}) {
      const auto again = run.Do(command);
      const auto done = std::holds_alternative<Cancel>(command) ? v1::EXECUTION_STATUS_CANCELLED
                                                                : v1::EXECUTION_STATUS_TERMINATED;
      if (c.status == done) {
        // The first answer may have been lost: it is done, once.
        ASSERT_TRUE(again.ok()) << again.status();
        EXPECT_EQ(*again, Verdict::kAccepted);
        EXPECT_EQ(run.live.ordinal(), ordinal);
        continue;
      }
      EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_THAT(std::string(Message(again.status())), HasSubstr(absl::StrCat("is ", c.name)));
      EXPECT_THAT(std::string(Message(again.status())), HasSubstr("run-1"));
    }
    EXPECT_EQ(SaveSnapshot(run.live), before);
  }
}

TEST(Execution, ItsTimeoutFailsIt) {
  DefinitionBuilder b = TwoTasks();
  b.definition().set_execution_timeout_ms(90'000);
  Driver run(b.Compile());
  run.Advance(89'999);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  run.Advance(1);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(run.ResultText(),
            "flux.timeout.execution: the execution was not done within its timeout of 1m30s");
}

TEST(Execution, OneCommandFiresABoundedNumberOfTimers) {
  DefinitionBuilder b("sleepers", 0);
  for (uint32_t i = 0; i < internal::kTimersPerDecisionMax + 10; ++i) {
    b.Sleep(0, absl::StrCat("s", i), 100);
  }
  b.Result(0, Literal("1"));
  Driver run(b.Compile());
  run.check_each = false;
  run.now_ms += 100;
  ASSERT_TRUE(run.Do(FireTimers{}).ok());
  EXPECT_EQ(run.live.ordinal(), 1 + internal::kTimersPerDecisionMax);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_RUNNING);
  ASSERT_TRUE(run.Do(FireTimers{}).ok());
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
}

// The first of two timers closes the execution; the second was decided with it and only counts.
TEST(Execution, ATimerDecidedBesideTheOneThatClosedIsHarmless) {
  DefinitionBuilder b("both", 0);
  b.Sleep(0, "s", 100);
  b.Result(0, FromStep(0));
  b.definition().set_execution_timeout_ms(100);
  Driver run(b.Compile());
  run.now_ms += 100;
  ASSERT_TRUE(run.Do(FireTimers{}).ok());
  EXPECT_EQ(run.live.ordinal(), 3u);
  EXPECT_EQ(run.status(), v1::EXECUTION_STATUS_COMPLETED);
}

TEST(Execution, StartChecksItsInputs) {
  DefinitionBuilder b("maps", 1);
  const uint32_t body = b.Scope(1);
  b.Result(body, FromParameter(0));
  b.Map(0, "each", body, {FromParameter(0, "/list")});
  b.Result(0, FromStep(0));
  const auto graph = b.Compile();
  const auto start = [&](std::vector<v1::Payload> inputs, std::string run_id = std::string(16, 'r'),
                         int64_t timeout_ms = 0) {
    v1::ExecutionStarted started;
    started.set_run_id(std::move(run_id));
    started.set_execution_timeout_ms(timeout_ms);
    for (v1::Payload& input : inputs) *started.add_inputs() = std::move(input);
    return DecideStart(*graph, std::move(started), 77);
  };
  struct Case {
    absl::StatusOr<v1::Record> record;
    const char* message;
  };
  const Case kCases[] = {
      {start({}), "workflow \"maps\" takes 1 input(s), the start gives 0"},
      {start({Json("1"), Json("2")}), "takes 1 input(s), the start gives 2"},
      {start({Json("{}")}), "step \"each\" cannot map over input 0"},
      {start({Json("{\"list\":5}")}), "step \"each\" cannot map over input 0"},
      {start({Json("{\"list\":[]}")}, "short"), "a run id has 16 bytes, got 5"},
      {start({Json("{\"list\":[]}")}, std::string(16, 'r'), -1), "execution_timeout_ms is -1"},
  };
  for (const Case& c : kCases) {
    EXPECT_EQ(c.record.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(Message(c.record.status())), HasSubstr(c.message));
  }
  const auto good = start({Json("{\"list\":[1]}")});
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->started().workflow(), "maps");
  EXPECT_EQ(good->started().version(), "1");
  EXPECT_EQ(good->started().semantics(), 1u);
  EXPECT_EQ(good->time_ms(), 77);
}

// ---- what a worker is given ----

TEST(FillTask, CarriesInputsPointersAndToken) {
  DefinitionBuilder b("given", 1);
  const uint32_t gone = b.Skip(0, "gone");
  const uint32_t list = b.Join(0, "list", {Literal("1"), Literal("\"x\"")});
  b.Task(0, "t",
         {FromParameter(0, "/a"), Literal("7"), Optional(FromStep(gone, "/z")), FromStep(list)});
  b.Result(0, FromStep(2));
  Driver run(b.Compile(), {Json("{\"a\":5}")});
  v1::Task task;
  ASSERT_TRUE(FillTask(run.live, run.Key("t"), 1000, &task).ok());
  ASSERT_EQ(task.inputs_size(), 4);
  EXPECT_EQ(task.inputs(0).payload().data(), "{\"a\":5}");
  EXPECT_EQ(task.inputs(0).pointer(), "/a");
  EXPECT_EQ(task.inputs(1).payload().data(), "7");
  EXPECT_EQ(task.inputs(2).payload().encoding(), v1::ENCODING_NONE);
  EXPECT_EQ(task.inputs(2).pointer(), "");
  EXPECT_EQ(task.inputs(3).payload().SerializeAsString(),
            ListPayload({Json("1"), Json("\"x\"")}).SerializeAsString());
  EXPECT_EQ(task.name(), "do.t");
  EXPECT_EQ(task.step(), "t");
  EXPECT_EQ(task.workflow(), "given");
  EXPECT_EQ(task.workflow_id(), "run-1");
  EXPECT_EQ(task.namespace_(), "default");
  EXPECT_EQ(task.attempt(), 1u);
  EXPECT_EQ(task.start_to_close_ms(), 300'000);
  EXPECT_EQ(task.token().step(), 2u);
  EXPECT_EQ(task.token().delivery(), 1u);
}

TEST(FillTask, RefusesInputsOverTheLimit) {
  DefinitionBuilder b("big", 2);
  b.Task(0, "t", {FromParameter(0), FromParameter(1)});
  b.Result(0, FromStep(0));
  Driver run(b.Compile(), {Json(std::string(60, '1')), Json(std::string(41, '2'))});
  v1::Task task;
  const absl::Status status = FillTask(run.live, run.Key("t"), 100, &task);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(Message(status)),
              HasSubstr("step t have 101 bytes together, the limit is 100"));
  EXPECT_TRUE(FillTask(run.live, run.Key("t"), 101, &task).ok());
}

TEST(RequestHash, TellsStartsApart) {
  v1::ExecutionStarted a;
  a.set_definition_hash("d");
  *a.add_inputs() = Json("1");
  v1::ExecutionStarted b = a;
  b.set_request_id("r");
  b.set_identity("somebody");
  EXPECT_EQ(RequestHash(a), RequestHash(b));
  b.mutable_inputs(0)->set_data("2");
  EXPECT_NE(RequestHash(a), RequestHash(b));
  b = a;
  b.set_definition_hash("e");
  EXPECT_NE(RequestHash(a), RequestHash(b));
  b = a;
  *b.add_inputs() = Json("");
  EXPECT_NE(RequestHash(a), RequestHash(b));
}

}  // namespace
}  // namespace flux::engine::testing
