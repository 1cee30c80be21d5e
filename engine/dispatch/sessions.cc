// Streams and sessions: hello, resumption and claims, presence, and the grace after a restart.
//
//   presence    | hello (new stream) | draining | stream closed or silent     | grace passed
//   connected   | connected, old     | draining | away                        | -
//               | stream closed      |          |                             |
//   draining    | draining           | draining | closed if nothing is in     | -
//               |                    |          | flight, else away           |
//   away        | connected, or      | -        | -                           | closed: attempts
//   end with
//               | draining as before |          |                             | kWorkerLost
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/dispatch/state.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr char kSuperseded[] = "superseded";

absl::Status CheckName(std::string_view what, const std::string& name) {
  if (name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("worker hello: ", ToAbsl(what), " is empty"));
  }
  if (name.size() > kHelloIdBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("worker hello: ", ToAbsl(what), " has ",
                                                   name.size(), " bytes; at most ",
                                                   kHelloIdBytesMax, " are allowed"));
  }
  for (const unsigned char c : name) {
    if (c < 0x20 || c == 0x7f) {
      return absl::InvalidArgumentError(absl::StrCat("worker hello: ", ToAbsl(what),
                                                     " contains a control character (byte ",
                                                     static_cast<int>(c), "); use printable text"));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> SortedTasks(const google::protobuf::RepeatedPtrField<std::string>& tasks) {
  std::vector<std::string> sorted(tasks.begin(), tasks.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  return sorted;
}

std::string QueueOrDefault(const std::string& queue) { return queue.empty() ? "default" : queue; }

v1::SessionChange Change(const Session& session, bool closed, int64_t wall_ms) {
  v1::SessionChange change;
  change.set_session_id(session.id);
  change.set_worker_id(session.worker_id);
  change.set_closed(closed);
  change.set_time_ms(wall_ms);
  if (!closed) {
    change.set_queue(session.profile->queue->name);
    for (const std::string& task : session.profile->tasks) change.add_tasks(task);
  }
  return change;
}

}  // namespace

Session* Dispatcher::State::OnStream(StreamId stream) const {
  const auto it = streams_.find(stream);
  return it == streams_.end() ? nullptr : it->second;
}

// ---- hello
// --------------------------------------------------------------------------------------------------

absl::Status Dispatcher::State::CheckHello(StreamId stream, const v1::WorkerHello& hello) const {
  if (OnStream(stream) != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker hello: worker ", hello.worker_id(),
                     " said hello twice on one stream; say it once, in the first message"));
  }
  FLUX_RETURN_IF_ERROR(CheckName("worker_id", hello.worker_id()));
  FLUX_RETURN_IF_ERROR(CheckName("session_id", hello.session_id()));
  if (!hello.queue().empty()) FLUX_RETURN_IF_ERROR(CheckName("queue", hello.queue()));
  if (hello.tasks_size() == 0) {
    return absl::InvalidArgumentError(absl::StrCat("worker hello: worker ", hello.worker_id(),
                                                   " names no tasks; register at least one"));
  }
  if (static_cast<size_t>(hello.tasks_size()) > kHelloTasksMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker hello: worker ", hello.worker_id(), " names ", hello.tasks_size(),
                     " tasks; at most ", kHelloTasksMax, " are allowed"));
  }
  for (const std::string& task : hello.tasks()) {
    FLUX_RETURN_IF_ERROR(CheckName("task name", task));
  }
  if (hello.slots() == 0) {
    return absl::InvalidArgumentError(absl::StrCat("worker hello: worker ", hello.worker_id(),
                                                   " has 0 slots; it needs at least 1"));
  }
  if (static_cast<uint64_t>(hello.running_size()) > options_.credit_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("worker hello: worker ", hello.worker_id(), " lists ", hello.running_size(),
                     " running tasks; at most ", options_.credit_max, " are allowed"));
  }
  for (const v1::RunningTask& running : hello.running()) {
    if (running.token().run_id().size() != 16) {
      return absl::InvalidArgumentError(absl::StrCat(
          "worker hello: worker ", hello.worker_id(), " lists a token whose run id has ",
          running.token().run_id().size(), " bytes instead of 16"));
    }
  }
  const auto known = sessions_.find(hello.session_id());
  if (known == sessions_.end()) {
    if (sessions_.size() >= options_.sessions_max) {
      return absl::ResourceExhaustedError(
          absl::StrCat("worker ", hello.worker_id(), " refused: the coordinator has its limit of ",
                       options_.sessions_max, " worker sessions"));
    }
    return absl::OkStatus();
  }
  const Profile& profile = *known->second->profile;
  if (profile.queue->name != QueueOrDefault(hello.queue()) ||
      profile.tasks != SortedTasks(hello.tasks())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "worker hello: session ", hello.session_id(), " of worker ", hello.worker_id(),
        " came back with another queue or other tasks (it began on queue ", profile.queue->name,
        " with ", profile.tasks.size(), " tasks); begin a new session to change them"));
  }
  return absl::OkStatus();
}

