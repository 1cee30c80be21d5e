// What the dispatcher holds in memory, and its parts by concern. Internal to engine/dispatch.
//
//   TaskNode   one delivery: ready in its queue, held for the restart's grace, or in flight on a
//   session Queue      lanes (one a task name), limits, profiles Lane       ready tasks of one
//   name: levels by priority, in each a ring of runs, in each run first in first out Profile    the
//   sessions of one queue that have the same set of task names; a ring of those with credit Session
//   one worker process, over all its streams RunNode    the deliveries of one run
//
// Nothing here iterates over a hash table, so equal inputs give equal behaviour.
#ifndef FLUX_ENGINE_DISPATCH_STATE_H_
#define FLUX_ENGINE_DISPATCH_STATE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "engine/dispatch/dispatcher.h"
#include "engine/dispatch/intrusive_list.h"
#include "proto/arena_message.h"

namespace flux::engine {
// Names as common as these may mean something else in another module of the engine.
namespace dispatch {

inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// Limits of a hello; each refusal names the figure.
inline constexpr size_t kHelloIdBytesMax = 256;
inline constexpr size_t kHelloTasksMax = 10'000;
// Used where an offer comes without a start_to_close, and for a claim whose offer is not known yet.
inline constexpr int64_t kStartToCloseDefaultMs = 300'000;
// A session that is silent for this many ping intervals is away.
inline constexpr int64_t kSilentPingsMax = 3;
// A Refill the shards did not answer in this time is asked for again.
inline constexpr int64_t kRefillRetryMs = 1'000;
// A session is given at most this many tasks before the next one's turn.
inline constexpr size_t kTurnTasksMax = 256;
// Empty lanes and queues are dropped this often.
inline constexpr int64_t kSweepIntervalMs = 60'000;

inline int64_t SaturatingAdd(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? (b < 0 ? std::numeric_limits<int64_t>::min() : kNever)
                                            : sum;
}

struct Queue;
struct Lane;
struct Level;
struct RunTurn;
struct RunNode;
struct Session;
struct Profile;
struct KeyState;

struct InRun;    // of a run's deliveries
struct InOwner;  // of the queue's ready tasks, of the lane's held ones, or of the session's flight
struct InTurn;   // of one run's ready tasks of one name and priority
struct InRing;   // of runs in a level, or of sessions with credit in a profile

enum class Place : uint8_t { kReady, kHeld, kFlight };

struct TaskNode : ListLink<InRun>, ListLink<InOwner>, ListLink<InTurn> {
  DeliveryKey key;
  uint64_t sequence = 0;  // of creation: orders what would otherwise tie
  Place place = Place::kReady;
  bool offered = false;    // false: a claim whose offer has not come
  bool confirmed = true;   // false: a claim the host has not answered
  bool finished = false;   // a claim whose result follows
  bool has_slot = false;   // counts against the limits of `queue`
  bool armed = false;      // lies in the deadlines under (deadline_ms, sequence)
  uint64_t listed_by = 0;  // the latest hello that named it
  int32_t priority = 0;
  uint32_t attempt = 0;
  uint32_t generation = 0;  // of the token, as handed out or claimed
  uint32_t shard = 0;
  size_t bytes = 0;  // of the message it was handed out in, while in flight
  RunNode* run = nullptr;
  Queue* queue = nullptr;
  Lane* lane = nullptr;     // null for a claim without an offer
  RunTurn* turn = nullptr;  // ready and not waiting for its limit key
  KeyState* limit_key = nullptr;
  Session* session = nullptr;  // in flight
  int64_t scheduled_ms = 0;    // wall
  int64_t schedule_to_start_ms = 0;
  int64_t start_to_close_ms = 0;
  int64_t heartbeat_ms = 0;
  int64_t started_wall_ms = 0;
  int64_t started_ms = 0;  // monotonic
  int64_t last_heartbeat_ms = 0;
  int64_t deadline_ms = kNever;
  std::unique_ptr<v1::Payload> progress;
};

// Looks a node up by its key, without a second copy of the key in the table.
struct NodeHash {
  using is_transparent = void;
  size_t operator()(const DeliveryKey& key) const {
    return absl::HashOf(key.run, key.step.frame, key.step.step, key.delivery);
  }
  size_t operator()(const TaskNode* node) const { return (*this)(node->key); }
};
struct NodeEqual {
  using is_transparent = void;
  static const DeliveryKey& Key(const DeliveryKey& key) { return key; }
  static const DeliveryKey& Key(const TaskNode* node) { return node->key; }
  template <typename A, typename B>
  bool operator()(const A& a, const B& b) const {
    return Key(a) == Key(b);
  }
};

struct RunNode {
  RunId id;
  IntrusiveList<TaskNode, InRun> tasks;
  size_t in_flight_or_held = 0;
};

// One run's ready tasks in one level.
struct RunTurn : ListLink<InRing> {
  RunNode* run = nullptr;
  Level* level = nullptr;
  uint64_t stamp = 0;  // when it last took its place at the end of the ring
  IntrusiveList<TaskNode, InTurn> tasks;
};

struct Level {
  Lane* lane = nullptr;
  int32_t priority = 0;
  IntrusiveList<RunTurn, InRing> ring;
  absl::flat_hash_map<const RunNode*, std::unique_ptr<RunTurn>> turns;
};

struct Lane {
  Queue* queue = nullptr;
  std::string task;
  std::map<int32_t, Level, std::greater<>> levels;
  size_t ready = 0;    // in the levels: may be handed out
  size_t waiting = 0;  // for their limit key
  size_t running = 0;
  size_t nodes = 0;      // all of the above and held ones
  int64_t spilled = 0;   // executions that have some of it on disk
  uint32_t workers = 0;  // sessions that have it and are connected and not draining
  uint32_t workers_away = 0;
  uint32_t awaited = 0;  // sessions listed at the restart that have it and are not back
  std::vector<Profile*> profiles;
  IntrusiveList<TaskNode, InOwner> held;
};

// Tasks of one limit key. Of those in the lanes at most as many as the key has free slots (a lane)
// are kept there, so that a key at its limit costs the others nothing.
struct KeyState {
  struct PerLane {
    Lane* lane = nullptr;
    size_t in_lane = 0;
    std::map<std::pair<int64_t, uint64_t>, TaskNode*> waiting;  // by (-priority, sequence)
  };
  std::string key;
  size_t running = 0;
  size_t nodes = 0;
  std::vector<PerLane> lanes;
};

struct Queue {
  std::string name;
  QueueLimits limits;
  bool limited = false;
  absl::flat_hash_map<std::string, std::unique_ptr<Lane>> lanes;
  std::map<std::vector<std::string>, std::unique_ptr<Profile>> profiles;  // by sorted task names
  std::vector<Profile*> serving;  // profiles in the order they are served
  size_t serve_next = 0;
  size_t credited = 0;  // sessions in the profiles' rings
  absl::flat_hash_map<std::string, std::unique_ptr<KeyState>> keys;
  // By priority, in order of offer, whatever their lane.
  std::map<int32_t, IntrusiveList<TaskNode, InOwner>> ready;
  size_t ready_count = 0;
  size_t lane_ready = 0;  // of them, those in lanes
  size_t held = 0;
  size_t running = 0;
  size_t sessions = 0;
  // Of those that are connected and not draining.
  uint32_t workers = 0;
  uint64_t slots = 0;
  uint64_t credit = 0;
  uint64_t stamp = 0;
  uint64_t sequence = 0;
  bool touched = false;           // lies in State::touched_
  int64_t timer_ms = kNever;      // lies in the queue timers under (timer_ms, sequence)
  int64_t rate_wait_ms = kNever;  // when the bucket lets the next task through
  int64_t spilled = 0;
  bool refilling = false;            // from Refill to RefillDone
  bool refill_came = false;          // some of it has left the disk since
  int64_t refill_retry_ms = kNever;  // not before, since the latest one brought nothing
  // Token bucket in millionths of a task: `rate_permille_per_s` of them flow in each millisecond.
  int64_t bucket = 0;
  int64_t bucket_filled_ms = 0;
};

struct Profile {
  Queue* queue = nullptr;
  std::vector<std::string> tasks;
  std::vector<Lane*> lanes;
  IntrusiveList<Session, InRing> ring;
  size_t sessions = 0;
};

enum class Presence : uint8_t { kAway, kConnected, kDraining };

struct Session : ListLink<InRing> {
  std::string id;
  std::string worker_id;
  std::string peer;
  std::string sdk_version;
  uint64_t sequence = 0;
  Presence presence = Presence::kAway;
  bool draining = false;  // kept while away
  bool listed = false;    // was open before the restart, and is not back
  Profile* profile = nullptr;
  uint32_t slots = 0;
  uint64_t credit = 0;
  StreamId stream = 0;
  IntrusiveList<TaskNode, InOwner> flight;
  size_t flight_bytes = 0;
  ArenaPtr<v1::ConnectResponse> pending;
  size_t pending_bytes = 0;
  int64_t last_seen_ms = 0;
  int64_t last_seen_wall_ms = 0;
  int64_t connected_wall_ms = 0;
  int64_t next_ping_ms = kNever;
  int64_t away_until_ms = kNever;
  int64_t timer_ms = kNever;  // lies in the session timers under (timer_ms, sequence)
  uint64_t pings = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;
};

}  // namespace dispatch

using namespace dispatch;  // NOLINT: this header is internal

struct Dispatcher::State {
  State(DispatchOptions options, DispatchHost* host);
  ~State();

