// Planted bugs: mistakes of the kinds a coordinator can make, put between the engine and the world
// through the interfaces that are there anyway. They prove that the simulation would notice.
#ifndef FLUX_TESTS_SIM_BUGS_H_
#define FLUX_TESTS_SIM_BUGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "flux/v1/worker.pb.h"
#include "store/memory_store.h"
#include "store/store.h"
#include "tests/sim/dice.h"

namespace flux::sim {

enum class Bug {
  kNone,
  kEarlyAck,     // a commit is reported durable before it is written
  kLostCommit,   // the last durable commit of a shard is gone after a crash
  kStaleResult,  // the result of an older delivery counts as the current one's
  kTokenReuse,   // a delivery number is handed out again
  kLostWake,     // a wake row is not written: nothing brings an evicted execution back
  kOldRows,      // a row batch is applied again over newer rows
};

struct BugInfo {
  Bug bug;
  const char* name;
  const char* help;
};
// Without kNone.
const std::vector<BugInfo>& Bugs();
// InvalidArgument: no such name; the message lists them.
absl::StatusOr<Bug> BugOf(std::string_view name);

// A store that behaves as `base` does but for the bug; the same, call for call, for the same seed.
// Does not own `base`, which delivers its completions. Not thread-safe.
class PlantedStore final : public store::Store, public store::Log, public store::Rows {
 public:
  PlantedStore(Bug bug, uint64_t seed, store::Store* base);

  // What the disk suffers under a crash besides what it should.
  void OnCrash(store::MemoryDisk* disk) const;

  store::Log& log() override { return *this; }
  store::Rows& rows() override { return *this; }
  uint32_t shards() const override { return base_.shards(); }
  uint32_t incarnation() const override { return base_.incarnation(); }
  store::StoreStats Stats() override { return base_.Stats(); }
  std::vector<std::string> OpenNotes() const override { return base_.OpenNotes(); }
  bool BelowReserve() override { return base_.BelowReserve(); }

  absl::StatusOr<store::ShardClaim> Claim(store::ShardId shard) override;
  void Append(std::vector<store::AppendEntry> entries, AppendCallback done) override;
  absl::Status Read(store::ShardId shard, store::Lsn from, const EntryVisitor& visit) override;
  absl::Status Truncate(store::ShardId shard, store::Epoch epoch, store::Lsn through) override;
  void Write(std::vector<store::RowBatch> batches, WriteCallback done) override;
  absl::Status WriteSync(store::RowBatch batch) override;
  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) override;
  absl::Status Scan(std::string_view begin, std::string_view end, const RowVisitor& visit) override;
  absl::Status ScanRanges(const std::vector<std::pair<std::string, std::string>>& ranges,
                          const RangesVisitor& visit) override;

 private:
  const Bug bug_;
  Dice dice_;
  store::Store& base_;
  std::vector<store::Lsn> last_;       // by shard: the last lsn reported durable
  std::vector<store::RowBatch> kept_;  // to be applied again
};

// Changes a message on its way to a worker, or a result on its way to the coordinator, for which
// `latest` is the delivery of that step that was handed out last.
void PlantInTasks(Bug bug, v1::ConnectResponse* message);
void PlantInResult(Bug bug, uint64_t latest, v1::TaskResult* result);

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_BUGS_H_
