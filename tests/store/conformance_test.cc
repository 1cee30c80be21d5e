// One suite that every implementation of the store passes.
#include <functional>
#include <future>
#include <memory>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/faulty_store.h"
#include "store/memory_store.h"
#include "store/rocks_store.h"
#include "tests/store/store_testing.h"

namespace flux::store {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr size_t kQueuedMax = 8 << 20;

// Keeps what a store leaves behind and opens a store over it again.
class Medium {
 public:
  virtual ~Medium() = default;
  virtual std::unique_ptr<Store> Open() = 0;
};

class RocksMedium : public Medium {
 public:
  std::unique_ptr<Store> Open() override {
    RocksOptions options;
    options.path = directory_.path() + "/data";
    options.shards = 4;
    options.ballast_bytes = 0;
    options.reserve_bytes = 0;
    options.queued_bytes_max = kQueuedMax;
    auto store = RocksStore::Open(options);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

 private:
  TempDir directory_;
};

class MemoryMedium : public Medium {
 public:
  std::unique_ptr<Store> Open() override {
    auto store = MemoryStore::Open(disk_, {.queued_bytes_max = kQueuedMax});
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }

 private:
  std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>();
};

class FaultlessMedium : public MemoryMedium {
 public:
  std::unique_ptr<Store> Open() override {
    return std::make_unique<FaultyStore>(MemoryMedium::Open());
  }
};

struct Kind {
  const char* name;
  std::function<std::unique_ptr<Medium>()> make;
};

class StoreConformance : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    medium_ = GetParam().make();
    store_ = medium_->Open();
    ASSERT_NE(store_, nullptr);
  }
  void Reopen() {
    store_.reset();
    store_ = medium_->Open();
    ASSERT_NE(store_, nullptr);
  }
  Log& log() { return store_->log(); }
  Rows& rows() { return store_->rows(); }
  ShardClaim Claim(ShardId shard) {
    auto claim = log().Claim(shard);
    EXPECT_TRUE(claim.ok()) << claim.status();
    return claim.ok() ? *claim : ShardClaim();
  }

  std::unique_ptr<Medium> medium_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreConformance, ANewShardIsEmptyAndItsFirstEpochIsOne) {
  EXPECT_EQ(store_->shards(), 4u);
  EXPECT_EQ(store_->incarnation(), 1u);
  EXPECT_THAT(store_->OpenNotes(), IsEmpty());
  const ShardClaim claim = Claim(3);
  EXPECT_EQ(claim.epoch, 1u);
  EXPECT_EQ(claim.first_lsn, 1u);
  EXPECT_EQ(claim.last_lsn, 0u);
  EXPECT_EQ(claim.last_nonce, 0u);
}

TEST_P(StoreConformance, EachClaimRaisesTheEpochAndFindsTheEndOfTheLog) {
  const ShardClaim first = Claim(1);
  const AppendResult one = AppendOne(log(), 1, first.epoch, 1, "one");
  ASSERT_EQ(one.outcome, AppendOutcome::kOk) << one.status;
  const AppendResult two = AppendOne(log(), 1, first.epoch, 2, "two");
  ASSERT_EQ(two.outcome, AppendOutcome::kOk) << two.status;
  EXPECT_NE(one.nonce, two.nonce);
  Reopen();
  const ShardClaim second = Claim(1);
  EXPECT_EQ(second.epoch, 2u);
  EXPECT_EQ(second.first_lsn, 1u);
  EXPECT_EQ(second.last_lsn, 2u);
  EXPECT_EQ(second.last_nonce, two.nonce);
  EXPECT_EQ(Claim(0).epoch, 1u) << "shards have epochs of their own";
}

