// A worker's session with its coordinator: the stream (and the next one when it breaks), what the
// coordinator has handed out, the threads that run it, and the results until they are acknowledged.
//
//   stream ──tasks──► queue ──► executor threads ──► results ──► outbox ──► stream ──► (ack)
//   forgotten
//
// Everything is batched: results gather while a write is in flight or more work is queued, and go
// as one message. A result is written as soon as nothing is queued behind it, and at the latest one
// tick later.
//
// A delivery (TaskToken) is `queued`, then `running`, then `finished` until the coordinator
// acknowledges its result; what the coordinator withdrew is forgotten at once, or when its function
// returns. A broken stream changes none of this: the next stream's hello lists every delivery that
// is held, and the results that were not acknowledged are sent again.
//
// One mutex guards all state; it is taken once a message and once a task. User functions, parsing,
// serialisation and system calls run outside it. A `keeper` thread does what is due at a time:
// reconnects, heartbeats, silence, starting further executors, draining.
//
// Lifecycle: Create, Start, then Wait (which returns after RequestDrain, or when the coordinator
// refuses the worker outright); the last owner's Join waits for user functions that still run.
#ifndef FLUX_WORKER_SRC_SESSION_H_
#define FLUX_WORKER_SRC_SESSION_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/src/rpc_channel.h"
#include "flux/task_context.h"
#include "flux/v1/worker.grpc.pb.h"
#include "flux/worker.h"

namespace flux::internal {

// Limits of a session.
// What the coordinator takes of a session (its DispatchOptions::credit_max): of credit, and of
// deliveries that a hello lists.
inline constexpr uint32_t kHeldMax = 100'000;
inline constexpr size_t kResultsPerMessageMax = 4'096;
inline constexpr size_t kMessageBytesMax =
    4 * 1024 * 1024;                            // soft: cut after the result that passes it
inline constexpr size_t kResultsFlushAt = 256;  // written though more work is queued
inline constexpr size_t kUnackedMax = 20'000;   // results held; no more credit above it
inline constexpr size_t kUnackedBytesMax = 64 * 1024 * 1024;
// Slots and prefetch together: beside the results that wait for their acknowledgement.
inline constexpr uint32_t kTasksMax = kHeldMax - kUnackedMax;
inline constexpr uint32_t kPrefetchAdaptiveMax = 2'048;
inline constexpr size_t kProgressBytesMax = 64 * 1024;  // of a heartbeat
// Of all heartbeats of a message, and of all tasks of a hello: with the rest of it less than the
// coordinator takes as one message (48 MiB). Soft: passed by one of them.
inline constexpr size_t kHeartbeatsBytesMax = 4 * 1024 * 1024;
inline constexpr size_t kHelloProgressBytesMax = 16 * 1024 * 1024;
inline constexpr uint64_t kPayloadBytesDefault =
    4 * 1024 * 1024;  // until the coordinator has said its own

using TaskHandlers = absl::flat_hash_map<std::string, TaskHandler>;

// Monotonic nanoseconds.
using Nanos = int64_t;
Nanos MonotonicNow();

// One message of the coordinator, in an arena of its own: parsing a task costs hardly an
// allocation. Kept by its deliveries.
using Inbound = std::shared_ptr<v1::ConnectResponse>;

struct HeldTask;

// What identifies a delivery; a view of the token that the HeldTask keeps.
struct TokenKey {
  absl::string_view run_id;
  uint64_t frame = 0;
  uint64_t delivery = 0;
  uint32_t step = 0;
  uint32_t generation = 0;
  uint32_t incarnation = 0;
  uint32_t shard = 0;

