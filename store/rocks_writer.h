// The writer thread of a RocksStore: everything that changes the database goes through it, in
// order. Included by the store's own .cc files only.
#ifndef FLUX_STORE_ROCKS_WRITER_H_
#define FLUX_STORE_ROCKS_WRITER_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "rocksdb/write_batch.h"
#include "store/checks.h"
#include "store/log_format.h"
#include "store/rocks_database.h"
#include "store/rocks_reclaim.h"
#include "store/store.h"

namespace flux::store {

// Starts its thread when made; destruction writes and delivers what is queued. All calls are
// thread-safe.
//
// The thread takes all that is queued, turns it into one write batch, syncs it if anything in it
// asks for that, and calls back in the order of the calls. A claim stands by itself between two
// batches. The first failed write stops the writer for good.
class RocksWriter {
 public:
  struct Options {
    uint32_t shards = 0;
    size_t queued_bytes_max = kQueuedBytesMax;
    absl::Duration idle_flush_after;
    std::function<void()> on_disk_full;
  };

  // `database` and `reclaim` must outlive it. `reclaim` learns of every range of rows that has been
  // deleted, and is stopped when the writer stops.
  RocksWriter(RocksDatabase* database, RocksReclaim* reclaim, Options options);
  ~RocksWriter();

  void Append(std::vector<AppendEntry> entries, Log::AppendCallback done);
  void Write(std::vector<RowBatch> batches, Rows::WriteCallback done);
  // These block until the thread has answered.
  absl::Status WriteSync(RowBatch batch);
  absl::Status Truncate(ShardId shard, Epoch epoch, Lsn through);
  absl::StatusOr<ShardClaim> Claim(ShardId shard);

  // Where a claimed shard's log stands on disk; false if it has not been claimed.
  bool LogBounds(ShardId shard, Lsn* first, Lsn* last) const;
  uint64_t appends() const { return appends_.load(std::memory_order_relaxed); }
  uint64_t appended_bytes() const { return appended_bytes_.load(std::memory_order_relaxed); }

 private:
  enum class Kind { kAppend, kWrite, kWriteSync, kTruncate, kClaim };
  struct Item {
    Kind kind = Kind::kAppend;
    size_t bytes = 0;
    bool over_limit = false;  // came when as much as may wait was waiting
    std::vector<AppendEntry> entries;
    Log::AppendCallback append_done;
    std::vector<AppendResult> results;  // filled in as it is admitted
    std::vector<RowBatch> batches;
    Rows::WriteCallback write_done;
    absl::Status status;    // of anything but an append
    bool admitted = false;  // in the batch being built
    ShardId shard = 0;
    Epoch epoch = 0;
    Lsn through = 0;
    // Shared with the waiting caller, which may be gone before set_value has returned.
    std::shared_ptr<std::promise<absl::Status>> answer;
    std::shared_ptr<std::promise<absl::StatusOr<ShardClaim>>> claim;
  };
  // What other threads may read of a shard.
  struct PublicState {
    std::atomic<bool> claimed{false};
    std::atomic<Lsn> first{1};
    std::atomic<Lsn> last{0};
  };

  void Enqueue(Item item);
  void Run();
  void Idle();
  void Process(std::vector<Item>* items);
  // Adds the item to the batch, or settles its refusal.
  void Admit(Item* item);
  void AdmitAppendItem(Item* item);
  absl::Status AdmitRows(Item* item);
  absl::Status AdmitTruncate(Item* item);
  void PutRow(std::string_view key, std::string_view value);
  void DeleteRow(std::string_view key);
  void DropChunks(std::string_view key);
  bool MayHaveChunks(std::string_view key);
  void PutBookkeeping(ShardId shard);
  // Writes the batch and delivers items [begin, end).
  void Commit(std::vector<Item>* items, size_t begin, size_t end);
  absl::Status WriteBatch(bool sync);
  void Deliver(Item* item, const absl::Status& written);
  void Publish(ShardId shard);
  absl::StatusOr<ShardClaim> DoClaim(ShardId shard);
  absl::StatusOr<ShardState> FindLog(ShardId shard);
  void Break(const absl::Status& cause);

  RocksDatabase* const database_;
  RocksReclaim* const reclaim_;
  const Options options_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Item> queue_;
  size_t queued_bytes_ = 0;
  bool stopping_ = false;

  // The thread's own.
  std::vector<ShardState> states_;
  rocksdb::WriteBatch batch_;
  bool batch_appends_ = false;
  bool batch_sync_rows_ = false;
  bool batch_truncates_ = false;
  bool batch_rows_ = false;
  absl::flat_hash_set<std::string> batch_chunked_;     // rows chunked in the batch being built
  std::vector<RocksReclaim::KeyRange> batch_deleted_;  // by the batch being built
  bool any_chunks_ = false;                            // whether the database may hold any
  uint64_t nonce_state_;
  absl::Status broken_;
  enum class IdleState { kBusy, kFlushed, kTrimmed } idle_ = IdleState::kTrimmed;

  std::vector<PublicState> public_states_;
  std::atomic<uint64_t> appends_{0};
  std::atomic<uint64_t> appended_bytes_{0};
  std::thread thread_;
};

}  // namespace flux::store

#endif  // FLUX_STORE_ROCKS_WRITER_H_