TEST_P(StoreConformance, ReadVisitsFromTheGivenEntryToTheLastInOrder) {
  const ShardClaim claim = Claim(2);
  for (Lsn lsn = 1; lsn <= 5; ++lsn) {
    ASSERT_EQ(AppendOne(log(), 2, claim.epoch, lsn, std::string(lsn, 'x')).outcome,
              AppendOutcome::kOk);
  }
  absl::Status status;
  EXPECT_THAT(ReadLog(log(), 2, 3, &status), ElementsAre("xxx", "xxxx", "xxxxx"));
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(ReadLog(log(), 2, 6, &status), IsEmpty());
  EXPECT_TRUE(status.ok()) << status;
  int visited = 0;
  EXPECT_TRUE(log().Read(2, 1, [&](Lsn, std::string_view) { return ++visited < 2; }).ok());
  EXPECT_EQ(visited, 2);
}

TEST_P(StoreConformance, OneAppendOfSeveralShardsAnswersForEachInOrder) {
  const ShardClaim a = Claim(0);
  const ShardClaim b = Claim(1);
  std::vector<AppendEntry> entries(3);
  entries[0] = {0, a.epoch, 1, "a1", {}};
  entries[1] = {1, b.epoch, 1, "b1", {}};
  entries[2] = {0, a.epoch, 2, "a2", {}};
  const std::vector<AppendResult> results = AppendAll(log(), entries);
  ASSERT_EQ(results.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(results[i].shard, entries[i].shard);
    EXPECT_EQ(results[i].lsn, entries[i].lsn);
    EXPECT_EQ(results[i].outcome, AppendOutcome::kOk) << results[i].status;
    EXPECT_TRUE(results[i].status.ok());
  }
  absl::Status status;
  EXPECT_THAT(ReadLog(log(), 0, 1, &status), ElementsAre("a1", "a2"));
  EXPECT_THAT(ReadLog(log(), 1, 1, &status), ElementsAre("b1"));
}

TEST_P(StoreConformance, CompletionsComeInTheOrderOfTheCalls) {
  const ShardClaim claim = Claim(0);
  constexpr int kCalls = 300;
  // Only the store's thread appends to it until `all` is set.
  std::vector<int> order;
  auto all = std::make_shared<std::promise<void>>();
  auto completed = [&order, all](int call) {
    order.push_back(call);
    if (order.size() == kCalls) all->set_value();
  };
  Lsn lsn = 0;
  for (int call = 0; call < kCalls; ++call) {
    if (call % 3 == 1) {
      rows().Write({Puts(0, claim.epoch, {{"k" + std::to_string(call), "v"}})},
                   [completed, call](const absl::Status& status) {
                     EXPECT_TRUE(status.ok()) << status;
                     completed(call);
                   });
    } else if (call % 3 == 2) {
      rows().Write({}, [completed, call](const absl::Status&) { completed(call); });
    } else {
      std::vector<AppendEntry> entries(1);
      entries[0] = {0, claim.epoch, ++lsn, "entry", {}};
      log().Append(entries, [completed, call](std::vector<AppendResult> results) {
        EXPECT_EQ(results.at(0).outcome, AppendOutcome::kOk) << results[0].status;
        completed(call);
      });
    }
  }
  all->get_future().wait();
  for (int call = 0; call < kCalls; ++call) EXPECT_EQ(order[call], call);
}

TEST_P(StoreConformance, ACompletionMayAppendTheNextEntry) {
  const ShardClaim claim = Claim(0);
  constexpr Lsn kEntries = 50;
  auto finished = std::make_shared<std::promise<void>>();
  std::function<void(Lsn)> append = [&, finished](Lsn lsn) {
    std::vector<AppendEntry> entries(1);
    entries[0] = {0, claim.epoch, lsn, "entry", {}};
    log().Append(entries, [&append, finished, lsn](std::vector<AppendResult> results) {
      ASSERT_EQ(results.at(0).outcome, AppendOutcome::kOk) << results[0].status;
      if (lsn == kEntries) {
        finished->set_value();
      } else {
        append(lsn + 1);
      }
    });
  };
  append(1);
  finished->get_future().wait();
}

