#include "store/rocks_writer.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <array>
#include <chrono>
#include <iterator>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/bridge.h"
#include "rocksdb/slice.h"
#include "store/failpoint.h"

namespace flux::store {
namespace {

// A batch is written once it has this much, however much is queued.
constexpr size_t kWriteBytesSoftMax = 16u << 20;
// A batch buffer that has grown past this is not kept.
constexpr size_t kBatchBytesKept = 1u << 20;
// Less than this in the buffers is not worth a table file when the store falls idle.
constexpr uint64_t kIdleFlushBytesMin = 1u << 20;

rocksdb::Slice ToSlice(std::string_view s) { return {s.data(), s.size()}; }
template <size_t N>
rocksdb::Slice ToSlice(const std::array<char, N>& bytes) {
  return {bytes.data(), bytes.size()};
}
std::string_view FromSlice(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

uint64_t RandomSeed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

absl::Status InjectedFault(std::string_view name) {
  return absl::UnavailableError(absl::StrCat("injected fault: ", ToAbsl(name)));
}

}  // namespace

RocksWriter::RocksWriter(RocksDatabase* database, RocksReclaim* reclaim, Options options)
    : database_(database),
      reclaim_(reclaim),
      options_(std::move(options)),
      states_(options_.shards),
      nonce_state_(RandomSeed()),
      public_states_(options_.shards) {
  auto chunks = std::unique_ptr<rocksdb::Iterator>(
      database_->db()->NewIterator(rocksdb::ReadOptions(), database_->chunks()));
  chunks->SeekToFirst();
  any_chunks_ = chunks->Valid() || !chunks->status().ok();
  thread_ = std::thread([this] { Run(); });
}

RocksWriter::~RocksWriter() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

// ---- the queue
// -----------------------------------------------------------------------------------------------

void RocksWriter::Enqueue(Item item) {
  bool wake = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    item.over_limit = OverQueueLimit(queued_bytes_, item.bytes, options_.queued_bytes_max);
    queued_bytes_ += item.bytes;
    wake = queue_.empty();
    queue_.push_back(std::move(item));
  }
  if (wake) wake_.notify_one();
}

void RocksWriter::Append(std::vector<AppendEntry> entries, Log::AppendCallback done) {
  Item item;
  item.kind = Kind::kAppend;
  for (const AppendEntry& entry : entries) item.bytes += EntryBytes(entry);
  item.entries = std::move(entries);
  item.append_done = std::move(done);
  Enqueue(std::move(item));
}

void RocksWriter::Write(std::vector<RowBatch> batches, Rows::WriteCallback done) {
  Item item;
  item.kind = Kind::kWrite;
  for (const RowBatch& batch : batches) item.bytes += BatchBytes(batch);
  item.batches = std::move(batches);
  item.write_done = std::move(done);
  Enqueue(std::move(item));
}

absl::Status RocksWriter::WriteSync(RowBatch batch) {
  auto answer = std::make_shared<std::promise<absl::Status>>();
  Item item;
  item.kind = Kind::kWriteSync;
  item.bytes = BatchBytes(batch);
  item.batches.push_back(std::move(batch));
  item.answer = answer;
  Enqueue(std::move(item));
  return answer->get_future().get();
}

absl::Status RocksWriter::Truncate(ShardId shard, Epoch epoch, Lsn through) {
  auto answer = std::make_shared<std::promise<absl::Status>>();
  Item item;
  item.kind = Kind::kTruncate;
  item.shard = shard;
  item.epoch = epoch;
  item.through = through;
  item.answer = answer;
  Enqueue(std::move(item));
  return answer->get_future().get();
}

absl::StatusOr<ShardClaim> RocksWriter::Claim(ShardId shard) {
  auto answer = std::make_shared<std::promise<absl::StatusOr<ShardClaim>>>();
  Item item;
  item.kind = Kind::kClaim;
  item.shard = shard;
  item.claim = answer;
  Enqueue(std::move(item));
  return answer->get_future().get();
}

void RocksWriter::Run() {
  std::vector<Item> items;
  const std::chrono::nanoseconds idle_after = absl::ToChronoNanoseconds(options_.idle_flush_after);
  for (;;) {
    bool woken = true;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto ready = [this] { return stopping_ || !queue_.empty(); };
      if (idle_ == IdleState::kTrimmed) {
        wake_.wait(lock, ready);
      } else {
        woken = wake_.wait_for(lock, idle_after, ready);
      }
      if (woken && queue_.empty()) return;
      items.swap(queue_);
      queued_bytes_ = 0;
    }
    if (!woken) {
      Idle();
      continue;
    }
    Process(&items);
    items.clear();
    idle_ = IdleState::kBusy;
  }
}

