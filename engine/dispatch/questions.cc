// What people ask: why a task waits, and what workers and queues do.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/dispatch/state.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

std::string Count(size_t n, const char* noun) {
  return absl::StrCat(n, " ", noun, n == 1 ? "" : "s");
}

std::string Rate(uint64_t permille) {
  if (permille % 1000 == 0) return absl::StrCat(permille / 1000);
  std::string fraction = absl::StrCat(1000 + permille % 1000).substr(1);
  fraction.erase(fraction.find_last_not_of('0') + 1);
  return absl::StrCat(permille / 1000, ".", fraction);
}

std::string NoWorker(const std::string& task, const std::string& queue, uint32_t away) {
  std::string why = absl::StrCat("no worker has task ", task, " on queue ", queue);
  if (away > 0) {
    absl::StrAppend(&why, " (", Count(away, "worker"), " that had it ", away == 1 ? "is" : "are",
                    " away)");
  }
  return why;
}

}  // namespace

LiveTask Dispatcher::State::Look(const DeliveryKey& key, const v1::TaskStep& task) const {
  LiveTask live;
  const TaskNode* node = Find(key);
  if (node == nullptr) {
    const std::string queue_name = task.queue().empty() ? "default" : task.queue();
    const auto queue = queue_index_.find(queue_name);
    const Lane* lane = nullptr;
    if (queue != queue_index_.end()) {
      const auto it = queue->second->lanes.find(task.task());
      if (it != queue->second->lanes.end()) lane = it->second.get();
    }
    if (lane == nullptr || lane->workers == 0) {
      live.reason = NoWorker(task.task(), queue_name, lane == nullptr ? 0 : lane->workers_away);
    } else {
      live.reason =
          absl::StrCat("waits on disk behind ", Count(lane->ready + lane->waiting, "task"),
                       " of its name in memory on queue ", queue_name);
    }
    return live;
  }
  if (node->progress != nullptr) live.progress = *node->progress;
  switch (node->place) {
    case Place::kFlight:
      live.running = true;
      live.worker = node->session->worker_id;
      live.started_ms = node->started_wall_ms;
      if (node->session->stream == 0) {
        live.reason = absl::StrCat("worker ", live.worker, " is away; it has ",
                                   std::max<int64_t>(0, node->session->away_until_ms - now_ms_),
                                   " ms to come back");
      }
      break;
    case Place::kHeld:
      live.reason = absl::StrCat(
          "waits for grace after a restart: ", Count(node->lane->awaited, "worker"),
          " that may be running it ", node->lane->awaited == 1 ? "is" : "are", " not back yet");
      break;
    case Place::kReady:
      live.reason = WhyReady(*node);
      break;
  }
  return live;
}

std::string Dispatcher::State::WhyReady(const TaskNode& node) const {
  const Lane& lane = *node.lane;
  const Queue& queue = *lane.queue;
  const QueueLimits& limits = queue.limits;
  if (lane.workers == 0) return NoWorker(lane.task, queue.name, lane.workers_away);
  if (WithheldByRestart(queue)) {
    return absl::StrCat("waits for grace after a restart: queue ", queue.name, " is limited, and ",
                        Count(awaited_sessions_, "worker"), " may still be running its tasks");
  }
  if (limits.concurrency_max > 0 && queue.running >= limits.concurrency_max) {
    return absl::StrCat("queue ", queue.name, " is limited to ", limits.concurrency_max,
                        " running");
  }
  if (node.turn == nullptr) {
    return absl::StrCat("limit key \"", node.limit_key->key, "\" of queue ", queue.name,
                        " is limited to ", limits.per_key_concurrency, " running");
  }
  if (queue.rate_wait_ms != kNever && queue.rate_wait_ms > now_ms_) {
    return absl::StrCat("queue ", queue.name, " is limited to ", Rate(limits.rate_permille_per_s),
                        " tasks a second");
  }
  const bool busy = std::all_of(lane.profiles.begin(), lane.profiles.end(),
                                [](const Profile* profile) { return profile->ring.empty(); });
  const bool full =
      std::all_of(lane.profiles.begin(), lane.profiles.end(), [this](const Profile* profile) {
        const Session* session = profile->ring.front();
        while (session != nullptr && FlightFull(*session)) session = profile->ring.Next(session);
        return session == nullptr;
      });
  std::string behind;
  if (lane.ready > 1) behind = absl::StrCat("queued behind ", Count(lane.ready - 1, "task"));
  const std::string who =
      lane.workers == 1 ? "the only worker" : absl::StrCat("all ", lane.workers, " workers");
  if (busy) {
    return absl::StrCat(who, " on queue ", queue.name, lane.workers == 1 ? " is" : " are",
                        " busy (0 free slots)", behind.empty() ? "" : "; ", behind);
  }
  if (full) {
    return absl::StrCat(who, " on queue ", queue.name, lane.workers == 1 ? " holds" : " hold",
                        " as much input as a worker may (", options_.flight_bytes_max, " bytes)",
                        behind.empty() ? "" : "; ", behind);
  }
  return behind.empty() ? "is about to be handed out" : behind;
}

void Dispatcher::State::FillWorker(const Session& session, v1::WorkerInfo* info) const {
  info->set_worker_id(session.worker_id);
  info->set_session_id(session.id);
  info->set_queue(session.profile->queue->name);
  for (const std::string& task : session.profile->tasks) info->add_tasks(task);
  info->set_slots(session.slots);
  info->set_running(static_cast<uint32_t>(session.flight.size()));
  info->set_credit(static_cast<uint32_t>(session.credit));
  switch (session.presence) {
    case Presence::kAway:
      info->set_state("away");
      break;
    case Presence::kConnected:
      info->set_state("connected");
      break;
    case Presence::kDraining:
      info->set_state("draining");
      break;
  }
  info->set_connected_time_ms(session.connected_wall_ms);
  info->set_last_seen_time_ms(session.last_seen_wall_ms);
  info->set_sdk_version(session.sdk_version);
  info->set_peer(session.peer);
  info->set_completed(session.completed);
  info->set_failed(session.failed);
}

void Dispatcher::State::FillQueue(const Queue& queue, v1::TaskQueueInfo* info, bool tasks) const {
  info->set_name(queue.name);
  info->set_ready(queue.ready_count + queue.held);
  info->set_running(queue.running);
  info->set_executions_spilled(static_cast<uint64_t>(queue.spilled));
  const TaskNode* oldest = nullptr;
  for (const auto& [priority, waiting] : queue.ready) {
    const TaskNode* first = waiting.front();
    if (first == nullptr) continue;
    if (oldest == nullptr || first->sequence < oldest->sequence) oldest = first;
  }
  if (oldest != nullptr) info->set_oldest_ready_time_ms(oldest->scheduled_ms);
  info->set_workers(queue.workers);
  info->set_slots(static_cast<uint32_t>(std::min<uint64_t>(queue.slots, UINT32_MAX)));
  info->set_credit(static_cast<uint32_t>(std::min<uint64_t>(queue.credit, UINT32_MAX)));
  if (!tasks) return;
  std::vector<const Lane*> lanes;
  for (const auto& [name, lane] : queue.lanes) lanes.push_back(lane.get());
  std::sort(lanes.begin(), lanes.end(),
            [](const Lane* a, const Lane* b) { return a->task < b->task; });
  for (const Lane* lane : lanes) {
    v1::TaskInfo* task = info->add_tasks();
    task->set_name(lane->task);
    task->set_ready(lane->ready + lane->waiting + lane->held.size());
    task->set_running(lane->running);
    task->set_workers(lane->workers);
  }
}

}  // namespace flux::engine