TEST_P(StoreConformance, PayloadRowsComeWithTheirEntry) {
  const ShardClaim claim = Claim(0);
  const std::string large = Bytes(300'000, 7);
  ASSERT_EQ(AppendOne(log(), 0, claim.epoch, 1, "entry", {{"p/1", large}, {"p/2", ""}}).outcome,
            AppendOutcome::kOk);
  EXPECT_EQ(GetOr(rows(), "p/1"), large);
  EXPECT_EQ(GetOr(rows(), "p/2"), "");
  Reopen();
  EXPECT_EQ(GetOr(rows(), "p/1"), large);
}

TEST_P(StoreConformance, RowsGoWithTheirEntryInTheOrderGiven) {
  const ShardClaim claim = Claim(0);
  ASSERT_EQ(AppendOne(log(), 0, claim.epoch, 1, "entry",
                      {{"a", Bytes(300'000, 7)}, {"b", "1"}, {"c", "1"}})
                .outcome,
            AppendOutcome::kOk);
  ASSERT_EQ(AppendOne(log(), 0, claim.epoch, 2, "entry",
                      {{"a", std::nullopt},
                       {"b", std::nullopt},
                       {"b", "2"},
                       {"c", "2"},
                       {"c", std::nullopt},
                       {"never was", std::nullopt}})
                .outcome,
            AppendOutcome::kOk);
  for (const bool reopened : {false, true}) {
    SCOPED_TRACE(reopened);
    if (reopened) Reopen();
    EXPECT_EQ(GetOr(rows(), "a"), "(none)");
    EXPECT_EQ(GetOr(rows(), "b"), "2");
    EXPECT_EQ(GetOr(rows(), "c"), "(none)");
    EXPECT_THAT(ScanKeys(rows(), "a", "\xFF\xFF"), ElementsAre("b"));
  }
}

TEST_P(StoreConformance, AnUnclaimedShardIsFenced) {
  const AppendResult result = AppendOne(log(), 2, 1, 1, "entry");
  EXPECT_EQ(result.outcome, AppendOutcome::kFenced);
  EXPECT_THAT(std::string(Message(result.status)), HasSubstr("shard 2"));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(log().Read(2, 1, [](Lsn, std::string_view) { return true; })));
}

TEST_P(StoreConformance, AnOldEpochIsFencedAndTheStoreStops) {
  const ShardClaim old = Claim(0);
  const ShardClaim current = Claim(0);
  ASSERT_EQ(current.epoch, old.epoch + 1);
  const AppendResult fenced = AppendOne(log(), 0, old.epoch, 1, "entry");
  EXPECT_EQ(fenced.outcome, AppendOutcome::kFenced);
  EXPECT_TRUE(absl::IsFailedPrecondition(fenced.status)) << fenced.status;
  const AppendResult after = AppendOne(log(), 0, current.epoch, 1, "entry");
  EXPECT_EQ(after.outcome, AppendOutcome::kNotCommitted);
  EXPECT_THAT(std::string(Message(after.status)), HasSubstr("stopped"));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(WriteRows(rows(), {Puts(0, current.epoch, {{"k", "v"}})})));
  EXPECT_TRUE(absl::IsFailedPrecondition(rows().WriteSync(Puts(0, current.epoch, {{"k", "v"}}))));
  EXPECT_TRUE(absl::IsFailedPrecondition(log().Claim(1).status()));
  Reopen();
  const ShardClaim next = Claim(0);
  EXPECT_EQ(next.last_lsn, 0u);
  EXPECT_EQ(AppendOne(log(), 0, next.epoch, 1, "entry").outcome, AppendOutcome::kOk);
}

TEST_P(StoreConformance, AnLsnThatIsNotTheNextIsNotCommittedNorIsAnythingBesideIt) {
  const ShardClaim a = Claim(0);
  const ShardClaim b = Claim(1);
  ASSERT_EQ(AppendOne(log(), 0, a.epoch, 1, "a1").outcome, AppendOutcome::kOk);
  std::vector<AppendEntry> entries(2);
  entries[0] = {1, b.epoch, 1, "b1", {{"row", "v"}}};
  entries[1] = {0, a.epoch, 3, "a3", {}};
  const std::vector<AppendResult> results = AppendAll(log(), entries);
  EXPECT_EQ(results.at(0).outcome, AppendOutcome::kNotCommitted);
  EXPECT_EQ(results.at(1).outcome, AppendOutcome::kNotCommitted);
  EXPECT_THAT(std::string(Message(results[1].status)), HasSubstr("lsn 3"));
  Reopen();
  EXPECT_EQ(Claim(0).last_lsn, 1u);
  EXPECT_EQ(Claim(1).last_lsn, 0u);
  EXPECT_EQ(GetOr(rows(), "row"), "(none)");
}

TEST_P(StoreConformance, AnEntryAtTheLimitIsTakenAndOneByteMoreIsNot) {
  const ShardClaim claim = Claim(0);
  const AppendResult at = AppendOne(log(), 0, claim.epoch, 1, std::string(kLogEntryBytesMax, 'x'));
  EXPECT_EQ(at.outcome, AppendOutcome::kOk) << at.status;
  const AppendResult over =
      AppendOne(log(), 0, claim.epoch, 2, std::string(kLogEntryBytesMax + 1, 'x'));
  EXPECT_EQ(over.outcome, AppendOutcome::kNotCommitted);
  EXPECT_TRUE(absl::IsResourceExhausted(over.status)) << over.status;
  EXPECT_THAT(std::string(Message(over.status)), HasSubstr(std::to_string(kLogEntryBytesMax)));
}

TEST_P(StoreConformance, AShardThatDoesNotExistIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(log().Claim(4).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(log().Read(4, 1, [](Lsn, std::string_view) { return true; })));
  EXPECT_TRUE(absl::IsInvalidArgument(log().Truncate(4, 1, 1)));
}

TEST_P(StoreConformance, TruncationDropsTheBeginningAndSurvivesReopening) {
  const ShardClaim claim = Claim(0);
  std::vector<AppendResult> results;
  for (Lsn lsn = 1; lsn <= 10; ++lsn) {
    results.push_back(AppendOne(log(), 0, claim.epoch, lsn, std::to_string(lsn)));
  }
  ASSERT_TRUE(log().Truncate(0, claim.epoch, 7).ok());
  ASSERT_TRUE(log().Truncate(0, claim.epoch, 7).ok()) << "again: nothing to do";
  ASSERT_TRUE(log().Truncate(0, claim.epoch, 3).ok()) << "behind: nothing to do";
  absl::Status status;
  EXPECT_THAT(ReadLog(log(), 0, 8, &status), ElementsAre("8", "9", "10"));
  ReadLog(log(), 0, 7, &status);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(Message(status)), HasSubstr("log entry 7"));
  Reopen();
  ShardClaim next = Claim(0);
  EXPECT_EQ(next.first_lsn, 8u);
  EXPECT_EQ(next.last_lsn, 10u);
  EXPECT_EQ(next.last_nonce, results.back().nonce);
  EXPECT_THAT(ReadLog(log(), 0, 8, &status), ElementsAre("8", "9", "10"));
}

TEST_P(StoreConformance, AShardTruncatedToNothingStillKnowsWhereItStands) {
  const ShardClaim claim = Claim(0);
  AppendOne(log(), 0, claim.epoch, 1, "one");
  const AppendResult last = AppendOne(log(), 0, claim.epoch, 2, "two");
  ASSERT_TRUE(log().Truncate(0, claim.epoch, 2).ok());
  Reopen();
  const ShardClaim next = Claim(0);
  EXPECT_EQ(next.first_lsn, 3u);
  EXPECT_EQ(next.last_lsn, 2u);
  EXPECT_EQ(next.last_nonce, last.nonce);
  EXPECT_EQ(AppendOne(log(), 0, next.epoch, 3, "three").outcome, AppendOutcome::kOk);
}

TEST_P(StoreConformance, TruncationBeyondTheEndOrUnderAnOldEpochIsRefusedAndStopsNothing) {
  const ShardClaim old = Claim(0);
  const ShardClaim claim = Claim(0);
  AppendOne(log(), 0, claim.epoch, 1, "one");
  EXPECT_TRUE(absl::IsInvalidArgument(log().Truncate(0, claim.epoch, 2)));
  EXPECT_TRUE(absl::IsFailedPrecondition(log().Truncate(0, old.epoch, 1)));
  EXPECT_EQ(AppendOne(log(), 0, claim.epoch, 2, "two").outcome, AppendOutcome::kOk);
}

TEST_P(StoreConformance, RowsArePutReadDeletedAndScannedInByteOrder) {
  const ShardClaim claim = Claim(0);
  const std::string high = "\xFF\x01";
  ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch,
                                      {{"b", "2"}, {"a", "1"}, {high, "4"}, {"b\x01", "3"}})})
                  .ok());
  EXPECT_EQ(GetOr(rows(), "b"), "2");
  EXPECT_EQ(GetOr(rows(), "c"), "(none)");
  EXPECT_THAT(ScanKeys(rows(), "a", "\xFF\xFF"), ElementsAre("a", "b", "b\x01", high));
  EXPECT_THAT(ScanKeys(rows(), "b", "b\x01"), ElementsAre("b"));
  EXPECT_THAT(ScanKeys(rows(), "b", "b"), IsEmpty());
  EXPECT_THAT(ScanKeys(rows(), "c", "b"), IsEmpty());
  RowBatch batch = Puts(0, claim.epoch, {{"a", "new"}});
  batch.deletes = {"b", "never there"};
  ASSERT_TRUE(WriteRows(rows(), {batch}).ok());
  EXPECT_EQ(GetOr(rows(), "a"), "new");
  EXPECT_THAT(ScanKeys(rows(), "a", "\xFF\xFF"), ElementsAre("a", "b\x01", high));
  Reopen();
  EXPECT_EQ(GetOr(rows(), "a"), "new");
  EXPECT_THAT(ScanKeys(rows(), "a", "\xFF\xFF"), ElementsAre("a", "b\x01", high));
}

