// The worker against a scripted coordinator.
#include "worker/src/session.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/dispatch/dispatcher.h"
#include "flux/worker.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/fake_coordinator.h"
#include "tests/worker/harness.h"

namespace flux {
namespace {

using ::testing::AllOf;
using testing::Double;
using ::testing::ElementsAre;
using testing::FakeCoordinator;
using testing::Gate;
using ::testing::HasSubstr;
using testing::kBlock;
using testing::kDouble;
using testing::kText;
using testing::MakeTask;
using testing::Options;
using testing::Seen;
using testing::Token;

TEST(WorkerSession, SaysHelloWithItsCreditInTheFirstMessage) {
  FakeCoordinator coordinator;
  WorkerOptions options = Options(coordinator.target());
  options.queue = "nlp";
  Worker worker(options);
  worker.Register(kText, [](int) { return std::string(); }).Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.hellos.size() == 1; }));
  const Seen seen = coordinator.seen();
  const v1::WorkerHello& hello = seen.hellos[0];
  EXPECT_EQ(hello.worker_id(), "tester:1");
  EXPECT_EQ(hello.session_id().size(), 32u);
  EXPECT_EQ(hello.queue(), "nlp");
  EXPECT_EQ(hello.slots(), 2u);
  EXPECT_THAT(hello.tasks(), ElementsAre("double", "text"));
  EXPECT_FALSE(hello.sdk_version().empty());
  EXPECT_EQ(hello.running_size(), 0);
  EXPECT_EQ(seen.first[0].credit(), 3u);
}

TEST(WorkerSession, AnswersTasksAndForgetsThemWhenAcknowledged) {
  FakeCoordinator coordinator({.ack = false});
  std::mutex mutex;
  std::vector<std::string> warnings;
  WorkerOptions options = Options(coordinator.target());
  options.log = [&](LogLevel level, std::string_view text) {
    const std::lock_guard lock(mutex);
    if (level == LogLevel::kWarning) warnings.emplace_back(text);
  };
  Worker worker(options);
  worker.Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  v1::Task stale = MakeTask(2, "double", "4");
  stale.set_workflow_id("chart-17");
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "double", "21"), stale}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 2; }));
  std::set<std::string> values;
  for (const v1::TaskResult& result : coordinator.seen().results) {
    EXPECT_EQ(result.value().encoding(), v1::ENCODING_JSON);
    values.insert(result.value().data());
  }
  EXPECT_EQ(values, (std::set<std::string>{"42", "8"}));
  EXPECT_EQ(worker.stats().unacknowledged, 2u);
  ASSERT_TRUE(coordinator.SendAck(Token(1)));
  ASSERT_TRUE(coordinator.SendAck(Token(2), v1::ACK_STATUS_STALE));
  ASSERT_TRUE(coordinator.Sync());
  const WorkerStats stats = worker.stats();
  EXPECT_EQ(stats.unacknowledged, 0u);
  EXPECT_EQ(stats.acknowledged, 1u);
  EXPECT_EQ(stats.refused, 1u);
  EXPECT_EQ(stats.completed, 2u);
  const std::lock_guard lock(mutex);
  EXPECT_THAT(warnings, ElementsAre(AllOf(HasSubstr("the result of task 'double' of workflow "
                                                    "'chart-17' came too late and is dropped: "))));
}

TEST(WorkerSession, GivesCreditBackAsTasksFinish) {
  FakeCoordinator coordinator;
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  for (uint64_t round = 0; round < 5; ++round) {
    ASSERT_TRUE(coordinator.SendTasks({MakeTask(3 * round + 1, "double", "1"),
                                       MakeTask(3 * round + 2, "double", "1"),
                                       MakeTask(3 * round + 3, "double", "1")}));
    ASSERT_TRUE(
        coordinator.Await([&](const Seen& seen) { return seen.credit == 3 * (round + 2); }));
  }
  EXPECT_EQ(coordinator.seen().results.size(), 15u);
}

TEST(WorkerSession, NeverGivesMoreCreditThanSlotsAndPrefetch) {
  FakeCoordinator coordinator;
  Gate gate;
  Worker worker(Options(coordinator.target()));
  worker.Register(kBlock, [&](int n) { return gate.Pass(), n; });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks(
      {MakeTask(1, "block", "1"), MakeTask(2, "block", "2"), MakeTask(3, "block", "3")}));
  ASSERT_TRUE(gate.AwaitInside(2));
  ASSERT_TRUE(coordinator.Sync());
  EXPECT_EQ(coordinator.seen().credit, 3u);
  EXPECT_EQ(worker.stats().queued, 1u);
  EXPECT_EQ(worker.stats().running, 2u);
  gate.Open();
  EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 6; }));
}

