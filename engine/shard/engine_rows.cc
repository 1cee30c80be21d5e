// Memory and disk: loading, flushing, eviction, truncation, and the rows that bring evicted
// executions back.
#include <algorithm>
#include <iterator>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/shard/engine.h"
#include "engine/shard/keys.h"
#include "engine/shard/loader.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr size_t kChunkBytes =
    48 * 1024;  // a history chunk is cut behind the record that passes it
constexpr size_t kSnapshotPageBytes = 48 * 1024;
constexpr size_t kFlushesPerTurn = 4'096;
constexpr int64_t kFlushIntervalMs = 20;
constexpr size_t kFlushAtOnce = 512;
constexpr size_t kFlushesInFlightMax = 4;
constexpr size_t kRowWritesInFlightMax = 4;  // as many bytes as that many writes may have
// Images that are built and not yet acknowledged, and one more: as many bytes as that many writes.
constexpr size_t kRowWritesUnderWayMax = 8;
constexpr size_t kEvictionChecksPerTick = 20'000;
constexpr int64_t kTruncateIntervalMs = 250;
constexpr int64_t kSpaceIntervalMs = 1'000;
constexpr size_t kGivenUpAtOnce = 1'000;

// A ready row's value: the names of the tasks, a 0 between them.
std::string NamesText(const std::set<std::string>& names) {
  return absl::StrJoin(names, absl::string_view("\0", 1));
}

size_t BytesOf(const store::RowBatch& batch) {
  size_t bytes = 0;
  for (const store::KeyValue& put : batch.puts) bytes += put.key.size() + put.value.size();
  for (const std::string& key : batch.deletes) bytes += key.size();
  for (const auto& [begin, end] : batch.delete_ranges) bytes += begin.size() + end.size();
  return bytes;
}

}  // namespace

// ---- slots
// ----------------------------------------------------------------------------------------------------

Slot& Engine::NewSlot(const RunId& run, store::ShardId shard, std::string id_key) {
  auto owned = std::make_unique<Slot>();
  Slot& slot = *owned;
  slot.run = run;
  slot.shard = shard;
  slot.id_key = std::move(id_key);
  slot.lru = lru_.insert(lru_.end(), &slot);
  slot.touched_ms = last_turn_end_ms_;
  slots_[run] = std::move(owned);
  return slot;
}

void Engine::EnterId(Slot& slot) {
  IdEntry& entry = ids_[slot.id_key];
  entry.in_memory.insert(slot.run);
  if (entry.current < slot.run) entry.current = slot.run;
  std::erase_if(entry.runs, [&](const v1::ExecutionSummary& summary) {
    return summary.run_id() == slot.run.Bytes();
  });
}

void Engine::DropIdIfUnused(const std::string& id_key) {
  const auto it = ids_.find(id_key);
  if (it == ids_.end()) return;
  const IdEntry& entry = it->second;
  if (entry.in_memory.empty() && entry.holds == 0 && !entry.loading && entry.waiting.empty()) {
    ids_.erase(it);
  }
}

void Engine::Adopt(Slot& slot, bool recovered) {
  EnterId(slot);
  // A paused run's tasks stand nowhere, whatever became of them before.
  const bool paused = IsPaused(*slot.execution);
  slot.recovered = recovered || paused;
  SendPending(slot);
  if (!paused) {
    for (const StepKey& key : ReadyTasks(*slot.execution)) {
      if (recovered) {
        OfferStep(slot, key, true);
      } else {
        // An evicted run's scheduled steps were with no worker: they lie where ready rows stand for
        // them.
        MarkSpilled(slot, flux::engine::Offer(*slot.execution, key), {.stood_in_rows = true},
                    false);
      }
    }
  }
  Touch(slot);
}

// ---- loading
// --------------------------------------------------------------------------------------------------

