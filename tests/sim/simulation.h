// The inside of one simulated life: the parts that simulator.cc puts together.
#ifndef FLUX_TESTS_SIM_SIMULATION_H_
#define FLUX_TESTS_SIM_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proto/arena_message.h"
#include "tests/sim/dice.h"
#include "tests/sim/fates.h"
#include "tests/sim/faults.h"
#include "tests/sim/graphs.h"
#include "tests/sim/ledger.h"
#include "tests/sim/process.h"
#include "tests/sim/reference.h"
#include "tests/sim/simulator.h"

namespace flux::sim {

class SimWorker;

// One execution as its client knows it.
struct Run {
  std::string id;
  const Program* program = nullptr;
  std::string request_id;
  std::string run_id;  // as text; empty: not acknowledged
  bool refused = false;
  bool cancel_asked = false;  // a cancel or a terminate was sent
  bool cancelled = false;     // it was acknowledged
  v1::ExecutionStatus cancel_status = v1::EXECUTION_STATUS_UNSPECIFIED;
  std::optional<v1::GetResultResponse> closed;  // the first answer that said so
  uint64_t closed_order = 0;                    // of the earliest answer that said so
  bool operated = false;  // an operator has a hand in it: it may be open again after it closed
  std::map<std::string, std::set<std::string>> sent;      // payloads of events, by name
  std::map<std::string, std::set<std::string>> accepted;  // ids of acknowledged events, by name
  bool migrate_asked = false;       // to be moved to its program's next version, in earnest
  std::vector<v1::Payload> inputs;  // of the program's own, or as a parent gave them
  bool child = false;               // of another execution, which may stop it
};

// Not thread-safe; one for each run.
class Simulation final : public Process::Peers {
 public:
  explicit Simulation(const SimOptions& options);
  ~Simulation() override;
  SimReport RunAll();

  // ---- for its parts ----
  Timeline& timeline() { return timeline_; }
  Dice& dice() { return dice_; }
  const FaultPlan& plan() const { return plan_; }
  Ledger& ledger() { return ledger_; }
  const Program* ProgramOf(const std::string& workflow) const;
  const Scripts& ScriptsOf(const std::string& workflow) const {
    return ProgramOf(workflow)->scripts;
  }
  uint64_t script_seed() const { return script_seed_; }
  bool healed() const { return healed_; }
  // With a chance of so many in a thousand, while faults strike.
  bool Strikes(int64_t permille) {
    return !healed_ && dice_.Chance(static_cast<uint32_t>(permille));
  }
  void Problem(const std::string& text);
  void Note(const std::string& text);
  // Worth composing a note?
  bool verbose() const { return options_.verbose; }

  // ---- network.cc: streams ----
  // 0: nobody listens.
  engine::StreamId OpenStream(SimWorker* worker);
  void ToCoordinator(engine::StreamId stream, v1::ConnectRequest message);
  // Nothing passes any more; both ends learn of it some time.
  void BreakStream(engine::StreamId stream);

  // Process::Peers
  void OnMessage(engine::StreamId stream, ArenaPtr<v1::ConnectResponse> message) override;
  void OnClose(engine::StreamId stream, const absl::Status& why) override;
  void OnDown() override;
  void OnUp() override;
  void OnProblem(const std::string& problem) override { Problem(problem); }
  void OnNote(const std::string& note) override { Note(note); }

 private:
  struct Link {
    SimWorker* worker = nullptr;
    bool broken = false;
    int64_t up_at_us = 0;  // when the last message arrived, or will
    int64_t down_at_us = 0;
  };

  template <typename T>
  using Done = absl::AnyInvocable<void(absl::StatusOr<T>)>;

  // ---- simulator.cc ----
  void DrawPrograms();
  Process::Options DrawOptions();
  void MakeWorkers();
  void ArmFaults();
  // Calls it again and again, on average every `mean_ms`, until faults stop.
  void Every(int64_t mean_ms, std::function<void()> fault);
  void Heal();
  // Takes the time on until nothing is open or nothing happens any more.
  void Settle();

  // ---- network.cc ----
  int64_t Delay() { return dice_.Between(1, plan_.delay_us); }
  void Arrive(engine::StreamId stream, v1::ConnectRequest message);
  void ArriveAtWorker(engine::StreamId stream, const v1::ConnectResponse& message);
  void WorkerNotices(engine::StreamId stream, int64_t after_us);
  // Asks the coordinator something: `call` posts it, `done` gets the answer, or Unavailable.
  template <typename T>
  void Ask(absl::AnyInvocable<void(engine::Engine&, Done<T>)> call, Done<T> done) {
    auto shared = std::make_shared<Done<T>>(std::move(done));
    const auto answer = [this, shared](absl::StatusOr<T> got) {
      if (*shared == nullptr) return;
      Done<T> once = std::exchange(*shared, nullptr);
      once(std::move(got));
    };
    timeline_.After(kAnswerTimeoutUs,
                    [answer] { answer(absl::UnavailableError("no answer in time")); });
    timeline_.After(Delay(), [this, answer, call = std::move(call)]() mutable {
      if (!process_->up()) {
        timeline_.After(Delay(), [answer] { answer(absl::UnavailableError("nobody listens")); });
        return;
      }
      call(process_->engine(), [this, answer](absl::StatusOr<T> got) {
        if (Strikes(plan_.lose_reply_permille)) return;
        timeline_.After(Delay(),
                        [answer, got = std::move(got)]() mutable { answer(std::move(got)); });
      });
      process_->Poke();
    });
  }