// More than the coordinator's limit would be refused on every stream anew.
TEST(WorkerSession, AsksForNoMoreThanTheCoordinatorGives) {
  EXPECT_EQ(internal::kHeldMax, engine::DispatchOptions().credit_max);
  EXPECT_EQ(internal::kTasksMax + internal::kUnackedMax, internal::kHeldMax);
  FakeCoordinator coordinator;
  WorkerOptions options = Options(coordinator.target());
  options.slots = 4'000;
  options.prefetch = internal::kTasksMax - 4'000 + 1;
  Worker refused(options);
  refused.Register(kDouble, Double);
  const absl::Status status = refused.Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), AllOf(HasSubstr("slots of 4000"), HasSubstr("prefetch of 76001"),
                                       HasSubstr("limit of 80000"), HasSubstr("at most 76000")));
  options.prefetch = internal::kTasksMax - 4'000;
  Worker worker(options);
  worker.Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 80'000; }));
}

TEST(WorkerSession, GivesNoCreditWhileTooManyResultsAreUnacknowledged) {
  FakeCoordinator coordinator({.ack = false});
  WorkerOptions options = Options(coordinator.target());
  options.prefetch = 4'998;
  Worker worker(options);
  worker.Register(kDouble, Double);
  // Every grant is used at once.
  std::atomic<uint64_t> sent = 0;
  coordinator.Change([&](FakeCoordinator::Script* script) {
    script->react = [&](const v1::ConnectRequest& request, v1::ConnectResponse* answer) {
      for (uint32_t i = 0; i < request.credit(); ++i) {
        *answer->add_tasks() = MakeTask(++sent, "double", "1");
      }
    };
  });
  ASSERT_TRUE(worker.Start().ok());
  constexpr uint64_t kLimit = 20'000;
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() >= kLimit; }));
  ASSERT_TRUE(coordinator.Await([&](const Seen& seen) { return seen.results.size() == sent; }));
  ASSERT_TRUE(coordinator.Sync());
  const uint64_t at_limit = sent;
  EXPECT_LT(at_limit, kLimit + 5'000);
  EXPECT_EQ(worker.stats().unacknowledged, at_limit);
  v1::ConnectResponse acks;
  for (uint64_t delivery = 1; delivery <= at_limit; ++delivery) {
    *acks.add_acks()->mutable_token() = Token(delivery);
    acks.mutable_acks(static_cast<int>(delivery) - 1)->set_status(v1::ACK_STATUS_RECORDED);
  }
  ASSERT_TRUE(coordinator.Send(acks));
  EXPECT_TRUE(coordinator.Await([&](const Seen&) { return sent > at_limit; }));
  // Let it end without twenty thousand results to wait for.
  coordinator.Change([](FakeCoordinator::Script* script) {
    script->react = nullptr;
    script->ack = true;
  });
  coordinator.Break();
  EXPECT_TRUE(worker.Drain().ok());
}

TEST(WorkerSession, SendsUnacknowledgedResultsAgainOnTheNextStream) {
  FakeCoordinator coordinator({.ack = false});
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "double", "1"), MakeTask(2, "double", "2")}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 2; }));
  ASSERT_TRUE(coordinator.SendAck(Token(1)));
  ASSERT_TRUE(coordinator.Sync());
  coordinator.Break();
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 3; }));
  const Seen seen = coordinator.seen();
  ASSERT_EQ(seen.hellos.size(), 2u);
  EXPECT_EQ(seen.hellos[0].session_id(), seen.hellos[1].session_id());
  ASSERT_EQ(seen.hellos[1].running_size(), 1);
  EXPECT_TRUE(seen.hellos[1].running(0).finished());
  EXPECT_EQ(seen.hellos[1].running(0).token().delivery(), 2u);
  EXPECT_EQ(seen.results[2].token().delivery(), 2u);
  EXPECT_EQ(seen.results[2].value().data(), "4");
  EXPECT_EQ(seen.credit, 3u) << "credit begins anew with a stream";
  ASSERT_TRUE(coordinator.SendAck(Token(2)));
  EXPECT_TRUE(worker.Drain().ok());
}

