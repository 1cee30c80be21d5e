// What task functions say, and what becomes of it; a worker's options and life.
#include <chrono>
#include <future>
#include <map>
#include <stdexcept>
#include <string>

#include "flux/continue.h"
#include "flux/worker.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/fake_coordinator.h"
#include "tests/worker/harness.h"
#include "worker/src/session.h"

namespace flux {

// A value whose codec writes text that is not UTF-8.
struct Odd {
  bool in_metadata = false;
};
template <>
struct Codec<Odd> {
  static absl::StatusOr<Payload> Encode(const Odd& odd) {
    Payload payload;
    payload.encoding = Encoding::kCustom;
    (odd.in_metadata ? payload.metadata["key"] : payload.content_type) = "\xff";
    return payload;
  }
  static absl::StatusOr<Odd> Decode(const Payload&) { return Odd{}; }
};

namespace {

using testing::Double;
using testing::FakeCoordinator;
using testing::Gate;
using ::testing::HasSubstr;
using testing::kBadPage;
using testing::kBlock;
using testing::kDouble;
using testing::kText;
using testing::MakeTask;
using testing::Options;
using testing::Seen;
using testing::Token;

TEST(WorkerSession, SendsOnlyTheNewestHeartbeatOfAnInterval) {
  FakeCoordinator coordinator;
  Gate gate;
  Worker worker(Options(coordinator.target()));
  constexpr int kBeats = 1'000;
  worker.Register(kBlock, [&](TaskContext& context, int n) {
    for (int i = 1; i <= kBeats; ++i) EXPECT_TRUE(context.Heartbeat(i).ok());
    gate.Pass();
    return n;
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  v1::Task task = MakeTask(1, "block", "1");
  task.set_heartbeat_ms(400);  // sent at most every 100 ms
  const auto begun = std::chrono::steady_clock::now();
  ASSERT_TRUE(coordinator.SendTasks({task}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) {
    return !seen.heartbeats.empty() &&
           seen.heartbeats.back().progress().data() == std::to_string(kBeats);
  }));
  const auto took = std::chrono::steady_clock::now() - begun;
  const Seen seen = coordinator.seen();
  EXPECT_EQ(seen.heartbeats[0].progress().data(), "1") << "the first one goes at once";
  EXPECT_LE(seen.heartbeats.size(),
            2u + static_cast<size_t>(took / std::chrono::milliseconds(100)));
  EXPECT_EQ(seen.heartbeats[0].token().delivery(), 1u);
  gate.Open();
  EXPECT_TRUE(worker.Drain().ok());
}

TEST(WorkerSession, HandsTheLastProgressOnWithAFailure) {
  FakeCoordinator coordinator;
  Worker worker(Options(coordinator.target()));
  worker.Register(kText, [&](TaskContext& context, int n) -> absl::StatusOr<std::string> {
    const std::optional<int> last = context.LastProgress<int>();
    if (n == 1) {
      EXPECT_TRUE(context.Heartbeat(last.value_or(0) + 1).ok());
    }
    return kBadPage("no");
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  v1::Task beats = MakeTask(1, "text", "1");
  beats.mutable_progress()->set_encoding(v1::ENCODING_JSON);
  beats.mutable_progress()->set_data("6");
  v1::Task silent = beats;
  *silent.mutable_token() = Token(2);
  silent.mutable_inputs(0)->mutable_payload()->set_data("2");
  ASSERT_TRUE(coordinator.SendTasks({beats, silent}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 2; }));
  std::map<uint64_t, std::string> progress;
  for (const v1::TaskResult& result : coordinator.seen().results) {
    EXPECT_EQ(result.failure().type(), "bad-page");
    progress[result.token().delivery()] = result.progress().data();
  }
  EXPECT_EQ(progress, (std::map<uint64_t, std::string>{{1, "7"}, {2, "6"}}));
}

TEST(WorkerSession, ReportsEachWayToFailByItsType) {
  struct Case {
    const char* task;
    const char* input;
    const char* pointer;
    const char* type;
    bool non_retriable;
    const char* message;
  };
  const Case cases[] = {
      {"throws", "1", "", "flux.task.exception", false, "task 'throws' threw: out of paper"},
      {"throws", "2", "", "flux.task.exception", false, "no std::exception"},
      {"throws", "3", "", "flux.task.exception", false, "bad ? byte"},
      {"nobody", "1", "", "flux.task.unknown", true, "no function for task 'nobody'"},
      {"double", "\"x\"", "", "flux.task.bad_input", true, ""},
      {"double", "{", "", "flux.task.bad_input", true, ""},
      {"double", "7", "/a", "flux.task.bad_input", true, "/a"},
      {"page", "1", "", "bad-page", false, "page 1"},
      {"text", "101", "", "flux.payload_too_large", true, "over fluxd's payload-bytes-max of 100"},
  };
  FakeCoordinator coordinator({.payload_bytes_max = 100});
  Worker worker(Options(coordinator.target()));
  constexpr Task<int(int)> kThrows{"throws"};
  constexpr Task<int(int)> kPage{"page"};
  worker.Register(kDouble, Double)
      .Register(kThrows,
                [](int n) -> int {
                  if (n == 1) throw std::runtime_error("out of paper");
                  if (n == 3) throw std::runtime_error("bad \xff byte");
                  throw 17;
                })
      .Register(kPage,
                [](int n) -> absl::StatusOr<int> { return kBadPage("page " + std::to_string(n)); })
      .Register(kText, [](int n) { return std::string(static_cast<size_t>(n) - 2, 'x'); });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  uint64_t delivery = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.task) + " " + c.input + " " + c.pointer);
    v1::Task task = MakeTask(++delivery, c.task, c.input);
    task.mutable_inputs(0)->set_pointer(c.pointer);
    ASSERT_TRUE(coordinator.SendTasks({task}));
    ASSERT_TRUE(
        coordinator.Await([&](const Seen& seen) { return seen.results.size() == delivery; }));
    const v1::TaskResult result = coordinator.seen().results.back();
    ASSERT_TRUE(result.has_failure()) << result.ShortDebugString();
    EXPECT_EQ(result.failure().type(), c.type);
    EXPECT_EQ(result.failure().non_retriable(), c.non_retriable);
    EXPECT_THAT(result.failure().message(), HasSubstr(c.message));
    EXPECT_EQ(result.failure().source(), "tester:1");
  }
  // At the limit (98 letters and two quotes) it is taken.
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(++delivery, "text", "100")}));
  ASSERT_TRUE(coordinator.Await([&](const Seen& seen) { return seen.results.size() == delivery; }));
  EXPECT_EQ(coordinator.seen().results.back().value().data().size(), 100u);
  EXPECT_EQ(worker.stats().failed, std::size(cases));
}

