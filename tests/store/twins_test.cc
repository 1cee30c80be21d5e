// What the memory store and the faulty store do beyond being stores: lose what a disk would lose,
// and fail on demand.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/faulty_store.h"
#include "store/memory_store.h"
#include "tests/store/store_testing.h"

namespace flux::store {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// ---- the memory store, driven by hand
// -----------------------------------------------------------------------------

class MemoryStoreTest : public ::testing::Test {
 protected:
  void Open() {
    auto store = MemoryStore::Open(disk_, {.manual = true});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto claim = store_->log().Claim(0);
    ASSERT_TRUE(claim.ok()) << claim.status();
    claim_ = *claim;
  }
  void Append(Lsn lsn) {
    std::vector<AppendEntry> entries(1);
    entries[0] = {0, claim_.epoch, lsn, "entry " + std::to_string(lsn), {}};
    store_->log().Append(entries, [this](std::vector<AppendResult> results) {
      ASSERT_EQ(results.at(0).outcome, AppendOutcome::kOk) << results[0].status;
      told_.push_back("A" + std::to_string(results[0].lsn));
    });
  }
  void Row(const std::string& key, const std::string& value) {
    store_->rows().Write({Puts(0, claim_.epoch, {{key, value}})},
                         [this, key](const absl::Status& status) {
                           ASSERT_TRUE(status.ok()) << status;
                           told_.push_back("R" + key);
                         });
  }
  void StepAll() {
    while (store_->Step()) {
    }
  }

  std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>();
  std::unique_ptr<MemoryStore> store_;
  ShardClaim claim_;
  std::vector<std::string> told_;
};

TEST_F(MemoryStoreTest, NothingIsWrittenOrToldBeforeAStep) {
  Open();
  Row("a", "1");
  Append(1);
  EXPECT_EQ(store_->Pending(), 2u);
  EXPECT_EQ(GetOr(store_->rows(), "a"), "(none)");
  EXPECT_TRUE(store_->Step());
  EXPECT_THAT(told_, ElementsAre("Ra"));
  EXPECT_EQ(GetOr(store_->rows(), "a"), "1");
  EXPECT_TRUE(store_->Step());
  EXPECT_THAT(told_, ElementsAre("Ra", "A1"));
  EXPECT_FALSE(store_->Step());
}

TEST_F(MemoryStoreTest, ACrashTakesUnsyncedRowsAndEverythingQueued) {
  Open();
  Row("synced", "1");
  Append(1);
  Row("synced", "2");
  Row("new", "1");
  StepAll();
  Append(2);
  EXPECT_EQ(disk_->UnsyncedWrites(), 2u);
  store_->Crash();
  EXPECT_FALSE(store_->Step());
  EXPECT_EQ(told_.size(), 4u) << "nobody hears of what was queued";
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->log().Claim(1).status()));
  Open();
  EXPECT_EQ(claim_.epoch, 2u);
  EXPECT_EQ(claim_.last_lsn, 1u);
  EXPECT_EQ(GetOr(store_->rows(), "synced"), "1");
  EXPECT_EQ(GetOr(store_->rows(), "new"), "(none)");
}