  // ---- queues.cc: lanes, turns, limits, placing ----
  Queue* GetQueue(const std::string& name);
  Lane* GetLane(Queue* queue, const std::string& task);
  Profile* GetProfile(Queue* queue, std::vector<std::string> tasks);
  OfferOutcome Offer(const RunId& run, const TaskOffer& offer, bool maybe_delivered,
                     DispatchNow now, std::string_view limit_key, DisplacedTask* displaced);
  void MakeReady(TaskNode* node, DispatchNow now);
  void EnterLane(TaskNode* node);
  void LeaveLane(TaskNode* node);
  void LeaveReady(TaskNode* node);
  static void EnterReadyList(TaskNode* node);
  void LeaveReadyList(TaskNode* node);
  void TakeSlot(TaskNode* node, Queue* queue);
  void FreeSlot(TaskNode* node);
  void SetOffer(TaskNode* node, const TaskOffer& offer, Lane* lane);
  // Was it offered as what `task` says?
  static bool SameTask(const TaskNode& node, const v1::TaskStep& task);
  void Hold(TaskNode* node);
  void LeaveHeld(TaskNode* node);
  void SetLimitKey(TaskNode* node, std::string_view key);
  void DropLimitKey(TaskNode* node);
  static KeyState::PerLane& KeyLane(KeyState* key, Lane* lane);
  void AdmitWaiting(KeyState* key, KeyState::PerLane& per_lane);
  void FillBucket(Queue* queue, int64_t now_ms);
  bool WithheldByRestart(const Queue& queue) const;
  // How many tasks the queue's limits let through now.
  size_t Allowance(Queue* queue, int64_t now_ms);
  void Touch(Queue* queue);
  void Flush(DispatchNow now);
  void PlaceReady(Queue* queue, DispatchNow now);
  bool ServeProfile(Profile* profile, size_t quantum, size_t* allowance, DispatchNow now);
  bool HandOut(Session* session, TaskNode* node, DispatchNow now);
  bool MessageFull(const Session& session) const;
  // It has been given as much as it may hold: the rest waits for its results.
  bool FlightFull(const Session& session) const;
  void AskRefill(Queue* queue, DispatchNow now);
  void SetQueueTimer(Queue* queue, int64_t at_ms);
  void SetSpilled(const std::string& name, int64_t delta);
  void SetTaskSpilled(const std::string& name, const std::string& task, int64_t delta);
  void RefillDone(const std::string& name);
  bool HasRoom(const Queue& queue) const;
  // As many of a lane stay in memory however short it is: none if nobody can be given them, though
  // those who will be back soon count.
  size_t Floor(const Lane& lane) const;
  // What of the lane lies in memory beyond that and is with nobody.
  size_t SurplusOf(const Lane& lane) const;
  // The lane that has most of it; null: none has.
  Lane* MostSurplus(const Queue& queue) const;
  bool TakesNew(const Lane& lane) const;
  bool TakesRefill(const Lane& lane) const;
  // The ready task that leaves memory for one of that lane and priority; null: that has to wait on
  // disk itself.
  TaskNode* ToGiveWay(const Lane& lane, int32_t priority) const;
  const Lane* FindLane(const std::string& queue, const std::string& task) const;
  // Are all its tasks beyond the floors of their lanes?
  bool CanTakeBack(const RunNode& run) const;
  std::vector<DisplacedTask> TakeBack(const RunId& run);
  std::vector<RunId> Surplus(size_t most) const;
  void SendPending();
  void Sweep();

