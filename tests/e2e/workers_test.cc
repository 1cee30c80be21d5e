// Workers that die, hang, come back too late, lie or say nothing; and what a coordinator that dies
// under them does not lose.
#include <signal.h>

#include <algorithm>
#include <latch>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "flux/client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class Workers : public EndToEnd {
 protected:
  // The grace never ends by itself in tests that do not want it to.
  void UseLongGrace() { SetFlags({{"session-grace", "10m"}, {"ping-interval", "1m"}}); }

  template <typename Signature, typename... A>
  v1::ExecutionRef Begin(const flux::Workflow<Signature>& workflow, const std::string& id,
                         const A&... arguments) {
    auto hash = api().Put(DefinitionOf(workflow));
    EXPECT_TRUE(hash.ok()) << hash.status();
    auto started = api().Start(StartOf(workflow, id, arguments...));
    EXPECT_TRUE(started.ok()) << started.status();
    return Ref(id, started.ok() ? started->run_id() : "");
  }

  v1::GetResultResponse AwaitClosed(const v1::ExecutionRef& ref) {
    auto result = api().AwaitClosed(ref, kPatience);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : v1::GetResultResponse();
  }

  template <typename T>
  std::optional<T> AwaitValue(const v1::ExecutionRef& ref) {
    const v1::GetResultResponse result = AwaitClosed(ref);
    EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_COMPLETED) << result.DebugString();
    if (result.status() != v1::EXECUTION_STATUS_COMPLETED) return std::nullopt;
    return Read<T>(result.result());
  }

  std::vector<v1::HistoryEvent> History(const v1::ExecutionRef& ref, const std::string& type) {
    auto events = api().History(ref);
    EXPECT_TRUE(events.ok()) << events.status();
    std::vector<v1::HistoryEvent> found;
    if (!events.ok()) return found;
    for (v1::HistoryEvent& event : *events) {
      if (event.type() == type) found.push_back(std::move(event));
    }
    return found;
  }

  void ExpectVerified(const v1::ExecutionRef& ref) {
    auto verified = api().Verify(ref);
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_TRUE(verified->equal()) << verified->difference();
    EXPECT_GT(verified->records(), 0u);
  }

  std::string OtherWorker(const std::string& id) {
    for (const auto& [name, worker] : workers_) {
      if (name != id) return name;
    }
    return "";
  }
};

// ---- workers that go away
// ----------------------------------------------------------------------------------------

TEST_F(Workers, ATaskOfAKilledWorkerGoesToAnotherUnderANewToken) {
  StartFluxd();
  StartWorker({.id = "a"});
  StartWorker({.id = "b"});
  const v1::ExecutionRef run = Begin(kGated, "killed", std::string("gate"));
  const LedgerLine first = ledger_.Await({.event = "begin"}).front();
  worker(first.worker).process().Kill();
  const LedgerLine second = ledger_.Await({.event = "begin"}, 2).at(1);
  EXPECT_EQ(second.worker, OtherWorker(first.worker));
  EXPECT_NE(second.token, first.token);
  EXPECT_EQ(second.run(), first.run());
  EXPECT_GT(second.delivery(), first.delivery());
  EXPECT_EQ(second.attempt, 2);
  ledger_.OpenGate("gate");
  EXPECT_EQ(AwaitValue<std::string>(run), second.worker);
  const auto failed = History(run, "attempt.failed");
  ASSERT_THAT(failed, SizeIs(1));
  EXPECT_EQ(failed[0].failure().type(), "flux.worker_lost");
  EXPECT_THAT(failed[0].failure().message(), HasSubstr(first.worker));
  EXPECT_THAT(History(run, "step.completed"), SizeIs(1));
  EXPECT_THAT(ledger_.Find({.event = "end"}), SizeIs(1));
  ExpectVerified(run);
}

TEST_F(Workers, ASuspendedWorkersLateResultIsRefusedAndTheOthersCounts) {
  StartFluxd();
  StartWorker({.id = "a"});
  StartWorker({.id = "b"});
  const v1::ExecutionRef run = Begin(kGated, "suspended", std::string("gate"));
  const LedgerLine first = ledger_.Await({.event = "begin"}).front();
  worker(first.worker).process().Signal(SIGSTOP);
  const LedgerLine second = ledger_.Await({.event = "begin"}, 2).at(1);
  EXPECT_EQ(second.worker, OtherWorker(first.worker));
  EXPECT_GT(second.delivery(), first.delivery());
  ledger_.OpenGate("gate");
  EXPECT_EQ(AwaitValue<std::string>(run), second.worker);
  EXPECT_EQ(api().Counter("results_stale"), 0u);

  // The gate is open: it finishes at once, long before it has found the coordinator again.
  worker(first.worker).process().Signal(SIGCONT);
  ledger_.Await({.event = "end", .worker = first.worker});
  EXPECT_TRUE(Eventually([&] { return api().Counter("results_stale") == 1; }))
      << "the late result was not refused";
  EXPECT_EQ(AwaitValue<std::string>(run), second.worker);
  EXPECT_THAT(History(run, "step.completed"), SizeIs(1));
  ExpectVerified(run);
  // And it is a worker like any other afterwards.
  worker(second.worker).process().Kill();
  EXPECT_EQ(AwaitValue<int64_t>(Begin(kChain, "afterwards", int64_t{1})), 5);
}

