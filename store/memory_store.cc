#include "store/memory_store.h"

#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::store {

using Lock = std::unique_lock<std::recursive_mutex>;

// ---- MemoryDisk
// ------------------------------------------------------------------------------------------

MemoryDisk::MemoryDisk(MemoryDiskOptions options)
    : options_(options), incarnation_(options.incarnation), shards_(options.shards) {}

void MemoryDisk::SetFreeBytes(uint64_t bytes) {
  Lock lock(mutex_);
  bytes_free_ = bytes;
}

void MemoryDisk::RaiseIncarnation() {
  Lock lock(mutex_);
  ++incarnation_;
}

bool MemoryDisk::DamageEntry(ShardId shard, Lsn lsn) {
  Lock lock(mutex_);
  auto found = shards_.at(shard).entries.find(lsn);
  if (found == shards_[shard].entries.end()) return false;
  found->second.damaged = true;
  return true;
}

bool MemoryDisk::LoseEntry(ShardId shard, Lsn lsn) {
  Lock lock(mutex_);
  return shards_.at(shard).entries.erase(lsn) == 1;
}

size_t MemoryDisk::UnsyncedWrites() {
  Lock lock(mutex_);
  return unsynced_.size();
}

// ---- opening, closing, crashing
// ----------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<MemoryStore>> MemoryStore::Open(std::shared_ptr<MemoryDisk> disk,
                                                               MemoryOptions options) {
  Lock lock(disk->mutex_);
  if (disk->open_) {
    return absl::FailedPreconditionError("another store has this memory disk open; close it first");
  }
  if (!std::has_single_bit(disk->options_.shards) || disk->options_.shards > kShardsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "shards is ", disk->options_.shards, "; it must be a power of two up to ", kShardsMax));
  }
  disk->open_ = true;
  auto store = std::unique_ptr<MemoryStore>(new MemoryStore(disk, options));
  if (!options.manual) store->thread_ = std::thread([raw = store.get()] { raw->Run(); });
  return store;
}

MemoryStore::MemoryStore(std::shared_ptr<MemoryDisk> disk, MemoryOptions options)
    : disk_(std::move(disk)),
      options_(options),
      nonce_state_(options.seed),
      states_(disk_->options_.shards) {
  if (disk_->torn_entries_ > 0) {
    notes_.push_back(absl::StrCat("dropped ", disk_->torn_entries_,
                                  " torn write at the end of the log that was never acknowledged"));
    stats_.entries_dropped_at_open = disk_->torn_entries_;
    disk_->torn_entries_ = 0;
  }
  // What an earlier store wrote and did not sync is durable before anything rests on it.
  disk_->unsynced_.clear();
}

