// The coordinator's heart: every shard of a store, one loop that owns their executions, and the
// dispatcher.
//
//   handlers ── Post ──► inbox ──► Turn(): decide ► apply ► batch ──► log (one commit in flight,
//   the next being built)
//                                                                       │ durable
//                                              outputs released ◄───────┘   rows written behind
//
// Lifecycle: Open claims the shards and recovers; then one thread calls Turn again and again
// (EngineThread does). All public request methods are thread-safe: they post to the inbox and
// answer through callbacks, which run on the loop thread once everything the answer rests on is
// durable (rule 2); callbacks must not block. After a failed write (rule 3) the engine stops:
// `on_fatal` is called once, nothing is answered any more, and the process is to exit.
//
// Limits: EngineOptions.
#ifndef FLUX_ENGINE_SHARD_ENGINE_H_
#define FLUX_ENGINE_SHARD_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/core/core.h"
#include "engine/dispatch/dispatcher.h"
#include "engine/shard/batch.h"
#include "engine/shard/byte_budget.h"
#include "engine/shard/definitions.h"
#include "engine/shard/history.h"
#include "engine/shard/inbox.h"
#include "engine/shard/index.h"
#include "engine/shard/kept_history.h"
#include "engine/shard/slot.h"
#include "engine/shard/visible.h"
#include "flux/v1/admin.pb.h"
#include "flux/v1/bulk.pb.h"
#include "flux/v1/workflow.pb.h"
#include "proto/arena_message.h"
#include "store/store.h"

namespace flux::engine {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t WallMs() const = 0;
  virtual int64_t MonotonicMs() const = 0;
};

// Runs blocking reads off the loop. Jobs may run concurrently and in any order. Thread-safe.
class Background {
 public:
  virtual ~Background() = default;
  virtual void Run(absl::AnyInvocable<void()> job) = 0;
};

// Where messages to workers go; engine/server/worker_service.h stands behind it. Thread-safe, does
// not block.
class WorkerOutput {
 public:
  virtual ~WorkerOutput() = default;
  virtual void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) = 0;
  virtual void Close(StreamId stream, absl::Status why) = 0;
};

// For how long a closed execution is kept, if it is one of these.
struct RetentionRule {
  std::string workflow;                                           // empty: any
  v1::ExecutionStatus status = v1::EXECUTION_STATUS_UNSPECIFIED;  // unspecified: any
  absl::Duration keep = absl::ZeroDuration();                     // 0: for ever
};

struct EngineOptions {
  DispatchOptions dispatch;
  GraphLimits graph;
  size_t payload_bytes_max = 4 * 1024 * 1024;      // of one input or output
  size_t payload_inline_bytes = 64 * 1024;         // larger ones lie under their own key (rule 19)
  size_t task_input_bytes_max = 48 * 1024 * 1024;  // all inputs of one task, or start, together
  // Payloads of one answer together. What is over it is left out, or refused, in words.
  size_t answer_bytes_max = 48 * 1024 * 1024;
  size_t history_page_bytes = 8 * 1024 * 1024;  // a page ends behind the record that passes it
  // While a commit is under way the next batch grows to this size, and by one message.
  size_t batch_bytes_max = 12 * 1024 * 1024;
  size_t id_bytes_max = 256;  // workflow ids, namespaces, request ids
  size_t labels_max = 64;
  size_t cache_bytes_max =
      256 * 1024 * 1024;  // executions in memory; above it all leave that no worker needs soon
  absl::Duration idle_before_eviction = absl::Seconds(1);
  uint64_t log_tail_bytes_max = 64 * 1024 * 1024;  // what a restart may have to replay
  size_t loads_in_flight_max = 256;
  size_t inbox_max = 100'000;  // above it, worker streams stop being read
  // Payloads of requests that are not answered yet: more are refused. As much again of messages of
  // workers that are not taken up yet: above it their streams stop being read. Either may pass it
  // by what each caller brings at once.
  size_t inbox_bytes_max = 256 * 1024 * 1024;
  absl::Duration wake_horizon =
      absl::Minutes(1);  // timers of evicted executions are looked up this far ahead
  uint64_t snapshot_records_min = 1'024;  // replaying this many is no burden
  // Row images go to the store in writes of this size and one row batch, a few at a time: a
  // snapshot may be larger than the store's queue.
  size_t row_write_bytes_max = 8 * 1024 * 1024;
  KeptHistory history;
  // How long closed executions are kept; 0: for ever. The first rule that fits one decides, and
  // `retention` if none does.
  absl::Duration retention = absl::ZeroDuration();
  std::vector<RetentionRule> retention_rules;
  // The wall clock at the start is right, however far it is ahead of all that the store knows.
  bool accept_clock = false;
  std::string version;
  std::string data_directory;  // for people
};