void Engine::WithId(const std::string& id_key,
                    absl::AnyInvocable<void(const absl::Status&)> callback) {
  IdEntry& entry = ids_[id_key];
  if (entry.loaded && entry.waiting.empty()) {
    callback(absl::OkStatus());
    return;
  }
  entry.waiting.push_back(std::move(callback));
  if (entry.loading || entry.loaded) return;
  entry.loading = true;
  const size_t split = id_key.find('\0');
  std::string ns = id_key.substr(0, split);
  std::string workflow_id = id_key.substr(split + 1);
  const store::ShardId shard =
      keys::ShardOf(ns, workflow_id, static_cast<uint32_t>(shards_.size()));
  env_.background->Run([this, id_key, shard, ns = std::move(ns),
                        workflow_id = std::move(workflow_id), now = env_.clock->WallMs()] {
    absl::StatusOr<IdRows> rows = LoadId(env_.store->rows(), shard, ns, workflow_id, now);
    Post([this, id_key, rows = std::move(rows)]() mutable {
      IdEntry& found = ids_[id_key];
      found.loading = false;
      if (std::exchange(found.stale, false)) {
        for (auto& each : std::exchange(found.waiting, {})) WithId(id_key, std::move(each));
        return;
      }
      absl::Status status = rows.status();
      if (rows.ok()) {
        found.loaded = true;
        for (auto& [request, run] : rows->requests) {
          found.requests.insert_or_assign(std::move(request), run);
        }
        for (v1::ExecutionSummary& summary : rows->runs) {
          const RunId run = RunId::FromBytes(summary.run_id()).value_or(RunId{});
          if (deletions_.contains(run)) continue;
          if (found.current < run) found.current = run;
          const auto slot = slots_.find(run);
          if (slot != slots_.end() && slot->second->execution) continue;
          const bool known = std::any_of(
              found.runs.begin(), found.runs.end(),
              [&](const v1::ExecutionSummary& s) { return s.run_id() == summary.run_id(); });
          if (!known) found.runs.push_back(std::move(summary));
        }
      }
      if (rows.ok()) return RunIdWaiting(id_key);
      auto waiting = std::exchange(found.waiting, {});
      ++found.holds;
      for (auto& each : waiting) each(status);
      --ids_[id_key].holds;
      DropIdIfUnused(id_key);
    });
  });
}

void Engine::RunIdWaiting(const std::string& id_key) {
  ++ids_[id_key].holds;
  // Looked up again and again: a callback may enter other ids.
  for (IdEntry* entry = &ids_[id_key]; !entry->waiting.empty(); entry = &ids_[id_key]) {
    if (!entry->loaded) {  // a run was deleted meanwhile: the rows are read again
      for (auto& each : std::exchange(entry->waiting, {})) WithId(id_key, std::move(each));
      break;
    }
    auto callback = std::move(entry->waiting.front());
    entry->waiting.pop_front();
    callback(absl::OkStatus());
    if (BatchFull()) {
      deferred_.push_back([this, id_key] { RunIdWaiting(id_key); });
      break;
    }
  }
  --ids_[id_key].holds;
  DropIdIfUnused(id_key);
}

void Engine::WithRun(const RunId& run, SlotCallback callback) {
  const auto it = slots_.find(run);
  if (it != slots_.end()) {
    Slot& slot = *it->second;
    if (slot.execution && slot.waiting.empty()) {
      callback(&slot, absl::OkStatus());
    } else {
      slot.waiting.push_back(std::move(callback));
    }
    return;
  }
  store::ShardId shard = 0;
  if (!ShardOfRun(run, &shard) || deletions_.contains(run)) {
    callback(nullptr, absl::NotFoundError(absl::StrCat("no run ", run.Text())));
    return;
  }
  Slot& slot = NewSlot(run, shard, "");
  slot.waiting.push_back(std::move(callback));
  load_queue_.push_back(run);
  PumpLoads();
}

void Engine::PumpLoads() {
  while (!load_queue_.empty() && loads_in_flight_ < options_.loads_in_flight_max) {
    const RunId run = load_queue_.front();
    load_queue_.pop_front();
    ++loads_in_flight_;
    ++counters_.loads;
    store::ShardId shard = 0;
    ShardOfRun(run, &shard);
    env_.background->Run([this, run, shard] {
      absl::StatusOr<std::optional<LoadedRun>> loaded =
          LoadRun(env_.store->rows(), *definitions_, shard, run);
      absl::Status status = loaded.status();
      v1::RunRoot root;
      std::optional<Execution> execution;
      if (loaded.ok()) {
        if (*loaded) {
          root = std::move((*loaded)->root);
          execution.emplace(std::move((*loaded)->execution));
        } else {
          status = absl::NotFoundError(absl::StrCat("no run ", run.Text()));
        }
      }
      Post([this, run, status = std::move(status), root = std::move(root),
            execution = std::move(execution)]() mutable {
        LoadDone(run, std::move(status), std::move(root), std::move(execution));
      });
    });
  }
}

