// What reaches a coordinator and a worker over the network, once gRPC has taken it apart: every
// request, and any message of a coordinator to a worker.
#include <google/protobuf/text_format.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "flux/v1/bulk.pb.h"
#include "flux/v1/schedule.pb.h"
#include "flux/v1/workflow.pb.h"
#include "flux/worker.h"
#include "proto/bridge.h"
#include "tests/fuzz/target.h"
#include "tests/schedule/schedule_world.h"
#include "tests/worker/fake_coordinator.h"

namespace flux::fuzz {
namespace {

using engine::Engine;
using engine::Scheduler;
using engine::testing::ScheduleWorld;

// ---- requests ----

constexpr int64_t kPatienceMs = 120'000;  // longer than any request may wait for a result
constexpr int kRequestsALife = 50;

// A request of one kind, from bytes or text.
struct Kind {
  const char* name;
  std::function<std::string(const std::string& text)> from_text;
  // Posts it; `answered` is told once. False: the bytes are no such message.
  std::function<bool(ScheduleWorld&, std::string_view bytes, std::function<void()> answered)> post;
};

template <typename Service, typename Request, typename Response>
Kind Of(const char* name, Service& (*service)(ScheduleWorld&),
        void (Service::*method)(Request, Engine::Reply<Response>)) {
  return {
      name, Serialised<Request>,
      [=](ScheduleWorld& world, std::string_view bytes, std::function<void()> answered) {
        Request request;
        if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return false;
        (service(world).*method)(std::move(request), [answered](absl::StatusOr<Response> answer) {
          Require(answer.ok() || !answer.status().message().empty(), "a refusal has a message");
          answered();
        });
        return true;
      }};
}

Engine& TheEngine(ScheduleWorld& world) { return world.world.engine(); }
Scheduler& TheScheduler(ScheduleWorld& world) { return world.scheduler(); }

const std::vector<Kind>& Kinds() {
  static const auto* const kinds = new std::vector<Kind>{
      Of("StartWorkflow", TheEngine, &Engine::Start),
      Of("GetResult", TheEngine, &Engine::GetResult),
      Of("DescribeExecution", TheEngine, &Engine::Describe),
      Of("GetHistory", TheEngine, &Engine::History),
      Of("ListExecutions", TheEngine, &Engine::List),
      Of("CountExecutions", TheEngine, &Engine::Count),
      Of("CancelExecution", TheEngine, &Engine::Cancel),
      Of("TerminateExecution", TheEngine, &Engine::Terminate),
      Of("SendEvent", TheEngine, &Engine::SendEvent),
      Of("ListEvents", TheEngine, &Engine::ListEvents),
      Of("ListDeletions", TheEngine, &Engine::ListDeletions),
      Of("OperateExecution", TheEngine, &Engine::Operate),
      Of("StartBulkOperation", TheEngine, &Engine::StartBulk),
      Of("GetBulkOperation", TheEngine, &Engine::GetBulk),
      Of("CancelBulkOperation", TheEngine, &Engine::CancelBulk),
      Of("ListWorkers", TheEngine, &Engine::ListWorkers),
      Of("GetTaskQueue", TheEngine, &Engine::GetQueue),
      Of("VerifyExecution", TheEngine, &Engine::Verify),
      Of("CreateSchedule", TheScheduler, &Scheduler::Create),
      Of("UpdateSchedule", TheScheduler, &Scheduler::Update),
      Of("GetSchedule", TheScheduler, &Scheduler::Get),
      Of("ListSchedules", TheScheduler, &Scheduler::List),
      Of("DeleteSchedule", TheScheduler, &Scheduler::Delete),
      Of("PauseSchedule", TheScheduler, &Scheduler::Pause),
      Of("ResumeSchedule", TheScheduler, &Scheduler::Resume),
      Of("TriggerSchedule", TheScheduler, &Scheduler::Trigger),
      Of("BackfillSchedule", TheScheduler, &Scheduler::Backfill),
  };
  return *kinds;
}

// Which kind, in a byte, and the message. In the corpus: its name, a line, and the text of it.
std::string RequestSeed(std::string_view file) {
  const std::string text = AsItIs(file);
  const size_t line = text.find('\n');
  for (size_t i = 0; i < Kinds().size(); ++i) {
    if (text.substr(0, line) != Kinds()[i].name) continue;
    return std::string(1, static_cast<char>(i)) +
           Kinds()[i].from_text(line == std::string::npos ? "" : text.substr(line + 1));
  }
  Require(false, "a seed of the corpus begins with the name of a request");
  return "";
}

// A coordinator with an execution that waits, a closed one, a schedule, and an honest worker.
class Served {
 public:
  Served() {
    Require(world_.Open().ok(), "the engine opens");
    world_.world.Define(engine::testing::Chain("wf", 3));
    world_.world.Define(engine::testing::Parse(R"(
        name: "waits"
        scopes {
          parameters: 1
          steps { name: "go" wait_event { event: "go" } }
          steps { name: "do" inputs { step: 0 } task { task: "t" } }
          result { step: 1 }
        })"));
    worker_ = world_.world.Connect("honest", {"t"}, 10);
    Require(world_.world.Start("waits", "open", {"1"}).ok(), "a start is taken");
    Prove();
    v1::Schedule schedule;
    schedule.set_schedule_id("hourly");
    schedule.mutable_spec()->add_crons("@hourly");
    schedule.mutable_start()->set_workflow("wf");
    *schedule.mutable_start()->add_inputs() = engine::testing::Json("1");
    Require(world_.Create(schedule).ok(), "a schedule is taken");
  }

  void Feed(const Kind& kind, std::string_view bytes) {
    int answers = 0;
    if (!kind.post(world_, bytes, [&answers] { ++answers; })) return;
    world_.Settle();
    for (int64_t waited = 0; answers == 0 && waited < kPatienceMs; waited += 10'000) {
      world_.Advance(10'000, 10'000);
    }
    Require(answers == 1, "a request is answered once");
    Require(world_.world.fatal().ok() && world_.fatal.ok(), "no request stops the coordinator");
  }

  // Whatever was asked for, work goes on, and what is in memory is what is on disk.
  void Prove() {
    const std::string id = absl::StrCat("proof-", ++proofs_);
    Require(world_.world.Start("wf", id, {"5"}).ok(), "a start is taken");
    for (int i = 0; i < 100; ++i) {
      world_.world.RunWorker(worker_);
      world_.world.Pass(worker_, 1'000, /*work=*/true);
      if (world_.world.Result(id).status() == v1::EXECUTION_STATUS_COMPLETED) break;
    }
    Require(world_.world.Result(id).status() == v1::EXECUTION_STATUS_COMPLETED,
            "an execution completes");
    const auto verified = world_.world.Verify(id);
    Require(verified.ok() && verified->equal(), "and is replayed to the same state");
  }

 private:
  ScheduleWorld world_;
  engine::StreamId worker_ = 0;
  int proofs_ = 0;
};

void RunRequest(std::string_view input) {
  static std::unique_ptr<Served> served;
  static int fed = 0;
  if (input.empty()) return;
  if (served == nullptr) served = std::make_unique<Served>();
  served->Feed(Kinds()[static_cast<uint8_t>(input[0]) % Kinds().size()], input.substr(1));
  if (++fed % kRequestsALife == 0) {
    served->Prove();
    served = nullptr;
  }
}

// ---- messages to workers ----

inline constexpr flux::Task<int64_t(int64_t)> kDouble{"double"};

// A worker and what it takes for its coordinator, over loopback.
class Listening {
 public:
  Listening() : worker_({.target = coordinator_.target(), .slots = 2, .log = Ignore}) {
    worker_.Register(kDouble, [](int64_t value) { return value * 2; });
    Require(worker_.Start().ok(), "the worker starts");
    Require(coordinator_.Await([](const auto& seen) { return seen.credit > 0; }),
            "it gives credit");
  }

  // Messages are taken in order: once it answers the ping behind this one, it has taken it.
  void Feed(v1::ConnectResponse message) {
    message.clear_ping();
    Require(coordinator_.Send(message) && coordinator_.Sync(), "the worker goes on listening");
  }

  // Whatever it was told, it does its work.
  void Prove() {
    v1::Task task = testing::MakeTask(kProofs + ++proofs_, "double", "21");
    const std::string token = task.token().SerializeAsString();
    Require(coordinator_.SendTasks({task}), "a task is sent");
    Require(coordinator_.Await([&](const auto& seen) {
      for (const v1::TaskResult& result : seen.results) {
        if (result.token().SerializeAsString() == token) return result.value().data() == "42";
      }
      return false;
    }),
            "an honest task is done");
  }

 private:
  static constexpr uint64_t kProofs = 1'000'000'000;  // delivery numbers that no input has
  static void Ignore(LogLevel, std::string_view) {}

  testing::FakeCoordinator coordinator_;
  Worker worker_;
  uint64_t proofs_ = 0;
};

void RunToWorker(std::string_view input) {
  static auto* const listening = new Listening;
  static int fed = 0;
  v1::ConnectResponse message;
  if (!message.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
  listening->Feed(std::move(message));
  if (++fed % 20 == 0) listening->Prove();
}

}  // namespace

std::vector<Target> ServiceTargets() {
  return {
      {"request", RequestSeed, RunRequest, {"open", "proof-1", "hourly", "go", "waits", "wf"}},
      {"to_worker", Serialised<v1::ConnectResponse>, RunToWorker, {"double"}},
  };
}

}  // namespace flux::fuzz