TEST_F(Workers, ATaskOfAKilledCoordinatorIsNotRunTwice) {
  UseLongGrace();
  StartFluxd();
  StartWorker({.id = "a"});
  StartWorker({.id = "b"});
  const v1::ExecutionRef run = Begin(kGated, "kept", std::string("gate"));
  const LedgerLine begun = ledger_.Await({.event = "begin"}).front();
  KillFluxd();
  StartFluxd();
  EXPECT_TRUE(Eventually([&] { return api().Counter("claims_kept") == 1; }));
  auto step = api().DescribeStep(run, "wait");
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_EQ(step->state(), v1::STEP_STATE_RUNNING);
  EXPECT_EQ(step->worker(), begun.worker);
  ledger_.OpenGate("gate");
  EXPECT_EQ(AwaitValue<std::string>(run), begun.worker);
  EXPECT_THAT(ledger_.Find({.event = "begin"}), SizeIs(1));
  EXPECT_THAT(History(run, "step.redelivered"), IsEmpty());
  ExpectVerified(run);
}

TEST_F(Workers, AResultThatWasFinishedWhileTheCoordinatorWasAwayCounts) {
  UseLongGrace();
  StartFluxd();
  StartWorker({.id = "a"});
  StartWorker({.id = "b"});
  const v1::ExecutionRef run = Begin(kGated, "away", std::string("gate"));
  const LedgerLine begun = ledger_.Await({.event = "begin"}).front();
  KillFluxd();
  ledger_.OpenGate("gate");
  ledger_.Await({.event = "end"});
  StartFluxd();
  EXPECT_EQ(AwaitValue<std::string>(run), begun.worker);
  EXPECT_THAT(ledger_.Find({.event = "begin"}), SizeIs(1));
  EXPECT_EQ(api().Counter("results_stale"), 0u);
  ExpectVerified(run);
}

TEST_F(Workers, ATaskThatNobodyClaimsAfterARestartIsDeliveredAgainAfterTheGrace) {
  StartFluxd();
  StartWorker({.id = "a"});
  const v1::ExecutionRef run = Begin(kGated, "unclaimed", std::string("gate"));
  const LedgerLine first = ledger_.Await({.event = "begin"}).front();
  KillFluxd();
  worker("a").process().Kill();
  StartFluxd();
  StartWorker({.id = "b"});
  const LedgerLine second = ledger_.Await({.event = "begin"}, 2).at(1);
  EXPECT_EQ(second.worker, "b");
  EXPECT_GT(second.delivery(), first.delivery());
  ledger_.OpenGate("gate");
  EXPECT_EQ(AwaitValue<std::string>(run), "b");
  ExpectVerified(run);
}

TEST_F(Workers, ATerminatedWorkerFinishesWhatItRunsAndHandsBackTheRest) {
  UseLongGrace();
  StartFluxd();
  StartWorker({.id = "a", .slots = 1, .prefetch = 5});
  std::vector<v1::ExecutionRef> runs;
  for (int i = 0; i < 4; ++i) {
    runs.push_back(Begin(kGated, absl::StrCat("drained", i), std::string("gate")));
  }
  ledger_.Await({.event = "begin"});
  // The others wait in its queue.
  EXPECT_TRUE(Eventually([&] { return api().Info()->tasks_running() == 4; }));
  worker("a").process().Signal(SIGTERM);
  StartWorker({.id = "b", .slots = 4});
  ledger_.Await({.event = "begin", .worker = "b"}, 3);
  ledger_.OpenGate("gate");
  EXPECT_EQ(ExitCode(worker("a").process().Wait()), 0);
  int by_a = 0;
  for (const v1::ExecutionRef& run : runs) by_a += AwaitValue<std::string>(run) == "a" ? 1 : 0;
  EXPECT_EQ(by_a, 1);
  EXPECT_THAT(ledger_.Find({.event = "begin"}), SizeIs(4)) << "something ran twice";
}

TEST_F(Workers, ManyTasksSurviveTheCoordinatorWithoutRunningTwice) {
  UseLongGrace();
  StartFluxd();
  StartWorker({.id = "a", .slots = 20});
  StartWorker({.id = "b", .slots = 20});
  std::vector<v1::ExecutionRef> runs;
  for (int i = 0; i < 40; ++i) {
    runs.push_back(Begin(kGated, absl::StrCat("many", i), std::string("gate")));
  }
  ledger_.Await({.event = "begin"}, 40);
  for (int restart = 0; restart < 3; ++restart) {
    KillFluxd();
    if (restart == 1) ledger_.OpenGate("gate");
    StartFluxd();
    if (restart == 0) {
      EXPECT_TRUE(Eventually([&] { return api().Counter("claims_kept") == 40; }));
    }
  }
  for (const v1::ExecutionRef& run : runs) {
    EXPECT_TRUE(AwaitValue<std::string>(run).has_value());
    ExpectVerified(run);
  }
  EXPECT_THAT(ledger_.Find({.event = "begin"}), SizeIs(40));
  EXPECT_THAT(ledger_.Find({.event = "end"}), SizeIs(40));
}

// ---- clients that go away
// ----------------------------------------------------------------------------------------