TEST_F(MemoryStoreTest, ACrashMayKeepAPrefixOfTheUnsyncedWrites) {
  for (size_t kept = 0; kept <= 4; ++kept) {
    disk_ = std::make_shared<MemoryDisk>();
    Open();
    Append(1);
    Append(2);
    Row("k", "1");
    Row("k", "2");
    StepAll();
    ASSERT_TRUE(store_->log().Truncate(0, claim_.epoch, 1).ok());
    RowBatch remove;
    remove.epoch = claim_.epoch;
    remove.delete_ranges = {{"a", "z"}};
    store_->rows().Write({remove}, [](const absl::Status&) {});
    StepAll();
    ASSERT_EQ(disk_->UnsyncedWrites(), 4u);
    store_->Crash({.unsynced_kept = kept});
    Open();
    EXPECT_EQ(claim_.first_lsn, kept >= 3 ? 2u : 1u) << kept;
    EXPECT_EQ(claim_.last_lsn, 2u);
    const char* expected[] = {"(none)", "1", "2", "2", "(none)"};
    EXPECT_EQ(GetOr(store_->rows(), "k"), expected[kept]) << kept;
    absl::Status status;
    ReadLog(store_->log(), 0, claim_.first_lsn, &status);
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_F(MemoryStoreTest, AQueuedAppendMayReachTheDiskUntold) {
  Open();
  Append(1);
  StepAll();
  Append(2);
  Append(3);
  store_->Crash({.queued_written = 1, .torn_tail = true});
  EXPECT_THAT(told_, ElementsAre("A1"));
  Open();
  EXPECT_EQ(claim_.last_lsn, 2u);
  EXPECT_THAT(store_->OpenNotes(), ElementsAre(HasSubstr("torn")));
  EXPECT_EQ(store_->Stats().entries_dropped_at_open, 1u);
  store_.reset();
  Open();
  EXPECT_THAT(store_->OpenNotes(), IsEmpty());
}

TEST_F(MemoryStoreTest, AnAppendMakesEarlierRowsDurable) {
  Open();
  Row("a", "1");
  StepAll();
  EXPECT_EQ(disk_->UnsyncedWrites(), 1u);
  Append(1);
  StepAll();
  EXPECT_EQ(disk_->UnsyncedWrites(), 0u);
  store_->Crash();
  Open();
  EXPECT_EQ(GetOr(store_->rows(), "a"), "1");
}

TEST_F(MemoryStoreTest, ACallThatBlocksWritesWhatWasQueuedBeforeIt) {
  Open();
  Row("k", "1");
  ASSERT_TRUE(store_->rows().WriteSync(Puts(0, claim_.epoch, {{"k", "2"}})).ok());
  EXPECT_THAT(told_, IsEmpty()) << "completions are left to Step";
  EXPECT_EQ(GetOr(store_->rows(), "k"), "2");
  StepAll();
  EXPECT_THAT(told_, ElementsAre("Rk"));
}

TEST_F(MemoryStoreTest, DamageAndLossOfAnEntryAreDataLoss) {
  Open();
  for (Lsn lsn = 1; lsn <= 5; ++lsn) Append(lsn);
  StepAll();
  EXPECT_TRUE(disk_->DamageEntry(0, 3));
  EXPECT_FALSE(disk_->DamageEntry(0, 9));
  absl::Status status;
  EXPECT_THAT(ReadLog(store_->log(), 0, 1, &status), ElementsAre("entry 1", "entry 2"));
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_TRUE(disk_->LoseEntry(0, 4));
  ReadLog(store_->log(), 0, 4, &status);
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(Message(status)), HasSubstr("entry 4"));
  auto claim = store_->log().Claim(0);  // notes lsn 5
  ASSERT_TRUE(claim.ok());
  EXPECT_TRUE(disk_->LoseEntry(0, 5));
  EXPECT_TRUE(absl::IsDataLoss(store_->log().Claim(0).status()));
}

TEST_F(MemoryStoreTest, AFullDiskRefusesEveryWriteAndStops) {
  Open();
  disk_->SetFreeBytes(1000);
  EXPECT_TRUE(store_->BelowReserve());
  disk_->SetFreeBytes(0);
  AppendOutcome outcome = AppendOutcome::kOk;
  std::vector<AppendEntry> entries(1);
  entries[0] = {0, claim_.epoch, 1, "entry", {}};
  store_->log().Append(entries, [&](std::vector<AppendResult> results) {
    outcome = results.at(0).outcome;
    EXPECT_TRUE(absl::IsResourceExhausted(results[0].status)) << results[0].status;
  });
  StepAll();
  EXPECT_EQ(outcome, AppendOutcome::kNotCommitted);
  disk_->SetFreeBytes(1u << 30);
  EXPECT_FALSE(store_->BelowReserve());
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->log().Claim(0).status()));
}