TEST(WorkerSession, SendsNoTextThatTheCoordinatorCouldNotRead) {
  FakeCoordinator coordinator;
  WorkerOptions options = Options(coordinator.target());
  for (std::string* text : {&options.id, &options.queue}) {
    WorkerOptions bad = options;
    (text == &options.id ? bad.id : bad.queue) = "caf\xe9";
    Worker refused(bad);
    refused.Register(kDouble, Double);
    const absl::Status status = refused.Start();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.ToString(), HasSubstr("caf\\xe9\": not UTF-8"));
  }
  Worker worker(options);
  constexpr Task<Odd(bool)> kOdd{"odd"};
  worker.Register(kOdd, [](TaskContext& context, bool in_metadata) {
    EXPECT_TRUE(context.Heartbeat(Odd{in_metadata}).ok());
    return Odd{in_metadata};
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "odd", "true"), MakeTask(2, "odd", "false")}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 2; }));
  for (const v1::TaskResult& result : coordinator.seen().results) {
    EXPECT_EQ(result.failure().type(), "flux.task.bad_result");
    EXPECT_THAT(result.failure().message(), HasSubstr("metadata is not UTF-8"));
    EXPECT_FALSE(result.has_progress());
  }
  EXPECT_EQ(coordinator.seen().streams, 1);
}