TEST(WorkerSession, KeepsFinishedWorkOverARestartOfTheCoordinator) {
  auto coordinator = std::make_unique<FakeCoordinator>(FakeCoordinator::Script{.ack = false});
  const int port = coordinator->port();
  Gate gate;
  Worker worker(Options(coordinator->target()));
  worker.Register(kDouble, Double).Register(kBlock, [&](TaskContext& context, int n) {
    EXPECT_TRUE(context.Heartbeat(std::string("half")).ok());
    gate.Pass();
    return n;
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator->Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator->SendTasks({MakeTask(1, "double", "5"), MakeTask(2, "block", "6")}));
  ASSERT_TRUE(coordinator->Await(
      [](const Seen& seen) { return seen.results.size() == 1 && !seen.heartbeats.empty(); }));
  ASSERT_TRUE(gate.AwaitInside(1));
  coordinator = nullptr;
  gate.Open();  // finishes while nobody listens
  coordinator = std::make_unique<FakeCoordinator>(FakeCoordinator::Script{}, port);
  ASSERT_TRUE(coordinator->Await([](const Seen& seen) { return seen.results.size() == 2; }));
  const Seen seen = coordinator->seen();
  std::map<uint64_t, std::string> values;
  for (const v1::TaskResult& result : seen.results) {
    values[result.token().delivery()] = result.value().data();
  }
  EXPECT_EQ(values, (std::map<uint64_t, std::string>{{1, "10"}, {2, "6"}}));
  ASSERT_EQ(seen.hellos[0].running_size(), 2);
  EXPECT_TRUE(worker.Drain().ok());
  EXPECT_EQ(worker.stats().unacknowledged, 0u);
}

TEST(WorkerSession, ClaimsRunningTasksWithTheirProgressOnTheNextStream) {
  FakeCoordinator coordinator;
  Gate gate;
  WorkerOptions options = Options(coordinator.target());
  options.slots = 1;
  Worker worker(options);
  worker.Register(kBlock, [&](TaskContext& context, int n) {
    EXPECT_TRUE(context.Heartbeat(n * 10).ok());
    gate.Pass();
    return n;
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 2; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "block", "1"), MakeTask(2, "block", "2")}));
  ASSERT_TRUE(gate.AwaitInside(1));
  coordinator.Break();
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.hellos.size() == 2; }));
  std::map<uint64_t, v1::RunningTask> claims;
  const Seen seen = coordinator.seen();
  for (const v1::RunningTask& running : seen.hellos[1].running()) {
    claims[running.token().delivery()] = running;
  }
  ASSERT_EQ(claims.size(), 2u);
  EXPECT_EQ(claims[1].progress().data(), "10");
  EXPECT_FALSE(claims[1].finished());
  EXPECT_EQ(claims[2].elapsed_ms(), 0) << "it has not begun";
  EXPECT_EQ(seen.first[1].credit(), 0u) << "both places are taken";
  gate.Open();
  EXPECT_TRUE(coordinator.Await([](const Seen& s) { return s.results.size() == 2; }));
}

