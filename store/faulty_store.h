// A store that fails on demand: wraps another and injects scripted or seeded faults through the
// production interface.
//
//   FaultyStore store(std::move(memory));
//   store.Inject({.op = FaultOp::kAppend, .at = 3, .kind = FaultKind::kUnknownCommitted});
#ifndef FLUX_STORE_FAULTY_STORE_H_
#define FLUX_STORE_FAULTY_STORE_H_

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/store.h"

namespace flux::store {

enum class FaultOp { kAppend, kWrite, kWriteSync, kClaim, kTruncate, kRead, kGet, kScan };
inline constexpr size_t kFaultOps = 8;

enum class FaultKind {
  kNotCommitted,         // refused before the disk; nothing written
  kUnknownCommitted,     // written, and reported as unknown
  kUnknownNotCommitted,  // not written, and reported as unknown
  kFenced,               // appends: kFenced; the others: FailedPrecondition
  kDiskFull,  // as a full disk fails: ResourceExhausted; appends: kUnknown and not written
  kDataLoss,  // reads: DataLoss. Not for kAppend and kWrite
  kHold,      // a slow disk: done, but this completion and all later ones wait for Release().
              // Only for kAppend and kWrite
};

// A fault at the `at`-th call of `op`, counted from 1 since the store was made.
struct Fault {
  FaultOp op = FaultOp::kAppend;
  uint64_t at = 1;
  FaultKind kind = FaultKind::kNotCommitted;
};

// Faults at random, the same for the same seed and the same order of calls. Chances are in 1/10,000
// a call.
struct FaultRates {
  uint64_t seed = 1;
  uint32_t append = 0;      // one of the five that appends know, evenly
  uint32_t write = 0;       // full disk or fenced
  uint32_t write_sync = 0;  // full disk
  uint32_t claim = 0;       // full disk
  uint32_t read = 0;        // Read, Get, Scan: data loss
  uint32_t hold = 0;        // appends and writes
};

// Owns the wrapped store. Thread-safe. After a failed append, write or a failed synchronous write
// that reached the disk it is broken like any store; reopening is making a new one over the
// reopened store. Completions come in order, on the wrapped store's thread, except those held back:
// they are delivered by Release on the caller's. Destroy it only with nothing held.
class FaultyStore : public Store, public Log, public Rows {
 public:
  explicit FaultyStore(std::unique_ptr<Store> base, FaultRates rates = {});
  ~FaultyStore() override;

  void Inject(Fault fault);
  // Goes on with other chances; the sequence of random numbers is not begun anew.
  void SetRates(FaultRates rates);
  // Makes BelowReserve answer true, or as the wrapped store does.
  void SetBelowReserve(bool below);
  // Delivers what is held back, in order, and holds no more. Returns how many were.
  size_t Release();
  size_t Held();
  // Calls of the kind so far: the next one's number, which Fault::at names, is one more.
  uint64_t calls(FaultOp op) const;
  // Faults that have struck so far.
  uint64_t faults() const;
  // How often BelowReserve was asked.
  uint64_t reserve_checks() const;
  Store& base() { return *base_; }

  Log& log() override { return *this; }
  Rows& rows() override { return *this; }
  uint32_t shards() const override { return base_->shards(); }
  uint32_t incarnation() const override { return base_->incarnation(); }
  StoreStats Stats() override { return base_->Stats(); }
  std::vector<std::string> OpenNotes() const override { return base_->OpenNotes(); }
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
  // Counts the call and says what strikes it.
  std::optional<FaultKind> Strike(FaultOp op);
  std::optional<FaultKind> StrikeAtRandom(FaultOp op);
  // The status of a call that is not asynchronous.
  absl::Status Fail(FaultOp op);
  void Deliver(bool hold, std::function<void()> completion);
  absl::Status Broken();
  void Break(const absl::Status& cause);

  const std::unique_ptr<Store> base_;
  mutable std::mutex mutex_;
  FaultRates rates_;
  uint64_t random_state_;
  std::array<uint64_t, kFaultOps> calls_{};
  std::vector<Fault> faults_;
  uint64_t struck_ = 0;
  uint64_t reserve_checks_ = 0;
  bool below_reserve_ = false;
  bool holding_ = false;
  std::deque<std::function<void()>> held_;
  absl::Status broken_;
};

}  // namespace flux::store

#endif  // FLUX_STORE_FAULTY_STORE_H_
