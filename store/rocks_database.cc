#include "store/rocks_database.h"

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "rocksdb/cache.h"
#include "rocksdb/convenience.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/listener.h"
#include "rocksdb/options.h"
#include "rocksdb/table.h"
#include "rocksdb/write_buffer_manager.h"
#include "store/rocks_env.h"

namespace flux::store {
namespace {

constexpr int kBloomBitsPerKey = 10;
constexpr int kBackgroundJobs = 2;
constexpr size_t kLogLineBytesMax = 1024;
// Of the block cache: rows are read by key, a page at a time.
constexpr size_t kRowBlockBytes = 8 * 1024;
constexpr size_t kMetadataBlockBytes = 8 * 1024;  // of indexes and filters
constexpr uint64_t kBytesPerSync = 1 << 20;

// Passes RocksDB's warnings and errors on; the rest of its chatter is dropped.
class WarningLogger : public rocksdb::Logger {
 public:
  explicit WarningLogger(std::function<void(std::string)> on_warning)
      : Logger(rocksdb::InfoLogLevel::WARN_LEVEL), on_warning_(std::move(on_warning)) {}

  using Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    Logv(rocksdb::InfoLogLevel::INFO_LEVEL, format, arguments);
  }
  void Logv(rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < rocksdb::InfoLogLevel::WARN_LEVEL || level == rocksdb::InfoLogLevel::HEADER_LEVEL) {
      return;
    }
    std::array<char, kLogLineBytesMax> line;
    std::vsnprintf(line.data(), line.size(), format, arguments);
    on_warning_(absl::StrCat("rocksdb: ", absl::StripTrailingAsciiWhitespace(line.data())));
  }
  void LogHeader(const char*, va_list) override {}

 private:
  const std::function<void(std::string)> on_warning_;
};

class DiskFullListener : public rocksdb::EventListener {
 public:
  explicit DiskFullListener(RocksDatabase::Callbacks callbacks)
      : callbacks_(std::move(callbacks)) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* error) override {
    callbacks_.on_warning(
        absl::StrCat("background work of the database failed: ", error->ToString()));
    if (error->IsNoSpace()) callbacks_.on_disk_full();
  }

 private:
  const RocksDatabase::Callbacks callbacks_;
};

rocksdb::CompressionType BestCompression() {
  const std::vector<rocksdb::CompressionType> supported = rocksdb::GetSupportedCompressions();
  return std::find(supported.begin(), supported.end(), rocksdb::kLZ4Compression) != supported.end()
             ? rocksdb::kLZ4Compression
             : rocksdb::kNoCompression;
}

rocksdb::DBOptions DbOptions(const RocksOptions& options, bool create) {
  rocksdb::DBOptions db;
  db.create_if_missing = create;
  // Column families may be missing from a creation that was interrupted; an existing one is never
  // recreated.
  db.create_missing_column_families = true;
  // The torn tail is cut before RocksDB sees it (store/recovery.h): anything it still finds is
  // damage.
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kAbsoluteConsistency;
  db.track_and_verify_wals_in_manifest = true;
  db.paranoid_checks = true;
  // One thread writes, so none of the machinery for many is wanted, and order is the order of the
  // calls.
  db.allow_concurrent_memtable_write = false;
  db.enable_write_thread_adaptive_yield = false;
  db.unordered_write = false;
  db.enable_pipelined_write = false;
  db.max_total_wal_size = options.wal_bytes_max;
  db.max_background_jobs = kBackgroundJobs;
  db.max_open_files = kDatabaseFilesMax;
  db.bytes_per_sync = kBytesPerSync;
  db.keep_log_file_num = 1;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  db.skip_stats_update_on_db_open = true;
  db.avoid_unnecessary_blocking_io = true;
  db.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(
      2 * (options.log_buffer_bytes + options.rows_buffer_bytes));
  return db;
}