// The coordinator refuses messages over 48 MiB: a hello that passed it would be refused for ever.
TEST(WorkerSession, BoundsTheProgressInAHelloAndInAMessage) {
  constexpr int kTasks = 300;
  constexpr size_t kProgress = 60 * 1024;
  constexpr size_t kMiB = 1 << 20;
  std::atomic<size_t> largest{0};  // message without a hello
  FakeCoordinator coordinator({.ack = false});
  coordinator.Change([&](FakeCoordinator::Script* script) {
    script->react = [&](const v1::ConnectRequest& request, v1::ConnectResponse*) {
      if (!request.has_hello()) largest = std::max(largest.load(), request.ByteSizeLong());
    };
  });
  WorkerOptions options = Options(coordinator.target());
  options.slots = kTasks;
  Gate begun, beaten;
  Worker worker(options);
  worker.Register(kBlock, [&](TaskContext& context, int n) {
    begun.Pass();
    EXPECT_TRUE(context.Heartbeat(std::string(kProgress, 'x')).ok());
    beaten.Pass();
    return n;
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == kTasks + 1; }));
  std::vector<v1::Task> tasks;
  for (int i = 1; i <= kTasks; ++i)
    tasks.push_back(MakeTask(static_cast<uint64_t>(i), "block", "1"));
  ASSERT_TRUE(coordinator.SendTasks(tasks));
  ASSERT_TRUE(begun.AwaitInside(kTasks));
  // They all report while there is no stream, and again at once when there is.
  const grpc::Status away(grpc::StatusCode::UNAVAILABLE, "away");
  coordinator.Change([&](FakeCoordinator::Script* script) { script->refuse = away; });
  coordinator.Break();
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.streams_open == 0; }));
  begun.Open();
  ASSERT_TRUE(beaten.AwaitInside(kTasks));
  coordinator.Change([](FakeCoordinator::Script* script) { script->refuse = grpc::Status::OK; });
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.heartbeats.size() == kTasks; }));
  const Seen so_far = coordinator.seen();
  ASSERT_EQ(so_far.hellos.size(), 2u);
  EXPECT_EQ(so_far.hellos[1].running_size(), kTasks);
  EXPECT_GT(so_far.hellos[1].ByteSizeLong(), 16 * kMiB);
  EXPECT_LT(so_far.hellos[1].ByteSizeLong(), 17 * kMiB);
  for (const v1::Heartbeat& heartbeat : so_far.heartbeats) {
    EXPECT_EQ(heartbeat.progress().data().size(), kProgress + 2);
  }
  EXPECT_LT(largest, 5 * kMiB);
  // What is finished needs no progress.
  beaten.Open();
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == kTasks; }));
  coordinator.Break();
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.hellos.size() == 3; }));
  const Seen at_last = coordinator.seen();
  for (const v1::RunningTask& running : at_last.hellos[2].running()) {
    EXPECT_TRUE(running.finished());
    EXPECT_FALSE(running.has_progress());
  }
  coordinator.Change([](FakeCoordinator::Script* script) { script->ack = true; });
  coordinator.Break();
  EXPECT_TRUE(worker.Drain().ok());
}

TEST(WorkerSession, RunsADeliveryThatComesTwiceOnce) {
  FakeCoordinator coordinator;
  Gate gate;
  Worker worker(Options(coordinator.target()));
  worker.Register(kBlock, [&](int n) { return gate.Pass(), n; });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(7, "block", "1"), MakeTask(7, "block", "1")}));
  ASSERT_TRUE(gate.AwaitInside(1));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(7, "block", "1")}));
  ASSERT_TRUE(coordinator.Sync());
  gate.Open();
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
  EXPECT_TRUE(worker.Drain().ok());
  EXPECT_EQ(gate.passed(), 1);
  EXPECT_EQ(worker.stats().duplicate_deliveries, 2u);
  EXPECT_EQ(coordinator.seen().results.size(), 1u);
}

TEST(WorkerSession, DropsWhatTheCoordinatorWithdraws) {
  for (const char* reason : {"cancelled", "timeout", "superseded"}) {
    SCOPED_TRACE(reason);
    FakeCoordinator coordinator;
    WorkerOptions options = Options(coordinator.target());
    options.slots = 1;
    options.prefetch = 2;
    Worker worker(options);
    std::atomic<int> begun = 0;
    worker.Register(kBlock, [&](TaskContext& context, int n) {
      ++begun;
      if (n == 1) {
        while (!context.cancelled()) std::this_thread::yield();
      }
      return n;
    });
    ASSERT_TRUE(worker.Start().ok());
    ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
    ASSERT_TRUE(coordinator.SendTasks(
        {MakeTask(1, "block", "1"), MakeTask(2, "block", "2"), MakeTask(3, "block", "3")}));
    ASSERT_TRUE(coordinator.SendCancel(Token(2), reason));  // has not begun, and never will
    ASSERT_TRUE(
        coordinator.SendCancel(Token(1), reason));  // may run: is told, and its result dropped
    ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
    EXPECT_EQ(coordinator.seen().results[0].token().delivery(), 3u);
    EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 6; }));
    EXPECT_TRUE(worker.Drain().ok());
    EXPECT_EQ(worker.stats().withdrawn, 2u);
    EXPECT_LE(begun, 2);
    EXPECT_EQ(coordinator.seen().results.size(), 1u);
  }
}

TEST(WorkerSession, ForgetsAFinishedResultThatIsWithdrawn) {
  FakeCoordinator coordinator({.ack = false});
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "double", "1")}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
  ASSERT_TRUE(coordinator.SendCancel(Token(1), "superseded"));
  ASSERT_TRUE(coordinator.Sync());
  EXPECT_EQ(worker.stats().unacknowledged, 0u);
  EXPECT_TRUE(worker.Drain().ok());
}