void Engine::LoadDone(const RunId& run, absl::Status status, v1::RunRoot root,
                      std::optional<Execution> execution) {
  --loads_in_flight_;
  const auto it = slots_.find(run);
  if (it == slots_.end() || it->second->execution) return;
  Slot& slot = *it->second;
  if (!execution) {
    if (!absl::IsNotFound(status)) Log(3, status.ToString());
    auto waiting = std::exchange(slot.waiting, {});
    lru_.erase(slot.lru);
    slots_.erase(it);
    for (SlotCallback& callback : waiting) callback(nullptr, status);
    return;
  }
  slot.root = std::move(root);
  slot.execution = std::move(execution);
  slot.id_key =
      absl::StrCat(slot.root.namespace_(), absl::string_view("\0", 1), slot.root.workflow_id());
  Adopt(slot, false);
  for (const auto& [name, count] : slot.spilled_names) {
    const auto disk = disk_queues_.find(name.first);
    if (disk == disk_queues_.end()) continue;
    std::map<std::string, int64_t>& rows = disk->second.rows;
    const auto counted = rows.find(name.second);
    if (counted != rows.end() && --counted->second == 0) rows.erase(counted);
    if (rows.empty()) disk_queues_.erase(disk);
  }
  loaded_bytes_ = (7 * loaded_bytes_ + slot.memory_bytes) / 8;
  RunWaiting(run);
  PumpLoads();
}

void Engine::RunWaiting(const RunId& run) {
  const auto it = slots_.find(run);
  if (it == slots_.end() || !it->second->execution) return;  // deleted, and they were told
  Slot& slot = *it->second;
  while (!slot.waiting.empty()) {
    SlotCallback callback = std::move(slot.waiting.front());
    slot.waiting.pop_front();
    callback(&slot, absl::OkStatus());
    if (BatchFull()) {
      deferred_.push_back([this, run] { RunWaiting(run); });
      return;
    }
  }
}

// ---- pins: what the rows lack
// -----------------------------------------------------------------------------------

void Engine::Pin(Slot& slot, store::Lsn lsn) {
  std::list<Slot*>& pins = shards_[slot.shard].pins;
  auto at = pins.end();
  while (at != pins.begin() && (*std::prev(at))->first_unflushed_lsn > lsn) --at;
  slot.first_unflushed_lsn = lsn;
  slot.pin = pins.insert(at, &slot);
}

void Engine::Unpin(Slot& slot) {
  if (slot.first_unflushed_lsn == 0) return;
  shards_[slot.shard].pins.erase(slot.pin);
  slot.first_unflushed_lsn = 0;
}

// ---- flushing
// ---------------------------------------------------------------------------------------------------

bool Engine::Evictable(const Slot& slot) const {
  if (!slot.execution || !slot.waiting.empty() || HasOutbox(*slot.execution)) return false;
  if (slot.execution->closed()) return true;
  if (dispatcher_->InFlight(slot.run)) return false;
  return IsPaused(*slot.execution) || ReadyTasks(*slot.execution).size() == slot.spilled.size();
}

// Do the rows say all that must be true of the run once it is gone from memory?
bool Engine::RowsFit(const Slot& slot) const {
  if (!slot.tail.empty() || slot.flushed() != slot.execution->ordinal()) return false;
  if (slot.execution->closed()) return slot.root.closed() && !slot.root.active();
  std::set<std::string> queues, standing;
  for (const auto& [name, count] : slot.spilled_names) queues.insert(name.first);
  for (const v1::ReadyMark& mark : slot.root.ready()) standing.insert(mark.queue());
  return !slot.root.active() && queues == standing && DueMs(slot) == slot.root.wake_due_ms();
}

void Engine::QueueFlush(Slot& slot, bool evict) {
  slot.evict = slot.evict || evict;
  if (slot.flush_queued || slot.flushing) return;
  slot.flush_queued = true;
  flush_queue_.push_back(slot.run);
}