TEST_F(MemoryStoreTest, EqualSeedsGiveEqualNonces) {
  std::vector<uint64_t> nonces;
  for (int run = 0; run < 2; ++run) {
    disk_ = std::make_shared<MemoryDisk>();
    Open();
    Append(1);
    StepAll();
    nonces.push_back(store_->log().Claim(0)->last_nonce);
  }
  EXPECT_EQ(nonces[0], nonces[1]);
}

TEST_F(MemoryStoreTest, ADiskIsOpenOnceAtATime) {
  Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(MemoryStore::Open(disk_).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      MemoryStore::Open(std::make_shared<MemoryDisk>(MemoryDiskOptions{.shards = 3})).status()));
}

// ---- the faulty store
// -----------------------------------------------------------------------------------------------

class FaultyStoreTest : public ::testing::Test {
 protected:
  void Open(FaultRates rates = {}) {
    store_.reset();
    store_ = std::make_unique<FaultyStore>(*MemoryStore::Open(disk_), rates);
    claim_ = *store_->log().Claim(0);
  }

  std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>();
  std::unique_ptr<FaultyStore> store_;
  ShardClaim claim_;
};

TEST_F(FaultyStoreTest, EachFaultOfAnAppendHasItsOutcomeAndItsTruth) {
  struct Case {
    FaultKind kind;
    AppendOutcome outcome;
    bool committed;
  };
  for (const Case& c : {Case{FaultKind::kNotCommitted, AppendOutcome::kNotCommitted, false},
                        Case{FaultKind::kUnknownCommitted, AppendOutcome::kUnknown, true},
                        Case{FaultKind::kUnknownNotCommitted, AppendOutcome::kUnknown, false},
                        Case{FaultKind::kFenced, AppendOutcome::kFenced, false},
                        Case{FaultKind::kDiskFull, AppendOutcome::kUnknown, false}}) {
    SCOPED_TRACE(static_cast<int>(c.kind));
    store_.reset();
    disk_ = std::make_shared<MemoryDisk>();
    Open();
    store_->Inject({FaultOp::kAppend, 2, c.kind});
    ASSERT_EQ(AppendOne(store_->log(), 0, claim_.epoch, 1, "one").outcome, AppendOutcome::kOk);
    const AppendResult struck = AppendOne(store_->log(), 0, claim_.epoch, 2, "two");
    EXPECT_EQ(struck.outcome, c.outcome);
    EXPECT_FALSE(struck.status.ok());
    EXPECT_EQ(AppendOne(store_->log(), 0, claim_.epoch, 3, "three").outcome,
              AppendOutcome::kNotCommitted);
    EXPECT_TRUE(absl::IsFailedPrecondition(WriteRows(store_->rows(), {})));
    EXPECT_EQ(store_->faults(), 1u);
    Open();
    EXPECT_EQ(claim_.last_lsn, c.committed ? 2u : 1u);
    EXPECT_EQ(claim_.last_nonce == struck.nonce, c.committed);
  }
}

TEST_F(FaultyStoreTest, AFailedRowWriteWritesNothingAndStops) {
  Open();
  store_->Inject({FaultOp::kWrite, 1, FaultKind::kDiskFull});
  EXPECT_TRUE(
      absl::IsResourceExhausted(WriteRows(store_->rows(), {Puts(0, claim_.epoch, {{"k", "v"}})})));
  EXPECT_EQ(GetOr(store_->rows(), "k"), "(none)");
  EXPECT_EQ(AppendOne(store_->log(), 0, claim_.epoch, 1, "one").outcome,
            AppendOutcome::kNotCommitted);
}