TEST_F(Workers, ClientsThatDisconnectLeaveNothingBehind) {
  StartFluxd();
  StartWorker({.id = "a"});
  const v1::ExecutionRef run = Begin(kGated, "polled", std::string("gate"));
  {
    // Long polls and watches whose clients vanish with their connection.
    std::vector<std::thread> callers;
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    Api client(fluxd_.target());
    constexpr int kWatches = 10;
    std::latch watching(kWatches);
    for (int i = 0; i < 2 * kWatches; ++i) {
      contexts.push_back(std::make_unique<grpc::ClientContext>());
      grpc::ClientContext* context = contexts.back().get();
      context->set_wait_for_ready(true);
      callers.emplace_back([&client, &run, &watching, context, i] {
        if (i % 2 == 0) {
          v1::GetResultRequest request;
          *request.mutable_execution() = run;
          request.set_wait_ms(60'000);
          v1::GetResultResponse response;
          EXPECT_FALSE(client.workflows().GetResult(context, request, &response).ok());
        } else {
          v1::WatchExecutionRequest request;
          *request.mutable_execution() = run;
          auto stream = client.workflows().WatchExecution(context, request);
          v1::WatchExecutionResponse response;
          EXPECT_TRUE(stream->Read(&response));
          watching.count_down();
          while (stream->Read(&response)) {
          }
          EXPECT_FALSE(stream->Finish().ok());
        }
      });
    }
    ledger_.Await({.event = "begin"});
    watching.wait();
    for (auto& context : contexts) context->TryCancel();
    for (std::thread& caller : callers) caller.join();
  }
  ledger_.OpenGate("gate");
  EXPECT_EQ(AwaitValue<std::string>(run), "a");
}

TEST_F(Workers, AStartWhoseClientDisconnectsHappensOnceOrNotAtAll) {
  StartFluxd();
  StartWorker({.id = "a"});
  ASSERT_TRUE(api().Put(DefinitionOf(kChain)).ok());
  constexpr int kStarts = 50;
  for (int i = 0; i < kStarts; ++i) {
    const v1::StartWorkflowRequest request = StartOf(kChain, absl::StrCat("cut", i), int64_t{i});
    grpc::ClientContext context;
    v1::StartWorkflowResponse response;
    std::thread cutter([&] { context.TryCancel(); });
    const grpc::Status cut = api().workflows().StartWorkflow(&context, request, &response);
    cutter.join();
    // Whatever became of it, the same request says so.
    auto again = api().Start(request);
    ASSERT_TRUE(again.ok()) << again.status();
    if (cut.ok()) {
      EXPECT_EQ(again->run_id(), response.run_id());
      EXPECT_FALSE(again->started());
    }
    EXPECT_EQ(AwaitValue<int64_t>(Ref(absl::StrCat("cut", i), again->run_id())), i + 4);
  }
  auto count = api().Count();
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(*count, static_cast<uint64_t>(kStarts));
}

// ---- failures and deadlines
// --------------------------------------------------------------------------------------

constexpr flux::Workflow<int64_t(int64_t)> kBackoff{
    "backoff", {}, [](flux::Graph& g, Integer times) {
      return g.Call(kFailTimes, times)
          .Named("fail")
          .Retry({.max_attempts = 5,
                  .initial_backoff = absl::Milliseconds(40),
                  .factor = 2,
                  .max_backoff = absl::Milliseconds(100),
                  .jitter = 0});
    }};

TEST_F(Workers, RetriesComeAfterTheirBackoff) {
  StartFluxd();
  StartWorker({.id = "a"});
  const v1::ExecutionRef run = Begin(kBackoff, "backoff", int64_t{4});
  EXPECT_EQ(AwaitValue<int64_t>(run), 5);
  const auto scheduled = History(run, "step.scheduled");
  const auto failed = History(run, "attempt.failed");
  ASSERT_THAT(scheduled, SizeIs(5));
  ASSERT_THAT(failed, SizeIs(4));
  const std::vector<int64_t> backoffs = {40, 80, 100, 100};
  std::set<uint64_t> deliveries;
  for (size_t i = 0; i < backoffs.size(); ++i) {
    EXPECT_EQ(failed[i].failure().type(), "e2e.try_again");
    EXPECT_EQ(failed[i].attempt(), i + 1);
    EXPECT_GE(scheduled[i + 1].time_ms() - failed[i].time_ms(), backoffs[i]) << "retry " << i;
    deliveries.insert(failed[i].delivery());
  }
  EXPECT_THAT(deliveries, SizeIs(4)) << "an attempt's token was used again";
  ExpectVerified(run);
}

TEST_F(Workers, AttemptsRunOut) {
  StartFluxd();
  StartWorker({.id = "a"});
  const v1::ExecutionRef run = Begin(kBackoff, "exhausted", int64_t{100});
  const v1::GetResultResponse result = AwaitClosed(run);
  EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(result.failure().type(), "e2e.try_again");
  EXPECT_THAT(ledger_.Find({.event = "begin"}), SizeIs(5));
  ExpectVerified(run);
}

constexpr flux::Task<int64_t(bool)> kRefuseListed{
    "e2e.refuse", {.retry = kStubborn, .non_retriable = {kRefused}}};
constexpr flux::Workflow<int64_t(bool)> kListed{
    "listed", {}, [](flux::Graph& g, Value<bool> marked) { return g.Call(kRefuseListed, marked); }};
constexpr flux::Workflow<int64_t(bool)> kMarked{
    "marked", {}, [](flux::Graph& g, Value<bool> marked) { return g.Call(kRefuse, marked); }};

TEST_F(Workers, NonRetriableFailuresAreNotTriedAgain) {
  StartFluxd();
  StartWorker({.id = "a"});
  // Said by the workflow, and said by the worker.
  for (const auto& [workflow, marked] : {std::pair(&kListed, false), std::pair(&kMarked, true)}) {
    const std::string id(workflow->name());
    SCOPED_TRACE(id);
    const v1::ExecutionRef run = Begin(*workflow, id, marked);
    const v1::GetResultResponse result = AwaitClosed(run);
    EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_EQ(result.failure().type(), "e2e.refused");
    EXPECT_EQ(result.failure().message(), "it will never work");
    EXPECT_THAT(ledger_.Find({.event = "begin", .workflow_id = id}), SizeIs(1));
    ExpectVerified(run);
  }
}

constexpr flux::Workflow<int64_t(std::string)> kThrows{
    "throws", {}, [](flux::Graph& g, Value<std::string> text) {
      return g.Call(kThrow, text)
          .Retry({.max_attempts = 2, .initial_backoff = absl::Milliseconds(10)});
    }};

TEST_F(Workers, AnExceptionIsAFailureOfItsAttempt) {
  StartFluxd();
  StartWorker({.id = "a"});
  const v1::GetResultResponse result = AwaitClosed(Begin(kThrows, "throws", std::string("ouch")));
  EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(result.failure().type(), "flux.task.exception");
  EXPECT_THAT(result.failure().message(), HasSubstr("ouch"));
  EXPECT_THAT(ledger_.Find({.event = "begin"}), SizeIs(2));
  EXPECT_EQ(AwaitValue<int64_t>(Begin(kChain, "afterwards", int64_t{0})), 4);
}

constexpr flux::Workflow<int64_t(std::string)> kWithProgress{
    "progress", {}, [](flux::Graph& g, Value<std::string> gate) {
      return g.Call(kProgress, gate).Named("work");
    }};

TEST_F(Workers, ProgressIsShownAndHandedToTheNextAttempt) {
  StartFluxd();
  StartWorker({.id = "a"});
  const v1::ExecutionRef run = Begin(kWithProgress, "progress", std::string("gate"));
  EXPECT_TRUE(Eventually([&] {
    auto step = api().DescribeStep(run, "work");
    return step.ok() && step->progress().data() == "41";
  })) << "the heartbeat's progress is not shown";
  ledger_.OpenGate("gate");
  EXPECT_EQ(AwaitValue<int64_t>(run), 41);
  ExpectVerified(run);
}

TEST_F(Workers, ProgressOfAKilledWorkerIsHandedToTheNextAttempt) {
  StartFluxd();
  StartWorker({.id = "a"});
  const v1::ExecutionRef run = Begin(kWithProgress, "progress", std::string("gate"));
  EXPECT_TRUE(Eventually([&] {
    auto step = api().DescribeStep(run, "work");
    return step.ok() && step->progress().data() == "41";
  }));
  worker("a").process().Kill();
  StartWorker({.id = "b"});
  EXPECT_EQ(AwaitValue<int64_t>(run), 41);
  ExpectVerified(run);
}

constexpr flux::Workflow<int64_t(int64_t)> kHeartbeatTimeout{
    "heartbeat-timeout", {}, [](flux::Graph& g, Integer n) {
      return g.Call(kSilent, n).Heartbeat(absl::Milliseconds(250));
    }};
constexpr flux::Workflow<int64_t(int64_t)> kAttemptTimeout{
    "attempt-timeout", {}, [](flux::Graph& g, Integer n) {
      return g.Call(kSilent, n).Timeout(absl::Milliseconds(250));
    }};

TEST_F(Workers, ATaskThatIsSilentOrTooSlowIsCancelledAndTriedAgain) {
  UseLongGrace();
  StartFluxd();
  StartWorker({.id = "a", .slots = 2});
  for (const auto& [workflow, type] :
       {std::pair(&kHeartbeatTimeout, "flux.timeout.heartbeat"),
        std::pair(&kAttemptTimeout, "flux.timeout.start_to_close")}) {
    SCOPED_TRACE(type);
    const std::string id(workflow->name());
    const v1::ExecutionRef run = Begin(*workflow, id, int64_t{0});
    const std::optional<int64_t> attempt = AwaitValue<int64_t>(run);
    ASSERT_TRUE(attempt.has_value());
    EXPECT_GE(*attempt, 2);  // a busy machine may be too slow for the second as well
    const auto failed = History(run, "attempt.failed");
    ASSERT_EQ(failed.size(), static_cast<size_t>(*attempt) - 1);
    EXPECT_EQ(failed[0].failure().type(), type);
    EXPECT_THAT(failed[0].failure().message(), AllOf(HasSubstr("e2e.silent"), HasSubstr("250")));
    // The worker was told to stop, and did.
    ledger_.Await({.event = "end", .workflow_id = id}, 2);
    ExpectVerified(run);
  }
}

constexpr flux::Workflow<int64_t(int64_t)> kNeverTaken{
    "never-taken", {}, [](flux::Graph& g, Integer n) {
      return g.Call(kNobody, n).Retry({.max_attempts = 1}).ScheduleToStart(absl::Milliseconds(100));
    }};
constexpr flux::Workflow<int64_t(int64_t)> kNeverDone{
    "never-done", {}, [](flux::Graph& g, Integer n) {
      return g.Call(kNobody, n).ScheduleToClose(absl::Milliseconds(100));
    }};

TEST_F(Workers, ATaskThatNobodyTakesRunsIntoItsDeadline) {
  StartFluxd();
  for (const auto& [workflow, type] : {std::pair(&kNeverTaken, "flux.timeout.schedule_to_start"),
                                       std::pair(&kNeverDone, "flux.timeout.schedule_to_close")}) {
    SCOPED_TRACE(type);
    const v1::ExecutionRef run = Begin(*workflow, std::string(workflow->name()), int64_t{0});
    const v1::GetResultResponse result = AwaitClosed(run);
    EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_FAILED);
    EXPECT_EQ(result.failure().type(), type);
    EXPECT_THAT(result.failure().message(), HasSubstr("e2e.nobody-has-it"));
    ExpectVerified(run);
  }
}

