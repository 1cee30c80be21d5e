#include "store/rocks_store.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "store/checks.h"
#include "store/data_dir.h"
#include "store/failpoint.h"
#include "store/log_format.h"
#include "store/posix_file.h"
#include "store/recovery.h"
#include "store/rocks_database.h"
#include "store/rocks_reclaim.h"
#include "store/rocks_writer.h"
#include "store/space.h"
#include "store/synced_marks.h"

namespace flux::store {
namespace {

constexpr size_t kReadaheadBytes = 1u << 20;

rocksdb::Slice ToSlice(std::string_view s) { return {s.data(), s.size()}; }
std::string_view FromSlice(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

// A view of the database as of one moment.
class Snapshot {
 public:
  explicit Snapshot(rocksdb::DB* db) : db_(db), snapshot_(db->GetSnapshot()) {}
  ~Snapshot() { db_->ReleaseSnapshot(snapshot_); }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  const rocksdb::Snapshot* get() const { return snapshot_; }

 private:
  rocksdb::DB* const db_;
  const rocksdb::Snapshot* const snapshot_;
};

std::string RowName(std::string_view key) {
  return absl::StrCat("row '", absl::CHexEscape(ToAbsl(key)), "'");
}

}  // namespace

class RocksStore::Impl : public Log, public Rows {
 public:
  static absl::StatusOr<std::unique_ptr<Impl>> Open(RocksOptions options);

  absl::StatusOr<ShardClaim> Claim(ShardId shard) override { return writer_->Claim(shard); }
  void Append(std::vector<AppendEntry> entries, AppendCallback done) override {
    writer_->Append(std::move(entries), std::move(done));
  }
  absl::Status Read(ShardId shard, Lsn from, const EntryVisitor& visit) override;
  absl::Status Truncate(ShardId shard, Epoch epoch, Lsn through) override {
    return writer_->Truncate(shard, epoch, through);
  }

  void Write(std::vector<RowBatch> batches, WriteCallback done) override {
    writer_->Write(std::move(batches), std::move(done));
  }
  absl::Status WriteSync(RowBatch batch) override { return writer_->WriteSync(std::move(batch)); }
  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) override;
  absl::Status Scan(std::string_view begin, std::string_view end, const RowVisitor& visit) override;
  absl::Status ScanRanges(const std::vector<std::pair<std::string, std::string>>& ranges,
                          const RangesVisitor& visit) override;

  uint32_t shards() const { return directory_.format().shards; }
  uint32_t incarnation() const { return directory_.format().incarnation; }
  StoreStats Stats();
  const std::vector<std::string>& notes() const { return recovery_.notes; }
  bool BelowReserve() { return space_->BelowReserve(); }

 private:
  explicit Impl(DataDir directory) : directory_(std::move(directory)) {}

  // Scan, as of `snapshot`.
  absl::Status ScanAt(const rocksdb::Snapshot* snapshot, std::string_view begin,
                      std::string_view end, const RowVisitor& visit);
  // The bytes of a chunked row, read as of `snapshot`.
  absl::StatusOr<std::string> Assemble(std::string_view key, std::string_view head,
                                       const rocksdb::Snapshot* snapshot);