  static TokenKey Of(const v1::TaskToken& token) {
    return {token.run_id(),     token.frame(),       token.delivery(), token.step(),
            token.generation(), token.incarnation(), token.shard()};
  }
  friend bool operator==(const TokenKey& a, const TokenKey& b) {
    return a.run_id == b.run_id && a.frame == b.frame && a.delivery == b.delivery &&
           a.step == b.step && a.generation == b.generation && a.incarnation == b.incarnation &&
           a.shard == b.shard;
  }
  template <typename H>
  friend H AbslHashValue(H h, const TokenKey& key) {
    return H::combine(std::move(h), key.run_id, key.frame, key.delivery, key.step, key.generation);
  }
};

enum class HeldState : uint8_t { kQueued, kRunning, kFinished };

// One delivery. Guarded by Session::mutex_, but for `task`, which belongs to the executor while it
// runs, and `cancelled`.
struct HeldTask {
  HeldTask() = default;
  HeldTask(const HeldTask&) = delete;
  HeldTask& operator=(const HeldTask&) = delete;
  ~HeldTask() {
    if (result != nullptr) static_cast<void>(result->unsafe_arena_release_token());
  }

  Inbound inbound;                         // shared with the other deliveries of its message
  v1::Task* task = nullptr;                // in it
  v1::TaskToken* token = nullptr;          // the task's; lent to the result
  std::unique_ptr<v1::TaskResult> result;  // once finished
  size_t result_bytes = 0;
  HeldState state = HeldState::kQueued;
  bool forgotten =
      false;  // acknowledged or withdrawn: in no table, deleted when nothing points to it
  bool in_outbox = false;
  bool in_write = false;
  bool heartbeat_listed = false;  // in heartbeats_
  std::atomic<bool> cancelled = false;
  Nanos received = 0;
  Nanos started = 0;
  Nanos heartbeat_called = 0;  // by the function
  Nanos heartbeat_next = 0;    // not to be sent before
  Nanos heartbeat_every = 0;
  Payload progress;  // of the last heartbeat; kUnspecified: none

  bool referenced() const { return state == HeldState::kRunning || in_outbox || in_write; }
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  // `options` complete: no defaults are filled in here.
  Session(WorkerOptions options, TaskHandlers handlers);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void Start();
  // Asks for a drain; returns at once. Idempotent.
  void RequestDrain();
  // Blocks until the session has ended: OK after a complete drain; DeadlineExceeded if functions
  // still ran or results were not acknowledged at the end of drain_timeout; else why the
  // coordinator refused the worker.
  absl::Status Wait();
  // After Wait: blocks until every user function has returned and every thread has ended.
  void Join();
  WorkerStats stats() const;

  // For TaskContext, while the function that runs `held` has not returned. Progress of no encoding
  // keeps the last.
  void Heartbeat(HeldTask* held, Payload progress);
  Payload Progress(const HeldTask* held) const;
  const WorkerOptions& options() const { return options_; }

 private:
  class Stream;
  struct Executor {
    std::condition_variable wake;
    bool woken = false;
    std::thread thread;
  };
  using Lock = std::unique_lock<std::mutex>;
  using HeldMap = absl::flat_hash_map<TokenKey, HeldTask*>;

  // ---- stream: called by Stream on gRPC's threads ----
  void OnMessage(Stream* stream, const Inbound& message);
  void OnWriteDone(Stream* stream);
  void OnReadEnded(Stream* stream);
  void OnStreamDone(Stream* stream, const grpc::Status& status);

  // ---- stream: the rest holds mutex_ ----
  void OpenStream(Lock& lock);
  void FillHello(v1::WorkerHello* hello, Nanos now) const;
  // Writes what there is to write, if the stream can take it. Releases the lock while it calls
  // gRPC.
  void Flush(Lock& lock);
  bool FillMessage(v1::ConnectRequest* out, Nanos now);
  void ReleaseWritten(Stream* stream);
  void CancelStream(Lock& lock);
  void AbandonStream(Lock& lock, const char* why);
  void Welcomed(const v1::Welcome& welcome, Nanos now);
  uint32_t CreditToGrant() const;
  uint32_t Prefetch() const;

