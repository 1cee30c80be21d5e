// Queued tasks that have no place in the dispatcher's memory: what is spilled, what is taken back,
// and what comes from disk again.
#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/shard/engine.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr size_t kReadyScanMax = 1'000;

bool HasSpilled(const Slot& slot, const std::string& queue) {
  const auto it = slot.spilled_names.lower_bound(TaskName(queue, ""));
  return it != slot.spilled_names.end() && it->first.first == queue;
}

// Is one of the row's tasks wanted? It is counted down then.
bool TakeWanted(std::string_view row, TaskCounts* wanted) {
  bool taken = false;
  for (const absl::string_view name : absl::StrSplit(ToAbsl(row), '\0')) {
    const auto it = wanted->find(std::string(name));
    if (it == wanted->end()) continue;
    taken = true;
    if (--it->second == 0) wanted->erase(it);
  }
  return taken;
}

}  // namespace

// ---- to disk
// ---------------------------------------------------------------------------------------------------

// It waits on disk from now on; no worker has seen its delivery.
void Engine::Displace(const DisplacedTask& task) {
  const auto& [run, step, delivery] = task.key;
  const auto it = slots_.find(run);
  if (it == slots_.end() || !it->second->execution ||
      !IsCurrent(*it->second->execution, step, delivery)) {
    return;
  }
  TaskOffer offer = flux::engine::Offer(*it->second->execution, step);
  offer.scheduled_ms = task.scheduled_ms;  // its wait goes on
  MarkSpilled(*it->second, offer, {}, true);
  ArmTimer(*it->second);
}

void Engine::MarkSpilled(Slot& slot, const TaskOffer& offer, SpilledStep step, bool count) {
  const StepKey key = offer.key;
  const TaskName name(offer.task->queue(), offer.task->task());
  if (const auto it = slot.spilled.find(key);
      it != slot.spilled.end() && *it->second.name != name) {
    ForgetSpilled(slot, key);
  }
  const int64_t within = offer.task->timeouts().schedule_to_start_ms();
  // Whoever may have it already may have begun.
  if (within > 0 && !step.unsure) step.start_by_ms = offer.scheduled_ms + within;
  const bool first_of_queue = !HasSpilled(slot, name.first);
  const auto [named, first_of_name] = slot.spilled_names.try_emplace(name, 0);
  if (first_of_name) {
    spilled_resident_[name].insert(slot.run);
    if (count) {
      if (first_of_queue) dispatcher_->SetSpilled(name.first, +1);
      dispatcher_->SetTaskSpilled(name.first, name.second, +1);
    }
  }
  const auto [it, inserted] = slot.spilled.try_emplace(key);
  SpilledStep& entry = it->second;
  if (inserted) ++named->second;
  slot.start_by.erase({entry.start_by_ms, key});
  step.name = &named->first;
  entry = step;
  if (entry.start_by_ms != 0) slot.start_by.emplace(entry.start_by_ms, key);
}

void Engine::ForgetSpilled(Slot& slot, const StepKey& key) {
  const auto it = slot.spilled.find(key);
  if (it == slot.spilled.end()) return;
  const auto named = slot.spilled_names.find(*it->second.name);
  slot.start_by.erase({it->second.start_by_ms, key});
  slot.spilled.erase(it);
  if (--named->second > 0) return;
  const TaskName name = named->first;
  slot.spilled_names.erase(named);
  LeaveSpilledResident(slot.run, name);
  dispatcher_->SetTaskSpilled(name.first, name.second, -1);
  if (!HasSpilled(slot, name.first)) dispatcher_->SetSpilled(name.first, -1);
}

void Engine::LeaveSpilledResident(const RunId& run, const TaskName& name) {
  const auto it = spilled_resident_.find(name);
  if (it == spilled_resident_.end()) return;
  it->second.erase(run);
  if (it->second.empty()) spilled_resident_.erase(it);
}

bool Engine::GiveUpQueued(Slot& slot) {
  if (!slot.waiting.empty() || HasOutbox(*slot.execution)) return false;
  const std::vector<DisplacedTask> tasks = dispatcher_->TakeBack(slot.run);
  for (const DisplacedTask& task : tasks) Displace(task);
  return !tasks.empty();
}