TEST_P(StoreConformance, AScanStopsWhenTheVisitorSaysSo) {
  const ShardClaim claim = Claim(0);
  ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch, {{"a", ""}, {"b", ""}, {"c", ""}})}).ok());
  int visited = 0;
  ASSERT_TRUE(rows()
                  .Scan("a", "z", [&](std::string_view, std::string_view) { return ++visited < 2; })
                  .ok());
  EXPECT_EQ(visited, 2);
}

TEST_P(StoreConformance, RangesAreScannedInTurnFromOneView) {
  const ShardClaim claim = Claim(0);
  ASSERT_TRUE(
      WriteRows(rows(), {Puts(0, claim.epoch,
                              {{"a1", "x"}, {"a2", "y"}, {"b1", ""}, {"b2", ""}, {"c1", ""}})})
          .ok());
  std::vector<std::string> seen;
  ASSERT_TRUE(rows()
                  .ScanRanges({{"c", "d"}, {"a", "b"}, {"z", "a"}, {"b", "c"}, {"c", "d"}},
                              [&](size_t range, std::string_view key, std::string_view value) {
                                seen.push_back(std::to_string(range) + std::string(key) +
                                               std::string(value));
                                if (key == "a1") return Rows::Next::kRange;
                                return key == "b2" ? Rows::Next::kStop : Rows::Next::kRow;
                              })
                  .ok());
  EXPECT_THAT(seen, ElementsAre("0c1", "1a1x", "3b1", "3b2"));
}