  // In the order in which they are made; destruction goes the other way.
  DataDir directory_;
  std::unique_ptr<SyncedMarks> marks_;
  TailRecovery recovery_;
  std::unique_ptr<SpaceWatch> space_;
  std::unique_ptr<RocksDatabase> database_;
  std::unique_ptr<RocksReclaim> reclaim_;
  std::unique_ptr<RocksWriter> writer_;
};

absl::StatusOr<std::unique_ptr<RocksStore::Impl>> RocksStore::Impl::Open(RocksOptions options) {
  std::function<void(std::string)> on_warning = options.on_warning;
  if (!on_warning) on_warning = [](const std::string&) {};
  FLUX_ASSIGN_OR_RETURN(DataDir directory,
                        DataDir::Open(options.path, options.shards, options.create_if_missing));
  auto impl = std::unique_ptr<Impl>(new Impl(std::move(directory)));
  const DataDir& data = impl->directory_;

  SpaceOptions space;
  space.ballast_path = data.ballast_path();
  space.reserve_bytes = options.reserve_bytes;
  space.ballast_bytes = options.ballast_bytes;
  space.free_bytes = options.free_bytes;
  if (!space.free_bytes) {
    space.free_bytes = [path = data.path()] { return FreeBytes(path); };
  }
  space.on_warning = on_warning;
  impl->space_ = std::make_unique<SpaceWatch>(std::move(space));
  // Before the database opens, which may need the room.
  impl->space_->Adjust();

  FLUX_ASSIGN_OR_RETURN(impl->marks_, SyncedMarks::Open(data.synced_path()));
  FLUX_ASSIGN_OR_RETURN(impl->recovery_, RecoverTail(data.db_path(), impl->marks_.get(),
                                                     options.accept_damaged_tail));
  RocksDatabase::Callbacks callbacks;
  callbacks.on_warning = on_warning;
  callbacks.on_disk_full = [watch = impl->space_.get()] { watch->ReleaseBallast(); };
  FLUX_ASSIGN_OR_RETURN(impl->database_,
                        RocksDatabase::Open(options, data.db_path(), impl->recovery_.create,
                                            impl->marks_.get(), callbacks));
  FLUX_RETURN_IF_ERROR(SyncDirectory(data.path()));
  FLUX_RETURN_IF_ERROR(impl->directory_.RaiseFormat());
  if (impl->recovery_.create && Failpoint::Hit("create_after_database")) {
    return absl::UnavailableError("injected fault: create_after_database");
  }
  RocksReclaim::Options reclaim;
  reclaim.interval = options.reclaim_interval;
  reclaim.bytes_min = options.reclaim_bytes_min;
  reclaim.free_bytes = [watch = impl->space_.get()] { return watch->FreeBytes(); };
  reclaim.on_warning = on_warning;
  impl->reclaim_ = std::make_unique<RocksReclaim>(impl->database_.get(), std::move(reclaim));
  RocksWriter::Options writer;
  writer.shards = data.format().shards;
  writer.idle_flush_after = options.idle_flush_after;
  writer.queued_bytes_max = options.queued_bytes_max;
  writer.on_disk_full = callbacks.on_disk_full;
  impl->writer_ =
      std::make_unique<RocksWriter>(impl->database_.get(), impl->reclaim_.get(), std::move(writer));
  return impl;
}

// ---- reading
// -------------------------------------------------------------------------------------------------

absl::Status RocksStore::Impl::Read(ShardId shard, Lsn from, const EntryVisitor& visit) {
  FLUX_RETURN_IF_ERROR(CheckShard(shard, shards()));
  Lsn first = 0;
  Lsn last = 0;
  if (!writer_->LogBounds(shard, &first, &last)) {
    return absl::FailedPreconditionError(
        absl::StrCat("shard ", shard, " has not been claimed; claim it before reading its log"));
  }
  if (from < first) {
    return absl::DataLossError(absl::StrCat("shard ", shard, ": log entry ", from,
                                            " was truncated; the oldest one held is ", first));
  }
  if (from > last) return absl::OkStatus();
  const LogKeyBuffer begin = LogKey(shard, from);
  const LogKeyBuffer end = LogKey(shard, last + 1);
  const rocksdb::Slice lower(begin.data(), begin.size());
  const rocksdb::Slice upper(end.data(), end.size());
  rocksdb::ReadOptions options;
  options.iterate_lower_bound = &lower;
  options.iterate_upper_bound = &upper;
  options.fill_cache = false;
  options.readahead_size = kReadaheadBytes;
  auto entries =
      std::unique_ptr<rocksdb::Iterator>(database_->db()->NewIterator(options, database_->log()));
  entries->Seek(lower);
  for (Lsn lsn = from; lsn <= last; ++lsn, entries->Next()) {
    FLUX_RETURN_IF_ERROR(
        FromRocks(entries->status(), absl::StrCat("read log entry ", lsn, " of shard ", shard)));
    if (!entries->Valid() || LsnOfKey(FromSlice(entries->key()), shard) != lsn) {
      return absl::DataLossError(absl::StrCat("shard ", shard, ": log entry ", lsn,
                                              " is missing; the log reaches to ", last));
    }
    FLUX_ASSIGN_OR_RETURN(Entry entry, DecodeEntry(shard, lsn, FromSlice(entries->value())));
    if (!visit(lsn, entry.body)) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> RocksStore::Impl::Assemble(std::string_view key, std::string_view head,
                                                       const rocksdb::Snapshot* snapshot) {
  FLUX_ASSIGN_OR_RETURN(const uint64_t bytes, ChunkedBytes(head));
  const std::string prefix = ChunkPrefix(key);
  const std::string end = ChunkPrefixEnd(key);
  const rocksdb::Slice lower = prefix;
  const rocksdb::Slice upper = end;
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  options.iterate_lower_bound = &lower;
  options.iterate_upper_bound = &upper;
  options.fill_cache = false;
  auto chunks = std::unique_ptr<rocksdb::Iterator>(
      database_->db()->NewIterator(options, database_->chunks()));
  std::string value;
  value.reserve(bytes);
  chunks->SeekToFirst();
  for (uint32_t chunk = 0; value.size() < bytes; ++chunk, chunks->Next()) {
    FLUX_RETURN_IF_ERROR(FromRocks(chunks->status(), absl::StrCat("read ", RowName(key))));
    if (!chunks->Valid() || FromSlice(chunks->key()) != ChunkKey(prefix, chunk)) {
      return absl::DataLossError(absl::StrCat(RowName(key), ": chunk ", chunk, " is missing"));
    }
    value.append(chunks->value().data(), chunks->value().size());
  }
  if (value.size() != bytes) {
    return absl::DataLossError(absl::StrCat(RowName(key), ": its chunks have ", value.size(),
                                            " bytes, its head says ", bytes));
  }
  return value;
}

absl::StatusOr<std::optional<std::string>> RocksStore::Impl::Get(std::string_view key) {
  FLUX_RETURN_IF_ERROR(CheckKey(key));
  rocksdb::ReadOptions options;
  rocksdb::PinnableSlice value;
  rocksdb::Status found = database_->db()->Get(options, database_->rows(), ToSlice(key), &value);
  std::optional<Snapshot> snapshot;
  if (found.ok() && !value.empty() && value[0] == kRowChunked) {
    // Once more, so that head and chunks are of one moment.
    snapshot.emplace(database_->db());
    options.snapshot = snapshot->get();
    value.Reset();
    found = database_->db()->Get(options, database_->rows(), ToSlice(key), &value);
  }
  if (found.IsNotFound()) return std::nullopt;
  FLUX_RETURN_IF_ERROR(FromRocks(found, absl::StrCat("read ", RowName(key))));
  if (value.empty()) return absl::DataLossError(absl::StrCat(RowName(key), " has no framing"));
  if (value[0] == kRowInline) return std::string(value.data() + 1, value.size() - 1);
  if (value[0] != kRowChunked) {
    return absl::DataLossError(
        absl::StrCat(RowName(key), " has framing ", int{value[0]}, ", unknown to this program"));
  }
  FLUX_ASSIGN_OR_RETURN(std::string whole, Assemble(key, FromSlice(value), snapshot->get()));
  return std::optional<std::string>(std::move(whole));
}

absl::Status RocksStore::Impl::Scan(std::string_view begin, std::string_view end,
                                    const RowVisitor& visit) {
  if (begin >= end) return absl::OkStatus();
  Snapshot snapshot(database_->db());
  return ScanAt(snapshot.get(), begin, end, visit);
}

absl::Status RocksStore::Impl::ScanRanges(
    const std::vector<std::pair<std::string, std::string>>& ranges, const RangesVisitor& visit) {
  Snapshot snapshot(database_->db());
  Next next = Next::kRow;
  for (size_t i = 0; i < ranges.size() && next != Next::kStop; ++i) {
    const auto& [begin, end] = ranges[i];
    if (begin >= end) continue;
    FLUX_RETURN_IF_ERROR(
        ScanAt(snapshot.get(), begin, end, [&, i](std::string_view key, std::string_view value) {
          next = visit(i, key, value);
          return next == Next::kRow;
        }));
  }
  return absl::OkStatus();
}

absl::Status RocksStore::Impl::ScanAt(const rocksdb::Snapshot* snapshot, std::string_view begin,
                                      std::string_view end, const RowVisitor& visit) {
  const rocksdb::Slice lower = ToSlice(begin);
  const rocksdb::Slice upper = ToSlice(end);
  rocksdb::ReadOptions options;
  options.snapshot = snapshot;
  options.iterate_lower_bound = &lower;
  options.iterate_upper_bound = &upper;
  auto rows =
      std::unique_ptr<rocksdb::Iterator>(database_->db()->NewIterator(options, database_->rows()));
  for (rows->SeekToFirst(); rows->Valid(); rows->Next()) {
    const std::string_view key = FromSlice(rows->key());
    const std::string_view value = FromSlice(rows->value());
    if (!value.empty() && value[0] == kRowChunked) {
      FLUX_ASSIGN_OR_RETURN(std::string whole, Assemble(key, value, snapshot));
      if (!visit(key, whole)) return absl::OkStatus();
      continue;
    }
    if (value.empty() || value[0] != kRowInline) {
      return absl::DataLossError(
          absl::StrCat(RowName(key), " has framing unknown to this program"));
    }
    if (!visit(key, value.substr(1))) return absl::OkStatus();
  }
  return FromRocks(rows->status(), "scan rows");
}

StoreStats RocksStore::Impl::Stats() {
  StoreStats stats;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(directory_.path(), error), end;
       !error && entry != end; entry.increment(error)) {
    // Files come and go while this looks; what has gone counts for nothing.
    std::error_code gone;
    const uint64_t bytes = entry->is_regular_file(gone) ? entry->file_size(gone) : 0;
    if (!gone) stats.bytes_on_disk += bytes;
  }
  stats.bytes_free = space_->FreeBytes();
  stats.appends = writer_->appends();
  stats.appended_bytes = writer_->appended_bytes();
  stats.entries_dropped_at_open = recovery_.writes_dropped;
  return stats;
}

// ---- the public face
// -------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<RocksStore>> RocksStore::Open(RocksOptions options) {
  FLUX_ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl, Impl::Open(std::move(options)));
  return std::unique_ptr<RocksStore>(new RocksStore(std::move(impl)));
}

RocksStore::RocksStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RocksStore::~RocksStore() = default;

Log& RocksStore::log() { return *impl_; }
Rows& RocksStore::rows() { return *impl_; }
uint32_t RocksStore::shards() const { return impl_->shards(); }
uint32_t RocksStore::incarnation() const { return impl_->incarnation(); }
StoreStats RocksStore::Stats() { return impl_->Stats(); }
std::vector<std::string> RocksStore::OpenNotes() const { return impl_->notes(); }
bool RocksStore::BelowReserve() { return impl_->BelowReserve(); }

}  // namespace flux::store