// Taken at a batch boundary: the images belong to the batch that is about to be submitted and leave
// when it is durable.
void Engine::BuildFlushes() {
  if (flush_queue_.empty() || flushes_in_flight_ >= kFlushesInFlightMax ||
      row_bytes_under_way_ >= kRowWritesUnderWayMax * options_.row_write_bytes_max) {
    return;
  }
  if (flush_queue_.size() < kFlushAtOnce && last_turn_end_ms_ - last_flush_ms_ < kFlushIntervalMs) {
    return;
  }
  last_flush_ms_ = last_turn_end_ms_;
  Flush flush;
  size_t taken = 0;
  // The image that passes the limit is the last one: there may be no smaller ones.
  while (taken < std::min(flush_queue_.size(), kFlushesPerTurn) &&
         row_bytes_under_way_ + flush.bytes <
             kRowWritesUnderWayMax * options_.row_write_bytes_max) {
    const auto it = slots_.find(flush_queue_[taken++]);
    if (it == slots_.end()) continue;
    Slot& slot = *it->second;
    slot.flush_queued = false;
    if (!slot.execution || slot.flushing) continue;
    BuildFlush(slot, slot.evict && Evictable(slot), flush);
  }
  flush_queue_.erase(flush_queue_.begin(), flush_queue_.begin() + static_cast<ptrdiff_t>(taken));
  if (!flush.runs.empty()) QueueRows(std::move(flush));
}

void Engine::QueueRows(Flush flush) {
  flush.bytes = 0;
  for (const store::RowBatch& batch : flush.batches) flush.bytes += BytesOf(batch);
  counters_.row_bytes += flush.bytes;
  row_bytes_under_way_ += flush.bytes;
  outputs_.flushes.push_back(std::move(flush));
}

void Engine::SendRows() {
  while (!row_queue_.empty() &&
         row_bytes_in_flight_ < kRowWritesInFlightMax * options_.row_write_bytes_max) {
    Flush& flush = row_queue_.front();
    std::vector<store::RowBatch> batches;
    size_t bytes = 0;
    do {
      store::RowBatch& batch = flush.batches[flush.next_batch++];
      bytes += BytesOf(batch);
      batches.push_back(std::move(batch));
    } while (flush.next_batch < flush.batches.size() && bytes < options_.row_write_bytes_max);
    std::optional<Flush> done;
    if (flush.next_batch == flush.batches.size()) {
      flush.batches.clear();
      done = std::move(flush);
      row_queue_.pop_front();
    }
    row_bytes_in_flight_ += bytes;
    env_.store->rows().Write(std::move(batches), [this, bytes, done = std::move(done)](
                                                     const absl::Status& status) mutable {
      Post([this, bytes, done = std::move(done), status]() mutable {
        RowsWritten(bytes, std::move(done), status);
      });
    });
  }
}

void Engine::RowsWritten(size_t bytes, std::optional<Flush> done, const absl::Status& status) {
  row_bytes_in_flight_ -= bytes;
  row_bytes_under_way_ -= bytes;
  if (!status.ok()) {
    Fatal(status);
    return;
  }
  // What it goes on with leaves before what its end brings.
  SendRows();
  if (done) Flushed(done->runs, done->removed);
}