// A coordinator whose executions all sleep should weigh little: first the buffers go to disk, then,
// one pause later, what they held goes back to the system.
void RocksWriter::Idle() {
  if (idle_ == IdleState::kBusy) {
    if (broken_.ok() && database_->BufferedBytes() >= kIdleFlushBytesMin) database_->StartFlush();
    batch_ = rocksdb::WriteBatch();
    idle_ = IdleState::kFlushed;
    return;
  }
#if defined(__GLIBC__)
  ::malloc_trim(0);
#endif
  idle_ = IdleState::kTrimmed;
}

void RocksWriter::Process(std::vector<Item>* items) {
  size_t begin = 0;
  for (size_t i = 0; i < items->size(); ++i) {
    Item& item = (*items)[i];
    if (item.over_limit) Break(QueueFullStatus(options_.queued_bytes_max));
    if (item.kind == Kind::kClaim) {
      Commit(items, begin, i);
      item.claim->set_value(DoClaim(item.shard));
      begin = i + 1;
      continue;
    }
    Admit(&item);
    if (batch_.GetDataSize() >= kWriteBytesSoftMax) {
      Commit(items, begin, i + 1);
      begin = i + 1;
    }
  }
  Commit(items, begin, items->size());
}

void RocksWriter::Break(const absl::Status& cause) {
  if (!broken_.ok()) return;
  broken_ = cause;
  reclaim_->Stop();
  if (absl::IsResourceExhausted(cause)) options_.on_disk_full();
}

// ---- building a batch
// -------------------------------------------------------------------------------------------

void RocksWriter::Admit(Item* item) {
  switch (item->kind) {
    case Kind::kAppend:
      AdmitAppendItem(item);
      return;
    case Kind::kWrite:
    case Kind::kWriteSync:
      item->status = AdmitRows(item);
      if (!item->status.ok() && item->kind == Kind::kWrite) Break(item->status);
      return;
    case Kind::kTruncate:
      item->status = AdmitTruncate(item);
      return;
    case Kind::kClaim:
      return;
  }
}

void RocksWriter::AdmitAppendItem(Item* item) {
  if (item->entries.empty()) return;
  absl::Status status =
      broken_.ok() ? CheckAppendLimits(item->entries, options_.shards) : StoppedStatus(broken_);
  if (status.ok()) {
    item->results = AdmitAppend(item->entries, &states_);
  } else {
    item->results = RefuseAll(item->entries, 0, AppendOutcome::kNotCommitted, status);
  }
  if (!item->results.empty()) {
    for (const AppendResult& result : item->results) {
      if (result.outcome == AppendOutcome::kFenced) status = result.status;
    }
    Break(status.ok() ? item->results.front().status : status);
    return;
  }
  item->admitted = true;
  batch_appends_ = true;
  item->results.reserve(item->entries.size());
  for (AppendEntry& entry : item->entries) {
    AppendResult result;
    result.shard = entry.shard;
    result.lsn = entry.lsn;
    result.nonce = NextNonce(&nonce_state_);
    states_[entry.shard].last_nonce = result.nonce;
    const LogKeyBuffer key = LogKey(entry.shard, entry.lsn);
    const EntryHeaderBuffer header = EntryHeader(entry.shard, entry.lsn, result.nonce, entry.bytes);
    const rocksdb::Slice key_part = ToSlice(key);
    const std::array<rocksdb::Slice, 2> parts = {ToSlice(header), ToSlice(entry.bytes)};
    (void)batch_
        .Put(database_->log(), rocksdb::SliceParts(&key_part, 1),
             rocksdb::SliceParts(parts.data(), parts.size()))
        .ok();  // only fails for sizes past 4 GiB, which the limits exclude
    for (const RowChange& row : entry.rows) {
      if (row.value.has_value()) {
        PutRow(row.key, *row.value);
      } else {
        DeleteRow(row.key);
      }
    }
    item->results.push_back(std::move(result));
  }
}

