// Matches tasks that are ready with workers that have credit, and watches over what is handed out.
//
// One Dispatcher serves every shard of a loop thread; all calls are made on that thread, with the
// loop's clocks passed in, and everything it wants done goes through DispatchHost, which must not
// call back into the Dispatcher from within a callback (it queues). It keeps nothing durable: after
// a restart it is rebuilt by Restore, the sessions' hellos and the shards' offers.
//
// Whatever a callback sends leaves once the batch being built is durable (rule 2), so a task may be
// placed in the same turn that scheduled it.
//
// Limits: `ready_per_queue_max` offers are held a queue. One more takes the place of a ready one
// (kDisplaced), or answers kSpilled: the shard then keeps the one that has no place on disk alone,
// and gives it again when Refill asks for its name, which is when workers who have it run low. It
// takes the place of the newest of the lowest priority, if that is lower than its own; or, while
// fewer than `ready_floor` of its name are held, of one of the name that has most beyond its floor.
// A name that no worker has has no floor: it crowds out nobody. Where memory is short only floors
// are held.
#ifndef FLUX_ENGINE_DISPATCH_DISPATCHER_H_
#define FLUX_ENGINE_DISPATCH_DISPATCHER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/core/core.h"
#include "engine/core/run_id.h"
#include "flux/v1/admin.pb.h"
#include "flux/v1/record.pb.h"
#include "flux/v1/worker.pb.h"
#include "proto/arena_message.h"

namespace flux::engine {

using StreamId = uint64_t;  // one connection of a worker; never reused within a process

// One delivery of one task of one run.
struct DeliveryKey {
  RunId run;
  StepKey step;
  uint64_t delivery = 0;
  auto operator<=>(const DeliveryKey&) const = default;
};

// Now, twice: deadlines of attempts and sessions run on the monotonic clock (rule 13), people read
// the wall clock. `monotonic_ms` has had every observed stall of our own loop subtracted by the
// caller.
struct DispatchNow {
  int64_t monotonic_ms = 0;
  int64_t wall_ms = 0;
};

class DispatchHost {
 public:
  virtual ~DispatchHost() = default;
  // Fills `task` wholly, token included. False: no longer wanted (or its inputs cannot be sent,
  // which the host deals with); the delivery is forgotten.
  virtual bool BuildTask(const DeliveryKey& key, v1::Task* task) = 0;
  // Sends to a stream once the current batch is durable.
  virtual void Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) = 0;
  // Ends the stream after what was sent (e.g. a protocol error, a newer stream of the same
  // session).
  virtual void Close(StreamId stream, absl::Status why) = 0;
  // Commands for the core.
  virtual void EndAttempt(const DeliveryKey& key, AttemptEnd reason, const v1::Payload& progress,
                          const std::string& worker_id) = 0;
  virtual void Redeliver(const DeliveryKey& key, const std::string& reason) = 0;
  // Is this claimed delivery still the step's current one? The host loads the execution if need be
  // and answers through Dispatcher::ClaimChecked later. If it is current, the host offers it first
  // (even if it did before and was answered kSpilled): a claim learns its timeouts from its offer.
  virtual void CheckClaim(const DeliveryKey& key) = 0;
  // Makes the session durable with the batch being built.
  virtual void RecordSession(v1::SessionChange change) = 0;
  // Workers have little before them while tasks of theirs lie on disk: offer up to so many of each
  // name again, then call RefillDone.
  virtual void Refill(const std::string& queue, const std::map<std::string, size_t>& tasks) = 0;
};

// Of one queue; 0 means no limit. After a restart a limited queue hands nothing out before the
// grace has ended.
struct QueueLimits {
  uint32_t concurrency_max = 0;  // tasks in flight
  uint64_t rate_permille_per_s =
      0;               // hand-outs: thousandths of a task a second (1'000: one task a second)
  uint32_t burst = 0;  // hand-outs at once after a quiet time; 0: one second's worth, at least 1
  uint32_t per_key_concurrency = 0;  // tasks in flight of one limit key
};

struct DispatchOptions {
  absl::Duration session_grace = absl::Seconds(10);
  absl::Duration ping_interval = absl::Seconds(5);  // a session silent for three of them is away
  size_t ready_per_queue_max = 20'000;
  size_t refill_below = 5'000;
  size_t ready_floor = 256;  // of one task: held for its workers however short memory is
  size_t tasks_per_message_max = 1'000;
  size_t message_bytes_max =
      4 * 1024 * 1024;  // soft: a message is cut after the task that passes it
  // What a session's tasks in flight may have together, and one more: a worker that reads slowly
  // is not sent what it cannot take in.
  size_t flight_bytes_max = 32 * 1024 * 1024;
  size_t progress_bytes_max = 64 * 1024;
  size_t sessions_max = 10'000;
  // Of a session, as of the deliveries that its hello lists. The SDK knows it
  // (worker/src/session.h).
  uint32_t credit_max = 100'000;
  std::string version;
  uint64_t payload_bytes_max = 4 * 1024 * 1024;
  uint32_t incarnation = 1;
  std::map<std::string, QueueLimits> queue_limits;  // by queue name
};

struct DispatchStats {
  uint64_t ready = 0, running = 0, held_for_grace = 0, sessions = 0;
  uint64_t handed_out = 0, heartbeats = 0, expired = 0, lost = 0, claims_kept = 0,
           claims_refused = 0;
};

enum class OfferOutcome { kTaken, kSpilled, kDisplaced };

// A ready task, handed out to nobody, that has no place in memory any more.
struct DisplacedTask {
  DeliveryKey key;
  int64_t scheduled_ms = 0;  // as offered
};

