// Gives back the space of deleted rows. Included by the store's own .cc files and their tests only.
#ifndef FLUX_STORE_ROCKS_RECLAIM_H_
#define FLUX_STORE_ROCKS_RECLAIM_H_

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "store/rocks_database.h"

namespace flux::store {

// Deleted rows stay in table files until RocksDB compacts those, which it does for the sake of
// further writes: on a quiet store never. A reclaimer is told which ranges of rows were deleted.
// Once what they hold in tables is worth it, it has them compacted, under the database's own
// compactions and at the low priority of those, for a tenth of the time at most.
//
// Starts its thread when made; destruction abandons a compaction that runs. Thread-safe. What is
// noted is in memory only: what was deleted before a restart is left to RocksDB.
class RocksReclaim {
 public:
  using KeyRange = std::pair<std::string, std::string>;  // of rows, [begin, end)

  struct Options {
    absl::Duration interval;  // between two looks; zero: never looks
    // Compacts for no less, nor for less than a twentieth of the tables.
    uint64_t bytes_min = 0;
    std::function<uint64_t()> free_bytes;         // of the file system; set
    std::function<void(std::string)> on_warning;  // set
  };

  // Of ranges noted and not taken in by the thread; more are noted as one for each shard and table.
  static constexpr size_t kNotedMax = 16'384;
  // Of ranges that wait for a compaction; when there are more, neighbours become one.
  static constexpr size_t kRangesMax = 4'096;

  // `database` must outlive it.
  RocksReclaim(RocksDatabase* database, Options options);
  ~RocksReclaim();

  // Nothing but what is written from now on is left of `ranges`, and a write says so already.
  // Never waits for the thread's work.
  void Note(std::vector<KeyRange> ranges);
  // For a store that is broken: nothing is compacted any more. Does not wait.
  void Stop();

 private:
  enum Family : size_t { kRows, kChunks, kFamilies };
  using Bytes = std::array<uint64_t, kFamilies>;
  struct Deleted {
    KeyRange keys;
    Bytes in_tables{};    // as last measured
    Bytes live{};         // of that, about: what stands between the ranges it was joined of
    bool exact = true;    // nothing stands in it
    bool joined = false;  // since it was last measured
    int compactions = 0;

    uint64_t Garbage(size_t family) const;
    uint64_t Garbage() const;
  };
  // Of deleted_, [begin, end): with little enough between them to be compacted in one go.
  struct Group {
    size_t begin = 0;
    size_t end = 0;
    uint64_t garbage = 0;
  };

  void Run();
  absl::Status TakeIn(std::vector<KeyRange> noted);
  static void Join(Deleted* into, const Deleted& next);
  // Joins what overlaps or touches.
  void JoinTouching();
  // Joins across the smallest gaps until half of kRangesMax are left.
  absl::Status JoinNearest();
  absl::Status Measure();
  // Compacts if it is worth it; whether it did.
  absl::StatusOr<bool> Look();
  absl::StatusOr<bool> Compact();
  std::vector<Group> GroupsOf(size_t family, const std::vector<Bytes>& gaps) const;
  absl::Status CompactGroup(size_t family, const Group& group);
  // What compacting it may take of the disk meanwhile.
  uint64_t BytesNeeded(size_t family, const Group& group) const;

  absl::StatusOr<std::vector<uint64_t>> TableBytes(size_t family,
                                                   const std::vector<KeyRange>& ranges) const;
  // What is in tables between each of deleted_ and the next.
  absl::StatusOr<std::vector<Bytes>> GapsBehind() const;
  uint64_t Property(size_t family, const std::string& name) const;
  rocksdb::ColumnFamilyHandle* HandleOf(size_t family) const;
  std::string KeyIn(size_t family, std::string_view row_key) const;

  RocksDatabase* const database_;
  const Options options_;
  std::atomic<bool> canceled_{false};  // read by RocksDB within a compaction

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<KeyRange> noted_;
  std::map<std::string, KeyRange> widened_;  // by shard and table, beyond kNotedMax
  bool stopping_ = false;

  // The thread's own.
  std::vector<Deleted> deleted_;  // ascending, apart from each other
  Bytes versions_{};              // of the tables, at the last look
  bool taken_in_ = false;         // since the last look
  bool told_of_shortage_ = false;
  std::thread thread_;
};

}  // namespace flux::store

#endif  // FLUX_STORE_ROCKS_RECLAIM_H_