TEST(WorkerSession, AppliesPointersBeforeDecoding) {
  FakeCoordinator coordinator;
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, Double);
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  v1::Task task = MakeTask(1, "double", R"({"a":[5,{"b":8}]})");
  task.mutable_inputs(0)->set_pointer("/a/1/b");
  ASSERT_TRUE(coordinator.SendTasks({task}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
  EXPECT_EQ(coordinator.seen().results[0].value().data(), "16");
}

TEST(WorkerSession, TellsAFunctionWhatItRuns) {
  FakeCoordinator coordinator;
  Worker worker(Options(coordinator.target()));
  std::promise<std::string> told;
  worker.Register(kText, [&](TaskContext& context, int) {
    const absl::Duration left = context.deadline() - absl::Now();
    EXPECT_GT(left, absl::Seconds(50));
    EXPECT_LE(left, absl::Seconds(60));
    EXPECT_FALSE(context.cancelled());
    return std::to_string(context.attempt()) + " " + context.workflow_id() + " " +
           context.run_id() + " " + context.step() + " " + context.fencing_token();
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  v1::Task task = MakeTask(9, "text", "1");
  task.set_attempt(4);
  task.mutable_token()->set_step(5);
  task.mutable_token()->set_generation(2);
  ASSERT_TRUE(coordinator.SendTasks({task}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
  EXPECT_EQ(coordinator.seen().results[0].value().data(),
            "\"4 wf 0190abcd000070008000000000000001 step "
            "1.0190abcd000070008000000000000001.1.5.2.9\"");
}

TEST(WorkerSession, SkipIsAResultOfItsOwn) {
  FakeCoordinator coordinator;
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, [](int) -> Outcome<int> { return Skip{}; });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "double", "1")}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
  EXPECT_TRUE(coordinator.seen().results[0].skip());
}

TEST(WorkerSession, GoesOnAsAGraph) {
  FakeCoordinator coordinator({.payload_bytes_max = 1000});
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, [](int n) -> Outcome<int> {
    if (n == 0) return Continue<int>([](Graph& g) { return g.Call(kDouble, 1).Named(""); });
    const std::string note(static_cast<size_t>(n), 'x');
    return Continue<int>(
        [](Graph& g, Value<int> twice, Value<std::string>) { return g.Call(kDouble, twice); },
        2 * n, note);
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(1, "double", "7")}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 1; }));
  const v1::TaskResult went_on = coordinator.seen().results[0];
  ASSERT_TRUE(went_on.has_continuation()) << went_on.DebugString();
  EXPECT_EQ(went_on.continuation().inputs_size(), 2);
  EXPECT_EQ(went_on.continuation().inputs(0).data(), "14");
  ASSERT_EQ(went_on.continuation().fragment().scopes_size(), 1);
  EXPECT_EQ(went_on.continuation().fragment().scopes(0).steps(0).task().task(), "double");
  // Too large, with what it passes on; and one that is wrong.
  ASSERT_TRUE(coordinator.SendTasks({MakeTask(2, "double", "990"), MakeTask(3, "double", "0")}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 3; }));
  std::map<uint64_t, v1::Failure> failures;
  for (const v1::TaskResult& result : coordinator.seen().results) {
    failures[result.token().delivery()] = result.failure();
  }
  EXPECT_EQ(failures[2].type(), "flux.payload_too_large");
  EXPECT_THAT(failures[2].message(), HasSubstr("goes on as a graph that has, with its arguments"));
  EXPECT_EQ(failures[3].type(), "flux.task.bad_result");
  EXPECT_TRUE(failures[3].non_retriable());
  EXPECT_EQ(worker.stats().completed, 1u);
}