Session* Dispatcher::State::NewSession(const std::string& id, const std::string& worker_id,
                                       const std::string& queue, std::vector<std::string> tasks) {
  auto made = std::make_unique<Session>();
  Session* session = made.get();
  session->id = id;
  session->worker_id = worker_id;
  session->sequence = next_sequence_++;
  session->profile = GetProfile(GetQueue(queue), std::move(tasks));
  ++session->profile->sessions;
  ++session->profile->queue->sessions;
  for (Lane* lane : session->profile->lanes) ++lane->workers_away;
  sessions_.emplace(id, std::move(made));
  ++stats_.sessions;
  return session;
}

absl::Status Dispatcher::State::Hello(StreamId stream, const std::string& peer,
                                      const v1::WorkerHello& hello, DispatchNow now) {
  now_ms_ = now.monotonic_ms;
  FLUX_RETURN_IF_ERROR(CheckHello(stream, hello));
  const auto known = sessions_.find(hello.session_id());
  Session* session = nullptr;
  if (known != sessions_.end()) {
    session = known->second.get();
    if (session->stream != 0) {
      host_->Close(session->stream, absl::AbortedError(absl::StrCat(
                                        "session ", session->id, " of worker ", hello.worker_id(),
                                        " went on on a newer stream from ", peer)));
      streams_.erase(session->stream);
    }
    session->pending.reset();
    SetCredit(session, 0);
  } else {
    session = NewSession(hello.session_id(), hello.worker_id(), QueueOrDefault(hello.queue()),
                         SortedTasks(hello.tasks()));
  }
  const bool changed = known == sessions_.end() || session->worker_id != hello.worker_id();
  session->worker_id = hello.worker_id();
  session->peer = peer;
  session->sdk_version = hello.sdk_version();
  SetSlots(session, hello.slots());
  session->stream = stream;
  streams_[stream] = session;
  session->last_seen_ms = now.monotonic_ms;
  session->last_seen_wall_ms = session->connected_wall_ms = now.wall_ms;
  session->next_ping_ms = SaturatingAdd(now.monotonic_ms, ping_ms_);
  SetPresence(session, session->draining ? Presence::kDraining : Presence::kConnected);
  ArmSession(session);
  if (changed) host_->RecordSession(Change(*session, /*closed=*/false, now.wall_ms));

  v1::Welcome* welcome = Pending(session)->mutable_welcome();
  welcome->set_coordinator_version(options_.version);
  welcome->set_session_grace_ms(grace_ms_);
  welcome->set_ping_interval_ms(ping_ms_);
  welcome->set_payload_bytes_max(options_.payload_bytes_max);
  welcome->set_incarnation(options_.incarnation);
  Reconcile(session, hello, now);
  NoLongerAwaited(session);
  return absl::OkStatus();
}

// What the worker runs and what we hold in flight on its session are made one.
void Dispatcher::State::Reconcile(Session* session, const v1::WorkerHello& hello, DispatchNow now) {
  now_ms_ = now.monotonic_ms;
  const uint64_t this_hello = ++hellos_;
  for (const v1::RunningTask& running : hello.running()) {
    const v1::TaskToken& token = running.token();
    if (token.incarnation() != options_.incarnation) {
      CancelToken(session, token, kSuperseded);
      continue;
    }
    const DeliveryKey key{
        *RunId::FromBytes(token.run_id()), {token.frame(), token.step()}, token.delivery()};
    Claim(session, running, key);
    if (TaskNode* node = Find(key); node != nullptr) node->listed_by = this_hello;
  }
  for (TaskNode* node = session->flight.front(); node != nullptr;) {
    TaskNode* next = session->flight.Next(node);
    if (node->listed_by != this_hello) {
      // Sent on the broken stream, or about to be: the worker does not have it, so no attempt
      // began.
      RedeliverNode(node, "never arrived at its worker");
    } else {
      ArmFlight(node);  // heartbeats count again
    }
    node = next;
  }
}

// ---- claims
// -------------------------------------------------------------------------------------------------

void Dispatcher::State::Claim(Session* session, const v1::RunningTask& running,
                              const DeliveryKey& key) {
  TaskNode* node = Find(key);
  if (node == nullptr) {
    node = NewNode(key);
    node->confirmed = false;
    ++unchecked_claims_;
    EnterFlight(node, session);
    SetRunning(node, running);
    host_->CheckClaim(key);
    return;
  }
  if (node->place == Place::kFlight && node->session == session) {
    if (!running.finished()) {
      node->last_heartbeat_ms = std::max(
          node->last_heartbeat_ms, now_ms_ - std::max<int64_t>(0, running.since_heartbeat_ms()));
    }
    node->finished = running.finished();
    if (running.has_progress()) KeepProgress(node, running.progress());
    return;
  }
  // A ready one was never handed out by this process, nor by one before it.
  if (node->place == Place::kHeld) {
    BindClaim(node, session, running);
    return;
  }
  ++stats_.claims_refused;
  CancelToken(session, running.token(), kSuperseded);
}