// What the note of a deletion says of the execution.
struct LastWords {
  std::string workflow;
  v1::ExecutionStatus status = v1::EXECUTION_STATUS_UNSPECIFIED;
  int64_t close_ms = 0;
};

class Engine final : public DispatchHost {
 public:
  template <typename T>
  using Reply = absl::AnyInvocable<void(absl::StatusOr<T>)>;

  struct Environment {
    store::Store* store = nullptr;
    Clock* clock = nullptr;
    Background* background = nullptr;
    WorkerOutput* workers = nullptr;
    std::function<uint64_t()> random;  // any 64 random bits; called on the loop thread only
    std::function<void(absl::Status)> on_fatal;
    std::function<void(int level, const std::string&)>
        log;  // level: 0 debug, 1 info, 2 warning, 3 error
  };

  // Claims every shard, replays the log and makes the recovered tail durable. Blocks. DataLoss:
  // damage, with its place; nothing was changed.
  static absl::StatusOr<std::unique_ptr<Engine>> Open(EngineOptions options,
                                                      Environment environment);
  ~Engine() override;

  // ---- the loop ----
  // Takes up everything in the inbox and what is due. Loop thread only.
  void Turn();
  // Monotonic time at which Turn is next needed without anything arriving.
  int64_t NextDeadlineMs() const;
  Inbox& inbox() { return inbox_; }
  // The batch behind the commit under way is full: nothing but its end lets the loop go on. Loop
  // thread only.
  bool held_up() const { return !jobs_.empty() || (!deferred_.empty() && commit_in_flight_); }
  // True once nothing is on its way to the disk. Loop thread only.
  bool Quiet() const;
  // No more starts; who waits for a result is told to ask again, workers to reconnect later.
  // `begun` is called once all of that has left. Requests go on being answered for as long as the
  // loop turns; Quiet() becomes true soon.
  void BeginShutdown(absl::AnyInvocable<void()> begun);

  // ---- requests (thread-safe) ----
  Definitions& definitions() { return *definitions_; }
  int64_t WallMs() const { return env_.clock->WallMs(); }
  // The shard's epoch since Open: what row batches of it must carry.
  store::Epoch EpochOf(store::ShardId shard) const { return shards_[shard].epoch; }
  // What Start would say of the request itself, whatever the state of its workflow id and the disk.
  absl::Status ValidateStart(v1::StartWorkflowRequest request) const;
  void Start(v1::StartWorkflowRequest request, Reply<v1::StartWorkflowResponse> reply);
  void GetResult(v1::GetResultRequest request, Reply<v1::GetResultResponse> reply);
  void Describe(v1::DescribeExecutionRequest request, Reply<v1::DescribeExecutionResponse> reply);
  void Progress(v1::ExecutionRef ref, Reply<v1::WatchExecutionResponse> reply);
  void History(v1::GetHistoryRequest request, Reply<v1::GetHistoryResponse> reply);
  void List(v1::ListExecutionsRequest request, Reply<v1::ListExecutionsResponse> reply);
  void Count(v1::CountExecutionsRequest request, Reply<v1::CountExecutionsResponse> reply);
  void Cancel(v1::CancelExecutionRequest request, Reply<v1::CancelExecutionResponse> reply);
  void Terminate(v1::TerminateExecutionRequest request,
                 Reply<v1::TerminateExecutionResponse> reply);
  void SendEvent(v1::SendEventRequest request, Reply<v1::SendEventResponse> reply);
  void ListEvents(v1::ListEventsRequest request, Reply<v1::ListEventsResponse> reply);
  void Operate(v1::OperateExecutionRequest request, Reply<v1::OperateExecutionResponse> reply);
  // A closed execution goes with all its rows, for good. FailedPrecondition: it is open.
  // Unavailable: it has messages to send. NotFound: no such run, or it is deleted already.
  void Delete(v1::ExecutionRef ref, std::string identity, std::string reason,
              Reply<v1::OperateExecutionResponse> reply);
  void ListDeletions(v1::ListDeletionsRequest request, Reply<v1::ListDeletionsResponse> reply);
  void StartBulk(v1::StartBulkOperationRequest request,
                 Reply<v1::StartBulkOperationResponse> reply);
  void GetBulk(v1::GetBulkOperationRequest request, Reply<v1::GetBulkOperationResponse> reply);
  void ListBulks(Reply<v1::ListBulkOperationsResponse> reply);
  void CancelBulk(v1::CancelBulkOperationRequest request,
                  Reply<v1::CancelBulkOperationResponse> reply);
  void Info(Reply<v1::GetServerInfoResponse> reply);
  void ListWorkers(v1::ListWorkersRequest request, Reply<v1::ListWorkersResponse> reply);
  void ListQueues(Reply<v1::ListTaskQueuesResponse> reply);
  void GetQueue(v1::GetTaskQueueRequest request, Reply<v1::GetTaskQueueResponse> reply);
  void Verify(v1::VerifyExecutionRequest request, Reply<v1::VerifyExecutionResponse> reply);