  // ---- clients.cc ----
  void StartLater(Run* run, int64_t after_us);
  void SendStart(Run* run);
  void StartAnswered(Run* run, const absl::StatusOr<v1::StartWorkflowResponse>& answer);
  void StopLater(Run* run);
  void SendEvents(Run* run);
  void SendEvent(Run* run, const v1::SendEventRequest& request);
  void OperateLater(Run* run);
  void OperateOnce(Run* run);
  // One that names a step, or an event of the program's.
  v1::Operation DrawOperation(const std::string& path, const Program& program);
  // What follows from asking for it, whether or not it is done.
  void Asked(Run* run, const v1::Operation& operation);
  // One operation on all executions that operators have a hand in.
  void BulkLater();
  void StartBulk(const v1::StartBulkOperationRequest& request);
  // Calls `done` once no bulk operation is running.
  void EndBulks(std::function<void()> done);
  // Insists until it is answered.
  void Operate(Run* run, const v1::OperateExecutionRequest& request, bool insists);
  v1::OperateExecutionRequest OperationOn(const Run& run) const;
  // Undoes what operators did that holds executions up.
  void Release(Run* run);
  void LookLater(Run* run, int64_t after_us);
  void Look(Run* run);
  void Verify(Run* run);
  // `order`: of the answer among those of the coordinator, which may overtake each other.
  void Saw(Run* run, const v1::GetResultResponse& result, uint64_t order);
  v1::ExecutionRef RefOf(const Run& run) const;

  // ---- checks.cc ----
  // How it was to end; none after a problem.
  std::optional<Ending> CheckRun(Run* run);
  // The whole history of a run; none after a problem.
  std::optional<std::vector<v1::HistoryEvent>> HistoryOf(const Run& run);
  void CheckHistory(const Run& run, const std::vector<v1::HistoryEvent>& events,
                    const Fates& fates);
  void CheckLabels(const Run& run, const std::vector<v1::HistoryEvent>& events);
  void CheckUndone(const Run& run, const v1::GetResultResponse& result, const Fates& fates);
  // Every acknowledged bulk operation must have come to an end.
  void CheckBulks();
  // Deletes every execution, whatever fluxd suffers meanwhile; then nothing of them may be left.
  void DeleteAll();
  // All that the query finds, by (workflow id, run id); none after a problem.
  std::optional<std::vector<v1::ExecutionInfo>> Executions(const std::string& query);
  // A query for each label of each execution finds just those that have it.
  void CheckQueries();
  // The expected ending, checked against what came.
  Ending CheckOutcome(const Run& run, const v1::GetResultResponse& result,
                      const std::vector<v1::HistoryEvent>& events, const Fates& fates);
  bool EndedEarly(const Run& run, const v1::GetResultResponse& result,
                  const std::vector<v1::HistoryEvent>& events, const Fates& fates);
  void Pass(int64_t us);
  // Asks until there is an answer that is not Unavailable.
  template <typename T>
  absl::StatusOr<T> AskNow(
      const std::function<void(engine::Engine&, engine::Engine::Reply<T>)>& call) {
    absl::StatusOr<T> last = absl::UnavailableError("never asked");
    for (int attempt = 0; attempt < 100 && absl::IsUnavailable(last.status()); ++attempt) {
      if (attempt > 0) Pass(500'000);
      auto answer = std::make_shared<std::optional<absl::StatusOr<T>>>();
      Ask<T>([call](engine::Engine& engine, Done<T> done) { call(engine, std::move(done)); },
             [answer](absl::StatusOr<T> got) { answer->emplace(std::move(got)); });
      while (!answer->has_value() && timeline_.Step()) {
      }
      if (!answer->has_value()) break;
      last = **std::move(answer);
    }
    return last;
  }

  static constexpr int64_t kAnswerTimeoutUs = 20'000'000;

  const SimOptions options_;
  Dice dice_;
  FaultPlan plan_;
  uint64_t script_seed_ = 0;
  Timeline timeline_;
  std::vector<std::string> problems_;
  Ledger ledger_;
  uint64_t digest_ = 0;
  bool healed_ = false;
  uint64_t answers_ = 0;    // of the coordinator, about results
  uint64_t releasing_ = 0;  // requests that undo what operators did, and were not answered yet
  uint64_t bulks_asked_ = 0;
  std::map<std::string, std::string> bulks_;  // acknowledged ones: request id to id
  bool deletes_ = false;                      // all executions, at the end
  bool deleting_ = false;
  bool verify_after_crashes_ = false;
  std::vector<std::unique_ptr<Program>> programs_;
  std::set<std::string> emitted_;  // names of events that executions send to each other
  std::vector<std::unique_ptr<Run>> runs_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::map<engine::StreamId, Link> links_;
  engine::StreamId next_stream_ = 1;
  std::unique_ptr<Process> process_;  // the last: it goes first
};

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_SIMULATION_H_