TEST_F(Workers, CancellingAnExecutionStopsWhatItsWorkersRun) {
  UseLongGrace();
  StartFluxd();
  StartWorker({.id = "a"});
  const v1::ExecutionRef cancelled = Begin(kGated, "cancelled", std::string("never"));
  const v1::ExecutionRef terminated = Begin(kGated, "terminated", std::string("never"));
  ledger_.Await({.event = "begin"}, 2);
  ASSERT_TRUE(api().Cancel(cancelled, "no longer wanted").ok());
  ASSERT_TRUE(api().Terminate(terminated, "at once").ok());
  const v1::GetResultResponse first = AwaitClosed(cancelled);
  EXPECT_EQ(first.status(), v1::EXECUTION_STATUS_CANCELLED);
  EXPECT_THAT(first.failure().message(), HasSubstr("no longer wanted"));
  EXPECT_EQ(AwaitClosed(terminated).status(), v1::EXECUTION_STATUS_TERMINATED);
  for (const LedgerLine& line : ledger_.Await({.event = "end"}, 2)) {
    EXPECT_EQ(line.detail, "wanted no more");
  }
  KillFluxd();
  StartFluxd();
  EXPECT_EQ(AwaitClosed(cancelled).status(), v1::EXECUTION_STATUS_CANCELLED);
  EXPECT_EQ(AwaitClosed(terminated).status(), v1::EXECUTION_STATUS_TERMINATED);
  ExpectVerified(cancelled);
  ExpectVerified(terminated);
}

