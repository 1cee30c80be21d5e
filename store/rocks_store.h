// The store on RocksDB: one data directory of one process.
//
//   auto store = RocksStore::Open({.path = "/var/lib/flux"});
//   if (!store.ok()) ...                                     // the message says what to do
//   for (const std::string& note : (*store)->OpenNotes()) ...
#ifndef FLUX_STORE_ROCKS_STORE_H_
#define FLUX_STORE_ROCKS_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "store/checks.h"
#include "store/store.h"

namespace flux::store {

inline constexpr int kDatabaseFilesMax = 512;  // that the database keeps open

struct RocksOptions {
  std::string path;      // the data directory
  uint32_t shards = 64;  // a power of two; counts at creation only
  bool create_if_missing = true;
  // Below this much free space, BelowReserve.
  uint64_t reserve_bytes = 256ull << 20;
  // Preallocated, and given back when the disk is full so that flushes and deletes still work.
  uint64_t ballast_bytes = 64ull << 20;
  // False: the write-ahead log is never synced; a crash of the machine then loses what was
  // acknowledged.
  bool fsync = true;
  // Drops a damaged last record of which it cannot be told whether it had been acknowledged (only
  // after a power failure). For an operator who has read the refusal.
  bool accept_damaged_tail = false;

  // Memory: up to twice the two buffers together, and the cache.
  size_t log_buffer_bytes = 64u << 20;
  size_t rows_buffer_bytes = 32u << 20;
  size_t block_cache_bytes = 32u << 20;
  size_t queued_bytes_max = kQueuedBytesMax;
  // What a reopen has to replay at most.
  uint64_t wal_bytes_max = 128ull << 20;
  // After this long without a write, buffers are written out and their memory is given back.
  absl::Duration idle_flush_after = absl::Seconds(3);
  // How often it is looked whether deleted rows hold enough space to be compacted away; zero:
  // never.
  absl::Duration reclaim_interval = absl::Seconds(10);
  // How much is enough, if it is a twentieth of the tables as well.
  uint64_t reclaim_bytes_min = 16ull << 20;

  // Warnings and errors of the database, a line each, from any of its threads. Must not call the
  // store.
  std::function<void(std::string)> on_warning;
  // Replaces the operating system's answer; for tests.
  std::function<absl::StatusOr<uint64_t>()> free_bytes;
};

// Owns the directory while it lives (a lock file keeps others out) and one writer thread, on which
// all writes happen and all completions run: every synchronous write takes all that is queued.
// A second thread has deleted rows compacted away (store/rocks_reclaim.h).
// Thread-safe. Refusals of WriteSync and Truncate (fenced, over a limit) leave the store usable, as
// the caller learns of them at once; any failure that reached the disk stops it. Limits:
// store/store.h and store/checks.h.
class RocksStore : public Store {
 public:
  // Opens or creates. Blocks for as long as the tail of the log takes to check and replay.
  // NotFound: missing and not to be created. FailedPrecondition: not a directory, not a Flux data
  // directory, a newer format, or open in another process. PermissionDenied: cannot be written.
  // ResourceExhausted: the disk is full. DataLoss: acknowledged data is damaged; nothing was
  // changed, the message says where.
  static absl::StatusOr<std::unique_ptr<RocksStore>> Open(RocksOptions options);

  // Writes and delivers what is queued, then closes.
  ~RocksStore() override;

  Log& log() override;
  Rows& rows() override;
  uint32_t shards() const override;
  uint32_t incarnation() const override;
  StoreStats Stats() override;
  std::vector<std::string> OpenNotes() const override;
  bool BelowReserve() override;

 private:
  class Impl;
  explicit RocksStore(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace flux::store

#endif  // FLUX_STORE_ROCKS_STORE_H_