// ---- and back
// --------------------------------------------------------------------------------------------------

void Engine::RefillFrom(Slot& slot, const std::string& queue, TaskCounts* tasks) {
  if (IsPaused(*slot.execution)) return;  // OfferAll, once it is resumed
  std::vector<StepKey> keys;
  TaskCounts left = tasks != nullptr ? *tasks : TaskCounts();
  for (const auto& [key, step] : slot.spilled) {
    if (step.name->first != queue) continue;
    if (tasks != nullptr) {
      if (left.empty()) break;
      const auto it = left.find(step.name->second);
      if (it == left.end()) continue;
      if (--it->second == 0) left.erase(it);
    }
    keys.push_back(key);
  }
  for (const StepKey& key : keys) {
    // Once ready rows stand for it, a restart takes it for undelivered: a record, and with it a
    // higher delivery number, must come before the hand-out (rule 5).
    const auto it = slot.spilled.find(key);
    if (it == slot.spilled.end()) continue;  // what was redelivered before it ended it
    const SpilledStep& step = it->second;
    if (!dispatcher_->TakesRefill(queue, step.name->second)) continue;
    if (tasks != nullptr) {
      const auto wanted = tasks->find(step.name->second);
      if (--wanted->second == 0) tasks->erase(wanted);
    }
    const TaskOffer offer = flux::engine::Offer(*slot.execution, key);
    if (step.stood_in_rows || slot.root.ready_size() > 0 || slot.flushing) {
      ForgetSpilled(slot, key);
      slot.refilled.emplace(key, offer.scheduled_ms);  // its wait goes on
      if (auto verdict =
              Execute(slot, flux::engine::Redeliver{key, offer.delivery, "was queued on disk"});
          !verdict.ok()) {
        Log(3, absl::StrCat("run ", slot.run.Text(),
                            ": cannot redeliver: ", verdict.status().ToString()));
      }
      slot.refilled.reset();
    } else {
      OfferStep(slot, key, step.unsure);
    }
  }
}

// What waits stands in the queue that the execution's version names: on disk, where it is looked
// for, and in memory, where it gets a place behind what stands there.
void Engine::Requeue(Slot& slot) {
  if (!IsPaused(*slot.execution)) {
    for (const StepKey& key : ReadyTasks(*slot.execution)) {
      if (slot.spilled.contains(key)) continue;
      const TaskOffer offer = flux::engine::Offer(*slot.execution, key);
      if (dispatcher_->ForgetIfChanged(slot.run, offer)) OfferStep(slot, key, false);
    }
  }
  std::vector<TaskOffer> moved;
  for (const auto& [key, step] : slot.spilled) {
    const TaskOffer offer = flux::engine::Offer(*slot.execution, key);
    if (*step.name != TaskName(offer.task->queue(), offer.task->task())) moved.push_back(offer);
  }
  for (const TaskOffer& offer : moved) {
    const SpilledStep before = slot.spilled.at(offer.key);
    ForgetSpilled(slot, offer.key);
    MarkSpilled(slot, offer, {.unsure = before.unsure, .stood_in_rows = before.stood_in_rows},
                true);
    // Nothing else may move in that queue.
    deferred_.push_back([this, run = slot.run, queue = offer.task->queue()] {
      const auto it = slots_.find(run);
      if (it != slots_.end() && it->second->execution) RefillFrom(*it->second, queue, nullptr);
    });
  }
}

// Work is asked for from disk only while half of the cache is free: what is above its limit leaves
// for the disk again, and must not be what came from there.
void Engine::WeighMemory() {
  dispatcher_->SetMemory(cache_bytes_ > options_.cache_bytes_max        ? Memory::kOver
                         : cache_bytes_ >= options_.cache_bytes_max / 2 ? Memory::kShort
                                                                        : Memory::kAmple);
}

size_t Engine::LoadsInRoom() const {
  const size_t half = options_.cache_bytes_max / 2;
  const size_t coming = loads_in_flight_ + load_queue_.size() + loads_to_find_;
  const size_t held = cache_bytes_ + coming * loaded_bytes_;
  return (half - std::min(half, held)) / loaded_bytes_;
}