TEST(WorkerSession, DrainHandsBackWhatHasNotBegunAndFinishesTheRest) {
  FakeCoordinator coordinator({.ack = false});
  Gate gate;
  WorkerOptions options = Options(coordinator.target());
  options.slots = 1;
  options.prefetch = 2;
  Worker worker(options);
  worker.Register(kBlock, [&](int n) { return gate.Pass(), n; });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks(
      {MakeTask(1, "block", "1"), MakeTask(2, "block", "2"), MakeTask(3, "block", "3")}));
  ASSERT_TRUE(gate.AwaitInside(1));
  auto drained = std::async(std::launch::async, [&] { return worker.Drain(); });
  ASSERT_TRUE(coordinator.Await(
      [](const Seen& seen) { return seen.draining >= 1 && seen.released.size() == 2; }));
  // One that was on its way goes back as well.
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(4, "block", "4")}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.released.size() == 3; }));
  gate.Open();
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
  EXPECT_TRUE(coordinator.Sync());
  EXPECT_FALSE(coordinator.seen().half_closed) << "it waits for the acknowledgement";
  EXPECT_EQ(coordinator.seen().streams_open, 1);
  ASSERT_TRUE(coordinator.SendAck(Token(1)));
  EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.half_closed; }));
  EXPECT_TRUE(drained.get().ok());
  EXPECT_EQ(gate.passed(), 1);
  EXPECT_EQ(worker.stats().released, 3u);
}

TEST(WorkerSession, DrainGivesUpAtItsTimeoutAndSaysWhatIsLeft) {
  FakeCoordinator coordinator;
  WorkerOptions options = Options(coordinator.target());
  options.drain_timeout = absl::Milliseconds(20);
  Worker worker(options);
  std::promise<void> begun;
  worker.Register(kBlock, [&](TaskContext& context, int n) {
    begun.set_value();
    while (!context.cancelled()) std::this_thread::yield();
    return n;
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "block", "1")}));
  begun.get_future().wait();
  const absl::Status status = worker.Drain();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 tasks still running"));
}

TEST(WorkerSession, DrainWaitsForAsLongAsItIsTold) {
  for (const absl::Duration timeout : {absl::InfiniteDuration(), absl::Nanoseconds(INT64_MAX)}) {
    SCOPED_TRACE(absl::FormatDuration(timeout));
    FakeCoordinator coordinator;
    WorkerOptions options = Options(coordinator.target());
    options.drain_timeout = timeout;
    Gate gate;
    Worker worker(options);
    worker.Register(kBlock, [&](int n) {
      gate.Pass();
      return n;
    });
    ASSERT_TRUE(worker.Start().ok());
    ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
    ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "block", "1")}));
    ASSERT_TRUE(gate.AwaitInside(1));
    std::future<absl::Status> drained =
        std::async(std::launch::async, [&] { return worker.Drain(); });
    EXPECT_TRUE(coordinator.Await(
        [](const Seen& seen) { return seen.draining > 0 || seen.streams_open == 0; }));
    gate.Open();
    const absl::Status status = drained.get();
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(coordinator.seen().results.size(), 1u);
  }
}

TEST(WorkerSession, DrainsOnSigterm) {
  FakeCoordinator coordinator;
  WorkerOptions options = Options(coordinator.target());
  options.handle_signals = true;
  Worker worker(options);
  worker.Register(kDouble, Double);
  auto ran = std::async(std::launch::async, [&] { return worker.Run(); });
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  // Run installs its handler right after it started.
  struct sigaction action = {};
  do {
    ASSERT_EQ(sigaction(SIGTERM, nullptr, &action), 0);
    std::this_thread::yield();
  } while (action.sa_handler == SIG_DFL);
  ASSERT_EQ(raise(SIGTERM), 0);
  EXPECT_TRUE(ran.get().ok());
  EXPECT_GE(coordinator.seen().draining, 1);
  ASSERT_EQ(sigaction(SIGTERM, nullptr, &action), 0);
  EXPECT_EQ(action.sa_handler, SIG_DFL) << "the former handler is back";
}

TEST(WorkerSession, WaitsForACoordinatorThatIsNotThereYet) {
  int port = 0;
  {
    FakeCoordinator first;
    port = first.port();
  }
  Worker worker(Options("127.0.0.1:" + std::to_string(port)));
  worker.Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  FakeCoordinator coordinator({}, port);
  EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
}