// How what the shards hold in memory stands against its limit.
//         | new offers are taken  | Refill asks for       | TakeBack
//  -------+-----------------------+-----------------------+-----------------------------
//  kAmple | up to the queue's max | up to the queue's max | gives nothing
//  kShort | up to the queue's max | up to the floor       | gives nothing
//  kOver  | up to the floor       | up to the floor       | gives what is over the floor
// Refill asks for names alone that a connected worker has.
enum class Memory : uint8_t { kAmple, kShort, kOver };

class Dispatcher {
 public:
  Dispatcher(DispatchOptions options, DispatchHost* host);
  ~Dispatcher();

  // ---- from the shards ----
  // A step became scheduled. `maybe_delivered`: it was scheduled before a restart, by a process
  // that may have handed it out; it is held until the sessions that could have had it are back or
  // the restart's grace ends, and then answered by Redeliver, at once if there are none. A delivery
  // already known is not taken twice; one that a session claims is bound to it, whatever the queue
  // holds. `limit_key`: what task->limit_key_pointer() yields, for
  // QueueLimits::per_key_concurrency; empty: none. `offer` is not referred to afterwards.
  // `displaced`: what was forgotten for it (kDisplaced); null: nothing may be.
  OfferOutcome Offer(const RunId& run, const TaskOffer& offer, bool maybe_delivered,
                     DispatchNow now, std::string_view limit_key = {},
                     DisplacedTask* displaced = nullptr);
  // Wanted no more (completed otherwise, cancelled, closed): unqueued, or its worker told to stop.
  void Withdraw(const DeliveryKey& key, std::string_view reason);
  void WithdrawRun(const RunId& run, std::string_view reason);
  // The step's delivery is ready, but its task's queue, name, priority or timeouts are others than
  // when it was offered: forgets it, and answers true: it will be offered again. What a worker has
  // or may have goes on as it was handed out.
  bool ForgetIfChanged(const RunId& run, const TaskOffer& offer);
  // Forgets what of the run no worker has: it will be offered again.
  void Withhold(const RunId& run);
  // Forgets all that it holds of the run, which then may leave memory, and tells what it was: the
  // shard keeps it as if it had been spilled. Nothing: some of it a worker has, or is held for, or
  // memory is not so short.
  std::vector<DisplacedTask> TakeBack(const RunId& run);
  // Runs that TakeBack would take, those first whose turn comes last; `most` of them. Together they
  // may be more than it takes.
  std::vector<RunId> Surplus(size_t most) const;
  void ClaimChecked(const DeliveryKey& key, bool current);
  // A result of this delivery came: frees its slot and deadlines, and unqueues it if it was not
  // handed out at all. True if it was in flight on that stream's session. The core alone decides
  // whether the result counts; if it refuses one of a delivery that stays current, the host offers
  // that again.
  bool ResultArrived(StreamId stream, const DeliveryKey& key, bool failed);
  // The answer to a result; batched with whatever else goes to that stream.
  void Ack(StreamId stream, const v1::TaskToken& token, v1::AckStatus status,
           std::string_view detail);

  // ---- from the streams ----
  // First message of a stream. Not OK: the stream is to be closed with it (InvalidArgument: ids, no
  // tasks, slots of 0; ResourceExhausted: too many sessions).
  absl::Status Hello(StreamId stream, const std::string& peer, const v1::WorkerHello& hello,
                     DispatchNow now);
  absl::Status Credit(StreamId stream, uint32_t credit, DispatchNow now);
  void Heartbeat(StreamId stream, const DeliveryKey& key, v1::Payload progress, DispatchNow now);
  void Released(StreamId stream, const DeliveryKey& key);
  void Draining(StreamId stream);
  void Pong(StreamId stream, uint64_t ping, DispatchNow now);
  void Alive(StreamId stream, DispatchNow now);  // any message arrived
  void StreamClosed(StreamId stream, DispatchNow now);

  // ---- life ----
  // Sessions that were open before the restart: the grace begins now.
  void Restore(const std::vector<v1::SessionChange>& sessions, DispatchNow now);
  // Fires what is due, pings, and ends graces.
  void Tick(DispatchNow now);
  // Places ready tasks on free credit and sends every session's pending message. Once at the end of
  // a loop turn.
  void Flush(DispatchNow now);
  // When Tick is next needed; INT64_MAX if never.
  int64_t NextDeadlineMs() const;
  // Says goodbye to every stream; tasks in flight go on under their sessions.
  void Stop();

  // ---- questions ----
  LiveTask Look(const DeliveryKey& key, const v1::TaskStep& task) const;
  // The worker that the delivery is with, or is held for; empty: none.
  std::string HolderOf(const DeliveryKey& key) const;
  // Is some task of the run in flight or held for grace (such a run is not evicted)?
  bool InFlight(const RunId& run) const;
  void ListWorkers(std::string_view queue, v1::ListWorkersResponse* response) const;
  void ListQueues(v1::ListTaskQueuesResponse* response) const;
  // The first `max` in order, and how many there are.
  std::vector<std::string> QueueNames(size_t max, size_t* all) const;
  // False: no such queue.
  bool DescribeQueue(std::string_view name, v1::GetTaskQueueResponse* response) const;
  // Ready work that the shards keep on disk: executions in all, for ListQueues, and those that have
  // a task of this name there, for Refill.
  void SetSpilled(const std::string& queue, int64_t delta);
  void SetTaskSpilled(const std::string& queue, const std::string& task, int64_t delta);
  // What the latest Refill asked for has been offered, as far as it was there. Until then nothing
  // more of the queue is asked for.
  void RefillDone(const std::string& queue);
  // Should one more of this task come back from disk? Offer would take it.
  bool TakesRefill(const std::string& queue, const std::string& task) const;
  void SetMemory(Memory memory);
  DispatchStats stats() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_DISPATCH_DISPATCHER_H_
