// Deleted rows leave the disk though nothing else is written, and what lies beside them stays.
#include "store/rocks_reclaim.h"

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "rocksdb/write_batch.h"
#include "store/failpoint.h"
#include "store/rocks_database.h"
#include "store/rocks_store.h"
#include "store/synced_marks.h"
#include "tests/store/store_testing.h"

namespace flux::store {
namespace {

constexpr uint32_t kShards = 4;
constexpr int kRuns = 48;  // one of which is kept in eight
constexpr int kRowsPerRun = 4;
constexpr size_t kInlineBytes = 60'000;
constexpr size_t kChunkedBytes = 300'000;

// As engine/shard/keys.h lays them out: shard, table, run, ordinal.
std::string RunPrefix(ShardId shard, char table, uint64_t run) {
  std::string key = {static_cast<char>(shard >> 8), static_cast<char>(shard), table};
  for (int byte = 7; byte >= 0; --byte) key.push_back(static_cast<char>(run >> (8 * byte)));
  return key + "bytes of " + std::string(1, static_cast<char>(shard));
}

std::string RowKey(ShardId shard, char table, uint64_t run, uint64_t ordinal) {
  std::string key = RunPrefix(shard, table, run);
  for (int byte = 7; byte >= 0; --byte) key.push_back(static_cast<char>(ordinal >> (8 * byte)));
  return key;
}

RocksReclaim::KeyRange RunRange(ShardId shard, char table, uint64_t run) {
  std::string end = RunPrefix(shard, table, run);
  ++end.back();
  return {RunPrefix(shard, table, run), std::move(end)};
}

bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(90);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// ---- in a whole store
// --------------------------------------------------------------------------------------------

class Reclaim : public ::testing::Test {
 protected:
  Reclaim() {
    options_.path = directory_.path() + "/data";
    options_.shards = kShards;
    options_.ballast_bytes = 0;
    options_.reserve_bytes = 0;
    options_.idle_flush_after = absl::Milliseconds(100);
    options_.reclaim_interval = absl::Milliseconds(20);
    options_.reclaim_bytes_min = 1u << 20;
    options_.on_warning = [this](std::string warning) {
      std::lock_guard<std::mutex> lock(mutex_);
      warnings_.push_back(std::move(warning));
    };
  }
  ~Reclaim() override { EXPECT_TRUE(Failpoint::Arm("").ok()); }

