// A coordinator without threads, sockets or a disk: the real engine over a MemoryStore, driven by
// hand. Time moves only when a test says so, background reads and store completions happen only
// when stepped, and a crash costs exactly what a disk would lose.
#ifndef FLUX_TESTS_SHARD_WORLD_H_
#define FLUX_TESTS_SHARD_WORLD_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/shard/engine.h"
#include "engine/shard/keys.h"
#include "proto/arena_message.h"
#include "store/faulty_store.h"
#include "store/memory_store.h"

namespace flux::engine::testing {

// Single-threaded. Destroy after its worker streams are no longer used.
class World final : public Clock, public Background, public WorkerOutput {
 public:
  explicit World(EngineOptions options = {}, store::MemoryOptions store = {});
  ~World() override;

  // ---- the coordinator's life ----
  absl::Status Open();
  // The process dies; the disk keeps what `crash` says. Streams are gone.
  void Crash(store::CrashOptions crash = {});
  bool running() const { return engine_ != nullptr; }
  Engine& engine() { return *engine_; }
  store::FaultyStore& store() { return *store_; }
  store::MemoryDisk& disk() { return *disk_; }
  const absl::Status& fatal() const { return fatal_; }

  // ---- steps ----
  void Turn() { engine_->Turn(); }
  // Runs one background job. False: none.
  bool RunJob();
  // Delivers one completion of the store. False: none.
  bool StepStore();
  // Turns, jobs and completions until nothing is left to do at this time.
  void Settle();
  // Settles, then moves time on in steps and settles each time.
  void Advance(int64_t ms, int64_t step_ms = 50);
  // Time passes and nothing happens.
  void Sleep(int64_t ms) { now_ms_ += ms; }
  int64_t now_ms() const { return now_ms_; }

  // ---- clients ----
  // Puts the definition and returns its hash.
  std::string Define(const v1::Definition& definition);
  // Posts a start and returns where the answer will be; `Settle` brings it.
  std::shared_ptr<std::optional<absl::StatusOr<v1::StartWorkflowResponse>>> PostStart(
      v1::StartWorkflowRequest request);
  absl::StatusOr<v1::StartWorkflowResponse> Start(const std::string& workflow,
                                                  const std::string& id,
                                                  std::vector<std::string> json_inputs = {});
  absl::StatusOr<v1::StartWorkflowResponse> Start(v1::StartWorkflowRequest request);
  v1::GetResultResponse Result(const std::string& id);
  v1::DescribeExecutionResponse Describe(const std::string& id);
  absl::StatusOr<v1::VerifyExecutionResponse> Verify(const std::string& id);
  uint64_t Counter(const std::string& name);
  // Sends an event with a JSON payload to the newest run of the id.
  absl::StatusOr<v1::SendEventResponse> SendEvent(const std::string& id, const std::string& event,
                                                  const std::string& json,
                                                  const std::string& event_id = "",
                                                  int64_t deliver_ms = 0);
  v1::ListEventsResponse Events(const std::string& id);
  // An operation as text ("retry {}"), by "ann", "because".
  absl::StatusOr<v1::OperateExecutionResponse> Operate(const std::string& id,
                                                       const std::string& operation);
  std::vector<v1::HistoryEvent> History(const std::string& id);
  // Calls an engine method that takes (request, reply) and settles.
  template <typename Response, typename Call>
  absl::StatusOr<Response> Ask(Call call) {
    std::optional<absl::StatusOr<Response>> answer;
    call([&answer](absl::StatusOr<Response> got) { answer.emplace(std::move(got)); });
    Settle();
    if (!answer) return absl::DeadlineExceededError("no answer");
    return *std::move(answer);
  }

  // ---- workers ----
  struct Stream {
    std::deque<v1::Task> tasks;
    std::vector<v1::ResultAck> acks;
    std::vector<v1::CancelTask> cancels;
    std::vector<uint64_t> pings;
    std::optional<v1::Welcome> welcome;
    std::optional<absl::Status> closed;
    bool goodbye = false;
  };
  // Opens a stream with this session and gives credit.
  StreamId Connect(const std::string& session, std::vector<std::string> tasks, uint32_t credit,
                   std::vector<v1::RunningTask> running = {}, const std::string& queue = "default");
  Stream& stream(StreamId id) { return streams_[id]; }
  void Disconnect(StreamId id);
  void Answer(StreamId id, const v1::Task& task, const std::string& json);
  void AnswerFailure(StreamId id, const v1::Task& task, const std::string& type,
                     bool final = false);
  void Message(StreamId id, v1::ConnectRequest message);
  // Moves time on; the worker answers pings and, if it works, what it is given.
  void Pass(StreamId worker, int64_t ms, bool work);
  // The next task that the stream was given. Fails the test if there is none.
  v1::Task Take(StreamId id);
  // Answers every task that comes with its first input (or 1), until nothing moves any more.
  void RunWorker(StreamId id);
  // All tokens ever handed out, as text, with how often.
  const std::map<std::string, int>& handed_out() const { return handed_out_; }

  // Clock
  int64_t WallMs() const override { return now_ms_; }
  int64_t MonotonicMs() const override { return now_ms_; }
  // Background
  void Run(absl::AnyInvocable<void()> job) override { jobs_.push_back(std::move(job)); }
  // WorkerOutput
  void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) override;
  void Close(StreamId stream, absl::Status why) override;

 private:
  const EngineOptions options_;
  store::MemoryOptions store_options_;
  int64_t now_ms_ = 1'700'000'000'000;
  uint64_t random_ = 1;
  std::shared_ptr<store::MemoryDisk> disk_;
  store::MemoryStore* memory_ = nullptr;  // inside store_
  std::unique_ptr<store::FaultyStore> store_;
  std::unique_ptr<Engine> engine_;
  std::deque<absl::AnyInvocable<void()>> jobs_;
  std::map<StreamId, Stream> streams_;
  StreamId next_stream_ = 1;
  absl::Status fatal_;
  std::map<std::string, int> handed_out_;
};

// How many rows a table has, over all shards.
size_t CountRows(World& world, keys::Table table);

// Definitions to run: `steps` tasks "t" in a row, each with its predecessor's output.
v1::Definition Chain(const std::string& name, int steps);
// A loop of `turns` turns, each a task "t" on the state.
v1::Definition Rounds(const std::string& name, uint64_t turns);
// A map of task "t" over input 0, then task "sum" over the list.
v1::Definition MapAndSum(const std::string& name, uint32_t max_parallel = 0);
// Sleeps, then task "t".
v1::Definition Nap(const std::string& name, int64_t sleep_ms);

v1::Payload Json(const std::string& text);

// A definition from protobuf text; format and version are set.
v1::Definition Parse(const std::string& text);

}  // namespace flux::engine::testing

#endif  // FLUX_TESTS_SHARD_WORLD_H_