TEST_P(StoreConformance, WithinABatchRangesGoFirstThenKeysThenPuts) {
  const ShardClaim claim = Claim(0);
  ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch, {{"a", "1"}, {"b", "1"}, {"c", "1"}})}).ok());
  RowBatch batch = Puts(0, claim.epoch, {{"b", "2"}});
  batch.delete_ranges = {{"a", "c"}};
  batch.deletes = {"b"};
  ASSERT_TRUE(WriteRows(rows(), {batch}).ok());
  EXPECT_THAT(ScanKeys(rows(), "a", "z"), ElementsAre("b", "c"));
  EXPECT_EQ(GetOr(rows(), "b"), "2");
}

TEST_P(StoreConformance, SayingThatARangeIsEmptiedChangesNoRow) {
  const ShardClaim claim = Claim(0);
  ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch, {{"a1", "1"}, {"a2", "1"}})}).ok());
  RowBatch batch = Puts(0, claim.epoch, {{"a3", "1"}});
  batch.deletes = {"a1"};
  batch.emptied = {{"a", "b"}};
  ASSERT_TRUE(WriteRows(rows(), {batch}).ok());
  EXPECT_THAT(ScanKeys(rows(), "a", "z"), ElementsAre("a2", "a3"));
}

TEST_P(StoreConformance, LaterBatchesOfOneCallSeeTheEarlierOnes) {
  const ShardClaim claim = Claim(0);
  RowBatch remove;
  remove.epoch = claim.epoch;
  remove.delete_ranges = {{"a", "b"}};
  ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch, {{"a1", "1"}}), remove,
                                 Puts(0, claim.epoch, {{"a2", "2"}})})
                  .ok());
  EXPECT_THAT(ScanKeys(rows(), "a", "z"), ElementsAre("a2"));
}