  void Open() {
    auto store = RocksStore::Open(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    claims_.clear();
    for (ShardId shard = 0; shard < kShards; ++shard) {
      auto claim = store_->log().Claim(shard);
      ASSERT_TRUE(claim.ok()) << claim.status();
      claims_.push_back(*claim);
    }
  }

  static ShardId ShardOf(int run) { return static_cast<ShardId>(run) % kShards; }
  static bool Kept(int run) { return run % 8 < 1; }
  static std::string Value(char table, int run, int row) {
    return Bytes(table == 'P' ? kChunkedBytes : kInlineBytes,
                 static_cast<uint64_t>(run * 100 + row * 10 + table));
  }

  // Every run's rows, in tables and nowhere else.
  void Fill() {
    for (int run = 0; run < kRuns; ++run) {
      RowBatch batch;
      batch.shard = ShardOf(run);
      batch.epoch = claims_[batch.shard].epoch;
      for (int row = 0; row < kRowsPerRun; ++row) {
        for (char table : {'H', 'P'}) {
          batch.puts.push_back(
              {RowKey(batch.shard, table, static_cast<uint64_t>(run), static_cast<uint64_t>(row)),
               Value(table, run, row)});
        }
      }
      const absl::Status written = WriteRows(store_->rows(), {batch});
      ASSERT_TRUE(written.ok()) << written;
    }
    filled_ = kRuns * kRowsPerRun * (kInlineBytes + kChunkedBytes);
    ASSERT_TRUE(Eventually([&] { return TableBytes() >= filled_ && WalBytes() < filled_ / 100; }));
  }

  // Deletes every run but the kept ones, by ranges or by single keys, as the engine does both.
  void Delete(bool by_range) {
    for (int run = 0; run < kRuns; ++run) {
      if (Kept(run)) continue;
      RowBatch batch;
      batch.shard = ShardOf(run);
      batch.epoch = claims_[batch.shard].epoch;
      for (char table : {'H', 'P'}) {
        auto range = RunRange(batch.shard, table, static_cast<uint64_t>(run));
        (by_range ? batch.delete_ranges : batch.emptied).push_back(std::move(range));
        for (int row = 0; row < kRowsPerRun && !by_range; ++row) {
          batch.deletes.push_back(
              RowKey(batch.shard, table, static_cast<uint64_t>(run), static_cast<uint64_t>(row)));
        }
      }
      const absl::Status written = WriteRows(store_->rows(), {batch});
      ASSERT_TRUE(written.ok()) << written;
    }
  }

  bool SpaceIsBack() { return store_->Stats().bytes_on_disk < filled_ / 5; }

  void ExpectTheKeptAndNothingElse() {
    for (int run = 0; run < kRuns; ++run) {
      for (int row = 0; row < kRowsPerRun; ++row) {
        for (char table : {'H', 'P'}) {
          const std::string found = GetOr(
              store_->rows(),
              RowKey(ShardOf(run), table, static_cast<uint64_t>(run), static_cast<uint64_t>(row)));
          EXPECT_TRUE(found == (Kept(run) ? Value(table, run, row) : "(none)"))
              << table << " row " << row << " of run " << run;
        }
      }
    }
  }

  uint64_t FileBytes(const std::string& extension) const {
    uint64_t bytes = 0;
    std::error_code error;
    for (const auto& file : std::filesystem::directory_iterator(options_.path + "/db", error)) {
      std::error_code gone;
      const uint64_t size = file.file_size(gone);
      if (!gone && file.path().extension() == extension) bytes += size;
    }
    return bytes;
  }
  uint64_t TableBytes() const { return FileBytes(".sst"); }
  uint64_t WalBytes() const { return FileBytes(".log"); }

  size_t WarningsWith(const std::string& part) {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t count = 0;
    for (const std::string& warning : warnings_) count += warning.find(part) != std::string::npos;
    return count;
  }

  TempDir directory_;
  RocksOptions options_;
  std::mutex mutex_;
  std::vector<std::string> warnings_;
  std::unique_ptr<RocksStore> store_;
  std::vector<ShardClaim> claims_;
  uint64_t filled_ = 0;
};

TEST_F(Reclaim, SpaceOfDeletedRangesComesBackThoughNothingElseIsWritten) {
  Open();
  Fill();
  Delete(true);
  EXPECT_TRUE(Eventually([&] { return SpaceIsBack(); })) << store_->Stats().bytes_on_disk;
  ExpectTheKeptAndNothingElse();
  store_.reset();
  Open();
  ExpectTheKeptAndNothingElse();
}

TEST_F(Reclaim, SpaceOfRowsDeletedOneByOneComesBackWhereTheBatchSaysThatNothingIsLeft) {
  Open();
  Fill();
  Delete(false);
  EXPECT_TRUE(Eventually([&] { return SpaceIsBack(); })) << store_->Stats().bytes_on_disk;
  ExpectTheKeptAndNothingElse();
}

TEST_F(Reclaim, NothingIsCompactedWithoutTheRoomForItAndTheOperatorIsToldOnce) {
  std::atomic<uint64_t> free{1u << 20};
  options_.free_bytes = [&]() -> absl::StatusOr<uint64_t> { return free.load(); };
  Open();
  Fill();
  Delete(true);
  ASSERT_TRUE(Eventually([&] { return WarningsWith("is not given back") > 0; }));
  EXPECT_GE(TableBytes(), filled_);
  free = uint64_t{1} << 40;
  EXPECT_TRUE(Eventually([&] { return SpaceIsBack(); })) << store_->Stats().bytes_on_disk;
  EXPECT_EQ(WarningsWith("is not given back"), 1u);
  ExpectTheKeptAndNothingElse();
}

TEST_F(Reclaim, ADiskThatIsFullInACompactionIsToldOfStopsNoWriteAndSpaceComesBackLater) {
  Open();
  Fill();
  // More than one: a compaction of the database's own may be the first to meet it.
  std::string full;
  for (int write = 1; write <= 1'000; ++write) {
    absl::StrAppend(&full, "compaction_write:", write, ":error,");
  }
  ASSERT_TRUE(Failpoint::Arm(full).ok());
  Delete(true);
  ASSERT_TRUE(Eventually([&] { return WarningsWith("cannot be given back") > 0; }));
  ASSERT_TRUE(Failpoint::Arm("").ok());
  const AppendResult alive = AppendOne(store_->log(), 0, claims_[0].epoch, 1, "alive");
  EXPECT_EQ(alive.outcome, AppendOutcome::kOk) << alive.status;
  EXPECT_TRUE(Eventually([&] { return SpaceIsBack(); })) << store_->Stats().bytes_on_disk;
  ExpectTheKeptAndNothingElse();
}

// ---- by itself
// -------------------------------------------------------------------------------------------------

// A database whose rows are all on the last level, apart from each other.
class ReclaimAlone : public ::testing::Test {
 protected:
  ReclaimAlone() {
    options_.path = directory_.path();
    auto marks = SyncedMarks::Open(directory_.path() + "/SYNCED");
    EXPECT_TRUE(marks.ok()) << marks.status();
    marks_ = *std::move(marks);
    Reopen(true);
  }