TEST_F(Workers, AResultOverTheLimitFailsItsAttemptForGood) {
  SetFlags({{"payload-bytes-max", "100KiB"}});
  StartFluxd();
  StartWorker({.id = "a"});
  static constexpr flux::Workflow<std::string(int64_t)> kText{
      "text", {}, [](flux::Graph& g, Integer bytes) { return g.Call(kMakeText, bytes); }};
  const auto fits = AwaitValue<std::string>(Begin(kText, "fits", int64_t{100 * 1024 - 2}));
  ASSERT_TRUE(fits.has_value());
  EXPECT_EQ(fits->size(), 100u * 1024 - 2);  // and two quotes
  const v1::GetResultResponse result = AwaitClosed(Begin(kText, "over", int64_t{100 * 1024 - 1}));
  EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(result.failure().type(), "flux.payload_too_large");
  EXPECT_THAT(result.failure().message(), AllOf(HasSubstr("102401"), HasSubstr("102400"),
                                                HasSubstr("fluxd's payload-bytes-max")));
  EXPECT_THAT(ledger_.Find({.event = "begin"}), SizeIs(2));
}

// ---- workers that lie
// --------------------------------------------------------------------------------------------

class RawWorkers : public Workers {
 protected:
  void SetUp() override {
    UseLongGrace();
    StartFluxd();
  }
  static v1::WorkerHello Hello(const std::string& id) {
    return RawWorker::HelloOf(id, {std::string(kByHand.name())});
  }
  // Everything of the execution that a refused message must not change.
  std::string Picture(const v1::ExecutionRef& run) {
    auto described = api().Describe(run);
    auto history = api().History(run);
    EXPECT_TRUE(described.ok()) << described.status();
    EXPECT_TRUE(history.ok()) << history.status();
    if (!described.ok() || !history.ok()) return "";
    described->clear_server_time_ms();
    std::string picture = described->DebugString();
    for (const v1::HistoryEvent& event : *history) picture += event.DebugString();
    return picture;
  }
};