TEST_P(StoreConformance, ValuesOfAnySizeAreWholeInGetAndScanAndLeaveNothingBehind) {
  const ShardClaim claim = Claim(0);
  const std::vector<size_t> sizes = {0,
                                     1,
                                     kRowValueBytesMax - 1,
                                     kRowValueBytesMax,
                                     kRowValueBytesMax + 1,
                                     2 * kRowValueBytesMax,
                                     1'000'003};
  for (size_t before : sizes) {
    for (size_t after : sizes) {
      const std::string old_value = Bytes(before, before + 1);
      const std::string new_value = Bytes(after, after + 2);
      ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch, {{"k", old_value}})}).ok());
      ASSERT_EQ(GetOr(rows(), "k"), old_value) << before;
      ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch, {{"k", new_value}})}).ok());
      ASSERT_EQ(GetOr(rows(), "k"), new_value) << before << " then " << after;
    }
  }
  RowBatch remove;
  remove.epoch = claim.epoch;
  remove.deletes = {"k"};
  ASSERT_TRUE(WriteRows(rows(), {remove}).ok());
  EXPECT_EQ(GetOr(rows(), "k"), "(none)");
}

TEST_P(StoreConformance, ALargeValueRewrittenWithinOneCallIsTheLastOneWritten) {
  const ShardClaim claim = Claim(0);
  const std::string large = Bytes(400'000, 1);
  const std::string smaller = Bytes(200'000, 2);
  RowBatch remove;
  remove.epoch = claim.epoch;
  remove.deletes = {"gone"};
  ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch, {{"k", large}, {"gone", large}}),
                                 Puts(0, claim.epoch, {{"k", smaller}}), remove})
                  .ok());
  EXPECT_EQ(GetOr(rows(), "k"), smaller);
  EXPECT_EQ(GetOr(rows(), "gone"), "(none)");
  EXPECT_THAT(ScanKeys(rows(), "a", "z"), ElementsAre("k"));
}