void Dispatcher::State::BindClaim(TaskNode* node, Session* session,
                                  const v1::RunningTask& running) {
  LeaveHeld(node);
  EnterFlight(node, session);
  SetRunning(node, running);
  ++stats_.claims_kept;
  ArmFlight(node);
}

void Dispatcher::State::SetRunning(TaskNode* node, const v1::RunningTask& running) {
  node->generation = running.token().generation();
  node->shard = running.token().shard();
  node->finished = running.finished();
  // A finished one is not running any more: its result is given a whole timeout to arrive.
  const int64_t elapsed_ms = running.finished() ? 0 : std::max<int64_t>(0, running.elapsed_ms());
  const int64_t silent_ms = std::max<int64_t>(0, running.since_heartbeat_ms());
  node->started_ms = SaturatingAdd(now_ms_, -elapsed_ms);
  node->started_wall_ms = SaturatingAdd(node->session->last_seen_wall_ms, -elapsed_ms);
  node->last_heartbeat_ms = SaturatingAdd(now_ms_, -silent_ms);
  if (running.has_progress()) KeepProgress(node, running.progress());
}

void Dispatcher::State::OfferClaimed(TaskNode* node, const TaskOffer& offer,
                                     std::string_view limit_key) {
  FreeSlot(node);
  SetOffer(node, offer, GetLane(GetQueue(QueueOrDefault(offer.task->queue())), offer.task->task()));
  SetLimitKey(node, limit_key);
  TakeSlot(node, node->lane->queue);
  ClaimChecked(node->key, true);  // what is offered is current
  ArmFlight(node);
}

void Dispatcher::State::ClaimChecked(const DeliveryKey& key, bool current) {
  TaskNode* node = Find(key);
  if (node == nullptr || node->confirmed) return;
  if (!current) {
    ++stats_.claims_refused;
    // The result of a finished one is under way, and answered by itself.
    if (!node->finished) CancelOn(node->session, *node, kSuperseded);
    Forget(node);
    return;
  }
  ++stats_.claims_kept;
  node->confirmed = true;
  if (--unchecked_claims_ == 0) TouchWithheld();
  if (!node->offered) node->start_to_close_ms = kStartToCloseDefaultMs;
  ArmFlight(node);
}

// ---- presence and credit
// ------------------------------------------------------------------------------------

void Dispatcher::State::SetPresence(Session* session, Presence presence) {
  if (presence == session->presence) return;
  LeaveRing(session);
  Queue* queue = session->profile->queue;
  if (session->presence == Presence::kConnected) {
    --queue->workers;
    queue->slots -= session->slots;
    queue->credit -= session->credit;
  } else if (presence == Presence::kConnected) {
    ++queue->workers;
    queue->slots += session->slots;
    queue->credit += session->credit;
  }
  for (Lane* lane : session->profile->lanes) {
    if (session->presence == Presence::kConnected) --lane->workers;
    if (session->presence == Presence::kAway) --lane->workers_away;
    if (presence == Presence::kConnected) ++lane->workers;
    if (presence == Presence::kAway) ++lane->workers_away;
  }
  session->presence = presence;
  if (session->credit > 0) JoinRing(session);
  if (queue->spilled > 0) Touch(queue);  // what lies on disk may have somebody now
}

void Dispatcher::State::SetSlots(Session* session, uint32_t slots) {
  if (session->presence == Presence::kConnected) {
    session->profile->queue->slots += uint64_t{slots} - session->slots;
  }
  session->slots = slots;
}

void Dispatcher::State::JoinRing(Session* session) {
  if (session->ListLink<InRing>::linked() || session->presence != Presence::kConnected) return;
  session->profile->ring.PushBack(session);
  ++session->profile->queue->credited;
  Touch(session->profile->queue);
}

void Dispatcher::State::LeaveRing(Session* session) {
  if (!session->ListLink<InRing>::linked()) return;
  session->profile->ring.Remove(session);
  --session->profile->queue->credited;
}

void Dispatcher::State::SetCredit(Session* session, uint64_t credit) {
  if (session->presence == Presence::kConnected) {
    session->profile->queue->credit += credit - session->credit;
  }
  session->credit = credit;
  if (credit > 0) {
    JoinRing(session);
  } else {
    LeaveRing(session);
  }
}

