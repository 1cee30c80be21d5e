// Nodes, the tasks in flight and their deadlines, and how an attempt ends.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/dispatch/state.h"
#include "proto/bridge.h"

namespace flux::engine {

TaskNode* Dispatcher::State::Find(const DeliveryKey& key) const {
  const auto it = nodes_.find(key);
  return it == nodes_.end() ? nullptr : *it;
}

TaskNode* Dispatcher::State::NewNode(const DeliveryKey& key) {
  auto* node = new TaskNode;
  node->key = key;
  node->sequence = next_sequence_++;
  std::unique_ptr<RunNode>& run = runs_[key.run];
  if (run == nullptr) {
    run = std::make_unique<RunNode>();
    run->id = key.run;
  }
  node->run = run.get();
  run->tasks.PushBack(node);
  nodes_.insert(node);
  return node;
}

void Dispatcher::State::Forget(TaskNode* node) {
  switch (node->place) {
    case Place::kReady:
      LeaveReady(node);
      break;
    case Place::kHeld:
      LeaveHeld(node);
      break;
    case Place::kFlight:
      LeaveFlight(node);
      break;
  }
  Disarm(node);
  DropLimitKey(node);
  if (node->lane != nullptr) --node->lane->nodes;
  if (!node->confirmed && --unchecked_claims_ == 0) TouchWithheld();
  nodes_.erase(node);
  node->run->tasks.Remove(node);
  if (node->run->tasks.empty()) runs_.erase(node->run->id);
  delete node;
}

void Dispatcher::State::EnterFlight(TaskNode* node, Session* session) {
  node->place = Place::kFlight;
  node->session = session;
  session->flight.PushBack(node);
  session->flight_bytes += node->bytes;
  ++node->run->in_flight_or_held;
  ++stats_.running;
  TakeSlot(node, node->lane != nullptr ? node->lane->queue : session->profile->queue);
}

void Dispatcher::State::LeaveFlight(TaskNode* node) {
  FreeSlot(node);
  --stats_.running;
  --node->run->in_flight_or_held;
  node->session->flight.Remove(node);
  if (FlightFull(*node->session)) Touch(node->session->profile->queue);
  node->session->flight_bytes -= std::exchange(node->bytes, 0);
  node->session = nullptr;
}

void Dispatcher::State::Arm(TaskNode* node, int64_t deadline_ms) {
  if (node->armed && node->deadline_ms == deadline_ms) return;
  Disarm(node);
  if (deadline_ms == kNever) return;
  node->deadline_ms = deadline_ms;
  node->armed = true;
  // Most deadlines are the latest so far, or nearly.
  deadlines_.emplace_hint(deadlines_.end(), std::pair(deadline_ms, node->sequence), node);
}

void Dispatcher::State::Disarm(TaskNode* node) {
  if (!node->armed) return;
  deadlines_.erase({node->deadline_ms, node->sequence});
  node->armed = false;
}

int64_t Dispatcher::State::HeartbeatDeadline(const TaskNode& node) const {
  // While its session is away no heartbeat can come: the session's grace stands in for it.
  if (node.heartbeat_ms <= 0 || node.finished || node.session->stream == 0) return kNever;
  return SaturatingAdd(node.last_heartbeat_ms, node.heartbeat_ms);
}

void Dispatcher::State::ArmFlight(TaskNode* node) {
  if (!node->offered && !node->confirmed) return;  // its timeouts are not known yet
  Arm(node,
      std::min(SaturatingAdd(node->started_ms, node->start_to_close_ms), HeartbeatDeadline(*node)));
}

void Dispatcher::State::TaskDue(TaskNode* node, DispatchNow now) {
  if (node->place != Place::kFlight) {
    EndNode(node, AttemptEnd::kScheduleToStart);
  } else if (SaturatingAdd(node->started_ms, node->start_to_close_ms) <= now.monotonic_ms) {
    EndNode(node, AttemptEnd::kStartToClose);
  } else if (HeartbeatDeadline(*node) <= now.monotonic_ms) {
    EndNode(node, AttemptEnd::kHeartbeat);
  } else {
    ArmFlight(node);  // a heartbeat came since it was armed
  }
}

void Dispatcher::State::EndNode(TaskNode* node, AttemptEnd reason) {
  static const v1::Payload* const kNoProgress = new v1::Payload;
  static const std::string* const kNoWorker = new std::string;
  const v1::Payload& progress = node->progress != nullptr ? *node->progress : *kNoProgress;
  host_->EndAttempt(node->key, reason, progress,
                    node->session != nullptr ? node->session->worker_id : *kNoWorker);
  if (reason == AttemptEnd::kWorkerLost) {
    ++stats_.lost;
  } else {
    ++stats_.expired;
    if (node->session != nullptr) CancelOn(node->session, *node, "timeout");
  }
  Forget(node);
}

void Dispatcher::State::RedeliverNode(TaskNode* node, const std::string& reason) {
  host_->Redeliver(node->key, reason);
  Forget(node);
}

void Dispatcher::State::Withdraw(TaskNode* node, std::string_view reason) {
  if (node->session != nullptr) CancelOn(node->session, *node, reason);
  Forget(node);
}

bool Dispatcher::State::ResultArrived(StreamId stream, const DeliveryKey& key, bool failed) {
  TaskNode* node = Find(key);
  if (node == nullptr) return false;
  const Session* session = OnStream(stream);
  const bool own = session != nullptr && node->session == session;
  if (own) {
    ++(failed ? node->session->failed : node->session->completed);
  } else if (node->session != nullptr) {
    // The token alone decides whether a result counts, so this delivery is over for whoever runs
    // it.
    CancelOn(node->session, *node, "superseded");
  }
  Forget(node);
  return own;
}

void Dispatcher::State::KeepProgress(TaskNode* node, v1::Payload progress) {
  if (progress.ByteSizeLong() > options_.progress_bytes_max) return;
  if (node->progress == nullptr) node->progress = std::make_unique<v1::Payload>();
  *node->progress = std::move(progress);
}

void Dispatcher::State::CancelOn(Session* session, const TaskNode& node, std::string_view reason) {
  if (session->stream == 0)
    return;  // its hello names what it runs; what is not current is cancelled then
  v1::TaskToken token;
  token.set_incarnation(options_.incarnation);
  token.set_run_id(node.key.run.Bytes());
  token.set_frame(node.key.step.frame);
  token.set_step(node.key.step.step);
  token.set_generation(node.generation);
  token.set_delivery(node.key.delivery);
  token.set_shard(node.shard);
  CancelToken(session, token, reason);
}

void Dispatcher::State::CancelToken(Session* session, const v1::TaskToken& token,
                                    std::string_view reason) {
  if (session->stream == 0) return;
  v1::CancelTask* cancel = Pending(session)->add_cancels();
  *cancel->mutable_token() = token;
  cancel->set_reason(reason.data(), reason.size());
}

void Dispatcher::State::Tick(DispatchNow now) {
  now_ms_ = now.monotonic_ms;
  while (!queue_timers_.empty() && queue_timers_.begin()->first.first <= now_ms_) {
    Queue* queue = queue_timers_.begin()->second;
    SetQueueTimer(queue, kNever);
    Touch(queue);
  }
  while (!timers_.empty() && timers_.begin()->first.first <= now_ms_) {
    SessionDue(timers_.begin()->second, now);
  }
  while (!deadlines_.empty() && deadlines_.begin()->first.first <= now_ms_) {
    TaskNode* node = deadlines_.begin()->second;
    Disarm(node);
    TaskDue(node, now);
  }
  if (now_ms_ >= next_sweep_ms_) {
    Sweep();
    next_sweep_ms_ = SaturatingAdd(now_ms_, kSweepIntervalMs);
  }
}

int64_t Dispatcher::State::NextDeadlineMs() const {
  if (more_) return now_ms_;
  int64_t next = kNever;
  if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first.first);
  if (!timers_.empty()) next = std::min(next, timers_.begin()->first.first);
  if (!queue_timers_.empty()) next = std::min(next, queue_timers_.begin()->first.first);
  return next;
}

}  // namespace flux::engine