absl::Status RocksWriter::AdmitRows(Item* item) {
  if (!broken_.ok()) return StoppedStatus(broken_);
  for (const RowBatch& batch : item->batches) {
    FLUX_RETURN_IF_ERROR(CheckShard(batch.shard, options_.shards));
    FLUX_RETURN_IF_ERROR(CheckEpoch(states_[batch.shard], batch.shard, batch.epoch));
    FLUX_RETURN_IF_ERROR(CheckBatchLimits(batch));
  }
  if (item->batches.empty()) return absl::OkStatus();
  item->admitted = true;
  (item->kind == Kind::kWriteSync ? batch_sync_rows_ : batch_rows_) = true;
  for (RowBatch& batch : item->batches) {
    for (const auto& [begin, end] : batch.delete_ranges) {
      (void)batch_.DeleteRange(database_->rows(), ToSlice(begin), ToSlice(end)).ok();
      if (any_chunks_) {
        (void)batch_
            .DeleteRange(database_->chunks(), ToSlice(ChunkPrefix(begin)),
                         ToSlice(ChunkPrefix(end)))
            .ok();
      }
    }
    for (const std::string& key : batch.deletes) DeleteRow(key);
    for (const KeyValue& put : batch.puts) PutRow(put.key, put.value);
    for (auto* ranges : {&batch.delete_ranges, &batch.emptied}) {
      std::move(ranges->begin(), ranges->end(), std::back_inserter(batch_deleted_));
    }
  }
  return absl::OkStatus();
}

absl::Status RocksWriter::AdmitTruncate(Item* item) {
  if (!broken_.ok()) return StoppedStatus(broken_);
  FLUX_RETURN_IF_ERROR(CheckShard(item->shard, options_.shards));
  ShardState& state = states_[item->shard];
  FLUX_RETURN_IF_ERROR(CheckEpoch(state, item->shard, item->epoch));
  if (item->through > state.last) {
    return absl::InvalidArgumentError(absl::StrCat("shard ", item->shard,
                                                   ": cannot truncate through lsn ", item->through,
                                                   "; the last one is ", state.last));
  }
  if (item->through < state.first) return absl::OkStatus();
  const LogKeyBuffer begin = LogKey(item->shard, state.first);
  const LogKeyBuffer end = LogKey(item->shard, item->through + 1);
  (void)batch_.DeleteRange(database_->log(), ToSlice(begin), ToSlice(end)).ok();
  state.first = item->through + 1;
  PutBookkeeping(item->shard);
  item->admitted = true;
  batch_truncates_ = true;
  return absl::OkStatus();
}

void RocksWriter::PutBookkeeping(ShardId shard) {
  const ShardState& state = states_[shard];
  const std::string value =
      EncodeBookkeeping(shard, {state.epoch, state.first, state.last, state.last_nonce});
  (void)batch_.Put(database_->bookkeeping(), BookkeepingKey(shard), value).ok();
}

void RocksWriter::DeleteRow(std::string_view key) {
  DropChunks(key);
  (void)batch_.Delete(database_->rows(), ToSlice(key)).ok();
}

void RocksWriter::PutRow(std::string_view key, std::string_view value) {
  DropChunks(key);
  const rocksdb::Slice key_part = ToSlice(key);
  if (value.size() <= kRowValueBytesMax) {
    const std::array<rocksdb::Slice, 2> parts = {rocksdb::Slice(&kRowInline, 1), ToSlice(value)};
    (void)batch_
        .Put(database_->rows(), rocksdb::SliceParts(&key_part, 1),
             rocksdb::SliceParts(parts.data(), parts.size()))
        .ok();
    return;
  }
  (void)batch_.Put(database_->rows(), key_part, ChunkedHead(value.size())).ok();
  const std::string prefix = ChunkPrefix(key);
  for (uint32_t chunk = 0; size_t{chunk} * kChunkBytes < value.size(); ++chunk) {
    (void)batch_
        .Put(database_->chunks(), ChunkKey(prefix, chunk),
             ToSlice(value.substr(size_t{chunk} * kChunkBytes, kChunkBytes)))
        .ok();
  }
  any_chunks_ = true;
  batch_chunked_.insert(std::string(key));
}