void Dispatcher::State::GoAway(Session* session, DispatchNow now) {
  streams_.erase(session->stream);
  session->stream = 0;
  session->pending.reset();
  SetCredit(session, 0);
  SetPresence(session, Presence::kAway);
  if (session->draining && session->flight.empty()) {
    CloseSession(session, now.wall_ms);
    return;
  }
  session->away_until_ms = SaturatingAdd(now.monotonic_ms, grace_ms_);
  ArmSession(session);
}

void Dispatcher::State::CloseSession(Session* session, int64_t wall_ms) {
  while (TaskNode* node = session->flight.front()) EndNode(node, AttemptEnd::kWorkerLost);
  NoLongerAwaited(session);
  host_->RecordSession(Change(*session, /*closed=*/true, wall_ms));
  SetCredit(session, 0);
  SetPresence(session, Presence::kAway);
  if (session->stream != 0) streams_.erase(session->stream);
  if (session->timer_ms != kNever) timers_.erase({session->timer_ms, session->sequence});
  Profile* profile = session->profile;
  Queue* queue = profile->queue;
  for (Lane* lane : profile->lanes) --lane->workers_away;
  if (queue->spilled > 0) Touch(queue);  // others may have the room that was kept for it
  --queue->sessions;
  --stats_.sessions;
  if (--profile->sessions == 0) {
    for (Lane* lane : profile->lanes) std::erase(lane->profiles, profile);
    std::erase(queue->serving, profile);
    queue->profiles.erase(std::vector<std::string>(profile->tasks));
  }
  sessions_.erase(std::string(session->id));
}

void Dispatcher::State::ArmSession(Session* session) {
  int64_t at_ms = session->away_until_ms;
  if (session->stream != 0) {
    at_ms = std::min(session->next_ping_ms,
                     SaturatingAdd(session->last_seen_ms, kSilentPingsMax * ping_ms_));
  }
  if (session->timer_ms == at_ms) return;
  if (session->timer_ms != kNever) timers_.erase({session->timer_ms, session->sequence});
  session->timer_ms = at_ms;
  if (at_ms != kNever) timers_.emplace(std::pair(at_ms, session->sequence), session);
}

void Dispatcher::State::SessionDue(Session* session, DispatchNow now) {
  if (session->stream == 0) {
    CloseSession(session, now.wall_ms);
    return;
  }
  const int64_t silent_ms = now.monotonic_ms - session->last_seen_ms;
  if (silent_ms >= kSilentPingsMax * ping_ms_) {
    host_->Close(session->stream, absl::UnavailableError(absl::StrCat(
                                      "worker ", session->worker_id, " was silent for ", silent_ms,
                                      " ms, more than ", kSilentPingsMax, " ping intervals of ",
                                      ping_ms_, " ms; connect again")));
    GoAway(session, now);
    return;
  }
  if (now.monotonic_ms >= session->next_ping_ms) {
    Pending(session)->set_ping(++session->pings);
    session->next_ping_ms = SaturatingAdd(now.monotonic_ms, ping_ms_);
  }
  ArmSession(session);
}

void Dispatcher::State::StreamClosed(StreamId stream, DispatchNow now) {
  now_ms_ = now.monotonic_ms;
  if (Session* session = OnStream(stream); session != nullptr) GoAway(session, now);
}

// ---- restart
// ------------------------------------------------------------------------------------------------

void Dispatcher::State::Restore(const std::vector<v1::SessionChange>& sessions, DispatchNow now) {
  now_ms_ = now.monotonic_ms;
  for (const v1::SessionChange& change : sessions) {
    if (change.closed() || sessions_.contains(change.session_id())) continue;
    Session* session = NewSession(change.session_id(), change.worker_id(),
                                  QueueOrDefault(change.queue()), SortedTasks(change.tasks()));
    session->listed = true;
    ++awaited_sessions_;
    for (Lane* lane : session->profile->lanes) ++lane->awaited;
    session->away_until_ms = SaturatingAdd(now.monotonic_ms, grace_ms_);
    ArmSession(session);
  }
}

void Dispatcher::State::NoLongerAwaited(Session* session) {
  if (!session->listed) return;
  session->listed = false;
  for (Lane* lane : session->profile->lanes) {
    if (--lane->awaited > 0) continue;
    while (TaskNode* node = lane->held.front()) RedeliverNode(node, "unclaimed after a restart");
  }
  if (--awaited_sessions_ == 0) TouchWithheld();
}

void Dispatcher::State::TouchWithheld() {
  for (const auto& [name, queue] : queues_) {
    if (queue->limited) Touch(queue.get());
  }
}

void Dispatcher::State::Stop() {
  stopped_ = true;
  for (const auto& [id, session] : sessions_) {
    if (session->stream != 0) Pending(session.get())->set_goodbye(true);
  }
  SendPending();
}

}  // namespace flux::engine
