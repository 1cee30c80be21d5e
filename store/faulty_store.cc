#include "store/faulty_store.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "store/checks.h"

namespace flux::store {
namespace {

constexpr uint64_t kRateScale = 10'000;

absl::Status FaultStatus(FaultKind kind) {
  switch (kind) {
    case FaultKind::kNotCommitted:
      return absl::UnavailableError("injected fault: refused before it was written");
    case FaultKind::kUnknownCommitted:
    case FaultKind::kUnknownNotCommitted:
      return absl::UnavailableError("injected fault: the write failed half-way");
    case FaultKind::kFenced:
      return absl::FailedPreconditionError("injected fault: fenced");
    case FaultKind::kDiskFull:
      return absl::ResourceExhaustedError("injected fault: the disk is full");
    case FaultKind::kDataLoss:
      return absl::DataLossError("injected fault: a checksum does not match");
    case FaultKind::kHold:
      break;
  }
  return absl::OkStatus();
}

AppendOutcome OutcomeOf(FaultKind kind) {
  switch (kind) {
    case FaultKind::kNotCommitted:
      return AppendOutcome::kNotCommitted;
    case FaultKind::kFenced:
      return AppendOutcome::kFenced;
    default:
      return AppendOutcome::kUnknown;
  }
}

}  // namespace

FaultyStore::FaultyStore(std::unique_ptr<Store> base, FaultRates rates)
    : base_(std::move(base)), rates_(rates), random_state_(rates.seed) {}

FaultyStore::~FaultyStore() {
  if (Held() > 0) {
    std::fprintf(stderr, "FaultyStore destroyed with %zu completions held; call Release\n", Held());
    std::abort();
  }
}

void FaultyStore::Inject(Fault fault) {
  std::lock_guard<std::mutex> lock(mutex_);
  faults_.push_back(fault);
}

void FaultyStore::SetRates(FaultRates rates) {
  std::lock_guard<std::mutex> lock(mutex_);
  rates_ = rates;
}

void FaultyStore::SetBelowReserve(bool below) {
  std::lock_guard<std::mutex> lock(mutex_);
  below_reserve_ = below;
}

size_t FaultyStore::Held() {
  std::lock_guard<std::mutex> lock(mutex_);
  return held_.size();
}

uint64_t FaultyStore::faults() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return struck_;
}

uint64_t FaultyStore::reserve_checks() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return reserve_checks_;
}

bool FaultyStore::BelowReserve() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++reserve_checks_;
    if (below_reserve_) return true;
  }
  return base_->BelowReserve();
}

size_t FaultyStore::Release() {
  size_t released = 0;
  for (;;) {
    std::function<void()> completion;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (held_.empty()) {
        holding_ = false;
        return released;
      }
      completion = std::move(held_.front());
      held_.pop_front();
    }
    completion();
    ++released;
  }
}

void FaultyStore::Deliver(bool hold, std::function<void()> completion) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    holding_ |= hold;
    if (holding_) {
      held_.push_back(std::move(completion));
      return;
    }
  }
  completion();
}

uint64_t FaultyStore::calls(FaultOp op) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return calls_[static_cast<size_t>(op)];
}

std::optional<FaultKind> FaultyStore::Strike(FaultOp op) {
  std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t call = ++calls_[static_cast<size_t>(op)];
  std::optional<FaultKind> kind;
  for (const Fault& fault : faults_) {
    if (fault.op == op && fault.at == call) kind = fault.kind;
  }
  if (!kind.has_value()) kind = StrikeAtRandom(op);
  if (kind.has_value()) ++struck_;
  return kind;
}

std::optional<FaultKind> FaultyStore::StrikeAtRandom(FaultOp op) {
  auto roll = [&](uint32_t rate) {
    return rate > 0 && NextNonce(&random_state_) % kRateScale < rate;
  };
  static constexpr std::array kAppendKinds = {
      FaultKind::kNotCommitted, FaultKind::kUnknownCommitted, FaultKind::kUnknownNotCommitted,
      FaultKind::kFenced, FaultKind::kDiskFull};
  switch (op) {
    case FaultOp::kAppend:
      if (roll(rates_.append)) return kAppendKinds[NextNonce(&random_state_) % kAppendKinds.size()];
      if (roll(rates_.hold)) return FaultKind::kHold;
      return std::nullopt;
    case FaultOp::kWrite:
      if (roll(rates_.write)) {
        return NextNonce(&random_state_) % 2 == 0 ? FaultKind::kDiskFull : FaultKind::kFenced;
      }
      if (roll(rates_.hold)) return FaultKind::kHold;
      return std::nullopt;
    case FaultOp::kWriteSync:
      if (roll(rates_.write_sync)) return FaultKind::kDiskFull;
      return std::nullopt;
    case FaultOp::kClaim:
      if (roll(rates_.claim)) return FaultKind::kDiskFull;
      return std::nullopt;
    case FaultOp::kTruncate:
      return std::nullopt;
    case FaultOp::kRead:
    case FaultOp::kGet:
    case FaultOp::kScan:
      if (roll(rates_.read)) return FaultKind::kDataLoss;
      return std::nullopt;
  }
  return std::nullopt;
}

absl::Status FaultyStore::Broken() {
  std::lock_guard<std::mutex> lock(mutex_);
  return broken_.ok() ? broken_ : StoppedStatus(broken_);
}

void FaultyStore::Break(const absl::Status& cause) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (broken_.ok()) broken_ = cause;
}