  // Worker streams. OnMessage answers false when as much waits as may: read on after `resume` was
  // called.
  void OnWorkerOpen(StreamId stream, std::string peer);
  bool OnWorkerMessage(StreamId stream, std::unique_ptr<v1::ConnectRequest> message);
  void set_resume(std::function<void()> resume) { resume_ = std::move(resume); }
  void OnWorkerClosed(StreamId stream);

  // ---- DispatchHost (loop thread) ----
  bool BuildTask(const DeliveryKey& key, v1::Task* task) override;
  void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) override;
  void Close(StreamId stream, absl::Status why) override;
  void EndAttempt(const DeliveryKey& key, AttemptEnd reason, const v1::Payload& progress,
                  const std::string& worker_id) override;
  void Redeliver(const DeliveryKey& key, const std::string& reason) override;
  void CheckClaim(const DeliveryKey& key) override;
  void RecordSession(v1::SessionChange change) override;
  void Refill(const std::string& queue, const TaskCounts& tasks) override;

 private:
  struct Shard {
    store::ShardId id = 0;
    store::Epoch epoch = 0;
    store::Lsn next_lsn = 1;  // of the entry being built
    store::Lsn durable_lsn = 0;
    store::Lsn truncated = 0;
    BatchBuilder batch;
    std::vector<store::RowChange> rows;  // payloads and sessions that go with the batch
    std::list<Slot*> pins;               // slots with records the rows lack, by first_unflushed_lsn
    std::deque<std::pair<store::Lsn, uint64_t>> sizes;  // (lsn, bytes) of entries not truncated
    bool active = false;                                // in active_shards_
    bool truncating = false;
    ShardCounts counts;
    std::deque<std::pair<store::Lsn, RunId>> tombstones;  // that stand, by the commit they are of
  };

  // A row image of some executions, taken at the end of a turn. Written in order, a piece at a
  // time: what is to be found together lies in one batch.
  struct Flush {
    std::vector<store::RowBatch> batches;
    size_t next_batch = 0;  // of those, the first that is not on its way yet
    size_t bytes = 0;
    std::vector<std::pair<RunId, uint64_t>> runs;  // and the ordinal each image goes to
    // Where the newest row of counts lies, by its key: batch and put.
    absl::flat_hash_map<std::string, std::pair<size_t, size_t>> counted;
    std::vector<RunId> removed;  // of deleted runs whose rows go
  };

  // Everything that leaves once one commit is durable.
  struct Outputs {
    std::vector<std::pair<StreamId, ArenaPtr<v1::ConnectResponse>>> messages;
    std::vector<std::pair<StreamId, absl::Status>> closes;
    std::vector<absl::AnyInvocable<void()>> replies;
    std::vector<Flush> flushes;  // rule 1: rows never overtake the log
    bool empty() const {
      return messages.empty() && closes.empty() && replies.empty() && flushes.empty();
    }
  };

  // What is known of a workflow id while some run of it is resident or a command of it waits.
  struct IdEntry {
    bool loaded = false;  // the index rows have been read
    bool loading = false;
    bool stale = false;                      // a run was deleted since loading began
    std::vector<v1::ExecutionSummary> runs;  // not resident ones, the newest first
    RunId current;                           // the newest run; empty: none known
    // For the rows, in order; and while there are any that could not go on with the first.
    std::deque<absl::AnyInvocable<void(const absl::Status&)>> waiting;
    absl::btree_set<RunId> in_memory;  // those with a slot
    uint32_t holds = 0;                // of callbacks that need the entry
    // By request id: deleted runs that it started.
    absl::flat_hash_map<std::string, RunId> requests;
  };

  // A run that is deleted, until nothing is left that speaks of it.
  struct Deletion {
    store::ShardId shard = 0;
    store::Lsn lsn = 0;  // of the commit that holds its tombstone
    std::string ns;
    std::string workflow_id;
    LastWords last;                        // not known of one that a restart found
    std::optional<v1::IndexMark> indexed;  // its part in the counts, while its rows stand
    bool gone = false;                     // its rows are
  };
  // Runs once the deletion is decided (leave the loop by ReplyLater), or with why it is not.
  using DeleteCallback = absl::AnyInvocable<void(const absl::Status& status, const RunId& run)>;

  // An operation on all executions that a query matches.
  struct Bulk {
    struct Item {
      std::string workflow_id;
      RunId run;
      int tries = 0;
      int64_t not_before_ms = 0;  // monotonic
    };
    v1::StoredBulkOperation row;
    Query query;
    VisibleCursor after;     // behind the pages that are dealt with
    std::deque<Item> page;   // to be operated on
    VisibleCursor page_end;  // of the page under way
    bool paged = false;      // a page is under way
    bool last = false;       // and is the last one
    bool searching = false;
    size_t in_flight = 0;     // executions that have not answered
    int64_t saved_milli = 0;  // thousandths of an execution that may be taken at once
    int64_t paced_ms = 0;     // monotonic; 0: not yet
  };

  struct Waiter {
    int64_t deadline_ms = 0;
    uint64_t number = 0;
    Reply<v1::GetResultResponse> reply;
  };

  Engine(EngineOptions options, Environment environment);

  // engine.cc: the loop
  void Post(absl::AnyInvocable<void()> job) { inbox_.Push(std::move(job)); }
  void ReplyLater(absl::AnyInvocable<void()> reply) {
    outputs_.replies.push_back(std::move(reply));
  }
  template <typename T>
  void ReplyWith(Reply<T> reply, absl::StatusOr<T> answer) {
    ReplyLater([reply = std::move(reply), answer = std::move(answer)]() mutable {
      reply(std::move(answer));
    });
  }
  // What a request brings along is held until `reply` is called. ResourceExhausted: too much waits
  // already.
  template <typename T>
  absl::Status TakeIn(size_t bytes, Reply<T>* reply) {
    if (request_bytes_.full()) return TooMuchWaits();
    *reply = [hold = request_bytes_.Take(bytes), reply = std::move(*reply)](
                 absl::StatusOr<T> answer) mutable { reply(std::move(answer)); };
    return absl::OkStatus();
  }
  absl::Status TooMuchWaits() const;
  static absl::Status ShuttingDown();
  bool BatchFull() const { return batch_bytes_ >= options_.batch_bytes_max; }
  // False: the batch behind a commit is full, and the rest waits for the log.
  bool RunDeferred();
  // Until nothing waits, or the batch behind a commit is full.
  void RunJobs();
  // True: a commit was done.
  bool TakeCommit();
  void FinishBatch();
  void Submit();
  void Committed(const std::vector<store::AppendResult>& results);
  void Release(Outputs outputs);
  void Fatal(const absl::Status& status);
  DispatchNow Now() const;
  int64_t DecisionMs();
  void ObserveStall();
  void Log(int level, const std::string& text) const;
  Shard& Activate(store::ShardId id);
  // The shard is part of a run's id. False: no such shard here.
  bool ShardOfRun(const RunId& run, store::ShardId* shard) const;

  // engine_commands.cc: executions
  // `retried`: how many steps it had tried again.
  absl::StatusOr<Verdict> Execute(Slot& slot, Command&& command, uint64_t* retried = nullptr);
  void AddRecord(Slot& slot, v1::Record&& record, std::shared_ptr<const Graph> graph);
  void Append(Slot& slot, uint64_t ordinal, const v1::Record& record);
  void Take(Slot& slot, const Effects& effects);
  void OfferStep(Slot& slot, const StepKey& key, bool maybe_delivered);
  void OfferAll(Slot& slot);
  // Of a run that is paused: takes back what no worker has.
  void Withhold(Slot& slot);
  void Touch(Slot& slot);
  // Wall; when something is to be done for it though nobody asks. 0: never.
  static int64_t DueMs(const Slot& slot);
  void ArmTimer(Slot& slot);
  void EndOverdueStarts(Slot& slot, int64_t now);
  void DisarmTimer(Slot& slot);
  void FireTimersDue();
  void HandleWorkerMessage(StreamId stream, std::unique_ptr<v1::ConnectRequest> message);
  void PrefetchResults(const google::protobuf::RepeatedPtrField<v1::TaskResult>& results,
                       int first) const;
  void HandleResult(StreamId stream, v1::TaskResult&& result);
  void FinishResult(StreamId stream, const DeliveryKey& key, Slot* slot, v1::TaskResult&& result,
                    std::string worker_id, std::string note);
  static DeliveryKey KeyOf(const v1::TaskToken& token);
  void OnDelivery(const DeliveryKey& key, Command command);

  // engine_queued.cc: queued tasks without a place in the dispatcher's memory
  void Displace(const DisplacedTask& task);
  void MarkSpilled(Slot& slot, const TaskOffer& offer, SpilledStep step, bool count);
  void ForgetSpilled(Slot& slot, const StepKey& key);
  void LeaveSpilledResident(const RunId& run, const TaskName& name);
  // Takes its tasks back from the dispatcher, for the disk, so that it can be evicted. False: it
  // is to stay.
  bool GiveUpQueued(Slot& slot);
  // Tells the dispatcher how the cache stands, once a turn.
  void WeighMemory();
  // Offers what the dispatcher takes of its spilled steps in the queue: of these tasks, so many of
  // each, which it counts down; null: of all.
  void RefillFrom(Slot& slot, const std::string& queue, TaskCounts* tasks);
  // How many executions that are read from disk the memory has room for.
  size_t LoadsInRoom() const;
  void Requeue(Slot& slot);
  // Reads executions that have these tasks on disk and offers them, until the dispatcher takes no
  // more or the rows of all shards were looked at, `visited` of them before.
  void ScanReady(const std::string& queue, TaskCounts tasks, store::ShardId visited);

  // engine_requests.cc
  absl::Status CheckId(std::string_view what, std::string_view id, bool required) const;
  absl::Status CheckRef(v1::ExecutionRef& ref) const;
  // Of a command: what goes into its record.
  absl::Status CheckWho(std::string_view identity, std::string_view reason) const;
  // `count` is how many `whose` ("execution", "step") would have.
  absl::Status CheckLabels(std::string_view whose,
                           const google::protobuf::Map<std::string, std::string>& labels,
                           size_t count) const;
  absl::StatusOr<std::shared_ptr<const Graph>> GraphOf(
      const v1::StartWorkflowRequest& request) const;
  absl::Status CheckStart(v1::StartWorkflowRequest& request, const Graph& graph) const;
  // Loop thread; the request and the disk have been checked.
  void TakeStart(v1::StartWorkflowRequest request, std::shared_ptr<const Graph> graph,
                 Reply<v1::StartWorkflowResponse> reply);
  void StartKnown(const std::string& id_key, v1::StartWorkflowRequest request,
                  std::shared_ptr<const Graph> graph, Reply<v1::StartWorkflowResponse> reply);
  void StartNew(const std::string& id_key, v1::StartWorkflowRequest request,
                std::shared_ptr<const Graph> graph, Reply<v1::StartWorkflowResponse> reply);
  // Finds the run a reference names and calls back with its slot, loading it if need be.
  void WithExecution(const v1::ExecutionRef& ref, SlotCallback callback);
  void AddWaiter(const RunId& run, uint32_t wait_ms, Reply<v1::GetResultResponse> reply);
  // ResourceExhausted: one answer does not hold it.
  absl::StatusOr<v1::GetResultResponse> ResultOf(const Slot& slot) const;
  void NotifyClosed(Slot& slot);
  void ExpireWaiters();
  LiveLookup LiveOf(const Slot& slot) const;
  template <typename Response, typename Request>
  void StopExecution(Request request, Command command, Reply<Response> reply);

  // engine_visibility.cc: the index of executions
  using SearchCallback = absl::AnyInvocable<void(absl::StatusOr<std::unique_ptr<VisibleSearch>>)>;
  absl::Status OpenIndex();
  absl::Status BuildIndex(store::ShardId shard, uint64_t* executions);
  void IndexSlot(const Slot& slot, const v1::ExecutionSummary& summary, v1::RunRoot& root,
                 Flush& flush, size_t batch);
  static void PutCounts(Shard& shard, const std::string& group, Flush& flush, size_t batch);
  void Search(VisibleRequest request, SearchCallback done);
  void Overlay(VisibleRequest* request) const;
  void StepSearch(std::unique_ptr<VisibleSearch> search, SearchCallback done);
  template <typename Visit>
  void VisitCounts(const std::string& ns, Visit count) const;
  std::map<v1::ExecutionStatus, uint64_t> CountByIndex(const std::string& ns,
                                                       const Query& query) const;
  // In memory or not.
  uint64_t CountOpen() const;

  // engine_messages.cc: events, messages between executions, operators
  absl::Status CheckPayload(std::string_view what, const v1::Payload& payload) const;
  // All about an operation that no execution's state decides. InvalidArgument, NotFound (of a
  // definition) or ResourceExhausted names what it lacks. Blocks on the disk where it is to migrate
  // to a definition that was not used yet.
  absl::Status CheckOperation(const v1::Operation& operation) const;
  uint64_t BlobFor(const Slot& slot, const v1::Payload& payload) const;
  absl::Status FullDisk(std::string_view what) const;
  void TakeEvent(v1::SendEventRequest request, Reply<v1::SendEventResponse> reply);
  void SendPending(Slot& slot);
  void RetryMessages();
  void SendMessage(const RunId& run, uint64_t number);
  void StartChild(const RunId& run, OutboxMessage message);
  void StopChild(const RunId& run, OutboxMessage message);
  void NotifyParent(const RunId& run, OutboxMessage message);
  void MessageAnswered(const RunId& run, uint64_t number, const absl::Status& status,
                       std::string workflow_id = "", std::string child_run = "");
  // As MessageAnswered, of an answer that stands.
  void SettleMessage(const RunId& run, uint64_t number, const absl::Status& status,
                     std::string workflow_id = "", std::string child_run = "");
  void MigrateOn(Slot& slot, const v1::OperateExecutionRequest& request,
                 Reply<v1::OperateExecutionResponse> reply);
  void Reopen(const RunId& run, const std::string& id_key, v1::OperateExecutionRequest request,
              Reply<v1::OperateExecutionResponse> reply);
  void OperateOn(Slot& slot, const v1::OperateExecutionRequest& request,
                 Reply<v1::OperateExecutionResponse> reply);

  // engine_delete.cc: deletion and retention
  void DeleteRun(const RunId& run, v1::ExecutionRef ref, DeleteCallback done);
  void DeleteResident(const RunId& run, v1::ExecutionRef ref, DeleteCallback done);
  // `request_id` is of its start, `last` says how it ended.
  void Bury(const RunId& run, store::ShardId id, const v1::RunRoot& root,
            const std::string& request_id, const LastWords& last);
  void RememberRequest(Shard& shard, const std::string& id_key, const std::string& request_id,
                       const RunId& run, int64_t close_ms);
  // Request ids and notes of deletions that have been kept for long enough.
  void ForgetRequests();
  // deletion_notes.cc: what is kept of deletions that somebody asked for
  void NoteDeletion(const RunId& run, std::string identity, std::string reason);
  // A wall clock that jumps ahead while we run, or did while we did not, makes nothing old.
  int64_t SteadyWallMs() const;
  absl::Status LoadClock();
  void WatchClock();
  void CollectRows(const RunId& run);
  void RemoveRows(const RunId& run, absl::StatusOr<store::RowBatch> batch);
  void RowsRemoved(const RunId& run);
  void ForgetDeletions();
  absl::Status LoadTombstones(Shard& shard);
  void ResumeDeletions();
  void SweepRetention();

  // engine_bulk.cc: operations by query
  absl::Status CheckBulk(v1::StartBulkOperationRequest& request) const;
  void PreviewBulk(const v1::StartBulkOperationRequest& request, uint64_t matched, Query query,
                   Reply<v1::StartBulkOperationResponse> reply);
  // Set: the request was here before, and this is its answer.
  std::optional<v1::StartBulkOperationResponse> BulkOf(
      const v1::StartBulkOperationRequest& request) const;
  absl::StatusOr<v1::StartBulkOperationResponse> BeginBulk(v1::StartBulkOperationRequest request,
                                                           uint64_t matched, Query query,
                                                           int64_t now);
  void SaveBulk(const Bulk& bulk);
  absl::Status LoadBulks();
  void EndBulk(Bulk& bulk, v1::BulkState state, std::string failure);
  void PumpBulks();
  void PumpBulk(Bulk& bulk);
  void TakeBulkPage(const std::string& id, absl::StatusOr<VisibleSearch::Page> page);
  void ApplyBulk(Bulk& bulk, Bulk::Item item);
  void BulkAnswered(const std::string& id, Bulk::Item item, const absl::Status& status);

  // engine_rows.cc: loading, flushing, eviction, truncation
  void WithId(const std::string& id_key, absl::AnyInvocable<void(const absl::Status&)> callback);
  void WithRun(const RunId& run, SlotCallback callback);
  void PumpLoads();
  void LoadDone(const RunId& run, absl::Status status, v1::RunRoot root,
                std::optional<Execution> execution);
  // What waited for the load, in order, and no more at a time than a batch takes.
  void RunWaiting(const RunId& run);
  void RunIdWaiting(const std::string& id_key);
  Slot& NewSlot(const RunId& run, store::ShardId shard, std::string id_key);
  void EnterId(Slot& slot);
  void Adopt(Slot& slot, bool recovered);
  bool Evictable(const Slot& slot) const;
  bool RowsFit(const Slot& slot) const;
  void Evict(Slot& slot);
  void Pin(Slot& slot, store::Lsn lsn);
  void Unpin(Slot& slot);
  void QueueFlush(Slot& slot, bool evict);
  void BuildFlushes();
  void BuildFlush(Slot& slot, bool evicting, Flush& flush);
  // It leaves with the batch being built.
  void QueueRows(Flush flush);
  void SendRows();
  void RowsWritten(size_t bytes, std::optional<Flush> done, const absl::Status& status);
  void Flushed(const std::vector<std::pair<RunId, uint64_t>>& runs,
               const std::vector<RunId>& removed);
  void Housekeep();
  void TruncateLogs();
  void ScanWakes();
  void DropIdIfUnused(const std::string& id_key);

  // engine_recovery.cc
  absl::Status Recover();
  absl::Status RecoverShard(Shard& shard, uint64_t* records);
  absl::Status CountReady();

  const EngineOptions options_;
  Environment env_;
  ByteBudget request_bytes_;
  ByteBudget message_bytes_;
  Inbox inbox_;
  std::function<void()> resume_;
  std::atomic<bool> streams_paused_{false};
  std::unique_ptr<Definitions> definitions_;
  std::unique_ptr<Histories> histories_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<Shard> shards_;
  uint32_t incarnation_ = 1;

  absl::flat_hash_map<RunId, std::unique_ptr<Slot>> slots_;
  absl::flat_hash_map<std::string, IdEntry> ids_;
  absl::btree_set<std::pair<int64_t, RunId>> timers_;  // (due, run); also of evicted runs due soon
  absl::flat_hash_map<RunId, std::vector<Waiter>> waiters_;
  absl::btree_set<std::pair<int64_t, std::pair<uint64_t, RunId>>> waiter_deadlines_;
  // Messages to other executions that could not be taken, by when they are sent again (monotonic).
  std::multimap<int64_t, std::pair<RunId, uint64_t>> message_retries_;
  absl::btree_map<RunId, Deletion> deletions_;
  absl::flat_hash_set<RunId> standing_;  // deleted runs whose rows may still be there
  size_t removing_ = 0;                  // deletions whose rows are being removed
  absl::flat_hash_map<RunId, std::vector<absl::AnyInvocable<void()>>> after_flush_;
  std::map<std::string, std::unique_ptr<Bulk>> bulks_;  // by id, the oldest first
  size_t bulks_running_ = 0;
  std::list<Slot*> lru_;  // least recently touched first
  std::vector<RunId> flush_queue_;
  std::deque<RunId> load_queue_;
  size_t loads_in_flight_ = 0;
  size_t loads_to_find_ = 0;  // what scans of ready rows may yet find
  // Resident runs with spilled steps of that name, the oldest first.
  std::map<TaskName, absl::btree_set<RunId>> spilled_resident_;
  struct DiskQueue {                      // ready rows of one queue
    std::map<std::string, int64_t> rows;  // by the names in them
    store::ShardId cursor_shard = 0;
    std::string cursor;
  };
  std::map<std::string, DiskQueue> disk_queues_;  // those that have rows
  std::vector<store::ShardId> active_shards_;     // with something in their batch
  // Commands raised from inside the dispatcher, and what a full batch had no room for.
  std::deque<absl::AnyInvocable<void()>> deferred_;

  Outputs outputs_;            // of the batch being built
  Outputs in_flight_outputs_;  // of the commit under way
  bool commit_in_flight_ = false;
  size_t flushes_in_flight_ = 0;
  std::deque<Flush> row_queue_;     // released, and not wholly on their way
  size_t row_bytes_in_flight_ = 0;  // on their way to the store
  size_t row_bytes_under_way_ = 0;  // of all flushes, from when they are built on
  bool fatal_ = false;
  bool shutting_down_ = false;
  uint64_t tail_bytes_ = 0;  // of log entries not truncated
  size_t cache_bytes_ = 0;
  size_t loaded_bytes_ = 64 * 1024;  // of an execution that was read: a moving average
  uint64_t next_number_ = 1;
  Effects effects_;  // scratch of AddRecord
  int64_t last_housekeeping_ms_ = 0;
  int64_t last_flush_ms_ = 0;
  int64_t last_truncate_ms_ = 0;
  int64_t last_space_check_ms_ = 0;
  int64_t wakes_scanned_ms_ = 0;  // timer rows due before this (wall clock) are in timers_
  bool wake_scan_running_ = false;
  int64_t last_turn_end_ms_ = 0;
  mutable int64_t planned_wake_ms_ = 0;
  int64_t stalled_ms_ = 0;
  int64_t last_wall_ms_ = 0;
  int64_t start_wall_ms_ = 0;
  int64_t start_monotonic_ms_ = 0;
  int64_t steady_start_ms_ = 0;  // wall time at the start, as far as it is trusted
  int64_t known_wall_ms_ = 0;    // the newest time that the store knows; 0: none
  bool clock_held_ = false;      // the clock is too far ahead of it
  int64_t last_clock_note_ms_ = 0;
  uint64_t clock_noted_commits_ = 0;
  int64_t next_forget_ms_ = 0;  // of request ids
  bool forgetting_ = false;
  int64_t next_sweep_ms_ = 0;  // of what is too old
  bool sweeping_ = false;
  store::ShardId sweep_shard_ = 0;
  std::string sweep_cursor_;
  size_t batch_bytes_ = 0;        // of the batch being built
  std::vector<Inbox::Job> jobs_;  // taken from the inbox by Turn
  size_t next_job_ = 0;           // of them
  struct Peer {
    std::string address;
    std::string worker_id;
  };
  absl::flat_hash_map<StreamId, Peer> peers_;  // open streams

  struct Counters {
    uint64_t commits = 0, records = 0, commit_bytes = 0, results = 0, results_stale = 0,
             results_duplicate = 0, starts = 0, closes = 0, loads = 0, evictions = 0, flushes = 0,
             row_bytes = 0, turns = 0, truncations = 0, snapshots = 0, stalls = 0, deletions = 0,
             retention_deletions = 0;
  } counters_;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_ENGINE_H_