void Engine::BuildFlush(Slot& slot, bool evicting, Flush& flush) {
  const Execution& execution = *slot.execution;
  const uint64_t ordinal = execution.ordinal();
  const v1::ExecutionStarted& started = execution.started();
  const v1::ExecutionSummary summary = Summarize(execution);

  // One batch per shard as long as it stays small; the root row goes with the last piece (rule 9).
  store::RowBatch* batch = nullptr;
  for (store::RowBatch& candidate : flush.batches) {
    if (candidate.shard == slot.shard) batch = &candidate;
  }
  size_t bytes = batch == nullptr ? 0 : BytesOf(*batch);
  const auto next_batch = [&] {
    batch = &flush.batches.emplace_back();
    batch->shard = slot.shard;
    batch->epoch = shards_[slot.shard].epoch;
    bytes = 0;
  };
  if (batch == nullptr || bytes > kRowBatchTarget) next_batch();
  const auto put = [&](std::string key, std::string value) {
    if (bytes > kRowBatchTarget) next_batch();
    bytes += key.size() + value.size();
    flush.bytes += key.size() + value.size();
    batch->puts.push_back({std::move(key), std::move(value)});
  };

  v1::RunRoot root = slot.root;
  root.set_namespace_(started.namespace_());
  root.set_workflow_id(started.workflow_id());
  // Of the graph that the snapshot is read with.
  if (root.definition_hash().empty()) root.set_definition_hash(started.definition_hash());
  root.set_start_time_ms(summary.start_time_ms());
  root.set_flushed_ordinal(ordinal);
  root.set_closed(execution.closed());

  v1::HistoryChunk chunk;
  size_t chunk_bytes = 0;
  uint64_t next = slot.flushed() + 1;
  const auto cut = [&] {
    if (chunk.records_size() == 0) return;
    put(keys::History(slot.shard, slot.run, chunk.first_ordinal()), chunk.SerializeAsString());
    chunk.Clear();
    chunk_bytes = 0;
  };
  for (const std::string& record : slot.tail) {
    if (chunk.records_size() == 0) chunk.set_first_ordinal(next);
    chunk.add_records(record);
    chunk_bytes += record.size();
    if (next % kHistoryCut == 0 || chunk_bytes >= kChunkBytes) cut();
    ++next;
  }
  cut();

  store::RowBatch unneeded;  // once the new root stands
  if (ordinal - root.snapshot_ordinal() >=
      std::max(LiveEntries(execution), options_.snapshot_records_min)) {
    const std::string image = SaveSnapshot(execution);
    uint32_t pages = 0;
    for (size_t at = 0; at < image.size(); at += kSnapshotPageBytes) {
      put(keys::Snapshot(slot.shard, slot.run, ordinal, pages++),
          image.substr(at, kSnapshotPageBytes));
    }
    const uint64_t before = root.snapshot_ordinal();
    root.set_snapshot_ordinal(ordinal);
    root.set_snapshot_pages(pages);
    root.set_snapshot_bytes(image.size());
    root.set_definition_hash(execution.graph().hash());
    const bool was_base = IsBase(root, before);
    MoveBase(options_.history, execution, image, slot.shard, slot.run, &root, &unneeded);
    // A crash may have cut one short behind it, which no root names.
    const bool keep = before == 0 || was_base;
    if (!keep || slot.recovered) {
      unneeded.delete_ranges.emplace_back(
          keys::SnapshotPrefix(slot.shard, slot.run, keep ? before + 1 : before),
          keys::SnapshotPrefix(slot.shard, slot.run, ordinal));
    }
    ++counters_.snapshots;
  }

  // The rest in one batch: no crash leaves the rows that find a run, the index, its counts and the
  // root apart.
  if (bytes > kRowBatchTarget / 2) next_batch();
  // Wake rows: only what differs from what stands.
  const int64_t due = DueMs(slot);
  if (due != root.wake_due_ms()) {
    if (root.wake_due_ms() != 0) {
      batch->deletes.push_back(keys::Wake(slot.shard, root.wake_due_ms(), slot.run));
    }
    if (due != 0) put(keys::Wake(slot.shard, due, slot.run), "");
    root.set_wake_due_ms(due);
  }
  struct Ready {
    int64_t since = INT64_MAX;
    std::set<std::string> tasks;
  };
  std::map<std::string, Ready> ready;  // by queue
  bool active = false;
  if (!execution.closed()) {
    if (evicting) {
      for (const auto& [key, step] : slot.spilled) {
        Ready& entry = ready[step.name->first];
        entry.since = std::min(entry.since, flux::engine::Offer(execution, key).scheduled_ms);
        entry.tasks.insert(step.name->second);
      }
    } else {
      active = !ReadyTasks(execution).empty();
    }
  }
  // After a restart its messages must be sent again.
  active = active || HasOutbox(execution);
  for (const v1::ReadyMark& mark : root.ready()) {
    const auto kept = ready.find(mark.queue());
    if (kept == ready.end() || kept->second.since != mark.since_ms()) {
      batch->deletes.push_back(keys::Ready(slot.shard, mark.queue(), mark.since_ms(), slot.run));
    }
  }
  root.clear_ready();
  for (const auto& [queue, entry] : ready) {
    v1::ReadyMark* mark = root.add_ready();
    mark->set_queue(queue);
    mark->set_since_ms(entry.since);
    put(keys::Ready(slot.shard, queue, entry.since, slot.run), NamesText(entry.tasks));
  }
  if (active != root.active()) {
    if (active) {
      put(keys::Active(slot.shard, slot.run), "");
    } else {
      batch->deletes.push_back(keys::Active(slot.shard, slot.run));
    }
    root.set_active(active);
  }

  if (slot.flushed() == 0 || execution.closed() || ordinal != slot.flushed()) {
    batch->puts.push_back(
        {keys::Current(slot.shard, started.namespace_(), started.workflow_id(), slot.run),
         summary.SerializeAsString()});
    IndexSlot(slot, summary, root, flush, static_cast<size_t>(batch - flush.batches.data()));
  }
  batch->puts.push_back({keys::Root(slot.shard, slot.run), root.SerializeAsString()});
  std::move(unneeded.delete_ranges.begin(), unneeded.delete_ranges.end(),
            std::back_inserter(batch->delete_ranges));
  std::move(unneeded.deletes.begin(), unneeded.deletes.end(), std::back_inserter(batch->deletes));

  slot.sent_root = std::move(root);
  slot.flushing = true;
  slot.next_unflushed_lsn = 0;
  flush.runs.emplace_back(slot.run, ordinal);
  ++counters_.flushes;
}