TEST_F(FaultyStoreTest, FailedReadsStopNothing) {
  Open();
  store_->Inject({FaultOp::kGet, 1, FaultKind::kDataLoss});
  store_->Inject({FaultOp::kScan, 1, FaultKind::kDataLoss});
  store_->Inject({FaultOp::kRead, 1, FaultKind::kDataLoss});
  EXPECT_TRUE(absl::IsDataLoss(store_->rows().Get("k").status()));
  EXPECT_TRUE(absl::IsDataLoss(
      store_->rows().Scan("a", "z", [](std::string_view, std::string_view) { return true; })));
  EXPECT_TRUE(
      absl::IsDataLoss(store_->log().Read(0, 1, [](Lsn, std::string_view) { return true; })));
  EXPECT_EQ(GetOr(store_->rows(), "k"), "(none)");
  EXPECT_EQ(AppendOne(store_->log(), 0, claim_.epoch, 1, "one").outcome, AppendOutcome::kOk);
}

TEST_F(FaultyStoreTest, BlockingCallsFailAsTold) {
  Open();
  store_->Inject({FaultOp::kTruncate, 1, FaultKind::kFenced});
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->log().Truncate(0, claim_.epoch, 0)));
  store_->Inject({FaultOp::kWriteSync, 1, FaultKind::kDiskFull});
  EXPECT_TRUE(
      absl::IsResourceExhausted(store_->rows().WriteSync(Puts(0, claim_.epoch, {{"k", "v"}}))));
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->log().Claim(0).status())) << "stopped";
}

TEST_F(FaultyStoreTest, AHeldCompletionHoldsAllLaterOnesUntilReleased) {
  auto memory = *MemoryStore::Open(disk_, {.manual = true});
  MemoryStore* steps = memory.get();
  FaultyStore store(std::move(memory));
  const ShardClaim claim = *store.log().Claim(0);
  store.Inject({FaultOp::kAppend, 2, FaultKind::kHold});
  std::vector<Lsn> told;
  for (Lsn lsn = 1; lsn <= 3; ++lsn) {
    std::vector<AppendEntry> entries(1);
    entries[0] = {0, claim.epoch, lsn, "entry", {}};
    store.log().Append(entries, [&](std::vector<AppendResult> results) {
      EXPECT_EQ(results.at(0).outcome, AppendOutcome::kOk);
      told.push_back(results[0].lsn);
    });
  }
  while (steps->Step()) {
  }
  EXPECT_THAT(told, ElementsAre(1));
  EXPECT_EQ(store.Held(), 2u);
  EXPECT_EQ(store.Release(), 2u);
  EXPECT_THAT(told, ElementsAre(1, 2, 3));
}

TEST_F(FaultyStoreTest, SeededFaultsAreTheSameForTheSameSeedAndDifferForOthers) {
  const auto run = [&](uint64_t seed) {
    std::vector<int> outcomes;
    for (int round = 0; round < 40; ++round) {
      store_.reset();
      disk_ = std::make_shared<MemoryDisk>();
      Open({.seed = seed + static_cast<uint64_t>(round) * 1000, .append = 3000});
      outcomes.push_back(
          static_cast<int>(AppendOne(store_->log(), 0, claim_.epoch, 1, "one").outcome));
    }
    return outcomes;
  };
  const std::vector<int> first = run(1);
  EXPECT_EQ(first, run(1));
  EXPECT_NE(first, run(2));
  EXPECT_THAT(first, ::testing::Contains(static_cast<int>(AppendOutcome::kOk)));
  EXPECT_THAT(first, ::testing::Contains(static_cast<int>(AppendOutcome::kUnknown)));
}

TEST_F(FaultyStoreTest, BelowReserveCanBePretended) {
  Open();
  EXPECT_FALSE(store_->BelowReserve());
  store_->SetBelowReserve(true);
  EXPECT_TRUE(store_->BelowReserve());
}

}  // namespace
}  // namespace flux::store
