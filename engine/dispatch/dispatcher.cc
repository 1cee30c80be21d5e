#include "engine/dispatch/dispatcher.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/dispatch/state.h"
#include "proto/bridge.h"

namespace flux::engine {

Dispatcher::State::State(DispatchOptions options, DispatchHost* host)
    : options_(std::move(options)), host_(host) {
  options_.tasks_per_message_max = std::max<size_t>(1, options_.tasks_per_message_max);
  options_.message_bytes_max = std::max<size_t>(1, options_.message_bytes_max);
  options_.ready_per_queue_max = std::max<size_t>(1, options_.ready_per_queue_max);
  grace_ms_ = std::max<int64_t>(0, absl::ToInt64Milliseconds(options_.session_grace));
  ping_ms_ = std::max<int64_t>(1, absl::ToInt64Milliseconds(options_.ping_interval));
  for (const auto& [name, limits] : options_.queue_limits) GetQueue(name);
}

Dispatcher::State::~State() {
  for (TaskNode* node : nodes_) delete node;
}

Dispatcher::Dispatcher(DispatchOptions options, DispatchHost* host)
    : state_(std::make_unique<State>(std::move(options), host)) {}

Dispatcher::~Dispatcher() = default;

OfferOutcome Dispatcher::Offer(const RunId& run, const TaskOffer& offer, bool maybe_delivered,
                               DispatchNow now, std::string_view limit_key,
                               DisplacedTask* displaced) {
  return state_->Offer(run, offer, maybe_delivered, now, limit_key, displaced);
}

void Dispatcher::Withdraw(const DeliveryKey& key, std::string_view reason) {
  if (TaskNode* node = state_->Find(key); node != nullptr) state_->Withdraw(node, reason);
}

void Dispatcher::WithdrawRun(const RunId& run, std::string_view reason) {
  const auto it = state_->runs_.find(run);
  if (it == state_->runs_.end()) return;
  // The last node takes the run with it, so the run is looked at for the last time before.
  for (size_t left = it->second->tasks.size(); left > 0; --left) {
    state_->Withdraw(state_->runs_.find(run)->second->tasks.front(), reason);
  }
}

bool Dispatcher::ForgetIfChanged(const RunId& run, const TaskOffer& offer) {
  TaskNode* node = state_->Find({run, offer.key, offer.delivery});
  if (node == nullptr || node->place != Place::kReady || State::SameTask(*node, *offer.task)) {
    return false;
  }
  state_->Forget(node);
  return true;
}

void Dispatcher::Withhold(const RunId& run) {
  const auto it = state_->runs_.find(run);
  if (it == state_->runs_.end()) return;
  std::vector<TaskNode*> nodes;
  for (TaskNode* node = it->second->tasks.front(); node != nullptr;
       node = it->second->tasks.Next(node)) {
    if (node->session == nullptr && node->place != Place::kFlight) nodes.push_back(node);
  }
  for (TaskNode* node : nodes) state_->Forget(node);
}

std::vector<DisplacedTask> Dispatcher::TakeBack(const RunId& run) { return state_->TakeBack(run); }

std::vector<RunId> Dispatcher::Surplus(size_t most) const { return state_->Surplus(most); }

void Dispatcher::ClaimChecked(const DeliveryKey& key, bool current) {
  state_->ClaimChecked(key, current);
}

bool Dispatcher::ResultArrived(StreamId stream, const DeliveryKey& key, bool failed) {
  return state_->ResultArrived(stream, key, failed);
}

void Dispatcher::Ack(StreamId stream, const v1::TaskToken& token, v1::AckStatus status,
                     std::string_view detail) {
  Session* session = state_->OnStream(stream);
  if (session == nullptr) return;
  v1::ResultAck* ack = state_->Pending(session)->add_acks();
  *ack->mutable_token() = token;
  ack->set_status(status);
  if (!detail.empty()) ack->set_detail(detail.data(), detail.size());
}

absl::Status Dispatcher::Hello(StreamId stream, const std::string& peer,
                               const v1::WorkerHello& hello, DispatchNow now) {
  return state_->Hello(stream, peer, hello, now);
}

absl::Status Dispatcher::Credit(StreamId stream, uint32_t credit, DispatchNow now) {
  state_->now_ms_ = now.monotonic_ms;
  Session* session = state_->OnStream(stream);
  if (session == nullptr) {
    return absl::FailedPreconditionError("credit on a stream without a session: say hello first");
  }
  if (session->presence != Presence::kConnected) return absl::OkStatus();
  if (session->credit + credit > state_->options_.credit_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "worker ", session->worker_id, " holds ", session->credit, " credit and gives ", credit,
        " more; at most ", state_->options_.credit_max, " is allowed"));
  }
  state_->SetCredit(session, session->credit + credit);
  return absl::OkStatus();
}