void RocksWriter::DropChunks(std::string_view key) {
  if (!any_chunks_ || !MayHaveChunks(key)) return;
  (void)batch_
      .DeleteRange(database_->chunks(), ToSlice(ChunkPrefix(key)), ToSlice(ChunkPrefixEnd(key)))
      .ok();
}

// Answers from memory: the batch, the buffers and the filters. A false alarm costs one needless
// range deletion.
bool RocksWriter::MayHaveChunks(std::string_view key) {
  if (!batch_chunked_.empty() && batch_chunked_.contains(ToAbsl(key))) return true;
  std::string unused;
  return database_->db()->KeyMayExist(rocksdb::ReadOptions(), database_->chunks(),
                                      ChunkKey(ChunkPrefix(key), 0), &unused);
}

// ---- writing it
// --------------------------------------------------------------------------------------------------

absl::Status RocksWriter::WriteBatch(bool sync) {
  struct Point {
    bool passed;
    std::string_view before;
    std::string_view after;
  };
  const std::array<Point, 4> points = {{
      {batch_appends_, "append_before_write", "append_after_write"},
      {batch_rows_ && !sync, "rows_before_write", "rows_after_write"},
      {batch_sync_rows_, "write_sync_before_write", "write_sync_after_write"},
      {batch_truncates_, "truncate_before_write", "truncate_after_write"},
  }};
  for (const Point& point : points) {
    if (point.passed && Failpoint::Hit(point.before)) return InjectedFault(point.before);
  }
  rocksdb::WriteOptions options;
  options.sync = sync;
  FLUX_RETURN_IF_ERROR(
      FromRocks(database_->db()->Write(options, &batch_), "write to the database"));
  for (const Point& point : points) {
    if (point.passed && Failpoint::Hit(point.after)) return InjectedFault(point.after);
  }
  return absl::OkStatus();
}

