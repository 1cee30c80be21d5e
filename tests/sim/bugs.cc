#include "tests/sim/bugs.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::sim {
namespace {

// Every key begins with the shard (2 bytes) and a table letter (engine/shard/keys.h).
constexpr size_t kTableAt = 2;
constexpr char kWakeTable = 'W';
constexpr uint64_t kOneIn = 4;  // of the calls that a bug could strike

}  // namespace

PlantedStore::PlantedStore(Bug bug, uint64_t seed, store::Store* base)
    : bug_(bug), dice_(seed), base_(*base), last_(base->shards()) {}

void PlantedStore::OnCrash(store::MemoryDisk* disk) const {
  if (bug_ != Bug::kLostCommit) return;
  for (store::ShardId shard = 0; shard < last_.size(); ++shard) {
    if (last_[shard] != 0) disk->LoseEntry(shard, last_[shard]);
  }
}

absl::StatusOr<store::ShardClaim> PlantedStore::Claim(store::ShardId shard) {
  return base_.log().Claim(shard);
}

void PlantedStore::Append(std::vector<store::AppendEntry> entries, AppendCallback done) {
  if (bug_ == Bug::kEarlyAck) {
    std::vector<store::AppendResult> results;
    for (const store::AppendEntry& entry : entries) {
      store::AppendResult& result = results.emplace_back();
      result.shard = entry.shard;
      result.lsn = entry.lsn;
      result.outcome = store::AppendOutcome::kOk;
    }
    done(std::move(results));
    done = [](const std::vector<store::AppendResult>&) {};
  }
  base_.log().Append(std::move(entries),
                     [this, done = std::move(done)](std::vector<store::AppendResult> results) {
                       for (const store::AppendResult& result : results) {
                         if (result.outcome == store::AppendOutcome::kOk)
                           last_[result.shard] = result.lsn;
                       }
                       done(std::move(results));
                     });
}

absl::Status PlantedStore::Read(store::ShardId shard, store::Lsn from, const EntryVisitor& visit) {
  return base_.log().Read(shard, from, visit);
}

absl::Status PlantedStore::Truncate(store::ShardId shard, store::Epoch epoch, store::Lsn through) {
  return base_.log().Truncate(shard, epoch, through);
}

void PlantedStore::Write(std::vector<store::RowBatch> batches, WriteCallback done) {
  if (bug_ == Bug::kLostWake && dice_.OneIn(kOneIn)) {
    for (store::RowBatch& batch : batches) {
      std::erase_if(batch.puts, [](const store::KeyValue& put) {
        return put.key.size() > kTableAt && put.key[kTableAt] == kWakeTable;
      });
    }
  }
  if (bug_ == Bug::kOldRows) {
    if (!kept_.empty()) {
      for (store::RowBatch& batch : std::exchange(kept_, {})) batches.push_back(std::move(batch));
    } else if (dice_.OneIn(kOneIn)) {
      kept_ = batches;
    }
  }
  base_.rows().Write(std::move(batches), std::move(done));
}

absl::Status PlantedStore::WriteSync(store::RowBatch batch) {
  return base_.rows().WriteSync(std::move(batch));
}

absl::StatusOr<std::optional<std::string>> PlantedStore::Get(std::string_view key) {
  return base_.rows().Get(key);
}

absl::Status PlantedStore::Scan(std::string_view begin, std::string_view end,
                                const RowVisitor& visit) {
  return base_.rows().Scan(begin, end, visit);
}

absl::Status PlantedStore::ScanRanges(
    const std::vector<std::pair<std::string, std::string>>& ranges, const RangesVisitor& visit) {
  return base_.rows().ScanRanges(ranges, visit);
}

const std::vector<BugInfo>& Bugs() {
  static const auto* const kBugs = new std::vector<BugInfo>{
      {Bug::kEarlyAck, "early-ack", "a commit is reported durable before it is written"},
      {Bug::kLostCommit, "lost-commit", "the last durable commit of a shard is gone after a crash"},
      {Bug::kStaleResult, "stale-result", "an older delivery's result counts as the current one's"},
      {Bug::kTokenReuse, "token-reuse", "a delivery number is handed out again"},
      {Bug::kLostWake, "lost-wake", "a wake row is not written"},
      {Bug::kOldRows, "old-rows", "a row batch is applied again over newer rows"},
  };
  return *kBugs;
}

absl::StatusOr<Bug> BugOf(std::string_view name) {
  std::string names;
  for (const BugInfo& info : Bugs()) {
    if (name == info.name) return info.bug;
    absl::StrAppend(&names, names.empty() ? "" : ", ", info.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("there is no bug \"", ToAbsl(name), "\"; there are: ", names));
}

void PlantInTasks(Bug bug, v1::ConnectResponse* message) {
  if (bug != Bug::kTokenReuse) return;
  for (v1::Task& task : *message->mutable_tasks()) task.mutable_token()->set_delivery(1);
}

void PlantInResult(Bug bug, uint64_t latest, v1::TaskResult* result) {
  if (bug == Bug::kStaleResult && latest != 0) result->mutable_token()->set_delivery(latest);
}

}  // namespace flux::sim