TEST_F(RawWorkers, ADoubledResultIsRecordedOnce) {
  const v1::ExecutionRef run = Begin(kByHandTwice, "doubled", int64_t{1});
  RawWorker worker(api());
  worker.Hello(Hello("w"), 1);
  const v1::Task first = worker.AwaitTask();
  EXPECT_EQ(first.inputs(0).payload().data(), "1");
  // Twice in one message, then once more in another.
  v1::ConnectRequest twice;
  for (int i = 0; i < 2; ++i) {
    v1::TaskResult* result = twice.add_results();
    *result->mutable_token() = first.token();
    *result->mutable_value() = JsonNumber(10 + i);
  }
  worker.Send(twice);
  EXPECT_EQ(worker.AwaitAck().status(), v1::ACK_STATUS_RECORDED);
  const v1::ResultAck doubled = worker.AwaitAck();
  EXPECT_EQ(doubled.status(), v1::ACK_STATUS_DUPLICATE);
  EXPECT_THAT(doubled.detail(),
              AllOf(HasSubstr(absl::StrCat("delivery ", first.token().delivery(), " of step")),
                    HasSubstr("execution doubled"), HasSubstr("recorded already; drop")));
  worker.Answer(first.token(), JsonNumber(12));
  EXPECT_EQ(worker.AwaitAck().status(), v1::ACK_STATUS_DUPLICATE);
  EXPECT_EQ(api().Counter("results_duplicate"), 2u);
  worker.Credit(1);
  const v1::Task second = worker.AwaitTask();
  EXPECT_EQ(second.inputs(0).payload().data(), "10") << "the first of them counts";
  worker.Answer(second.token(), JsonNumber(20));
  EXPECT_EQ(worker.AwaitAck().status(), v1::ACK_STATUS_RECORDED);
  EXPECT_EQ(AwaitValue<int64_t>(run), 20);
  // And after the end.
  worker.Answer(first.token(), JsonNumber(13));
  EXPECT_EQ(worker.AwaitAck().status(), v1::ACK_STATUS_DUPLICATE);
  worker.Answer(second.token(), JsonNumber(21));
  EXPECT_EQ(worker.AwaitAck().status(), v1::ACK_STATUS_DUPLICATE);
  EXPECT_EQ(AwaitValue<int64_t>(run), 20);
  EXPECT_THAT(History(run, "step.completed"), SizeIs(2));
  ExpectVerified(run);
}

TEST_F(RawWorkers, InventedTokensAreRefusedAndChangeNothing) {
  const v1::ExecutionRef run = Begin(kByHandTwice, "invented", int64_t{1});
  RawWorker honest(api());
  honest.Hello(Hello("honest"), 1);
  const v1::TaskToken good = honest.AwaitTask().token();
  RawWorker liar(api());
  liar.Hello(Hello("liar"));
  liar.AwaitWelcome();
  const std::string before = Picture(run);

  using Change = std::function<void(v1::TaskToken*)>;
  struct Case {
    const char* name;
    const char* why;
    Change change;
  };
  const std::vector<Case> cases = {
      {"nothing in it", "not of this data directory", [](v1::TaskToken* t) { t->Clear(); }},
      {"another store", "not of this data directory",
       [](v1::TaskToken* t) { t->set_incarnation(t->incarnation() + 1); }},
      {"no run", "not of this data directory", [](v1::TaskToken* t) { t->clear_run_id(); }},
      {"a run id cut short", "not of this data directory",
       [](v1::TaskToken* t) { t->set_run_id(t->run_id().substr(0, 3)); }},
      {"a run id of garbage", "not of this data directory",
       [](v1::TaskToken* t) { t->set_run_id(std::string(16, '\xff')); }},
      {"an unknown run of a shard that exists", "there is no run ",
       [](v1::TaskToken* t) { (*t->mutable_run_id())[0] ^= 0x55; }},
      {"a frame that is not there", "of frame 77", [](v1::TaskToken* t) { t->set_frame(77); }},
      {"the greatest frame", "of frame 18446744073709551615",
       [](v1::TaskToken* t) { t->set_frame(UINT64_MAX); }},
      {"a step that is not there", "no step 77", [](v1::TaskToken* t) { t->set_step(77); }},
      {"a step that has not begun", "it was never handed out",
       [](v1::TaskToken* t) { t->set_step(t->step() + 1); }},
      {"a delivery to come", "the current one is delivery 1 ",
       [](v1::TaskToken* t) { t->set_delivery(t->delivery() + 1); }},
      {"no delivery", "the current one is delivery 1 ",
       [](v1::TaskToken* t) { t->set_delivery(0); }},
      {"another generation", "the current one is delivery 1 (generation ",
       [](v1::TaskToken* t) { t->set_generation(t->generation() + 1); }},
  };
  uint64_t stale = 0;
  for (const auto& [name, why, change] : cases) {
    SCOPED_TRACE(name);
    v1::TaskToken token = good;
    change(&token);
    liar.Answer(token, JsonNumber(666));
    const v1::ResultAck ack = liar.AwaitAck();
    EXPECT_EQ(ack.status(), v1::ACK_STATUS_STALE) << ack.DebugString();
    EXPECT_THAT(ack.detail(),
                AllOf(StartsWith("stale: "), HasSubstr(why), EndsWith("; drop the result")));
    EXPECT_EQ(ack.token().SerializeAsString(), token.SerializeAsString());
    EXPECT_EQ(api().Counter("results_stale"), ++stale);
    EXPECT_TRUE(Picture(run) == before) << Picture(run);
    // Nor do its other messages change anything.
    v1::ConnectRequest noise;
    v1::Heartbeat* heartbeat = noise.add_heartbeats();
    *heartbeat->mutable_token() = token;
    *heartbeat->mutable_progress() = JsonNumber(666);
    *noise.add_released() = token;
    liar.Send(noise);
    EXPECT_TRUE(Picture(run) == before) << Picture(run);
  }
  honest.Answer(good, JsonNumber(10));
  EXPECT_EQ(honest.AwaitAck().status(), v1::ACK_STATUS_RECORDED);
  honest.Credit(1);
  honest.Answer(honest.AwaitTask().token(), JsonNumber(20));
  EXPECT_EQ(AwaitValue<int64_t>(run), 20);
  ExpectVerified(run);
}