TEST_P(StoreConformance, RangesAndKeysWithZeroBytesDoNotTouchTheChunksOfTheirNeighbours) {
  const ShardClaim claim = Claim(0);
  using namespace std::string_literals;
  const std::string large = Bytes(150'000, 3);
  const std::vector<std::string> keys = {"a"s,     "a\0"s,   "a\0\0"s, "a\0\x01"s,
                                         "a\x01"s, "a\xFF"s, "b"s};
  std::vector<KeyValue> puts;
  for (const std::string& key : keys) puts.push_back({key, large + key});
  ASSERT_TRUE(WriteRows(rows(), {Puts(0, claim.epoch, puts)}).ok());
  EXPECT_EQ(ScanKeys(rows(), "a", "c"), keys);
  RowBatch remove;
  remove.epoch = claim.epoch;
  remove.delete_ranges = {{"a\0\0"s, "a\x01"s}};
  ASSERT_TRUE(WriteRows(rows(), {remove}).ok());
  EXPECT_THAT(ScanKeys(rows(), "a", "c"), ElementsAre("a"s, "a\0"s, "a\x01"s, "a\xFF"s, "b"s));
  for (const std::string& key : {"a"s, "a\0"s, "a\x01"s, "a\xFF"s, "b"s}) {
    EXPECT_EQ(GetOr(rows(), key), large + key);
  }
}

TEST_P(StoreConformance, AWriteOfAnySizeIsTakenIfNothingWaitsAndNoneBeyondTheLimitBehindIt) {
  const ShardClaim claim = Claim(0);
  std::promise<void> busy, go;
  std::promise<absl::Status> large, small;
  rows().Write({Puts(0, claim.epoch, {{"first", "1"}})}, [&](const absl::Status&) {
    busy.set_value();
    go.get_future().wait();
  });
  busy.get_future().wait();  // the store's thread writes nothing more until it is told to go on
  std::vector<RowBatch> batches;
  const std::string value = Bytes(kRowValueBytesMax, 4);
  for (size_t bytes = 0; bytes <= kQueuedMax; bytes += value.size()) {
    batches.push_back(Puts(0, claim.epoch, {{"k" + std::to_string(bytes), value}}));
  }
  rows().Write(std::move(batches), [&](const absl::Status& status) { large.set_value(status); });
  rows().Write({Puts(0, claim.epoch, {{"one more", "1"}})},
               [&](const absl::Status& status) { small.set_value(status); });
  go.set_value();
  const absl::Status taken = large.get_future().get();
  EXPECT_TRUE(taken.ok()) << taken;
  EXPECT_EQ(GetOr(rows(), "k0"), value);
  const absl::Status refused = small.get_future().get();
  EXPECT_THAT(std::string(refused.message()), HasSubstr("more than 8388608 bytes wait"));
}

TEST_P(StoreConformance, KeysAndBatchesAtTheirLimits) {
  const ShardClaim claim = Claim(0);
  const std::string longest(kKeyBytesMax, 'k');
  EXPECT_TRUE(rows().WriteSync(Puts(0, claim.epoch, {{longest, "v"}})).ok());
  EXPECT_EQ(GetOr(rows(), longest), "v");
  EXPECT_TRUE(
      absl::IsInvalidArgument(rows().WriteSync(Puts(0, claim.epoch, {{longest + "k", "v"}}))));
  EXPECT_TRUE(absl::IsInvalidArgument(rows().WriteSync(Puts(0, claim.epoch, {{"", "v"}}))));
  EXPECT_TRUE(absl::IsInvalidArgument(rows().Get(longest + "k").status()));
  RowBatch reversed;
  reversed.epoch = claim.epoch;
  reversed.delete_ranges = {{"b", "a"}};
  EXPECT_TRUE(absl::IsInvalidArgument(rows().WriteSync(reversed)));
  std::swap(reversed.delete_ranges, reversed.emptied);
  EXPECT_TRUE(absl::IsInvalidArgument(rows().WriteSync(reversed)));

  RowBatch full = Puts(0, claim.epoch, {});
  const size_t value_bytes = kRowValueBytesMax - 4;
  for (size_t i = 0; i < kRowBatchBytesMax / kRowValueBytesMax; ++i) {
    full.puts.push_back({"r" + std::to_string(100 + i), std::string(value_bytes, 'v')});
  }
  full.puts.push_back({"payload", std::string(kRowValueBytesMax + 1, 'p')});
  EXPECT_TRUE(rows().WriteSync(full).ok()) << "payload rows do not count";
  full.puts.push_back({"x", ""});
  const absl::Status over = rows().WriteSync(full);
  EXPECT_TRUE(absl::IsResourceExhausted(over)) << over;
  EXPECT_THAT(std::string(Message(over)), HasSubstr(std::to_string(kRowBatchBytesMax)));
  EXPECT_EQ(AppendOne(log(), 0, claim.epoch, 1, "entry").outcome, AppendOutcome::kOk)
      << "a refused WriteSync stops nothing";
}

TEST_P(StoreConformance, RowsUnderAnOldEpochAreRefusedAndTheStoreStops) {
  const ShardClaim old = Claim(0);
  const ShardClaim claim = Claim(0);
  EXPECT_TRUE(absl::IsFailedPrecondition(rows().WriteSync(Puts(0, old.epoch, {{"k", "v"}}))));
  EXPECT_TRUE(absl::IsFailedPrecondition(WriteRows(
      rows(), {Puts(0, claim.epoch, {{"good", "v"}}), Puts(0, old.epoch, {{"k", "v"}})})));
  EXPECT_EQ(GetOr(rows(), "good"), "(none)") << "one call is one write";
  EXPECT_EQ(AppendOne(log(), 0, claim.epoch, 1, "entry").outcome, AppendOutcome::kNotCommitted);
}

TEST_P(StoreConformance, WriteSyncIsOrderedAfterWhatWasQueued) {
  const ShardClaim claim = Claim(0);
  for (int i = 0; i < 100; ++i) {
    rows().Write({Puts(0, claim.epoch, {{"k", std::to_string(i)}})}, [](const absl::Status&) {});
  }
  ASSERT_TRUE(rows().WriteSync(Puts(0, claim.epoch, {{"k", "last"}})).ok());
  EXPECT_EQ(GetOr(rows(), "k"), "last");
}

TEST_P(StoreConformance, ManyThreadsAppendToTheirOwnShards) {
  std::vector<std::thread> threads;
  constexpr Lsn kEntries = 200;
  for (ShardId shard = 0; shard < 4; ++shard) {
    threads.emplace_back([this, shard] {
      const ShardClaim claim = Claim(shard);
      auto last = std::make_shared<std::promise<void>>();
      for (Lsn lsn = 1; lsn <= kEntries; ++lsn) {
        std::vector<AppendEntry> entries(1);
        entries[0] = {shard, claim.epoch, lsn, std::to_string(shard * 1000 + lsn), {}};
        log().Append(entries, [last, lsn](std::vector<AppendResult> results) {
          EXPECT_EQ(results.at(0).outcome, AppendOutcome::kOk) << results[0].status;
          if (lsn == kEntries) last->set_value();
        });
      }
      last->get_future().wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (ShardId shard = 0; shard < 4; ++shard) {
    absl::Status status;
    const std::vector<std::string> entries = ReadLog(log(), shard, 1, &status);
    ASSERT_EQ(entries.size(), kEntries);
    for (Lsn lsn = 1; lsn <= kEntries; ++lsn) {
      EXPECT_EQ(entries[lsn - 1], std::to_string(shard * 1000 + lsn));
    }
  }
  EXPECT_GT(store_->Stats().appends, 0u);
  EXPECT_GT(store_->Stats().appended_bytes, 4 * kEntries);
}

TEST_P(StoreConformance, ClosingDeliversWhatIsQueued) {
  const ShardClaim claim = Claim(0);
  int delivered = 0;
  for (Lsn lsn = 1; lsn <= 20; ++lsn) {
    std::vector<AppendEntry> entries(1);
    entries[0] = {0, claim.epoch, lsn, "entry", {}};
    log().Append(entries, [&](std::vector<AppendResult> results) {
      EXPECT_EQ(results.at(0).outcome, AppendOutcome::kOk);
      ++delivered;
    });
  }
  Reopen();
  EXPECT_EQ(delivered, 20);
  EXPECT_EQ(Claim(0).last_lsn, 20u);
}

INSTANTIATE_TEST_SUITE_P(
    Stores, StoreConformance,
    ::testing::Values(Kind{"Rocks", [] { return std::make_unique<RocksMedium>(); }},
                      Kind{"Memory", [] { return std::make_unique<MemoryMedium>(); }},
                      Kind{"Faulty", [] { return std::make_unique<FaultlessMedium>(); }}),
    [](const ::testing::TestParamInfo<Kind>& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace flux::store