MemoryStore::~MemoryStore() {
  if (thread_.joinable()) {
    {
      Lock lock(disk_->mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  } else {
    while (Step()) {
    }
  }
  Lock lock(disk_->mutex_);
  if (!dead_) {
    disk_->unsynced_.clear();
    disk_->open_ = false;
  }
}

void MemoryStore::Crash(CrashOptions options) {
  Lock lock(disk_->mutex_);
  if (dead_) return;
  for (size_t i = 0; i < options.queued_written && !queue_.empty(); ++i) WriteNext();
  if (options.torn_tail && !queue_.empty() && queue_.front().append_done) {
    disk_->torn_entries_ = queue_.front().entries.size();
  }
  UndoWrites(disk_.get(), options.unsynced_kept);
  queue_.clear();
  completions_.clear();
  dead_ = true;
  disk_->open_ = false;
}

void MemoryStore::UndoWrites(MemoryDisk* disk, size_t keep) {
  while (disk->unsynced_.size() > keep) {
    MemoryDisk::Undo undo = std::move(disk->unsynced_.back());
    disk->unsynced_.pop_back();
    for (auto row = undo.rows.rbegin(); row != undo.rows.rend(); ++row) {
      if (row->second.has_value()) {
        disk->rows_.insert_or_assign(row->first, *std::move(row->second));
      } else {
        disk->rows_.erase(row->first);
      }
    }
    if (undo.shard.has_value()) {
      MemoryDisk::Shard& shard = disk->shards_[undo.shard->first];
      MemoryDisk::Shard& before = undo.shard->second;
      shard.first = before.first;
      shard.seen_last = before.seen_last;
      shard.seen_nonce = before.seen_nonce;
      shard.entries.merge(before.entries);
    }
  }
  disk->unsynced_.clear();
}

// ---- the queue
// -----------------------------------------------------------------------------------------------

void MemoryStore::Enqueue(Item item) {
  {
    Lock lock(disk_->mutex_);
    if (dead_) return;
    item.over_limit = OverQueueLimit(queued_bytes_, item.bytes, options_.queued_bytes_max);
    queued_bytes_ += item.bytes;
    queue_.push_back(std::move(item));
  }
  wake_.notify_one();
}

void MemoryStore::Run() {
  for (;;) {
    {
      Lock lock(disk_->mutex_);
      wake_.wait(lock,
                 [this] { return stopping_ || dead_ || !queue_.empty() || !completions_.empty(); });
      if (dead_ || (queue_.empty() && completions_.empty())) return;
    }
    Step();
  }
}

bool MemoryStore::Step() {
  std::function<void()> completion;
  {
    Lock lock(disk_->mutex_);
    if (completions_.empty() && !queue_.empty()) WriteNext();
    if (completions_.empty()) return false;
    completion = std::move(completions_.front());
    completions_.pop_front();
  }
  completion();
  return true;
}

size_t MemoryStore::Pending() {
  Lock lock(disk_->mutex_);
  return queue_.size() + completions_.size();
}

void MemoryStore::WriteNext() {
  Item item = std::move(queue_.front());
  queue_.pop_front();
  queued_bytes_ -= item.bytes;
  if (item.over_limit) Break(QueueFullStatus(options_.queued_bytes_max));
  if (item.append_done) {
    std::vector<AppendResult> results = ApplyAppend(&item);
    completions_.push_back([done = std::move(item.append_done),
                            results = std::move(results)]() mutable { done(std::move(results)); });
  } else {
    absl::Status status = ApplyRows(&item);
    completions_.push_back(
        [done = std::move(item.write_done), status = std::move(status)] { done(status); });
  }
}

void MemoryStore::WriteQueued() {
  while (!queue_.empty()) WriteNext();
}

absl::Status MemoryStore::WritableStatus() const {
  if (dead_)
    return absl::FailedPreconditionError("the memory store has crashed; open its disk anew");
  if (!broken_.ok()) return StoppedStatus(broken_);
  return absl::OkStatus();
}

void MemoryStore::Break(const absl::Status& cause) {
  if (broken_.ok()) broken_ = cause;
}

// ---- Log
// -----------------------------------------------------------------------------------------------------

absl::StatusOr<ShardClaim> MemoryStore::Claim(ShardId shard) {
  Lock lock(disk_->mutex_);
  FLUX_RETURN_IF_ERROR(CheckShard(shard, shards()));
  WriteQueued();
  FLUX_RETURN_IF_ERROR(WritableStatus());
  MemoryDisk::Shard& disk = disk_->shards_[shard];
  ShardClaim claim;
  claim.epoch = disk.epoch + 1;
  claim.first_lsn = disk.first;
  if (disk.entries.empty()) {
    claim.last_lsn = disk.first - 1;
    claim.last_nonce = disk.seen_last == claim.last_lsn ? disk.seen_nonce : 0;
  } else {
    claim.last_lsn = disk.entries.rbegin()->first;
    claim.last_nonce = disk.entries.rbegin()->second.nonce;
    if (disk.entries.rbegin()->second.damaged) {
      return absl::DataLossError(absl::StrCat("shard ", shard, ": log entry ", claim.last_lsn,
                                              ", the last one, is damaged"));
    }
  }
  if (claim.last_lsn < disk.seen_last) {
    return absl::DataLossError(absl::StrCat("shard ", shard, ": the log ends at lsn ",
                                            claim.last_lsn, " but reached ", disk.seen_last,
                                            " before: it went backwards"));
  }
  if (!disk.entries.empty() && disk.entries.begin()->first != disk.first) {
    return absl::DataLossError(
        absl::StrCat("shard ", shard, ": log entry ", disk.first, ", the first one, is missing"));
  }
  if (disk_->bytes_free_ == 0) {
    Break(absl::ResourceExhaustedError("the disk is full"));
    return broken_;
  }
  disk.epoch = claim.epoch;
  disk.seen_last = claim.last_lsn;
  disk.seen_nonce = claim.last_nonce;
  disk_->unsynced_.clear();
  states_[shard] = {claim.epoch, true, claim.first_lsn, claim.last_lsn, claim.last_nonce};
  return claim;
}

void MemoryStore::Append(std::vector<AppendEntry> entries, AppendCallback done) {
  Item item;
  for (const AppendEntry& entry : entries) item.bytes += EntryBytes(entry);
  item.entries = std::move(entries);
  item.append_done = std::move(done);
  Enqueue(std::move(item));
}

std::vector<AppendResult> MemoryStore::ApplyAppend(Item* item) {
  std::vector<AppendEntry>& entries = item->entries;
  if (entries.empty()) return {};
  absl::Status status = WritableStatus();
  if (status.ok()) status = CheckAppendLimits(entries, shards());
  std::vector<AppendResult> results;
  if (!status.ok()) {
    results = RefuseAll(entries, 0, AppendOutcome::kNotCommitted, status);
  } else {
    results = AdmitAppend(entries, &states_);
  }
  if (results.empty() && disk_->bytes_free_ == 0) {
    status = absl::ResourceExhaustedError("the disk is full");
    results = RefuseAll(entries, 0, AppendOutcome::kNotCommitted, status);
  }
  if (!results.empty()) {
    Break(results.front().status);
    return results;
  }
  disk_->unsynced_.clear();
  ++stats_.appends;
  for (AppendEntry& entry : entries) {
    stats_.appended_bytes += EntryBytes(entry);
    for (RowChange& row : entry.rows) {
      if (row.value.has_value()) {
        disk_->rows_.insert_or_assign(std::move(row.key), *std::move(row.value));
      } else {
        disk_->rows_.erase(row.key);
      }
    }
    AppendResult result;
    result.shard = entry.shard;
    result.lsn = entry.lsn;
    result.nonce = NextNonce(&nonce_state_);
    result.outcome = AppendOutcome::kOk;
    states_[entry.shard].last_nonce = result.nonce;
    disk_->shards_[entry.shard].entries.emplace(
        entry.lsn, MemoryDisk::Entry{result.nonce, std::move(entry.bytes), false});
    results.push_back(std::move(result));
  }
  return results;
}

absl::Status MemoryStore::Read(ShardId shard, Lsn from, const EntryVisitor& visit) {
  Lock lock(disk_->mutex_);
  FLUX_RETURN_IF_ERROR(CheckShard(shard, shards()));
  if (!states_[shard].claimed) {
    return absl::FailedPreconditionError(
        absl::StrCat("shard ", shard, " has not been claimed; claim it before reading its log"));
  }
  const MemoryDisk::Shard& disk = disk_->shards_[shard];
  if (from < disk.first) {
    return absl::DataLossError(absl::StrCat("shard ", shard, ": log entry ", from,
                                            " was truncated; the oldest one held is ", disk.first));
  }
  const Lsn last = states_[shard].last;
  for (Lsn lsn = from; lsn <= last; ++lsn) {
    auto found = disk.entries.find(lsn);
    if (found == disk.entries.end()) {
      return absl::DataLossError(absl::StrCat("shard ", shard, ": log entry ", lsn, " is missing"));
    }
    if (found->second.damaged) {
      return absl::DataLossError(absl::StrCat("shard ", shard, ": log entry ", lsn,
                                              " is damaged: its checksum does not match"));
    }
    if (!visit(lsn, found->second.bytes)) break;
  }
  return absl::OkStatus();
}

absl::Status MemoryStore::Truncate(ShardId shard, Epoch epoch, Lsn through) {
  Lock lock(disk_->mutex_);
  FLUX_RETURN_IF_ERROR(CheckShard(shard, shards()));
  WriteQueued();
  FLUX_RETURN_IF_ERROR(WritableStatus());
  ShardState& state = states_[shard];
  FLUX_RETURN_IF_ERROR(CheckEpoch(state, shard, epoch));
  if (through > state.last) {
    return absl::InvalidArgumentError(absl::StrCat("shard ", shard,
                                                   ": cannot truncate through lsn ", through,
                                                   "; the last one is ", state.last));
  }
  if (through < state.first) return absl::OkStatus();
  MemoryDisk::Shard& disk = disk_->shards_[shard];
  MemoryDisk::Undo undo;
  undo.shard.emplace(
      shard, MemoryDisk::Shard{disk.epoch, disk.first, disk.seen_last, disk.seen_nonce, {}});
  while (!disk.entries.empty() && disk.entries.begin()->first <= through) {
    undo.shard->second.entries.insert(disk.entries.extract(disk.entries.begin()));
  }
  state.first = disk.first = through + 1;
  disk.seen_last = state.last;
  disk.seen_nonce = state.last_nonce;
  disk_->unsynced_.push_back(std::move(undo));
  return absl::OkStatus();
}

// ---- Rows
// ----------------------------------------------------------------------------------------------------

void MemoryStore::Write(std::vector<RowBatch> batches, WriteCallback done) {
  Item item;
  for (const RowBatch& batch : batches) item.bytes += BatchBytes(batch);
  item.batches = std::move(batches);
  item.write_done = std::move(done);
  Enqueue(std::move(item));
}

absl::Status MemoryStore::ApplyRows(Item* item) {
  absl::Status status = WritableStatus();
  for (const RowBatch& batch : item->batches) {
    if (status.ok()) status = CheckShard(batch.shard, shards());
    if (status.ok()) status = CheckEpoch(states_[batch.shard], batch.shard, batch.epoch);
    if (status.ok()) status = CheckBatchLimits(batch);
  }
  if (status.ok() && !item->batches.empty() && disk_->bytes_free_ == 0) {
    status = absl::ResourceExhaustedError("the disk is full");
  }
  if (!status.ok()) {
    Break(status);
    return status;
  }
  if (item->batches.empty()) return status;
  MemoryDisk::Undo undo;
  for (const RowBatch& batch : item->batches) ApplyBatch(batch, &undo);
  disk_->unsynced_.push_back(std::move(undo));
  return status;
}

void MemoryStore::PutRow(const std::string& key, std::string value, MemoryDisk::Undo* undo) {
  auto [row, added] = disk_->rows_.try_emplace(key);
  undo->rows.emplace_back(
      key, added ? std::nullopt : std::optional<std::string>(std::move(row->second)));
  row->second = std::move(value);
}

void MemoryStore::ApplyBatch(const RowBatch& batch, MemoryDisk::Undo* undo) {
  auto& rows = disk_->rows_;
  auto erase = [&](auto row) {
    undo->rows.emplace_back(row->first, std::move(row->second));
    return rows.erase(row);
  };
  for (const auto& [begin, end] : batch.delete_ranges) {
    for (auto row = rows.lower_bound(begin); row != rows.end() && row->first < end;)
      row = erase(row);
  }
  for (const std::string& key : batch.deletes) {
    auto row = rows.find(key);
    if (row != rows.end()) erase(row);
  }
  for (const KeyValue& put : batch.puts) PutRow(put.key, put.value, undo);
}

absl::Status MemoryStore::WriteSync(RowBatch batch) {
  Lock lock(disk_->mutex_);
  WriteQueued();
  FLUX_RETURN_IF_ERROR(WritableStatus());
  FLUX_RETURN_IF_ERROR(CheckShard(batch.shard, shards()));
  FLUX_RETURN_IF_ERROR(CheckEpoch(states_[batch.shard], batch.shard, batch.epoch));
  FLUX_RETURN_IF_ERROR(CheckBatchLimits(batch));
  if (disk_->bytes_free_ == 0) {
    Break(absl::ResourceExhaustedError("the disk is full"));
    return broken_;
  }
  MemoryDisk::Undo undo;
  ApplyBatch(batch, &undo);
  disk_->unsynced_.clear();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::string>> MemoryStore::Get(std::string_view key) {
  FLUX_RETURN_IF_ERROR(CheckKey(key));
  Lock lock(disk_->mutex_);
  auto row = disk_->rows_.find(key);
  if (row == disk_->rows_.end()) return std::nullopt;
  return std::optional<std::string>(row->second);
}

absl::Status MemoryStore::Scan(std::string_view begin, std::string_view end,
                               const RowVisitor& visit) {
  Lock lock(disk_->mutex_);
  for (auto row = disk_->rows_.lower_bound(begin); row != disk_->rows_.end() && row->first < end;
       ++row) {
    if (!visit(row->first, row->second)) break;
  }
  return absl::OkStatus();
}

absl::Status MemoryStore::ScanRanges(const std::vector<std::pair<std::string, std::string>>& ranges,
                                     const RangesVisitor& visit) {
  Lock lock(disk_->mutex_);
  for (size_t i = 0; i < ranges.size(); ++i) {
    Next next = Next::kRow;
    for (auto row = disk_->rows_.lower_bound(ranges[i].first);
         next == Next::kRow && row != disk_->rows_.end() && row->first < ranges[i].second; ++row) {
      next = visit(i, row->first, row->second);
    }
    if (next == Next::kStop) break;
  }
  return absl::OkStatus();
}

// ---- Store
// ---------------------------------------------------------------------------------------------------

uint32_t MemoryStore::incarnation() const {
  Lock lock(disk_->mutex_);
  return disk_->incarnation_;
}

StoreStats MemoryStore::Stats() {
  Lock lock(disk_->mutex_);
  StoreStats stats = stats_;
  stats.bytes_free = disk_->bytes_free_;
  for (const auto& [key, value] : disk_->rows_) stats.bytes_on_disk += key.size() + value.size();
  for (const MemoryDisk::Shard& shard : disk_->shards_) {
    for (const auto& [lsn, entry] : shard.entries) stats.bytes_on_disk += entry.bytes.size();
  }
  return stats;
}

bool MemoryStore::BelowReserve() {
  Lock lock(disk_->mutex_);
  return disk_->bytes_free_ < options_.reserve_bytes;
}

}  // namespace flux::store