void Engine::Flushed(const std::vector<std::pair<RunId, uint64_t>>& runs,
                     const std::vector<RunId>& removed) {
  --flushes_in_flight_;
  for (const RunId& run : removed) RowsRemoved(run);
  for (const auto& [run, ordinal] : runs) {
    if (auto waiting = after_flush_.find(run); waiting != after_flush_.end()) {
      for (auto& job : waiting->second) deferred_.push_back(std::move(job));
      after_flush_.erase(waiting);
    }
    const auto it = slots_.find(run);
    if (it == slots_.end()) continue;
    Slot& slot = *it->second;
    slot.flushing = false;
    for (uint64_t flushed = slot.flushed(); flushed < ordinal && !slot.tail.empty(); ++flushed) {
      slot.tail.pop_front();
    }
    slot.root = std::move(slot.sent_root);
    Unpin(slot);
    if (slot.next_unflushed_lsn != 0) {
      Pin(slot, std::exchange(slot.next_unflushed_lsn, 0));
      if (slot.evict) QueueFlush(slot, true);
      continue;
    }
    if (!slot.evict) continue;
    slot.evict = false;
    if (RowsFit(slot) && Evictable(slot)) Evict(slot);
  }
}

void Engine::Evict(Slot& slot) {
  ++counters_.evictions;
  const std::string id_key = slot.id_key;
  IdEntry& entry = ids_[id_key];
  if (entry.loaded) {
    entry.runs.insert(entry.runs.begin(), Summarize(*slot.execution));
    const int64_t now = env_.clock->WallMs();
    while (!RequestIsKept(entry.runs.back(), entry.runs.size() - 1, now)) entry.runs.pop_back();
  }
  entry.stale = entry.stale || entry.loading;  // what is being read may lack it
  entry.in_memory.erase(slot.run);
  if (slot.timer_ms != 0 && slot.timer_ms >= wakes_scanned_ms_) {
    timers_.erase({slot.timer_ms, slot.run});  // a later scan of the wake rows finds it
  }
  for (const auto& [name, count] : slot.spilled_names) {
    ++disk_queues_[name.first].rows[name.second];
    LeaveSpilledResident(slot.run, name);
  }
  cache_bytes_ -= slot.memory_bytes;
  lru_.erase(slot.lru);
  slots_.erase(slot.run);
  DropIdIfUnused(id_key);
}

// ---- housekeeping
// -------------------------------------------------------------------------------------------------