absl::Status FaultyStore::Fail(FaultOp op) {
  std::optional<FaultKind> kind = Strike(op);
  if (!kind.has_value() || *kind == FaultKind::kHold) return absl::OkStatus();
  absl::Status status = FaultStatus(*kind);
  const bool reading = op == FaultOp::kRead || op == FaultOp::kGet || op == FaultOp::kScan;
  if (!reading && *kind != FaultKind::kFenced) Break(status);
  return status;
}

absl::StatusOr<ShardClaim> FaultyStore::Claim(ShardId shard) {
  FLUX_RETURN_IF_ERROR(Broken());
  FLUX_RETURN_IF_ERROR(Fail(FaultOp::kClaim));
  return base_->log().Claim(shard);
}

void FaultyStore::Append(std::vector<AppendEntry> entries, AppendCallback done) {
  absl::Status broken = Broken();
  std::optional<FaultKind> kind;
  if (broken.ok()) kind = Strike(FaultOp::kAppend);
  const bool hold = kind == FaultKind::kHold;
  if (broken.ok() && (!kind.has_value() || hold)) {
    base_->log().Append(std::move(entries), [this, hold, done = std::move(done)](
                                                std::vector<AppendResult> results) mutable {
      Deliver(hold, [done = std::move(done), results = std::move(results)]() mutable {
        done(std::move(results));
      });
    });
    return;
  }
  if (kind == FaultKind::kUnknownCommitted) {
    absl::Status why = FaultStatus(*kind);
    Break(why);
    base_->log().Append(std::move(entries), [this, why, done = std::move(done)](
                                                std::vector<AppendResult> results) mutable {
      for (AppendResult& result : results) {
        if (result.outcome != AppendOutcome::kOk) continue;
        result.outcome = AppendOutcome::kUnknown;
        result.status = why;
      }
      Deliver(false, [done = std::move(done), results = std::move(results)]() mutable {
        done(std::move(results));
      });
    });
    return;
  }
  const absl::Status why = broken.ok() ? FaultStatus(*kind) : broken;
  const AppendOutcome outcome = broken.ok() ? OutcomeOf(*kind) : AppendOutcome::kNotCommitted;
  Break(why);
  // Nonces that no entry bears, as of an entry that never reached the disk.
  uint64_t nonce_state = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    nonce_state = NextNonce(&random_state_);
  }
  std::vector<AppendResult> results;
  for (const AppendEntry& entry : entries) {
    AppendResult result;
    result.shard = entry.shard;
    result.lsn = entry.lsn;
    result.outcome = outcome;
    result.nonce = NextNonce(&nonce_state);
    result.status = why;
    results.push_back(std::move(result));
  }
  // An empty write comes back in its turn: the refusal keeps its place among the completions.
  base_->rows().Write({}, [this, done = std::move(done),
                           results = std::move(results)](const absl::Status&) mutable {
    Deliver(false, [done = std::move(done), results = std::move(results)]() mutable {
      done(std::move(results));
    });
  });
}

absl::Status FaultyStore::Read(ShardId shard, Lsn from, const EntryVisitor& visit) {
  FLUX_RETURN_IF_ERROR(Fail(FaultOp::kRead));
  return base_->log().Read(shard, from, visit);
}

absl::Status FaultyStore::Truncate(ShardId shard, Epoch epoch, Lsn through) {
  FLUX_RETURN_IF_ERROR(Broken());
  FLUX_RETURN_IF_ERROR(Fail(FaultOp::kTruncate));
  return base_->log().Truncate(shard, epoch, through);
}

void FaultyStore::Write(std::vector<RowBatch> batches, WriteCallback done) {
  absl::Status why = Broken();
  std::optional<FaultKind> kind;
  if (why.ok()) kind = Strike(FaultOp::kWrite);
  const bool hold = kind == FaultKind::kHold;
  const bool written =
      why.ok() && (!kind.has_value() || hold || kind == FaultKind::kUnknownCommitted);
  if (why.ok() && kind.has_value()) why = FaultStatus(*kind);
  if (!why.ok()) Break(why);
  if (!written) batches.clear();
  base_->rows().Write(std::move(batches),
                      [this, hold, why, done = std::move(done)](const absl::Status& status) {
                        const absl::Status reported = why.ok() ? status : why;
                        Deliver(hold, [done, reported] { done(reported); });
                      });
}

absl::Status FaultyStore::WriteSync(RowBatch batch) {
  FLUX_RETURN_IF_ERROR(Broken());
  FLUX_RETURN_IF_ERROR(Fail(FaultOp::kWriteSync));
  return base_->rows().WriteSync(std::move(batch));
}

absl::StatusOr<std::optional<std::string>> FaultyStore::Get(std::string_view key) {
  FLUX_RETURN_IF_ERROR(Fail(FaultOp::kGet));
  return base_->rows().Get(key);
}

absl::Status FaultyStore::Scan(std::string_view begin, std::string_view end,
                               const RowVisitor& visit) {
  FLUX_RETURN_IF_ERROR(Fail(FaultOp::kScan));
  return base_->rows().Scan(begin, end, visit);
}

absl::Status FaultyStore::ScanRanges(const std::vector<std::pair<std::string, std::string>>& ranges,
                                     const RangesVisitor& visit) {
  FLUX_RETURN_IF_ERROR(Fail(FaultOp::kScan));
  return base_->rows().ScanRanges(ranges, visit);
}

}  // namespace flux::store