TEST_F(RawWorkers, AnotherWorkersTaskCannotBeHandedBackOrKeptAlive) {
  const v1::ExecutionRef run = Begin(kByHandTwice, "meddled", int64_t{1});
  RawWorker honest(api());
  honest.Hello(Hello("honest"), 1);
  const v1::TaskToken token = honest.AwaitTask().token();
  RawWorker meddler(api());
  meddler.Hello(Hello("meddler"), 1);
  meddler.AwaitWelcome();
  const std::string before = Picture(run);
  v1::ConnectRequest message;
  *message.add_released() = token;
  v1::Heartbeat* heartbeat = message.add_heartbeats();
  *heartbeat->mutable_token() = token;
  *heartbeat->mutable_progress() = JsonNumber(666);
  // An answer that follows on the same stream says that the message was taken up.
  v1::TaskToken unknown = token;
  unknown.set_frame(77);
  meddler.Send(message);
  meddler.Answer(unknown, JsonNumber(0));
  EXPECT_EQ(meddler.AwaitAck().status(), v1::ACK_STATUS_STALE);
  EXPECT_TRUE(Picture(run) == before) << Picture(run);
  EXPECT_EQ(meddler.tasks_waiting(), 0u);
  honest.Answer(token, JsonNumber(10));
  EXPECT_EQ(honest.AwaitAck().status(), v1::ACK_STATUS_RECORDED);
}

TEST_F(RawWorkers, ADelayedResultOfAnOldTokenIsRefused) {
  SetFlags({{"session-grace", "200ms"}, {"ping-interval", "1m"}});
  KillFluxd();
  StartFluxd();
  const v1::ExecutionRef run = Begin(kByHandTwice, "delayed", int64_t{1});
  v1::TaskToken old;
  {
    RawWorker lost(api());
    lost.Hello(Hello("lost"), 1);
    old = lost.AwaitTask().token();
  }
  RawWorker next(api());
  next.Hello(Hello("next"), 1);
  const v1::Task again = next.AwaitTask();
  EXPECT_EQ(again.attempt(), 2u);
  EXPECT_GT(again.token().delivery(), old.delivery());
  // The session is back, on a new stream; its result is too late all the same.
  RawWorker back(api());
  back.Hello(Hello("lost"));
  back.AwaitWelcome();
  back.Answer(old, JsonNumber(666));
  const v1::ResultAck late = back.AwaitAck();
  EXPECT_EQ(late.status(), v1::ACK_STATUS_STALE);
  EXPECT_THAT(
      late.detail(),
      AllOf(HasSubstr(absl::StrCat("delivery ", old.delivery(), " of step")),
            HasSubstr("execution delayed"),
            HasSubstr(absl::StrCat("the current one is delivery ", again.token().delivery())),
            EndsWith("; drop the result")));
  EXPECT_EQ(api().Counter("results_stale"), 1u);
  next.Answer(again.token(), JsonNumber(10));
  EXPECT_EQ(next.AwaitAck().status(), v1::ACK_STATUS_RECORDED);
  back.Answer(old, JsonNumber(667));
  EXPECT_EQ(back.AwaitAck().status(), v1::ACK_STATUS_STALE);
  next.Credit(1);
  const v1::Task second = next.AwaitTask();
  EXPECT_EQ(second.inputs(0).payload().data(), "10");
  next.Answer(second.token(), JsonNumber(20));
  EXPECT_EQ(AwaitValue<int64_t>(run), 20);
  ExpectVerified(run);
}

TEST_F(RawWorkers, ResultsOfAStreamThatBrokeCountWhenTheyAreSentAgain) {
  const v1::ExecutionRef run = Begin(kByHandTwice, "resent", int64_t{1});
  v1::Task task;
  {
    RawWorker broken(api());
    broken.Hello(Hello("w"), 1);
    task = broken.AwaitTask();
  }
  RawWorker again(api());
  v1::WorkerHello hello = Hello("w");
  v1::RunningTask* running = hello.add_running();
  *running->mutable_token() = task.token();
  running->set_finished(true);
  again.Hello(hello, 1);
  again.AwaitWelcome();
  again.Answer(task.token(), JsonNumber(10));
  EXPECT_EQ(again.AwaitAck().status(), v1::ACK_STATUS_RECORDED);
  const v1::Task second = again.AwaitTask();
  EXPECT_EQ(second.inputs(0).payload().data(), "10");
  again.Answer(second.token(), JsonNumber(20));
  EXPECT_EQ(AwaitValue<int64_t>(run), 20);
  EXPECT_THAT(History(run, "step.redelivered"), IsEmpty());
}