  // ---- deliveries ----
  void Accept(std::vector<std::unique_ptr<HeldTask>>* tasks);
  void Forget(HeldMap::iterator entry);
  void Withdraw(const v1::CancelTask& cancel);
  void Discard(HeldTask* held);  // deletes it once the lock is free
  void UnlistHeartbeat(HeldTask* held);
  void HandBack(HeldTask* held);
  void HandBackQueue();

  // ---- executors ----
  void ExecutorMain(Executor* self);
  HeldTask* NextTask();
  std::unique_ptr<v1::TaskResult> Execute(HeldTask* held);
  void Finished(HeldTask* held, std::unique_ptr<v1::TaskResult> result, Nanos now);
  void WakeExecutors(size_t tasks);
  bool WakeOne();      // false: none is parked
  bool AddExecutor();  // false: as many as slots
  size_t active() const { return executors_.size() - parked_.size(); }

  // ---- keeper ----
  void KeeperMain();
  Nanos KeeperTurn(Lock& lock, Nanos now);  // when it is next needed
  Nanos ConnectionTurn(Lock& lock, Nanos now);
  Nanos WorkTurn(Lock& lock, Nanos now);
  Nanos DrainTurn(Lock& lock, Nanos now);
  void Ramp();
  void WakeKeeper();
  bool CanWrite() const;
  void End(absl::Status status);
  void Log(LogLevel level, const std::string& text) const;

  const WorkerOptions options_;
  const TaskHandlers handlers_;
  const std::string session_id_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;

  mutable std::mutex mutex_;
  std::condition_variable ended_changed_;
  std::condition_variable keeper_wake_;
  bool keeper_woken_ = false;
  bool keeper_ticking_ = false;  // it looks after the queue and the outbox every tick
  Nanos keeper_due_ = 0;
  std::thread keeper_;

  // Stream. Shared with gRPC's callbacks, which may come after the session has turned to the next
  // one.
  std::shared_ptr<Stream> stream_;
  size_t streams_alive_ = 0;
  Backoff backoff_;
  Nanos connect_at_ = 0;
  bool ever_welcomed_ = false;
  bool outage_logged_ = false;
  Nanos outage_log_next_ = 0;
  Nanos ping_interval_ = 0;
  std::atomic<uint64_t> payload_bytes_max_ = kPayloadBytesDefault;
  uint64_t pong_ = 0;
  bool pong_owed_ = false;
  uint32_t credit_outstanding_ = 0;  // granted on this stream and not yet used

  // Deliveries.
  HeldMap held_;
  std::deque<HeldTask*> queue_;
  size_t queued_ = 0;  // of queue_, without the forgotten
  size_t running_ = 0;
  std::vector<HeldTask*> outbox_;
  size_t unacked_ = 0;
  size_t unacked_bytes_ = 0;
  std::vector<HeldTask*> heartbeats_;
  std::vector<v1::TaskToken> released_;
  std::vector<std::unique_ptr<HeldTask>> garbage_;

  // Executors.
  std::vector<std::unique_ptr<Executor>> executors_;
  std::vector<Executor*> parked_;  // last in, first out: warm threads work, the rest sleep
  size_t eager_ = 1;               // woken at once; more only if work does not move
  uint64_t finished_count_ = 0;
  uint64_t finished_at_tick_ = 0;
  uint64_t finished_at_check_ = 0;
  Nanos ramp_next_ = 0;
  Nanos stuck_check_ = 0;
  double task_nanos_ = 0;  // smoothed run time of a task
  bool executors_stop_ = false;

  // Life.
  bool draining_ = false;
  bool draining_sent_ = false;
  Nanos drain_deadline_ = 0;
  bool ended_ = false;
  absl::Status end_status_;
  WorkerStats stats_;
};

}  // namespace flux::internal

#endif  // FLUX_WORKER_SRC_SESSION_H_
