// From disk to a running loop: claim the shards, replay the log over the rows, offer what was
// scheduled.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/shard/engine.h"
#include "engine/shard/history.h"
#include "engine/shard/keys.h"
#include "engine/shard/loader.h"
#include "proto/bridge.h"

namespace flux::engine {

absl::Status Engine::Recover() {
  const int64_t began_ms = env_.clock->MonotonicMs();
  start_wall_ms_ = last_wall_ms_ = env_.clock->WallMs();
  last_turn_end_ms_ = planned_wake_ms_ = start_monotonic_ms_ = began_ms;
  incarnation_ = env_.store->incarnation();
  const uint32_t count = env_.store->shards();
  shards_.resize(count);
  std::vector<store::ShardClaim> claims(count);
  for (uint32_t id = 0; id < count; ++id) {
    FLUX_ASSIGN_OR_RETURN(claims[id], env_.store->log().Claim(id));
    Shard& shard = shards_[id];
    shard.id = id;
    shard.epoch = claims[id].epoch;
    shard.durable_lsn = claims[id].last_lsn;
    shard.next_lsn = claims[id].last_lsn + 1;
    shard.truncated = claims[id].first_lsn - 1;
  }
  FLUX_RETURN_IF_ERROR(LoadClock());
  definitions_ = std::make_unique<Definitions>(
      env_.store, shards_[0].epoch, options_.graph,
      [this](absl::Status status) { Post([this, status = std::move(status)] { Fatal(status); }); });
  FLUX_RETURN_IF_ERROR(definitions_->Load());
  histories_ = std::make_unique<Histories>(
      env_.store, definitions_.get(),
      Histories::Limits{options_.history_page_bytes, options_.answer_bytes_max},
      [clock = env_.clock] { return clock->MonotonicMs(); });

  DispatchOptions dispatch = options_.dispatch;
  dispatch.incarnation = incarnation_;
  dispatch.version = options_.version;
  dispatch.payload_bytes_max = options_.payload_bytes_max;
  dispatcher_ = std::make_unique<Dispatcher>(std::move(dispatch), this);

  std::vector<v1::SessionChange> sessions;
  absl::Status bad;
  const auto [begin, end] = keys::TableRange(0, keys::Table::kSession);
  std::vector<std::string> closed;
  FLUX_RETURN_IF_ERROR(
      env_.store->rows().Scan(begin, end, [&](std::string_view key, std::string_view value) {
        v1::SessionChange session;
        if (!session.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          bad = absl::DataLossError("a session row cannot be parsed");
          return false;
        }
        if (session.closed()) {
          closed.emplace_back(key);
        } else {
          sessions.push_back(std::move(session));
        }
        return true;
      }));
  FLUX_RETURN_IF_ERROR(bad);
  for (size_t done = 0; done < closed.size();) {
    store::RowBatch batch;
    batch.epoch = shards_[0].epoch;
    for (size_t bytes = 0; done < closed.size() && bytes < kRowBatchTarget; ++done) {
      bytes += closed[done].size();
      batch.deletes.push_back(std::move(closed[done]));
    }
    FLUX_RETURN_IF_ERROR(env_.store->rows().WriteSync(std::move(batch)));
  }

  FLUX_RETURN_IF_ERROR(OpenIndex());
  FLUX_RETURN_IF_ERROR(LoadBulks());
  uint64_t records = 0;
  for (Shard& shard : shards_) FLUX_RETURN_IF_ERROR(RecoverShard(shard, &records));
  FLUX_RETURN_IF_ERROR(CountReady());

  dispatcher_->Restore(sessions, Now());
  uint64_t open = 0;
  std::vector<Slot*> adopted;
  for (auto& [run, slot] : slots_) adopted.push_back(slot.get());
  // By run id, i.e. by age: offers are made in an order that does not depend on a hash.
  std::sort(adopted.begin(), adopted.end(),
            [](const Slot* a, const Slot* b) { return a->run < b->run; });
  for (Slot* slot : adopted) {
    Adopt(*slot, true);
    if (slot->execution->closed()) {
      if (slot->first_unflushed_lsn != 0) QueueFlush(*slot, true);
    } else {
      ++open;
    }
  }
  ResumeDeletions();
  const int64_t took = env_.clock->MonotonicMs() - began_ms;
  last_turn_end_ms_ = planned_wake_ms_ = env_.clock->MonotonicMs();
  Log(1, absl::StrCat("recovered ", records, " log records, ", open, " open executions in memory, ",
                      sessions.size(), " worker sessions, in ", took, " ms"));
  return absl::OkStatus();
}

absl::Status Engine::RecoverShard(Shard& shard, uint64_t* count) {
  FLUX_RETURN_IF_ERROR(LoadTombstones(shard));
  // Executions whose tasks may be in a worker's hands, though their log entries are gone.
  std::vector<RunId> active;
  {
    const auto [begin, end] = keys::TableRange(shard.id, keys::Table::kActive);
    FLUX_RETURN_IF_ERROR(
        env_.store->rows().Scan(begin, end, [&](std::string_view key, std::string_view) {
          const std::optional<RunId> run = keys::TrailingRun(key);
          if (run && !deletions_.contains(*run)) active.push_back(*run);
          return true;
        }));
  }
  // Ready rows of a version that did not write names into them: nobody would ask for those.
  std::vector<RunId> nameless;
  {
    const auto [begin, end] = keys::TableRange(shard.id, keys::Table::kReady);
    FLUX_RETURN_IF_ERROR(
        env_.store->rows().Scan(begin, end, [&](std::string_view key, std::string_view names) {
          const std::optional<RunId> run = keys::TrailingRun(key);
          if (names.empty() && run && !deletions_.contains(*run)) nameless.push_back(*run);
          return true;
        }));
  }
  active.insert(active.end(), nameless.begin(), nameless.end());
  absl::flat_hash_map<RunId, uint64_t>
      finished;  // closed in the rows already, and up to which record
  const auto resident = [&](const RunId& run) -> absl::StatusOr<Slot*> {
    if (const auto it = slots_.find(run); it != slots_.end()) return it->second.get();
    FLUX_ASSIGN_OR_RETURN(std::optional<LoadedRun> loaded,
                          LoadRun(env_.store->rows(), *definitions_, shard.id, run));
    Slot& slot = NewSlot(run, shard.id, "");
    if (loaded) {
      slot.root = std::move(loaded->root);
      slot.execution.emplace(std::move(loaded->execution));
    }
    return &slot;
  };
  for (const RunId& run : active) FLUX_RETURN_IF_ERROR(resident(run).status());

  absl::Status bad;
  FLUX_RETURN_IF_ERROR(env_.store->log().Read(
      shard.id, shard.truncated + 1, [&](store::Lsn lsn, std::string_view bytes) {
        v1::LogBatch batch;
        if (!batch.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
          bad = absl::DataLossError(absl::StrCat("log entry ", lsn, " of shard ", shard.id,
                                                 " passes its checksum but cannot be parsed"));
          return false;
        }
        shard.sizes.emplace_back(lsn, bytes.size());
        tail_bytes_ += bytes.size();
        for (const v1::LogRecords& records : batch.executions()) {
          const std::optional<RunId> run = RunId::FromBytes(records.run_id());
          if (!run) {
            bad = absl::DataLossError(
                absl::StrCat("log entry ", lsn, " of shard ", shard.id, " names no run"));
            return false;
          }
          if (records.records_size() == 0 || deletions_.contains(*run)) continue;
          absl::StatusOr<Slot*> found = resident(*run);
          if (!found.ok()) {
            bad = found.status();
            return false;
          }
          Slot& slot = **found;
          slot.last_lsn = lsn;
          uint64_t ordinal = records.first_ordinal();
          for (const std::string& record : records.records()) {
            const uint64_t have = slot.execution ? slot.execution->ordinal() : 0;
            if (ordinal > have + 1) {
              bad = absl::DataLossError(absl::StrCat("log entry ", lsn, " of shard ", shard.id,
                                                     ": run ", run->Text(), " goes on at record ",
                                                     ordinal, " but is known only up to ", have));
              return false;
            }
            if (ordinal == have + 1) {
              bad = Replay(*definitions_, BlobsOf(env_.store->rows(), shard.id, *run), *run,
                           {record}, slot.execution);
              if (!bad.ok()) return false;
              slot.tail.push_back(record);
              ++*count;
              if (slot.first_unflushed_lsn == 0) Pin(slot, lsn);
            }
            ++ordinal;
          }
        }
        return true;
      }));
  FLUX_RETURN_IF_ERROR(bad);
  for (auto it = lru_.begin(); it != lru_.end(); ++it) {
    Slot& slot = **it;
    if (slot.shard != shard.id || !slot.id_key.empty()) continue;
    const v1::ExecutionStarted& started = slot.execution->started();
    slot.id_key =
        absl::StrCat(started.namespace_(), absl::string_view("\0", 1), started.workflow_id());
  }
  for (const RunId& run : nameless) {  // those rows go
    if (const auto it = slots_.find(run); it != slots_.end()) QueueFlush(*it->second, false);
  }
  return absl::OkStatus();
}

absl::Status Engine::CountReady() {
  for (const Shard& shard : shards_) {
    const auto [begin, end] = keys::TableRange(shard.id, keys::Table::kReady);
    FLUX_RETURN_IF_ERROR(
        env_.store->rows().Scan(begin, end, [&](std::string_view key, std::string_view names) {
          const std::string_view queue = key.substr(3, key.find('\0', 3) - 3);
          const std::optional<RunId> run = keys::TrailingRun(key);
          // Loaded ones offer their work themselves.
          if (!run || slots_.contains(*run) || deletions_.contains(*run)) return true;
          dispatcher_->SetSpilled(std::string(queue), +1);
          for (const absl::string_view name : absl::StrSplit(ToAbsl(names), '\0')) {
            ++disk_queues_[std::string(queue)].rows[std::string(name)];
          }
          return true;
        }));
  }
  for (const auto& [queue, disk] : disk_queues_) {
    for (const auto& [task, rows] : disk.rows) dispatcher_->SetTaskSpilled(queue, task, rows);
  }
  return absl::OkStatus();
}

}  // namespace flux::engine