TEST_F(RawWorkers, ATaskThatTheReturningWorkerDoesNotNameIsDeliveredAgain) {
  const v1::ExecutionRef run = Begin(kByHandTwice, "forgotten", int64_t{1});
  v1::Task task;
  {
    RawWorker broken(api());
    broken.Hello(Hello("w"), 1);
    task = broken.AwaitTask();
  }
  RawWorker again(api());
  again.Hello(Hello("w"), 1);
  const v1::Task second = again.AwaitTask();
  EXPECT_EQ(second.step(), task.step());
  EXPECT_EQ(second.attempt(), 1u) << "it never began";
  EXPECT_GT(second.token().delivery(), task.token().delivery());
  again.Answer(task.token(), JsonNumber(666));
  EXPECT_EQ(again.AwaitAck().status(), v1::ACK_STATUS_STALE);
  again.Answer(second.token(), JsonNumber(10));
  EXPECT_EQ(again.AwaitAck().status(), v1::ACK_STATUS_RECORDED);
  EXPECT_THAT(History(run, "step.redelivered"), SizeIs(1));
}

TEST_F(RawWorkers, AResultWithoutAnOutcomeFailsItsAttemptAndSaysSo) {
  const v1::ExecutionRef run = Begin(kByHandTwice, "empty", int64_t{1});
  RawWorker worker(api());
  worker.Hello(Hello("w"), 1);
  v1::ConnectRequest message;
  *message.add_results()->mutable_token() = worker.AwaitTask().token();
  worker.Send(message);
  const v1::ResultAck ack = worker.AwaitAck();
  EXPECT_EQ(ack.status(), v1::ACK_STATUS_INVALID);
  EXPECT_THAT(ack.detail(), HasSubstr("no outcome"));
  const v1::GetResultResponse result = AwaitClosed(run);
  EXPECT_EQ(result.status(), v1::EXECUTION_STATUS_FAILED);
  EXPECT_EQ(result.failure().type(), "flux.invalid_result");
}

TEST_F(RawWorkers, AWorkerThatNeverGivesCreditGetsNothingAndHoldsNothingUp) {
  RawWorker stingy(api());
  stingy.Hello(Hello("stingy"));
  stingy.AwaitWelcome();
  const v1::ExecutionRef run = Begin(kByHandTwice, "no-credit", int64_t{1});
  auto step = api().DescribeStep(run, "first");
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_EQ(step->state(), v1::STEP_STATE_SCHEDULED);
  EXPECT_THAT(step->reason(), HasSubstr("the only worker on queue default is busy"));
  auto workers = api().Workers();
  ASSERT_TRUE(workers.ok()) << workers.status();
  ASSERT_THAT(*workers, SizeIs(1));
  EXPECT_EQ(workers->front().credit(), 0u);
  EXPECT_EQ(workers->front().state(), "connected");

  RawWorker generous(api());
  generous.Hello(Hello("generous"), 2);
  generous.Answer(generous.AwaitTask().token(), JsonNumber(10));
  generous.Answer(generous.AwaitTask().token(), JsonNumber(20));
  EXPECT_EQ(AwaitValue<int64_t>(run), 20);
  EXPECT_EQ(stingy.tasks_waiting(), 0u);
}

TEST_F(RawWorkers, CreditIsNeverOverdrawn) {
  std::vector<v1::ExecutionRef> runs;
  for (int i = 0; i < 10; ++i) {
    runs.push_back(Begin(kByHandTwice, absl::StrCat("credit", i), int64_t{i}));
  }
  RawWorker worker(api());
  worker.Hello(Hello("w"), 3);
  for (int answered = 0; answered < 20; answered += 3) {
    std::vector<v1::TaskToken> tokens;
    const int due = std::min(3, 20 - answered);
    for (int i = 0; i < due; ++i) tokens.push_back(worker.AwaitTask().token());
    // Whatever else is ready stays where it is: the answers to these say that it had the chance.
    for (const v1::TaskToken& token : tokens) worker.Answer(token, JsonNumber(1));
    for (int i = 0; i < due; ++i) EXPECT_EQ(worker.AwaitAck().status(), v1::ACK_STATUS_RECORDED);
    EXPECT_EQ(worker.tasks_waiting(), 0u);
    worker.Credit(3);
  }
  for (const v1::ExecutionRef& run : runs) EXPECT_EQ(AwaitValue<int64_t>(run), 1);
}

TEST_F(RawWorkers, AWorkerThatAnswersNoPingIsAway) {
  SetFlags({{"session-grace", "200ms"}, {"ping-interval", "100ms"}});
  KillFluxd();
  StartFluxd();
  const v1::ExecutionRef run = Begin(kByHandTwice, "deaf", int64_t{1});
  RawWorker deaf(api());
  deaf.set_answers_pings(false);
  deaf.Hello(Hello("deaf"), 1);
  const v1::Task task = deaf.AwaitTask();
  const absl::Status ended = deaf.AwaitEnd();
  EXPECT_EQ(ended.code(), absl::StatusCode::kUnavailable) << ended;
  EXPECT_THAT(std::string(ended.message()), AllOf(HasSubstr("deaf"), HasSubstr("silent")));
  RawWorker other(api());
  other.Hello(Hello("other"), 2);
  other.Answer(other.AwaitTask().token(), JsonNumber(10));
  other.Answer(other.AwaitTask().token(), JsonNumber(20));
  EXPECT_EQ(AwaitValue<int64_t>(run), 20);
}

}  // namespace
}  // namespace flux::e2e