  // ---- flight.cc: nodes, deadlines, ends ----
  TaskNode* Find(const DeliveryKey& key) const;
  TaskNode* NewNode(const DeliveryKey& key);
  // Takes the node out of wherever it is and destroys it.
  void Forget(TaskNode* node);
  void EnterFlight(TaskNode* node, Session* session);
  void LeaveFlight(TaskNode* node);
  void Arm(TaskNode* node, int64_t deadline_ms);
  void Disarm(TaskNode* node);
  int64_t HeartbeatDeadline(const TaskNode& node) const;
  void ArmFlight(TaskNode* node);
  void TaskDue(TaskNode* node, DispatchNow now);
  void EndNode(TaskNode* node, AttemptEnd reason);
  void RedeliverNode(TaskNode* node, const std::string& reason);
  void Withdraw(TaskNode* node, std::string_view reason);
  bool ResultArrived(StreamId stream, const DeliveryKey& key, bool failed);
  void KeepProgress(TaskNode* node, v1::Payload progress);
  void CancelOn(Session* session, const TaskNode& node, std::string_view reason);
  void CancelToken(Session* session, const v1::TaskToken& token, std::string_view reason);
  void Tick(DispatchNow now);
  int64_t NextDeadlineMs() const;

  // ---- sessions.cc: streams and sessions, claims, grace ----
  Session* OnStream(StreamId stream) const;
  absl::Status CheckHello(StreamId stream, const v1::WorkerHello& hello) const;
  absl::Status Hello(StreamId stream, const std::string& peer, const v1::WorkerHello& hello,
                     DispatchNow now);
  Session* NewSession(const std::string& id, const std::string& worker_id, const std::string& queue,
                      std::vector<std::string> tasks);
  void Reconcile(Session* session, const v1::WorkerHello& hello, DispatchNow now);
  void TouchWithheld();
  void Claim(Session* session, const v1::RunningTask& running, const DeliveryKey& key);
  void BindClaim(TaskNode* node, Session* session, const v1::RunningTask& running);
  void SetRunning(TaskNode* node, const v1::RunningTask& running);
  void OfferClaimed(TaskNode* node, const TaskOffer& offer, std::string_view limit_key);
  void ClaimChecked(const DeliveryKey& key, bool current);
  void SetPresence(Session* session, Presence presence);
  void SetSlots(Session* session, uint32_t slots);
  void GoAway(Session* session, DispatchNow now);
  // Ends its attempts and records the session closed, in this order; destroys it.
  void CloseSession(Session* session, int64_t wall_ms);
  void SetCredit(Session* session, uint64_t credit);
  void LeaveRing(Session* session);
  void JoinRing(Session* session);
  void ArmSession(Session* session);
  void SessionDue(Session* session, DispatchNow now);
  void StreamClosed(StreamId stream, DispatchNow now);
  v1::ConnectResponse* Pending(Session* session);
  void Restore(const std::vector<v1::SessionChange>& sessions, DispatchNow now);
  // The listed session is back or given up: what was held for it alone is delivered again.
  void NoLongerAwaited(Session* session);
  void Stop();