  void Reopen(bool create) {
    database_.reset();
    RocksDatabase::Callbacks callbacks;
    callbacks.on_warning = [](const std::string&) {};
    callbacks.on_disk_full = [] {};
    auto database = RocksDatabase::Open(options_, directory_.path() + "/db", create, marks_.get(),
                                        std::move(callbacks));
    ASSERT_TRUE(database.ok()) << database.status();
    database_ = *std::move(database);
  }

  rocksdb::DB& db() { return *database_->db(); }

  static std::string Key(int run) { return RowKey(1, 'H', static_cast<uint64_t>(run), 0); }

  void Fill(int runs, size_t bytes) {
    for (int run = 0; run < runs; ++run) {
      ASSERT_TRUE(
          db().Put({}, database_->rows(), Key(run), Bytes(bytes, static_cast<uint64_t>(run))).ok());
    }
    ASSERT_TRUE(db().CompactRange({}, database_->rows(), nullptr, nullptr).ok());
    filled_ = Tables();
  }

  // Of every `step` runs, all but the first.
  std::vector<RocksReclaim::KeyRange> Delete(int runs, int step, bool all_but_one) {
    std::vector<RocksReclaim::KeyRange> ranges;
    for (int run = 0; run < runs; ++run) {
      if ((run % step == 0) == all_but_one) continue;
      ranges.push_back(RunRange(1, 'H', static_cast<uint64_t>(run)));
      EXPECT_TRUE(
          db().DeleteRange({}, database_->rows(), ranges.back().first, ranges.back().second).ok());
    }
    return ranges;
  }

  std::unique_ptr<RocksReclaim> Start() {
    RocksReclaim::Options options;
    options.interval = absl::Milliseconds(5);
    options.bytes_min = 1u << 20;
    options.free_bytes = [] { return uint64_t{1} << 40; };
    options.on_warning = [](const std::string& warning) { ADD_FAILURE() << warning; };
    return std::make_unique<RocksReclaim>(database_.get(), std::move(options));
  }

  uint64_t Property(const std::string& name) {
    uint64_t value = 0;
    EXPECT_TRUE(db().GetIntProperty(database_->rows(), name, &value));
    return value;
  }
  uint64_t Tables() { return Property(rocksdb::DB::Properties::kLiveSstFilesSize); }
  uint64_t Compactions() { return Property(rocksdb::DB::Properties::kNumRunningCompactions); }