void Dispatcher::Heartbeat(StreamId stream, const DeliveryKey& key, v1::Payload progress,
                           DispatchNow now) {
  state_->now_ms_ = now.monotonic_ms;
  TaskNode* node = state_->Find(key);
  if (node == nullptr || node->session == nullptr || node->session->stream != stream) return;
  ++state_->stats_.heartbeats;
  node->last_heartbeat_ms = now.monotonic_ms;
  state_->KeepProgress(node, std::move(progress));
}

void Dispatcher::Released(StreamId stream, const DeliveryKey& key) {
  TaskNode* node = state_->Find(key);
  if (node == nullptr || node->session == nullptr || node->session->stream != stream) return;
  state_->RedeliverNode(node, "released by its worker");
}

void Dispatcher::Draining(StreamId stream) {
  Session* session = state_->OnStream(stream);
  if (session == nullptr) return;
  session->draining = true;
  state_->SetCredit(session, 0);
  state_->SetPresence(session, Presence::kDraining);
}

void Dispatcher::Pong(StreamId stream, uint64_t ping, DispatchNow now) {
  // Which ping it answers does not matter: any message shows that the worker is alive.
  static_cast<void>(ping);
  Alive(stream, now);
}

void Dispatcher::Alive(StreamId stream, DispatchNow now) {
  state_->now_ms_ = now.monotonic_ms;
  if (Session* session = state_->OnStream(stream); session != nullptr) {
    session->last_seen_ms = std::max(session->last_seen_ms, now.monotonic_ms);
    session->last_seen_wall_ms = now.wall_ms;
  }
}

void Dispatcher::StreamClosed(StreamId stream, DispatchNow now) {
  state_->StreamClosed(stream, now);
}

void Dispatcher::Restore(const std::vector<v1::SessionChange>& sessions, DispatchNow now) {
  state_->Restore(sessions, now);
}

void Dispatcher::Tick(DispatchNow now) { state_->Tick(now); }
void Dispatcher::Flush(DispatchNow now) { state_->Flush(now); }
int64_t Dispatcher::NextDeadlineMs() const { return state_->NextDeadlineMs(); }
void Dispatcher::Stop() { state_->Stop(); }

LiveTask Dispatcher::Look(const DeliveryKey& key, const v1::TaskStep& task) const {
  return state_->Look(key, task);
}

std::string Dispatcher::HolderOf(const DeliveryKey& key) const {
  const TaskNode* node = state_->Find(key);
  return node == nullptr || node->session == nullptr ? "" : node->session->worker_id;
}

bool Dispatcher::InFlight(const RunId& run) const {
  const auto it = state_->runs_.find(run);
  return it != state_->runs_.end() && it->second->in_flight_or_held > 0;
}

void Dispatcher::ListWorkers(std::string_view queue, v1::ListWorkersResponse* response) const {
  for (const auto& [id, session] : state_->sessions_) {
    if (!queue.empty() && session->profile->queue->name != queue) continue;
    state_->FillWorker(*session, response->add_workers());
  }
}

void Dispatcher::ListQueues(v1::ListTaskQueuesResponse* response) const {
  for (const auto& [name, queue] : state_->queues_) {
    state_->FillQueue(*queue, response->add_queues(), /*tasks=*/false);
  }
}

std::vector<std::string> Dispatcher::QueueNames(size_t max, size_t* all) const {
  *all = state_->queues_.size();
  std::vector<std::string> names;
  for (const auto& [name, queue] : state_->queues_) {
    if (names.size() == max) break;
    names.push_back(name);
  }
  return names;
}

bool Dispatcher::DescribeQueue(std::string_view name, v1::GetTaskQueueResponse* response) const {
  const auto it = state_->queues_.find(std::string(name));
  if (it == state_->queues_.end()) return false;
  state_->FillQueue(*it->second, response->mutable_queue(), /*tasks=*/true);
  for (const auto& [id, session] : state_->sessions_) {
    if (session->profile->queue == it->second.get()) {
      state_->FillWorker(*session, response->add_workers());
    }
  }
  return true;
}

void Dispatcher::SetSpilled(const std::string& queue, int64_t delta) {
  state_->SetSpilled(queue, delta);
}

void Dispatcher::SetTaskSpilled(const std::string& queue, const std::string& task, int64_t delta) {
  state_->SetTaskSpilled(queue, task, delta);
}

void Dispatcher::RefillDone(const std::string& queue) { state_->RefillDone(queue); }

bool Dispatcher::TakesRefill(const std::string& queue, const std::string& task) const {
  const Lane* lane = state_->FindLane(queue, task);
  return lane != nullptr && state_->TakesRefill(*lane);
}

void Dispatcher::SetMemory(Memory memory) { state_->memory_ = memory; }

DispatchStats Dispatcher::stats() const { return state_->stats_; }

}  // namespace flux::engine