  // ---- questions.cc ----
  LiveTask Look(const DeliveryKey& key, const v1::TaskStep& task) const;
  std::string WhyReady(const TaskNode& node) const;
  void FillWorker(const Session& session, v1::WorkerInfo* info) const;
  void FillQueue(const Queue& queue, v1::TaskQueueInfo* info, bool tasks) const;

  DispatchOptions options_;
  DispatchHost* host_;
  int64_t grace_ms_;
  int64_t ping_ms_;

  absl::flat_hash_set<TaskNode*, NodeHash, NodeEqual> nodes_;
  absl::flat_hash_map<RunId, std::unique_ptr<RunNode>> runs_;
  std::map<std::string, std::unique_ptr<Queue>> queues_;
  absl::flat_hash_map<std::string, Queue*> queue_index_;  // finds what queues_ holds in order
  std::map<std::string, std::unique_ptr<Session>> sessions_;
  absl::flat_hash_map<StreamId, Session*> streams_;
  absl::btree_map<std::pair<int64_t, uint64_t>, TaskNode*> deadlines_;
  absl::btree_map<std::pair<int64_t, uint64_t>, Session*> timers_;
  absl::btree_map<std::pair<int64_t, uint64_t>, Queue*> queue_timers_;
  std::vector<Queue*> touched_;
  std::vector<StreamId> outbox_;
  uint64_t next_sequence_ = 1;
  uint64_t hellos_ = 0;
  size_t awaited_sessions_ = 0;
  size_t unchecked_claims_ = 0;
  bool more_ = false;  // a message was cut: the next turn goes on at once
  bool stopped_ = false;
  Memory memory_ = Memory::kAmple;
  int64_t now_ms_ = 0;  // of the latest call that brought a clock
  int64_t next_sweep_ms_ = 0;
  DispatchStats stats_;

  struct LaneHead {
    int32_t priority;
    uint64_t stamp;
    Lane* lane;
  };
  std::vector<LaneHead> heap_;  // scratch of ServeProfile
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_DISPATCH_STATE_H_