  void Expect(int runs, size_t bytes, const std::function<bool(int)>& kept) {
    for (int run = 0; run < runs; ++run) {
      std::string value;
      const rocksdb::Status found = db().Get({}, database_->rows(), Key(run), &value);
      ASSERT_EQ(found.ok(), kept(run)) << "run " << run << ": " << found.ToString();
      if (kept(run)) {
        ASSERT_TRUE(value == Bytes(bytes, static_cast<uint64_t>(run))) << run;
      }
    }
  }

  TempDir directory_;
  RocksOptions options_;
  std::unique_ptr<SyncedMarks> marks_;
  std::unique_ptr<RocksDatabase> database_;
  uint64_t filled_ = 0;
};

constexpr int kLargeRuns = 1'600;
constexpr size_t kLargeBytes = 60'000;

TEST_F(ReclaimAlone, ClosingAbandonsACompactionAndLeavesEverythingWhole) {
  Fill(kLargeRuns, kLargeBytes);
  const auto ranges = Delete(kLargeRuns, 8, false);
  auto reclaim = Start();
  reclaim->Note(ranges);
  ASSERT_TRUE(Eventually([&] { return Compactions() > 0; }));
  reclaim.reset();
  ASSERT_TRUE(Eventually([&] { return Compactions() == 0; }));
  EXPECT_GE(Tables(), filled_) << "it was not abandoned";
  Reopen(false);
  Expect(kLargeRuns, kLargeBytes, [](int run) { return run % 8 != 0; });
}

TEST_F(ReclaimAlone, ABrokenStoreIsCompactedNoFurther) {
  Fill(kLargeRuns, kLargeBytes);
  const auto ranges = Delete(kLargeRuns, 8, false);
  auto reclaim = Start();
  reclaim->Note(ranges);
  ASSERT_TRUE(Eventually([&] { return Compactions() > 0; }));
  reclaim->Stop();
  ASSERT_TRUE(Eventually([&] { return Compactions() == 0; }));
  EXPECT_GE(Tables(), filled_);
}

TEST_F(ReclaimAlone, MoreRangesThanItNotesOrRemembersAreJoinedAndTheirSpaceComesBack) {
  constexpr int kMany = 2 * static_cast<int>(RocksReclaim::kNotedMax) + 10'000;
  static_assert(RocksReclaim::kNotedMax > RocksReclaim::kRangesMax);
  Fill(kMany, 500);
  const auto ranges = Delete(kMany, 2, false);
  ASSERT_GT(ranges.size(), RocksReclaim::kNotedMax);
  auto reclaim = Start();
  reclaim->Note(ranges);
  EXPECT_TRUE(Eventually([&] { return Tables() < filled_ * 2 / 3; })) << Tables();
  Expect(kMany, 500, [](int run) { return run % 2 != 0; });
}

TEST_F(ReclaimAlone, WhatASnapshotHoldsComesBackOnceItIsGone) {
  Fill(400, kLargeBytes);
  const rocksdb::Snapshot* snapshot = db().GetSnapshot();
  const auto ranges = Delete(400, 8, true);
  auto reclaim = Start();
  reclaim->Note(ranges);
  ASSERT_TRUE(Eventually([&] { return Compactions() > 0; }));
  ASSERT_TRUE(Eventually([&] { return Compactions() == 0; }));
  rocksdb::ReadOptions then;
  then.snapshot = snapshot;
  std::string value;
  EXPECT_TRUE(db().Get(then, database_->rows(), Key(1), &value).ok());
  EXPECT_GE(Tables(), filled_);
  db().ReleaseSnapshot(snapshot);
  EXPECT_TRUE(Eventually([&] { return Tables() < filled_ / 5; })) << Tables();
}

}  // namespace
}  // namespace flux::store