void Engine::Refill(const std::string& queue, const TaskCounts& tasks) {
  deferred_.push_back([this, queue, tasks = TaskCounts(tasks)]() mutable {
    for (auto wanted = tasks.begin(); wanted != tasks.end();) {
      auto& [task, count] = *wanted;
      // What is in memory first. Looked up again and again: refilling takes runs out of it.
      RunId run;
      while (count > 0 && dispatcher_->TakesRefill(queue, task)) {
        const auto resident = spilled_resident_.find(TaskName(queue, task));
        if (resident == spilled_resident_.end()) break;
        const auto next = resident->second.upper_bound(run);
        if (next == resident->second.end()) break;
        run = *next;
        TaskCounts of_it = {{task, count}};
        RefillFrom(*slots_.at(run), queue, &of_it);
        count = of_it.empty() ? 0 : of_it.begin()->second;
      }
      const auto disk = disk_queues_.find(queue);
      const bool there = disk != disk_queues_.end() && disk->second.rows.contains(task);
      wanted = count > 0 && there ? std::next(wanted) : tasks.erase(wanted);
    }
    ScanReady(queue, std::move(tasks), 0);
  });
}

void Engine::ScanReady(const std::string& queue, TaskCounts tasks, store::ShardId visited) {
  std::erase_if(tasks,
                [&](const auto& wanted) { return !dispatcher_->TakesRefill(queue, wanted.first); });
  const auto shards = static_cast<store::ShardId>(shards_.size());
  const auto found = disk_queues_.find(queue);
  if (tasks.empty() || visited > shards || found == disk_queues_.end()) {
    return dispatcher_->RefillDone(queue);
  }
  const DiskQueue& disk = found->second;
  // A floor fits always: what is over the limit for its sake leaves again.
  const size_t most =
      std::min(std::max(LoadsInRoom(), options_.dispatch.ready_floor), kReadyScanMax);
  loads_to_find_ += most;
  env_.background->Run([this, queue, tasks = std::move(tasks), most, shards, visited,
                        shard = disk.cursor_shard, cursor = disk.cursor]() mutable {
    std::vector<RunId> runs;
    TaskCounts wanted = tasks;
    const auto enough = [&] { return wanted.empty() || runs.size() >= most; };
    while (!enough() && visited <= shards) {
      const std::string prefix = keys::ReadyPrefix(shard, queue);
      const std::string begin = cursor.empty() ? prefix : cursor + '\0';
      const absl::Status status = env_.store->rows().Scan(
          begin, keys::PrefixEnd(prefix), [&](std::string_view key, std::string_view value) {
            cursor = std::string(key);
            const auto run = keys::TrailingRun(key);
            if (run && TakeWanted(value, &wanted)) runs.push_back(*run);
            return !enough();
          });
      if (!status.ok()) {
        visited = shards + 1;
        break;
      }
      if (!enough()) {  // this shard has no more: the next one's turn
        shard = (shard + 1) % shards;
        cursor.clear();
        ++visited;
      }
    }
    Post([this, queue, tasks = std::move(tasks), most, runs = std::move(runs), visited, shard,
          cursor = std::move(cursor)]() mutable {
      loads_to_find_ -= most;
      if (const auto at = disk_queues_.find(queue); at != disk_queues_.end()) {
        at->second.cursor_shard = shard;
        at->second.cursor = cursor;
      }
      if (runs.empty()) return dispatcher_->RefillDone(queue);
      struct Ask {
        TaskCounts tasks;
        size_t runs;
      };
      auto ask = std::make_shared<Ask>(Ask{std::move(tasks), runs.size()});
      for (const RunId& run : runs) {
        WithRun(run, [this, queue, ask, visited](Slot* slot, const absl::Status&) {
          if (slot != nullptr) RefillFrom(*slot, queue, &ask->tasks);
          // Rows of executions that are in memory, and have none of it to spare, may have been most
          // of what was found.
          if (--ask->runs == 0) ScanReady(queue, std::move(ask->tasks), visited);
        });
      }
    });
  });
}

}  // namespace flux::engine