TEST(WorkerSession, EndsWithTheReasonWhenItIsRefusedOutright) {
  FakeCoordinator coordinator(
      {.refuse = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the worker's queue is bad")});
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, Double);
  const absl::Status status = worker.Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the worker's queue is bad"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(coordinator.target()));
}

TEST(WorkerSession, ComesBackToACoordinatorThatFellSilent) {
  FakeCoordinator coordinator({.ping_interval_ms = 20});  // promises pings, and sends none
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.hellos.size() >= 3; }));
}

TEST(WorkerSession, FillsAllSlotsWithTasksThatBlock) {
  FakeCoordinator coordinator;
  Gate gate;
  WorkerOptions options = Options(coordinator.target());
  options.slots = 64;
  options.prefetch = 0;
  Worker worker(options);
  worker.Register(kBlock, [&](int n) { return gate.Pass(), n; });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 64; }));
  std::vector<v1::Task> tasks;
  for (uint64_t i = 1; i <= 64; ++i) tasks.push_back(MakeTask(i, "block", "1"));
  ASSERT_TRUE(coordinator.SendTasks(tasks));
  EXPECT_TRUE(gate.AwaitInside(64));
  gate.Open();
  EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 64; }));
}

TEST(WorkerSession, DoesNotHoldAResultBackBehindALongTask) {
  FakeCoordinator coordinator;
  Gate gate;
  WorkerOptions options = Options(coordinator.target());
  options.slots = 1;
  Worker worker(options);
  worker.Register(kDouble, Double).Register(kBlock, [&](int n) { return gate.Pass(), n; });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 2; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "double", "1"), MakeTask(2, "block", "1")}));
  EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
  gate.Open();
  EXPECT_TRUE(worker.Drain().ok());
}

TEST(WorkerSession, HandsBackWhatItFetchedInVain) {
  FakeCoordinator coordinator;
  Gate gate;
  WorkerOptions options = Options(coordinator.target());
  options.slots = 1;
  options.prefetch = std::nullopt;
  Worker worker(options);
  worker.Register(kDouble, Double).Register(kBlock, [&](int n) { return gate.Pass(), n; });
  ASSERT_TRUE(worker.Start().ok());
  // Short tasks earn it a prefetch…
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit > 0; }));
  uint64_t delivery = 0;
  while (coordinator.seen().credit < delivery + 10) {
    ASSERT_LT(delivery, 1'000u);
    ASSERT_TRUE(coordinator.SendTasks({MakeTask(++delivery, "double", "1")}));
    ASSERT_TRUE(coordinator.Await([&](const Seen& seen) {
      return seen.results.size() == delivery && seen.credit > delivery;
    }));
  }
  // …which long ones disappoint.
  std::vector<v1::Task> tasks;
  for (int i = 0; i < 5; ++i) tasks.push_back(MakeTask(++delivery, "block", "1"));
  ASSERT_TRUE(coordinator.SendTasks(tasks));
  EXPECT_TRUE(coordinator.Await([](const Seen& seen) { return seen.released.size() == 4; }));
  gate.Open();
  EXPECT_TRUE(worker.Drain().ok());
}

TEST(WorkerSession, MovesManyTasksFast) {
  FakeCoordinator coordinator;
  WorkerOptions options = Options(coordinator.target());
  options.prefetch = std::nullopt;
  Worker worker(options);
  worker.Register(kDouble, Double);
  constexpr uint64_t kTasks = 100'000;
  uint64_t sent = 0;
  coordinator.Change([&](FakeCoordinator::Script* script) {
    script->react = [&](const v1::ConnectRequest& request, v1::ConnectResponse* answer) {
      for (uint32_t i = 0; i < request.credit() && sent < kTasks; ++i) {
        *answer->add_tasks() = MakeTask(++sent, "double", "21");
      }
    };
  });
  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == kTasks; }));
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  const Seen seen = coordinator.seen();
  RecordProperty("tasks_per_s", std::to_string(kTasks / seconds));
  std::printf("%.0f tasks/s, %.1f results a message\n", kTasks / seconds,
              static_cast<double>(kTasks) / static_cast<double>(seen.messages));
  std::set<uint64_t> deliveries;
  for (const v1::TaskResult& result : seen.results) deliveries.insert(result.token().delivery());
  EXPECT_EQ(deliveries.size(), kTasks);
  EXPECT_LT(seen.messages, kTasks / 10) << "results are to travel together";
  EXPECT_TRUE(worker.Drain().ok());
}

}  // namespace
}  // namespace flux
