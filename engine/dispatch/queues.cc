// Queues: lanes and turns, limits, and placing what is ready on free credit.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/core/payload_limit.h"
#include "engine/dispatch/state.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr int64_t kBucketTask = 1'000'000;  // the bucket counts millionths of a task
constexpr char kUnclaimed[] = "unclaimed after a restart";

size_t EstimateBytes(const v1::Task& task) {
  size_t bytes = 160 + task.name().size() + task.workflow_id().size() + task.step().size() +
                 task.workflow().size() + PayloadBytes(task.progress());
  for (const v1::TaskInput& input : task.inputs()) {
    bytes += 32 + input.pointer().size() + PayloadBytes(input.payload());
  }
  return bytes;
}

// The level whose turn it is; the lane must have ready tasks.
Level* TopLevel(Lane* lane) {
  for (auto& [priority, level] : lane->levels) {
    if (!level.ring.empty()) return &level;
  }
  return nullptr;
}

// What of the lane is with nobody.
size_t Waiting(const Lane& lane) { return lane.ready + lane.waiting; }

// The lane's task whose turn comes last; null: it has none in memory.
TaskNode* LastOf(const Lane& lane) {
  for (auto level = lane.levels.rbegin(); level != lane.levels.rend(); ++level) {
    if (const RunTurn* turn = level->second.ring.back()) return turn->tasks.back();
  }
  if (lane.waiting == 0) return nullptr;
  for (const auto& [priority, nodes] : lane.queue->ready) {
    for (TaskNode* node = nodes.back(); node != nullptr; node = nodes.Previous(node)) {
      if (node->lane == &lane) return node;
    }
  }
  return nullptr;
}

int64_t BucketSize(const QueueLimits& limits) {
  const int64_t burst =
      limits.burst != 0
          ? limits.burst
          : std::max<int64_t>(1, static_cast<int64_t>(limits.rate_permille_per_s / 1000));
  return burst * kBucketTask;
}

bool Empty(const v1::ConnectResponse& message) {
  return !message.has_welcome() && message.tasks_size() == 0 && message.acks_size() == 0 &&
         message.cancels_size() == 0 && message.ping() == 0 && !message.goodbye();
}

}  // namespace