void RocksWriter::Commit(std::vector<Item>* items, size_t begin, size_t end) {
  if (begin == end) return;
  absl::Status written;
  if (batch_.Count() > 0) {
    const bool sync = batch_appends_ || batch_sync_rows_;
    written = WriteBatch(sync);
    if (!written.ok()) Break(written);
    if (written.ok() && sync) appends_.fetch_add(1, std::memory_order_relaxed);
    if (batch_.GetDataSize() > kBatchBytesKept) {
      batch_ = rocksdb::WriteBatch();
    } else {
      batch_.Clear();
    }
    batch_appends_ = batch_sync_rows_ = batch_truncates_ = batch_rows_ = false;
    batch_chunked_.clear();
    if (written.ok() && !batch_deleted_.empty()) reclaim_->Note(std::move(batch_deleted_));
    batch_deleted_.clear();
  }
  if (written.ok()) {
    uint64_t bytes = 0;
    for (size_t i = begin; i < end; ++i) {
      const Item& item = (*items)[i];
      if (!item.admitted) continue;
      if (item.kind == Kind::kAppend) {
        bytes += item.bytes;
        for (const AppendEntry& entry : item.entries) Publish(entry.shard);
      } else if (item.kind == Kind::kTruncate) {
        Publish(item.shard);
      }
    }
    appended_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  for (size_t i = begin; i < end; ++i) Deliver(&(*items)[i], written);
}

void RocksWriter::Publish(ShardId shard) {
  PublicState& state = public_states_[shard];
  state.first.store(states_[shard].first, std::memory_order_relaxed);
  state.last.store(states_[shard].last, std::memory_order_relaxed);
  state.claimed.store(true, std::memory_order_release);
}

void RocksWriter::Deliver(Item* item, const absl::Status& written) {
  if (item->kind == Kind::kAppend) {
    if (item->admitted) {
      for (AppendResult& result : item->results) {
        result.outcome = written.ok() ? AppendOutcome::kOk : AppendOutcome::kUnknown;
        result.status = written;
      }
    }
    item->append_done(std::move(item->results));
    return;
  }
  const absl::Status status = item->admitted ? written : item->status;
  if (item->kind == Kind::kWrite) {
    item->write_done(status);
  } else {
    item->answer->set_value(status);
  }
}

// ---- claiming
// ------------------------------------------------------------------------------------------------------

bool RocksWriter::LogBounds(ShardId shard, Lsn* first, Lsn* last) const {
  const PublicState& state = public_states_[shard];
  if (!state.claimed.load(std::memory_order_acquire)) return false;
  *first = state.first.load(std::memory_order_relaxed);
  *last = state.last.load(std::memory_order_relaxed);
  return true;
}

absl::StatusOr<ShardState> RocksWriter::FindLog(ShardId shard) {
  std::string value;
  const rocksdb::Status found = database_->db()->Get(
      rocksdb::ReadOptions(), database_->bookkeeping(), BookkeepingKey(shard), &value);
  ShardBookkeeping bookkeeping;
  if (!found.IsNotFound()) {
    FLUX_RETURN_IF_ERROR(FromRocks(found, absl::StrCat("read the bookkeeping of shard ", shard)));
    FLUX_ASSIGN_OR_RETURN(bookkeeping, DecodeBookkeeping(shard, value));
  }
  ShardState state;
  state.epoch = bookkeeping.epoch;
  state.first = bookkeeping.first;
  state.last = bookkeeping.first - 1;
  state.last_nonce = bookkeeping.seen_last == state.last ? bookkeeping.seen_nonce : 0;

  // Bounded to what is not truncated, so that old range deletions are never walked over.
  const LogKeyBuffer lower = LogKey(shard, state.first);
  const LogKeyBuffer upper = LogKey(shard, ~Lsn{0});
  const rocksdb::Slice lower_slice = ToSlice(lower);
  const rocksdb::Slice upper_slice = ToSlice(upper);
  rocksdb::ReadOptions options;
  options.iterate_lower_bound = &lower_slice;
  options.iterate_upper_bound = &upper_slice;
  auto entries =
      std::unique_ptr<rocksdb::Iterator>(database_->db()->NewIterator(options, database_->log()));
  entries->SeekToLast();
  FLUX_RETURN_IF_ERROR(
      FromRocks(entries->status(), absl::StrCat("find the end of the log of shard ", shard)));
  if (entries->Valid()) {
    state.last = LsnOfKey(FromSlice(entries->key()), shard);
    FLUX_ASSIGN_OR_RETURN(Entry entry, DecodeEntry(shard, state.last, FromSlice(entries->value())));
    state.last_nonce = entry.nonce;
    entries->SeekToFirst();
    FLUX_RETURN_IF_ERROR(
        FromRocks(entries->status(), absl::StrCat("find the start of the log of shard ", shard)));
    if (!entries->Valid() || LsnOfKey(FromSlice(entries->key()), shard) != state.first) {
      return absl::DataLossError(absl::StrCat("shard ", shard, ": log entry ", state.first,
                                              ", the oldest one not truncated, is missing"));
    }
    if (bookkeeping.epoch == 0) {
      return absl::DataLossError(
          absl::StrCat("shard ", shard, ": it has log entries, but its bookkeeping is missing"));
    }
  }
  if (state.last < bookkeeping.seen_last) {
    return absl::DataLossError(absl::StrCat("shard ", shard, ": the log ends at lsn ", state.last,
                                            " but reached ", bookkeeping.seen_last,
                                            " before: it went backwards"));
  }
  return state;
}

absl::StatusOr<ShardClaim> RocksWriter::DoClaim(ShardId shard) {
  if (!broken_.ok()) return StoppedStatus(broken_);
  FLUX_RETURN_IF_ERROR(CheckShard(shard, options_.shards));
  FLUX_ASSIGN_OR_RETURN(ShardState state, FindLog(shard));
  ++state.epoch;
  state.claimed = true;
  absl::Status written;
  if (Failpoint::Hit("claim_before_write")) written = InjectedFault("claim_before_write");
  if (written.ok()) {
    rocksdb::WriteOptions options;
    options.sync = true;
    const std::string value =
        EncodeBookkeeping(shard, {state.epoch, state.first, state.last, state.last_nonce});
    written = FromRocks(
        database_->db()->Put(options, database_->bookkeeping(), BookkeepingKey(shard), value),
        absl::StrCat("claim shard ", shard));
  }
  if (written.ok() && Failpoint::Hit("claim_after_write"))
    written = InjectedFault("claim_after_write");
  if (!written.ok()) {
    Break(written);
    return written;
  }
  states_[shard] = state;
  Publish(shard);
  return ShardClaim{state.epoch, state.first, state.last, state.last_nonce};
}

}  // namespace flux::store
