// What the coordinator needs of a disk: a Log of commits and Rows written behind it.
//
// The two interfaces are deliberately so small that a distributed database can stand in their
// place. Three implementations: store/rocks_store.h (the real one), store/memory_store.h (tests,
// simulation) and store/faulty_store.h (wraps another and injects faults). All pass
// tests/store/conformance_test.cc.
#ifndef FLUX_STORE_STORE_H_
#define FLUX_STORE_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace flux::store {

using ShardId = uint32_t;
// Position of an entry in a shard's log: the first is 1, each next one more. 0: before the first.
using Lsn = uint64_t;
using Epoch = uint64_t;

// Limits; each refused with ResourceExhausted or InvalidArgument naming the figure.
inline constexpr size_t kKeyBytesMax = 1024;
inline constexpr size_t kRowValueBytesMax = 64 * 1024;    // larger ones: chunked by the store
inline constexpr size_t kRowBatchBytesMax = 1024 * 1024;  // of one RowBatch, without payload rows
inline constexpr size_t kLogEntryBytesMax = 128 * 1024 * 1024;

struct KeyValue {
  std::string key;
  std::string value;
};

// A row as it shall be from now on.
struct RowChange {
  std::string key;
  std::optional<std::string> value;  // none: deleted
};

// One shard's next commit.
struct AppendEntry {
  ShardId shard = 0;
  Epoch epoch = 0;    // from Claim
  Lsn lsn = 0;        // the one this entry shall get: last + 1
  std::string bytes;  // the store frames it with format version, nonce and checksum
  // Changed in this order, atomically with the entry: payloads under their final keys (rule 19),
  // and rows that must never lag behind it.
  std::vector<RowChange> rows;
};

enum class AppendOutcome {
  kOk,            // durable
  kFenced,        // the epoch is not the shard's current one; nothing written
  kNotCommitted,  // certainly not written (e.g. the lsn was not last + 1, or the disk refused it
                  // before)
  kUnknown,       // may or may not be on disk: reopen, Claim, and look (rules 3 and 4)
};

struct AppendResult {
  ShardId shard = 0;
  Lsn lsn = 0;
  AppendOutcome outcome = AppendOutcome::kUnknown;
  // The entry was framed with this. After kUnknown it is on disk if and only if a later Claim finds
  // this lsn and nonce as the shard's last, or a higher lsn.
  uint64_t nonce = 0;
  absl::Status status;  // OK if and only if the outcome is kOk; says why otherwise
};

// What Claim found.
struct ShardClaim {
  Epoch epoch = 0;    // ours from now on; every lower one is fenced
  Lsn first_lsn = 0;  // oldest entry still held; last_lsn + 1 if none is
  Lsn last_lsn = 0;
  uint64_t last_nonce = 0;  // of the last entry; tells whether an unknown append was ours
};

// The log of every shard of one store. Thread-safe.
class Log {
 public:
  using AppendCallback = std::function<void(std::vector<AppendResult>)>;
  // Returns false to stop the scan.
  using EntryVisitor = std::function<bool(Lsn lsn, std::string_view bytes)>;

  virtual ~Log() = default;

  // Raises the shard's epoch with one synchronous write and says where its log stands. Blocks.
  // DataLoss: the shard's bookkeeping is damaged; the message says where.
  virtual absl::StatusOr<ShardClaim> Claim(ShardId shard) = 0;

  // Writes all entries as one synchronous write and reports one result an entry, in order, on the
  // store's own thread, in the order of the calls. Does not block on the disk. `done` must not call
  // back into the store in a way that blocks. After any outcome but kOk the store is broken: every
  // later Append answers kNotCommitted until the store is reopened (rule 3).
  virtual void Append(std::vector<AppendEntry> entries, AppendCallback done) = 0;

  // Visits entries [from, last] in order. DataLoss names shard, lsn and what is wrong with the
  // first entry that is missing, damaged or of a newer format; entries before it have been visited.
  // FailedPrecondition: the shard has not been claimed.
  virtual absl::Status Read(ShardId shard, Lsn from, const EntryVisitor& visit) = 0;

  // Drops entries with lsn <= through. Blocks briefly (not synced: a crash may bring them back).
  // FailedPrecondition: fenced.
  virtual absl::Status Truncate(ShardId shard, Epoch epoch, Lsn through) = 0;
};

// A set of row changes of one shard, applied atomically, in order after the shard's earlier
// batches. Within a batch the ranges are deleted first, then the single keys, then the puts are
// made.
struct RowBatch {
  ShardId shard = 0;
  Epoch epoch = 0;
  std::vector<KeyValue> puts;
  std::vector<std::string> deletes;
  std::vector<std::pair<std::string, std::string>> delete_ranges;  // [begin, end)
  // Ranges of which these deletes leave nothing, [begin, end). Changes no row: it tells the store
  // where space may be given back, as it is told by delete_ranges.
  std::vector<std::pair<std::string, std::string>> emptied;
};

// Rows by bytewise ordered keys (laid out by engine/shard/keys.h). Thread-safe.
class Rows {
 public:
  using WriteCallback = std::function<void(absl::Status)>;
  // Returns false to stop the scan.
  using RowVisitor = std::function<bool(std::string_view key, std::string_view value)>;
  enum class Next { kRow, kRange, kStop };
  // Says where the scan goes on.
  using RangesVisitor =
      std::function<Next(size_t range, std::string_view key, std::string_view value)>;

  virtual ~Rows() = default;

  // Queues the batches; `done` is called on the store's own thread once all are applied, in the
  // order of the calls. Not synced by itself: rows become durable no later than the next Append or
  // Truncate does, in order with them. FailedPrecondition: fenced. A failure breaks the store as in
  // Log::Append.
  virtual void Write(std::vector<RowBatch> batches, WriteCallback done) = 0;

  // As Write, and durable when it returns. Blocks. For definitions and bookkeeping.
  virtual absl::Status WriteSync(RowBatch batch) = 0;

  virtual absl::StatusOr<std::optional<std::string>> Get(std::string_view key) = 0;

  // Visits keys in [begin, end) ascending, from one consistent view.
  virtual absl::Status Scan(std::string_view begin, std::string_view end,
                            const RowVisitor& visit) = 0;
  // Visits the keys of each [begin, end) in turn, ascending within it, all from one consistent
  // view: a row that moves between the ranges meanwhile is seen once.
  virtual absl::Status ScanRanges(const std::vector<std::pair<std::string, std::string>>& ranges,
                                  const RangesVisitor& visit) = 0;
};

struct StoreStats {
  uint64_t bytes_on_disk = 0;
  uint64_t bytes_free = 0;  // of the file system
  uint64_t appends = 0;     // synchronous writes so far
  uint64_t appended_bytes = 0;
  uint64_t entries_dropped_at_open = 0;  // unacknowledged torn tail, see OpenNotes()
};

// A store: both, with what belongs to the whole of it. Closing (destruction) waits for queued work.
class Store {
 public:
  virtual ~Store() = default;
  virtual Log& log() = 0;
  virtual Rows& rows() = 0;
  // Fixed at creation, a power of two.
  virtual uint32_t shards() const = 0;
  // Raised by restoring a backup; part of every fencing token.
  virtual uint32_t incarnation() const = 0;
  virtual StoreStats Stats() = 0;
  // What the operator should know of how it was opened (e.g. a torn tail that was dropped), a line
  // each.
  virtual std::vector<std::string> OpenNotes() const = 0;
  // True while free space is below the reserve: starts and events are to be refused (rule 15).
  virtual bool BelowReserve() = 0;
};

}  // namespace flux::store

#endif  // FLUX_STORE_STORE_H_