TEST(WorkerSession, SendsLabelsWithWhatIsRecorded) {
  FakeCoordinator coordinator;
  Worker worker(Options(coordinator.target()));
  worker.Register(kText, [](TaskContext& context, int n) -> Outcome<std::string> {
    EXPECT_TRUE(context.SetLabel("stage", "first").ok());
    EXPECT_TRUE(context.SetLabel("stage", "coded").ok());
    EXPECT_TRUE(context.SetLabel("old", "").ok());
    EXPECT_TRUE(context.SetStepLabel("model", "v1").ok());
    EXPECT_TRUE(context.SetStepLabel("model", "v2").ok());
    EXPECT_TRUE(context.SetStepLabel("cache", "hit").ok());
    EXPECT_TRUE(context.SetStepLabel("cache", "").ok());
    EXPECT_EQ(context.SetStepLabel("", "x").code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(context.SetLabel("", "x").code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(context.SetLabel("key", "a\nb").code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(context.SetLabel("key", std::string(257, 'x')).code(),
              absl::StatusCode::kInvalidArgument);
    if (n == 1) return Skip{};
    if (n == 2) return kBadPage("torn");
    return "done";
  });
  ASSERT_TRUE(worker.Start().ok());
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.credit == 3; }));
  ASSERT_TRUE(coordinator.SendTasks(
      {MakeTask(10, "text", "0"), MakeTask(11, "text", "1"), MakeTask(12, "text", "2")}));
  ASSERT_TRUE(coordinator.Await([](const Seen& seen) { return seen.results.size() == 3; }));
  for (const v1::TaskResult& result : coordinator.seen().results) {
    const std::map<std::string, std::string> labels(result.labels().begin(), result.labels().end());
    const std::map<std::string, std::string> of_step(result.step_labels().begin(),
                                                     result.step_labels().end());
    if (result.has_failure()) {
      EXPECT_TRUE(labels.empty());
      EXPECT_TRUE(of_step.empty());
    } else {
      EXPECT_EQ(of_step, (std::map<std::string, std::string>{{"model", "v2"}}));
      EXPECT_EQ(labels, (std::map<std::string, std::string>{{"stage", "coded"}, {"old", ""}}));
    }
  }
}

TEST(Worker, RefusesBadOptionsWithTheWayOut) {
  struct Case {
    const char* name;
    std::function<void(WorkerOptions*)> change;
    bool task;
    absl::StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {"no address", [](WorkerOptions* o) { o->target = ""; }, true,
       absl::StatusCode::kInvalidArgument, "address is empty"},
      {"no port", [](WorkerOptions* o) { o->target = "localhost"; }, true,
       absl::StatusCode::kInvalidArgument, "'localhost' has no valid host and port"},
      {"port too high", [](WorkerOptions* o) { o->target = "localhost:65536"; }, true,
       absl::StatusCode::kInvalidArgument, "no valid host and port"},
      {"too many slots", [](WorkerOptions* o) { o->slots = 4'097; }, true,
       absl::StatusCode::kInvalidArgument, "limit of 4096"},
      {"too much prefetch", [](WorkerOptions* o) { o->prefetch = 100'001; }, true,
       absl::StatusCode::kInvalidArgument, "over the limit of 80000 tasks"},
      {"no task", [](WorkerOptions*) {}, false, absl::StatusCode::kInvalidArgument, "has no task"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    WorkerOptions options = Options("127.0.0.1:1");
    c.change(&options);
    Worker worker(options);
    if (c.task) worker.Register(kDouble, Double);
    const absl::Status status = worker.Run();
    EXPECT_EQ(status.code(), c.code);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(Worker, ReportsATaskRegisteredTwice) {
  Worker worker(Options("127.0.0.1:1"));
  worker.Register(kDouble, Double).Register(kDouble, Double);
  const absl::Status status = worker.Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("double"));
}

TEST(Worker, HasOneLife) {
  FakeCoordinator coordinator;
  Worker worker(Options(coordinator.target()));
  worker.Register(kDouble, Double);
  EXPECT_EQ(worker.Drain().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(worker.Start().ok());
  EXPECT_EQ(worker.Start().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(worker.Drain().ok());
  EXPECT_TRUE(worker.Drain().ok()) << "idempotent";
}

}  // namespace
}  // namespace flux
