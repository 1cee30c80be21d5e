// The store in memory: for tests and for the simulator, where a crash must cost exactly what a disk
// would lose.
//
//   auto disk = std::make_shared<MemoryDisk>(MemoryDiskOptions{.shards = 4});
//   auto store = MemoryStore::Open(disk, {.manual = true}).value();
//   ... Append, Write ...; while (store->Step()) {}      // deliver completions, one a call
//   store->Crash({.unsynced_kept = 2});                  // what was not synced is gone, but for
//   the first two writes store = MemoryStore::Open(disk, {.manual = true}).value();
#ifndef FLUX_STORE_MEMORY_STORE_H_
#define FLUX_STORE_MEMORY_STORE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/checks.h"
#include "store/store.h"

namespace flux::store {

struct MemoryDiskOptions {
  uint32_t shards = 4;  // a power of two
  uint32_t incarnation = 1;
};

// What outlives a MemoryStore: the surviving state, and how to undo what was not synced.
// Thread-safe. At most one store has it open at a time.
class MemoryDisk {
 public:
  explicit MemoryDisk(MemoryDiskOptions options = {});

  // Free space as the store will see it; at 0 every write fails with ResourceExhausted. Unlimited
  // at first.
  void SetFreeBytes(uint64_t bytes);
  // Restoring a backup does this.
  void RaiseIncarnation();
  // Damages a log entry (it is read as DataLoss) or makes it vanish. False: there is no such entry.
  bool DamageEntry(ShardId shard, Lsn lsn);
  bool LoseEntry(ShardId shard, Lsn lsn);
  // Writes that a crash right now would lose.
  size_t UnsyncedWrites();

 private:
  friend class MemoryStore;

  struct Entry {
    uint64_t nonce = 0;
    std::string bytes;
    bool damaged = false;
  };
  struct Shard {
    Epoch epoch = 0;
    Lsn first = 1;
    // Last entry seen when the bookkeeping was last written; tells a log that went backwards.
    Lsn seen_last = 0;
    uint64_t seen_nonce = 0;
    std::map<Lsn, Entry> entries;
  };
  // Restores what one unsynced write changed.
  struct Undo {
    std::vector<std::pair<std::string, std::optional<std::string>>> rows;  // in order of change
    std::optional<std::pair<ShardId, Shard>> shard;  // with only the entries the write removed
  };

  // Recursive, so that a scan's visitor may read.
  std::recursive_mutex mutex_;
  const MemoryDiskOptions options_;
  uint32_t incarnation_;
  uint64_t bytes_free_ = UINT64_MAX;
  std::vector<Shard> shards_;
  std::map<std::string, std::string, std::less<>> rows_;
  std::vector<Undo> unsynced_;
  uint64_t torn_entries_ = 0;  // of the last crash; reported by the next open
  bool open_ = false;
};

struct MemoryOptions {
  // No thread: the owner calls Step(). Calls that block first write what is queued, in order, and
  // leave the completions to Step().
  bool manual = false;
  uint64_t seed = 1;                 // of the nonces
  uint64_t reserve_bytes = 1 << 20;  // BelowReserve
  size_t queued_bytes_max = kQueuedBytesMax;
};

struct CrashOptions {
  // Queued calls that reached the disk before the crash, though nobody was told.
  size_t queued_written = 0;
  // The queued append after those was half written: it is dropped, and reported by the next open.
  bool torn_tail = false;
  // Unsynced writes that the operating system had written back already, oldest first.
  size_t unsynced_kept = 0;
};

// Thread-safe, but Step and Crash belong to one thread. Close by destruction: what is queued is
// written and delivered (with `manual` too).
class MemoryStore : public Store, public Log, public Rows {
 public:
  // FailedPrecondition: another store has the disk open.
  static absl::StatusOr<std::unique_ptr<MemoryStore>> Open(std::shared_ptr<MemoryDisk> disk,
                                                           MemoryOptions options = {});
  ~MemoryStore() override;

  // Manual mode: writes the next queued call if none is written yet and delivers one completion.
  // False: nothing to do.
  bool Step();
  // Calls whose completion has not been delivered.
  size_t Pending();
  // The process dies: queued calls are never answered, the disk keeps what `options` say, this
  // store refuses everything from now on. The disk can be opened again at once.
  void Crash(CrashOptions options = {});

  Log& log() override { return *this; }
  Rows& rows() override { return *this; }
  uint32_t shards() const override { return disk_->options_.shards; }
  uint32_t incarnation() const override;
  StoreStats Stats() override;
  std::vector<std::string> OpenNotes() const override { return notes_; }
  bool BelowReserve() override;

  absl::StatusOr<ShardClaim> Claim(ShardId shard) override;
  void Append(std::vector<AppendEntry> entries, AppendCallback done) override;
  absl::Status Read(ShardId shard, Lsn from, const EntryVisitor& visit) override;
  absl::Status Truncate(ShardId shard, Epoch epoch, Lsn through) override;

  void Write(std::vector<RowBatch> batches, WriteCallback done) override;
  absl::Status WriteSync(RowBatch batch) override;
  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) override;
  absl::Status Scan(std::string_view begin, std::string_view end, const RowVisitor& visit) override;
  absl::Status ScanRanges(const std::vector<std::pair<std::string, std::string>>& ranges,
                          const RangesVisitor& visit) override;

 private:
  // A queued call: an Append if `append_done` is set, else a Write.
  struct Item {
    std::vector<AppendEntry> entries;
    AppendCallback append_done;
    std::vector<RowBatch> batches;
    WriteCallback write_done;
    size_t bytes = 0;
    bool over_limit = false;  // came when as much as may wait was waiting
  };

  MemoryStore(std::shared_ptr<MemoryDisk> disk, MemoryOptions options);

  void Enqueue(Item item);
  void Run();
  // All below: the disk's mutex is held.
  void WriteNext();
  void WriteQueued();
  std::vector<AppendResult> ApplyAppend(Item* item);
  absl::Status ApplyRows(Item* item);
  void ApplyBatch(const RowBatch& batch, MemoryDisk::Undo* undo);
  void PutRow(const std::string& key, std::string value, MemoryDisk::Undo* undo);
  absl::Status WritableStatus() const;
  void Break(const absl::Status& cause);
  static void UndoWrites(MemoryDisk* disk, size_t keep);

  const std::shared_ptr<MemoryDisk>
      disk_;  // shared with the test, which opens it again after a crash
  const MemoryOptions options_;
  std::vector<std::string> notes_;
  uint64_t nonce_state_;
  std::vector<ShardState> states_;
  absl::Status broken_;
  bool dead_ = false;
  bool stopping_ = false;
  size_t queued_bytes_ = 0;
  std::deque<Item> queue_;
  std::deque<std::function<void()>> completions_;
  StoreStats stats_;
  std::condition_variable_any wake_;
  std::thread thread_;
};

}  // namespace flux::store

#endif  // FLUX_STORE_MEMORY_STORE_H_