rocksdb::ColumnFamilyOptions FamilyOptions(const std::shared_ptr<rocksdb::Cache>& cache,
                                           size_t buffer_bytes) {
  rocksdb::ColumnFamilyOptions family;
  family.write_buffer_size = buffer_bytes;
  family.max_write_buffer_number = 3;
  family.level_compaction_dynamic_level_bytes = true;
  family.target_file_size_base = 32u << 20;
  family.max_bytes_for_level_base = 256u << 20;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.block_size = kRowBlockBytes;
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));
  // In parts: those of a large file would be larger than the cache, and be read anew for each row.
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  // Full keys: shortened ones reach past the end of a run's rows, so that the last block of each
  // run would not be counted when the bytes of its rows are asked for (store/rocks_reclaim.h).
  table.index_shortening = rocksdb::BlockBasedTableOptions::IndexShorteningMode::kNoShortening;
  table.partition_filters = true;
  table.metadata_block_size = kMetadataBlockBytes;
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_top_level_index_and_filter = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  family.compression = BestCompression();
  return family;
}

}  // namespace

absl::Status FromRocks(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = absl::StrCat(ToAbsl(what), ": ", status.ToString());
  if (status.IsNoSpace() || absl::StrContains(text, "No space left on device")) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the disk is full: ", text, "; free some space and start again"));
  }
  if (status.IsCorruption()) {
    return absl::DataLossError(absl::StrCat("the database is damaged: ", text,
                                            "; restore the data directory from a backup"));
  }
  if (absl::StrContains(text, "Permission denied") || absl::StrContains(text, "Read-only file")) {
    return absl::PermissionDeniedError(text);
  }
  return absl::UnavailableError(text);
}

absl::StatusOr<std::unique_ptr<RocksDatabase>> RocksDatabase::Open(const RocksOptions& options,
                                                                   const std::string& path,
                                                                   bool create, SyncedMarks* marks,
                                                                   Callbacks callbacks) {
  auto database = std::unique_ptr<RocksDatabase>(new RocksDatabase);
  database->file_system_ = NewMarkingFileSystem(marks, options.fsync);
  database->env_ = rocksdb::NewCompositeEnv(database->file_system_);
  rocksdb::DBOptions db_options = DbOptions(options, create);
  db_options.env = database->env_.get();
  db_options.info_log = std::make_shared<WarningLogger>(callbacks.on_warning);
  db_options.listeners.push_back(std::make_shared<DiskFullListener>(callbacks));

  const std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  rocksdb::ColumnFamilyOptions small =
      FamilyOptions(cache, std::min<size_t>(options.rows_buffer_bytes, 1u << 20));
  // Most entries are truncated before they leave the buffer; those that do not are read once, at
  // recovery.
  rocksdb::ColumnFamilyOptions log = FamilyOptions(cache, options.log_buffer_bytes);
  log.compression = rocksdb::kNoCompression;
  rocksdb::ColumnFamilyOptions rows = FamilyOptions(cache, options.rows_buffer_bytes);
  // Written much, read seldom.
  const rocksdb::ColumnFamilyOptions chunks = rows;
  rows.memtable_prefix_bloom_size_ratio = 0.05;
  rows.memtable_whole_key_filtering = true;
  const std::vector<rocksdb::ColumnFamilyDescriptor> families = {
      {rocksdb::kDefaultColumnFamilyName, small}, {"log", log}, {"rows", rows}, {"chunks", chunks}};
  rocksdb::DB* db = nullptr;
  rocksdb::Status status = rocksdb::DB::Open(db_options, path, families, &database->handles_, &db);
  if (!status.ok()) return FromRocks(status, "open " + path);
  database->db_.reset(db);
  return database;
}

RocksDatabase::~RocksDatabase() {
  if (db_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    (void)db_->DestroyColumnFamilyHandle(handle).ok();
  }
  (void)db_->Close().ok();
}

uint64_t RocksDatabase::BufferedBytes() const {
  uint64_t total = 0;
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    uint64_t bytes = 0;
    if (db_->GetIntProperty(handle, rocksdb::DB::Properties::kCurSizeAllMemTables, &bytes)) {
      total += bytes;
    }
  }
  return total;
}

void RocksDatabase::StartFlush() {
  rocksdb::FlushOptions flush;
  flush.wait = false;
  flush.allow_write_stall = true;
  // A failure shows as a background error, which the listener reports.
  (void)db_->Flush(flush, handles_).ok();
}

}  // namespace flux::store