void Engine::Housekeep() {
  const int64_t now = last_turn_end_ms_;
  // Idle executions leave; under memory pressure, whatever can.
  const int64_t idle_before = now - absl::ToInt64Milliseconds(options_.idle_before_eviction);
  size_t checks = std::min(kEvictionChecksPerTick, lru_.size());
  size_t leaving = 0;  // bytes of those whose rows are under way
  auto it = lru_.begin();
  for (; it != lru_.end() && checks > 0; --checks) {
    Slot& slot = **it;
    const auto next = std::next(it);
    const bool pressed = cache_bytes_ > options_.cache_bytes_max + leaving;
    if (!pressed && slot.touched_ms > idle_before) break;
    const bool settled = slot.execution && !slot.flush_queued && !slot.flushing;
    const bool evictable = settled && Evictable(slot);
    if (evictable && RowsFit(slot)) {
      Evict(slot);
    } else {
      if (evictable) {
        QueueFlush(slot, true);
      } else if (settled) {
        slot.touched_ms = now;  // looked at again when it has been idle as long once more
        lru_.splice(lru_.end(), lru_, it);
      }
      if (slot.evict) leaving += slot.memory_bytes;
    }
    it = next;
    if (flush_queue_.size() > 2 * kFlushesPerTurn) break;
  }
  // What is queued, the last in turn first.
  if (cache_bytes_ > options_.cache_bytes_max + leaving &&
      flush_queue_.size() <= 2 * kFlushesPerTurn) {
    for (const RunId& run : dispatcher_->Surplus(kGivenUpAtOnce)) {
      if (cache_bytes_ <= options_.cache_bytes_max + leaving) break;
      const auto known = slots_.find(run);
      if (known == slots_.end() || !known->second->execution) continue;
      Slot& slot = *known->second;
      if (slot.evict || slot.flushing || !GiveUpQueued(slot)) continue;
      QueueFlush(slot, true);
      leaving += slot.memory_bytes;
    }
  }

  // A log tail that grows long is shortened by writing out what holds it.
  if (tail_bytes_ > options_.log_tail_bytes_max / 2) {
    for (Shard& shard : shards_) {
      if (shard.pins.empty()) continue;
      const store::Lsn oldest = shard.pins.front()->first_unflushed_lsn;
      const store::Lsn until =
          oldest + (shard.durable_lsn - std::min(oldest, shard.durable_lsn)) / 2;
      for (Slot* slot : shard.pins) {
        if (slot->first_unflushed_lsn > until) break;
        QueueFlush(*slot, false);
      }
    }
  }
  if (now - last_truncate_ms_ >= kTruncateIntervalMs) {
    last_truncate_ms_ = now;
    TruncateLogs();
  }
  // Asked for what it does, not for its answer: it gives the ballast back as the space ends, and
  // results, which ask nothing, fill a disk by themselves (rule 15).
  if (now - last_space_check_ms_ >= kSpaceIntervalMs) {
    last_space_check_ms_ = now;
    (void)env_.store->BelowReserve();
    if (histories_->HasOldCursors()) {
      env_.background->Run([this] { histories_->DropOldCursors(); });
    }
  }
  WatchClock();
  ScanWakes();
  PumpBulks();
  SweepRetention();
  ForgetDeletions();
  ForgetRequests();
}

void Engine::TruncateLogs() {
  for (Shard& shard : shards_) {
    if (shard.truncating) continue;
    store::Lsn through = shard.durable_lsn;
    if (!shard.pins.empty()) {
      through = std::min(through, shard.pins.front()->first_unflushed_lsn - 1);
    }
    if (through <= shard.truncated) continue;
    shard.truncating = true;
    ++counters_.truncations;
    env_.background->Run([this, id = shard.id, epoch = shard.epoch, through] {
      absl::Status status = env_.store->log().Truncate(id, epoch, through);
      Post([this, id, through, status] {
        Shard& done = shards_[id];
        done.truncating = false;
        if (!status.ok()) {
          Fatal(status);
          return;
        }
        done.truncated = through;
        while (!done.sizes.empty() && done.sizes.front().first <= through) {
          tail_bytes_ -= done.sizes.front().second;
          done.sizes.pop_front();
        }
      });
    });
  }
}

void Engine::ScanWakes() {
  const int64_t wall = env_.clock->WallMs();
  const int64_t horizon = absl::ToInt64Milliseconds(options_.wake_horizon);
  if (wake_scan_running_ || wall + horizon / 2 < wakes_scanned_ms_) return;
  wake_scan_running_ = true;
  const int64_t until = wall + horizon;
  // From now on an eviction leaves its timer in memory if it is due before the new horizon.
  wakes_scanned_ms_ = until;
  env_.background->Run([this, until] {
    std::vector<std::pair<int64_t, RunId>> due;
    absl::Status status;
    for (const Shard& shard : shards_) {
      const auto [begin, end] = keys::TableRange(shard.id, keys::Table::kWake);
      status = env_.store->rows().Scan(begin, keys::WakeUntil(shard.id, until),
                                       [&](std::string_view key, std::string_view) {
                                         if (auto run = keys::TrailingRun(key)) {
                                           due.emplace_back(keys::WakeDue(key), *run);
                                         }
                                         return true;
                                       });
      if (!status.ok()) break;
    }
    Post([this, status, due = std::move(due)] {
      wake_scan_running_ = false;
      if (!status.ok()) {
        Log(3, absl::StrCat("timers on disk cannot be read: ", status.ToString()));
        wakes_scanned_ms_ = 0;
        return;
      }
      for (const auto& [when, run] : due) {
        const auto it = slots_.find(run);
        if (it == slots_.end() || !it->second->execution) timers_.insert({when, run});
      }
    });
  });
}

}  // namespace flux::engine