Queue* Dispatcher::State::GetQueue(const std::string& name) {
  const auto known = queue_index_.find(name);
  if (known != queue_index_.end()) return known->second;
  auto made = std::make_unique<Queue>();
  made->name = name;
  made->sequence = next_sequence_++;
  if (const auto limits = options_.queue_limits.find(name); limits != options_.queue_limits.end()) {
    made->limits = limits->second;
    // A thousand tasks a millisecond is no limit any more, and figures below it cannot overflow.
    made->limits.rate_permille_per_s =
        std::min<uint64_t>(made->limits.rate_permille_per_s, 1'000'000'000);
    made->limited = made->limits.concurrency_max != 0 || made->limits.rate_permille_per_s != 0 ||
                    made->limits.per_key_concurrency != 0;
    made->bucket = BucketSize(made->limits);
    made->bucket_filled_ms = now_ms_;
  }
  Queue* queue = made.get();
  queues_.emplace(name, std::move(made));
  queue_index_.emplace(name, queue);
  return queue;
}

Lane* Dispatcher::State::GetLane(Queue* queue, const std::string& task) {
  std::unique_ptr<Lane>& lane = queue->lanes[task];
  if (lane == nullptr) {
    lane = std::make_unique<Lane>();
    lane->queue = queue;
    lane->task = task;
  }
  return lane.get();
}

Profile* Dispatcher::State::GetProfile(Queue* queue, std::vector<std::string> tasks) {
  std::unique_ptr<Profile>& profile = queue->profiles[tasks];
  if (profile == nullptr) {
    profile = std::make_unique<Profile>();
    profile->queue = queue;
    for (const std::string& task : tasks) {
      Lane* lane = GetLane(queue, task);
      profile->lanes.push_back(lane);
      lane->profiles.push_back(profile.get());
    }
    profile->tasks = std::move(tasks);
    queue->serving.push_back(profile.get());
  }
  return profile.get();
}

void Dispatcher::State::Touch(Queue* queue) {
  if (queue->touched) return;
  queue->touched = true;
  touched_.push_back(queue);
}

// ---- offers
// -----------------------------------------------------------------------------------------------

void Dispatcher::State::SetOffer(TaskNode* node, const TaskOffer& offer, Lane* lane) {
  const v1::TaskTimeouts& timeouts = offer.task->timeouts();
  node->offered = true;
  node->lane = lane;
  node->queue = lane->queue;
  ++lane->nodes;
  node->priority = offer.task->priority();
  node->attempt = offer.attempt;
  node->scheduled_ms = offer.scheduled_ms;
  node->schedule_to_start_ms = timeouts.schedule_to_start_ms();
  node->start_to_close_ms =
      timeouts.start_to_close_ms() > 0 ? timeouts.start_to_close_ms() : kStartToCloseDefaultMs;
  node->heartbeat_ms = timeouts.heartbeat_ms();
}

bool Dispatcher::State::SameTask(const TaskNode& node, const v1::TaskStep& task) {
  const v1::TaskTimeouts& timeouts = task.timeouts();
  return node.lane->queue->name == task.queue() && node.lane->task == task.task() &&
         node.priority == task.priority() &&
         node.schedule_to_start_ms == timeouts.schedule_to_start_ms() &&
         node.start_to_close_ms == timeouts.start_to_close_ms() &&
         node.heartbeat_ms == timeouts.heartbeat_ms();
}

OfferOutcome Dispatcher::State::Offer(const RunId& run, const TaskOffer& offer,
                                      bool maybe_delivered, DispatchNow now,
                                      std::string_view limit_key, DisplacedTask* displaced) {
  static const std::string* const kDefaultQueue = new std::string("default");
  now_ms_ = now.monotonic_ms;
  const DeliveryKey key{run, offer.key, offer.delivery};
  if (TaskNode* known = Find(key); known != nullptr) {
    if (!known->offered) OfferClaimed(known, offer, limit_key);
    return OfferOutcome::kTaken;
  }
  Queue* queue = GetQueue(offer.task->queue().empty() ? *kDefaultQueue : offer.task->queue());
  Lane* lane = GetLane(queue, offer.task->task());
  if (maybe_delivered && lane->awaited == 0) {
    // Whoever was given it, if anybody was, is back without it or gone, perhaps since several
    // restarts: its number must not be used again.
    host_->Redeliver(key, kUnclaimed);
    return OfferOutcome::kTaken;
  }
  OfferOutcome outcome = OfferOutcome::kTaken;
  // What a worker may have is held until that is known, which is soon.
  if (!(maybe_delivered ? HasRoom(*queue) : TakesNew(*lane))) {
    TaskNode* out = maybe_delivered || displaced == nullptr
                        ? nullptr
                        : ToGiveWay(*lane, offer.task->priority());
    if (out == nullptr) return OfferOutcome::kSpilled;
    *displaced = {out->key, out->scheduled_ms};
    Forget(out);
    outcome = OfferOutcome::kDisplaced;
  }
  TaskNode* node = NewNode(key);
  SetOffer(node, offer, lane);
  SetLimitKey(node, limit_key);
  if (maybe_delivered) {
    Hold(node);
  } else {
    MakeReady(node, now);
  }
  return outcome;
}

void Dispatcher::State::Hold(TaskNode* node) {
  node->place = Place::kHeld;
  node->lane->held.PushBack(node);
  ++node->lane->queue->held;
  ++node->run->in_flight_or_held;
  ++stats_.held_for_grace;
}

void Dispatcher::State::LeaveHeld(TaskNode* node) {
  node->lane->held.Remove(node);
  --node->lane->queue->held;
  --node->run->in_flight_or_held;
  --stats_.held_for_grace;
  Touch(node->lane->queue);
}

void Dispatcher::State::MakeReady(TaskNode* node, DispatchNow now) {
  node->place = Place::kReady;
  EnterReadyList(node);
  ++stats_.ready;
  if (node->schedule_to_start_ms > 0) {
    const int64_t waited_ms = std::max<int64_t>(0, now.wall_ms - node->scheduled_ms);
    Arm(node, SaturatingAdd(now.monotonic_ms,
                            std::max<int64_t>(0, node->schedule_to_start_ms - waited_ms)));
  }
  EnterLane(node);
  Touch(node->lane->queue);
}

void Dispatcher::State::EnterReadyList(TaskNode* node) {
  Queue* queue = node->lane->queue;
  queue->ready[node->priority].PushBack(node);
  ++queue->ready_count;
}

void Dispatcher::State::LeaveReadyList(TaskNode* node) {
  Queue* queue = node->lane->queue;
  const auto it = queue->ready.find(node->priority);
  it->second.Remove(node);
  if (it->second.empty() && it->first != 0) queue->ready.erase(it);
  --queue->ready_count;
  --stats_.ready;
}

void Dispatcher::State::EnterLane(TaskNode* node) {
  Lane* lane = node->lane;
  if (node->limit_key != nullptr) {
    KeyState* key = node->limit_key;
    KeyState::PerLane& per_lane = KeyLane(key, lane);
    if (key->running + per_lane.in_lane >= lane->queue->limits.per_key_concurrency) {
      per_lane.waiting.emplace(std::pair(-int64_t{node->priority}, node->sequence), node);
      ++lane->waiting;
      return;
    }
    ++per_lane.in_lane;
  }
  const auto [level_it, new_level] = lane->levels.try_emplace(node->priority);
  Level& level = level_it->second;
  if (new_level) {
    level.lane = lane;
    level.priority = node->priority;
  }
  std::unique_ptr<RunTurn>& turn = level.turns[node->run];
  if (turn == nullptr) {
    turn = std::make_unique<RunTurn>();
    turn->run = node->run;
    turn->level = &level;
    turn->stamp = ++lane->queue->stamp;
    level.ring.PushBack(turn.get());
  }
  turn->tasks.PushBack(node);
  node->turn = turn.get();
  ++lane->ready;
  ++lane->queue->lane_ready;
}

void Dispatcher::State::LeaveLane(TaskNode* node) {
  Lane* lane = node->lane;
  if (node->turn == nullptr) {  // it waits for its key
    KeyLane(node->limit_key, lane)
        .waiting.erase(std::pair(-int64_t{node->priority}, node->sequence));
    --lane->waiting;
    return;
  }
  if (node->limit_key != nullptr) --KeyLane(node->limit_key, lane).in_lane;
  RunTurn* turn = node->turn;
  turn->tasks.Remove(node);
  node->turn = nullptr;
  --lane->ready;
  --lane->queue->lane_ready;
  if (!turn->tasks.empty()) return;
  Level* level = turn->level;
  level->ring.Remove(turn);
  level->turns.erase(turn->run);
  if (level->ring.empty() && level->priority != 0) lane->levels.erase(level->priority);
}

void Dispatcher::State::LeaveReady(TaskNode* node) {
  LeaveLane(node);
  LeaveReadyList(node);
  if (node->limit_key != nullptr) {
    AdmitWaiting(node->limit_key, KeyLane(node->limit_key, node->lane));
  }
  if (node->lane->queue->spilled > 0) Touch(node->lane->queue);
}

// ---- limits
// -----------------------------------------------------------------------------------------------

void Dispatcher::State::TakeSlot(TaskNode* node, Queue* queue) {
  node->queue = queue;
  node->has_slot = true;
  ++queue->running;
  if (node->lane != nullptr) ++node->lane->running;
  if (node->limit_key != nullptr) ++node->limit_key->running;
}

void Dispatcher::State::FreeSlot(TaskNode* node) {
  if (!node->has_slot) return;
  node->has_slot = false;
  --node->queue->running;
  if (node->lane != nullptr) --node->lane->running;
  if (node->limit_key != nullptr) {
    --node->limit_key->running;
    for (KeyState::PerLane& per_lane : node->limit_key->lanes) {
      AdmitWaiting(node->limit_key, per_lane);
    }
  }
  if (node->queue->limited) Touch(node->queue);
}

void Dispatcher::State::SetLimitKey(TaskNode* node, std::string_view key) {
  Queue* queue = node->lane->queue;
  if (key.empty() || queue->limits.per_key_concurrency == 0) return;
  std::unique_ptr<KeyState>& state = queue->keys[std::string(key)];
  if (state == nullptr) {
    state = std::make_unique<KeyState>();
    state->key = std::string(key);
  }
  ++state->nodes;
  node->limit_key = state.get();
}

void Dispatcher::State::DropLimitKey(TaskNode* node) {
  KeyState* key = node->limit_key;
  if (key == nullptr) return;
  node->limit_key = nullptr;
  if (--key->nodes == 0) node->lane->queue->keys.erase(std::string(key->key));
}

KeyState::PerLane& Dispatcher::State::KeyLane(KeyState* key, Lane* lane) {
  for (KeyState::PerLane& per_lane : key->lanes) {
    if (per_lane.lane == lane) return per_lane;
  }
  key->lanes.emplace_back().lane = lane;
  return key->lanes.back();
}

void Dispatcher::State::AdmitWaiting(KeyState* key, KeyState::PerLane& per_lane) {
  const size_t limit = per_lane.lane->queue->limits.per_key_concurrency;
  while (!per_lane.waiting.empty() && key->running + per_lane.in_lane < limit) {
    TaskNode* node = per_lane.waiting.begin()->second;
    per_lane.waiting.erase(per_lane.waiting.begin());
    --per_lane.lane->waiting;
    EnterLane(node);
    Touch(per_lane.lane->queue);
  }
}

void Dispatcher::State::FillBucket(Queue* queue, int64_t now_ms) {
  const auto rate = static_cast<int64_t>(queue->limits.rate_permille_per_s);
  const int64_t size = BucketSize(queue->limits);
  const int64_t elapsed_ms = std::max<int64_t>(0, now_ms - queue->bucket_filled_ms);
  queue->bucket_filled_ms = std::max(now_ms, queue->bucket_filled_ms);
  if (elapsed_ms >= (size - queue->bucket) / rate + 1) {
    queue->bucket = size;
  } else {
    queue->bucket = std::min(size, queue->bucket + elapsed_ms * rate);
  }
}

bool Dispatcher::State::WithheldByRestart(const Queue& queue) const {
  if (!queue.limited) return false;
  // What a claim counts against is known once the host has answered it.
  return awaited_sessions_ > 0 || (queue.limits.per_key_concurrency > 0 && unchecked_claims_ > 0);
}

size_t Dispatcher::State::Allowance(Queue* queue, int64_t now_ms) {
  queue->rate_wait_ms = kNever;
  if (!queue->limited) return std::numeric_limits<size_t>::max();
  if (WithheldByRestart(*queue)) return 0;
  size_t allowance = std::numeric_limits<size_t>::max();
  if (queue->limits.concurrency_max > 0) {
    const size_t limit = queue->limits.concurrency_max;
    allowance = limit > queue->running ? limit - queue->running : 0;
  }
  if (queue->limits.rate_permille_per_s > 0) {
    FillBucket(queue, now_ms);
    allowance = std::min(allowance, static_cast<size_t>(queue->bucket / kBucketTask));
  }
  return allowance;
}

// ---- placing
// ------------------------------------------------------------------------------------------------

void Dispatcher::State::Flush(DispatchNow now) {
  now_ms_ = now.monotonic_ms;
  more_ = false;
  std::vector<Queue*> queues;
  queues.swap(touched_);
  for (Queue* queue : queues) queue->touched = false;
  for (Queue* queue : queues) {
    if (!stopped_) PlaceReady(queue, now);
    AskRefill(queue, now);
    SetQueueTimer(queue, std::min(queue->rate_wait_ms, queue->refill_retry_ms));
  }
  SendPending();
  if (!touched_.empty()) more_ = true;
}

void Dispatcher::State::PlaceReady(Queue* queue, DispatchNow now) {
  size_t allowance = Allowance(queue, now.monotonic_ms);
  const size_t allowed = allowance;
  bool progress = true;
  while (progress && allowance > 0 && queue->lane_ready > 0 && queue->credited > 0) {
    progress = false;
    const size_t quantum =
        std::clamp<size_t>(queue->lane_ready / queue->credited, 1, kTurnTasksMax);
    const size_t profiles = queue->serving.size();
    const size_t first = queue->serve_next;
    for (size_t i = 0; i < profiles && allowance > 0 && queue->lane_ready > 0; ++i) {
      Profile* profile = queue->serving[(first + i) % profiles];
      if (profile->ring.empty() || !ServeProfile(profile, quantum, &allowance, now)) continue;
      progress = true;
      queue->serve_next = (first + i + 1) % profiles;
    }
  }
  if (queue->limits.rate_permille_per_s > 0) {
    queue->bucket -= static_cast<int64_t>(allowed - allowance) * kBucketTask;
    if (queue->lane_ready > 0 && queue->credited > 0 && queue->bucket < kBucketTask &&
        !WithheldByRestart(*queue)) {
      const auto rate = static_cast<int64_t>(queue->limits.rate_permille_per_s);
      queue->rate_wait_ms =
          queue->bucket_filled_ms + (kBucketTask - queue->bucket + rate - 1) / rate;
    }
  }
}

bool Dispatcher::State::ServeProfile(Profile* profile, size_t quantum, size_t* allowance,
                                     DispatchNow now) {
  // The lane whose head has the highest priority and, among equals, came to the end of its ring
  // first.
  const auto later = [](const LaneHead& a, const LaneHead& b) {
    return a.priority != b.priority ? a.priority < b.priority : a.stamp > b.stamp;
  };
  const auto push = [&](Lane* lane) {
    if (lane->ready == 0) return;
    const Level* level = TopLevel(lane);
    heap_.push_back({level->priority, level->ring.front()->stamp, lane});
    std::push_heap(heap_.begin(), heap_.end(), later);
  };
  heap_.clear();
  for (Lane* lane : profile->lanes) push(lane);

  bool placed = false;
  const size_t sessions = profile->ring.size();
  for (size_t i = 0; i < sessions && !heap_.empty() && *allowance > 0; ++i) {
    Session* session = profile->ring.front();
    profile->ring.MoveToBack(session);
    for (size_t n = 0; n < quantum && session->credit > 0 && *allowance > 0 && !heap_.empty() &&
                       !FlightFull(*session);) {
      if (MessageFull(*session)) {
        Touch(profile->queue);  // it goes on in the next turn
        break;
      }
      std::pop_heap(heap_.begin(), heap_.end(), later);
      Lane* lane = heap_.back().lane;
      heap_.pop_back();
      RunTurn* turn = TopLevel(lane)->ring.front();
      TaskNode* node = turn->tasks.front();
      const KeyState* key = node->limit_key;
      if (key != nullptr && key->running >= profile->queue->limits.per_key_concurrency) {
        // Another lane's task took the key's last slot.
        LeaveLane(node);
        EnterLane(node);
      } else if (HandOut(session, node, now)) {
        ++n;
        --*allowance;
        placed = true;
      }
      push(lane);
    }
  }
  return placed;
}

bool Dispatcher::State::HandOut(Session* session, TaskNode* node, DispatchNow now) {
  v1::ConnectResponse* message = Pending(session);
  v1::Task* task = message->add_tasks();
  if (!host_->BuildTask(node->key, task)) {
    message->mutable_tasks()->RemoveLast();
    Forget(node);
    return false;
  }
  node->bytes = EstimateBytes(*task);
  session->pending_bytes += node->bytes;
  node->generation = task->token().generation();
  node->shard = task->token().shard();
  if (RunTurn* turn = node->turn; turn->tasks.size() > 1) {
    turn->stamp = ++node->lane->queue->stamp;
    turn->level->ring.MoveToBack(turn);
  }
  Disarm(node);
  // Into the flight before what waits for the key is looked at: the slot is taken, not freed.
  LeaveLane(node);
  LeaveReadyList(node);
  EnterFlight(node, session);
  SetCredit(session, session->credit - 1);
  node->started_ms = node->last_heartbeat_ms = now.monotonic_ms;
  node->started_wall_ms = now.wall_ms;
  ArmFlight(node);
  ++stats_.handed_out;
  return true;
}

bool Dispatcher::State::MessageFull(const Session& session) const {
  return session.pending != nullptr &&
         (static_cast<size_t>(session.pending->tasks_size()) >= options_.tasks_per_message_max ||
          session.pending_bytes >= options_.message_bytes_max);
}

bool Dispatcher::State::FlightFull(const Session& session) const {
  return session.flight_bytes >= options_.flight_bytes_max;
}

v1::ConnectResponse* Dispatcher::State::Pending(Session* session) {
  if (session->pending == nullptr) {
    session->pending = MakeOnArena<v1::ConnectResponse>();
    session->pending_bytes = 0;
    outbox_.push_back(session->stream);
  }
  return session->pending.get();
}

void Dispatcher::State::SendPending() {
  for (const StreamId stream : outbox_) {
    Session* session = OnStream(stream);
    if (session == nullptr || session->pending == nullptr) continue;
    ArenaPtr<v1::ConnectResponse> message = std::move(session->pending);
    if (!Empty(*message)) host_->Send(stream, std::move(message));
  }
  outbox_.clear();
}

// ---- work on disk
// -------------------------------------------------------------------------------------------

void Dispatcher::State::AskRefill(Queue* queue, DispatchNow now) {
  if (queue->refilling || stopped_) return;
  if (queue->refill_retry_ms != kNever && now.monotonic_ms < queue->refill_retry_ms) return;
  queue->refill_retry_ms = kNever;
  if (queue->spilled <= 0) return;
  const size_t held = std::min(queue->ready_count + queue->held, options_.ready_per_queue_max);
  const size_t room = options_.ready_per_queue_max - held;
  const bool floors = room > 0 || MostSurplus(*queue) != nullptr;
  std::map<std::string, size_t> tasks;
  for (const Profile* profile : queue->serving) {
    for (const Lane* lane : profile->lanes) {
      if (lane->spilled <= 0 || lane->workers == 0) continue;
      const size_t waiting = Waiting(*lane);
      const size_t floor = Floor(*lane);
      size_t wanted = floors && waiting <= floor / 2 ? floor - waiting : 0;
      if (memory_ == Memory::kAmple &&
          waiting < std::min(options_.refill_below, options_.ready_per_queue_max)) {
        wanted = std::max(wanted, room);
      }
      if (wanted > 0) tasks[lane->task] = wanted;
    }
  }
  if (tasks.empty()) return;
  queue->refilling = true;
  queue->refill_came = false;
  host_->Refill(queue->name, tasks);
}

void Dispatcher::State::RefillDone(const std::string& name) {
  const auto found = queue_index_.find(name);
  if (found == queue_index_.end()) return;
  Queue* queue = found->second;
  queue->refilling = false;
  if (!queue->refill_came) queue->refill_retry_ms = SaturatingAdd(now_ms_, kRefillRetryMs);
  Touch(queue);
}

void Dispatcher::State::SetSpilled(const std::string& name, int64_t delta) {
  Queue* queue = GetQueue(name);
  queue->spilled = std::max<int64_t>(0, queue->spilled + delta);
  Touch(queue);
}

void Dispatcher::State::SetTaskSpilled(const std::string& name, const std::string& task,
                                       int64_t delta) {
  Queue* queue = GetQueue(name);
  Lane* lane = GetLane(queue, task);
  lane->spilled = std::max<int64_t>(0, lane->spilled + delta);
  queue->refill_came = queue->refill_came || delta < 0;
  Touch(queue);
}

bool Dispatcher::State::HasRoom(const Queue& queue) const {
  return queue.ready_count + queue.held < options_.ready_per_queue_max;
}

size_t Dispatcher::State::Floor(const Lane& lane) const {
  if (lane.workers + lane.workers_away == 0) return 0;
  return std::min({options_.ready_floor, options_.refill_below, options_.ready_per_queue_max});
}

size_t Dispatcher::State::SurplusOf(const Lane& lane) const {
  const size_t waiting = Waiting(lane);
  return waiting - std::min(waiting, Floor(lane));
}

Lane* Dispatcher::State::MostSurplus(const Queue& queue) const {
  Lane* most = nullptr;
  size_t surplus = 0;
  for (const auto& [task, lane] : queue.lanes) {
    const size_t of_lane = SurplusOf(*lane);
    if (of_lane > surplus || (of_lane == surplus && most != nullptr && task < most->task)) {
      most = lane.get();
      surplus = of_lane;
    }
  }
  return most;
}

bool Dispatcher::State::TakesNew(const Lane& lane) const {
  return HasRoom(*lane.queue) && (memory_ != Memory::kOver || Waiting(lane) < Floor(lane));
}

bool Dispatcher::State::TakesRefill(const Lane& lane) const {
  if (lane.workers == 0) return false;
  const bool room = HasRoom(*lane.queue);
  if (memory_ == Memory::kAmple && room) return true;
  return Waiting(lane) < Floor(lane) && (room || MostSurplus(*lane.queue) != nullptr);
}

TaskNode* Dispatcher::State::ToGiveWay(const Lane& lane, int32_t priority) const {
  const Queue& queue = *lane.queue;
  if (memory_ == Memory::kOver && Floor(lane) == 0) return nullptr;
  if (!HasRoom(queue)) {
    auto lowest = queue.ready.begin();
    while (lowest != queue.ready.end() && lowest->second.empty()) ++lowest;
    if (lowest != queue.ready.end() && lowest->first < priority) {
      TaskNode* newest = lowest->second.back();
      if (newest->lane == &lane || SurplusOf(*newest->lane) > 0) return newest;
    }
    if (Waiting(lane) < Floor(lane)) {
      const Lane* most = MostSurplus(queue);
      if (most != nullptr) return LastOf(*most);
    }
  }
  TaskNode* last = lane.ready > 0 ? LastOf(lane) : nullptr;
  return last != nullptr && last->priority < priority ? last : nullptr;
}

const Lane* Dispatcher::State::FindLane(const std::string& queue, const std::string& task) const {
  const auto found = queue_index_.find(queue);
  if (found == queue_index_.end()) return nullptr;
  const auto lane = found->second->lanes.find(task);
  return lane == found->second->lanes.end() ? nullptr : lane->second.get();
}

bool Dispatcher::State::CanTakeBack(const RunNode& run) const {
  if (run.in_flight_or_held > 0) return false;
  std::map<Lane*, size_t> lanes;
  for (const TaskNode* node = run.tasks.front(); node != nullptr; node = run.tasks.Next(node)) {
    ++lanes[node->lane];
  }
  return std::all_of(lanes.begin(), lanes.end(),
                     [this](const auto& of) { return SurplusOf(*of.first) >= of.second; });
}

std::vector<DisplacedTask> Dispatcher::State::TakeBack(const RunId& run) {
  std::vector<DisplacedTask> returned;
  const auto it = runs_.find(run);
  if (memory_ != Memory::kOver || it == runs_.end() || !CanTakeBack(*it->second)) return returned;
  std::vector<TaskNode*> nodes;
  const auto& tasks = it->second->tasks;
  for (TaskNode* node = tasks.front(); node != nullptr; node = tasks.Next(node)) {
    nodes.push_back(node);
  }
  for (TaskNode* node : nodes) {
    returned.push_back({node->key, node->scheduled_ms});
    Forget(node);
  }
  return returned;
}

std::vector<RunId> Dispatcher::State::Surplus(size_t most) const {
  std::vector<RunId> runs;
  if (memory_ != Memory::kOver) return runs;
  absl::flat_hash_set<const RunNode*> looked_at;
  for (const auto& [name, queue] : queues_) {
    if (MostSurplus(*queue) == nullptr) continue;
    for (const auto& [priority, nodes] : queue->ready) {
      for (const TaskNode* node = nodes.back(); node != nullptr; node = nodes.Previous(node)) {
        if (SurplusOf(*node->lane) == 0 || !looked_at.insert(node->run).second ||
            !CanTakeBack(*node->run)) {
          continue;
        }
        runs.push_back(node->run->id);
        if (runs.size() >= most) return runs;
      }
    }
  }
  return runs;
}

void Dispatcher::State::SetQueueTimer(Queue* queue, int64_t at_ms) {
  if (queue->timer_ms == at_ms) return;
  if (queue->timer_ms != kNever) queue_timers_.erase({queue->timer_ms, queue->sequence});
  queue->timer_ms = at_ms;
  if (at_ms != kNever) queue_timers_.emplace(std::pair(at_ms, queue->sequence), queue);
}

// Names come from definitions: those nobody uses any more must not pile up over a year.
void Dispatcher::State::Sweep() {
  for (auto it = queues_.begin(); it != queues_.end();) {
    Queue* queue = it->second.get();
    if (queue->keys.empty()) {
      absl::erase_if(queue->lanes, [](const auto& entry) {
        const Lane& lane = *entry.second;
        return lane.nodes == 0 && lane.profiles.empty() && lane.spilled == 0;
      });
    }
    if (queue->lanes.empty() && queue->sessions == 0 && queue->running == 0 &&
        queue->spilled == 0 && !queue->refilling && !queue->limited && !queue->touched) {
      SetQueueTimer(queue, kNever);
      queue_index_.erase(queue->name);
      it = queues_.erase(it);
    } else {
      ++it;
    }
  }
}

}  // namespace flux::engine
