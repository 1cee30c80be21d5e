// What every implementation of the store refuses before it touches a disk, in one place so that all
// refuse alike.
#ifndef FLUX_STORE_CHECKS_H_
#define FLUX_STORE_CHECKS_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "store/store.h"

namespace flux::store {

// All entries of one Append together, payload rows included.
inline constexpr size_t kAppendBytesMax = 256 * 1024 * 1024;
// One row's value, chunks together.
inline constexpr size_t kRowBytesMax = 256 * 1024 * 1024;
// Accepted and not yet written; past it writes are refused: the caller is not waiting for its
// acknowledgements. One that finds nothing waiting is taken whatever it has.
inline constexpr size_t kQueuedBytesMax = size_t{1} << 30;
inline constexpr uint32_t kShardsMax = 65536;

// Where a claimed shard stands, as the store's writer knows it.
struct ShardState {
  Epoch epoch = 0;       // as found or raised
  bool claimed = false;  // since this store was opened
  Lsn first = 1;
  Lsn last = 0;
  uint64_t last_nonce = 0;
};

// InvalidArgument: empty, or longer than kKeyBytesMax.
absl::Status CheckKey(std::string_view key);

// InvalidArgument: no such shard.
absl::Status CheckShard(ShardId shard, uint32_t shards);

// FailedPrecondition: the shard is not claimed, or claimed under another epoch.
absl::Status CheckEpoch(const ShardState& state, ShardId shard, Epoch epoch);

// Limits of one batch: keys, and kRowBatchBytesMax over all but its payload rows (values above
// kRowValueBytesMax).
absl::Status CheckBatchLimits(const RowBatch& batch);

// Limits of the entries of one Append taken together.
absl::Status CheckAppendLimits(const std::vector<AppendEntry>& entries, uint32_t shards);

size_t BatchBytes(const RowBatch& batch);
size_t EntryBytes(const AppendEntry& entry);

// The status that every write gets once one has failed.
absl::Status StoppedStatus(const absl::Status& cause);

inline bool OverQueueLimit(size_t queued_bytes, size_t item_bytes, size_t limit) {
  return queued_bytes > 0 && queued_bytes + item_bytes > limit;
}
// Why the store stops when more than `limit` bytes wait.
absl::Status QueueFullStatus(size_t limit);

// What a refusal before the disk makes of an Append: `at` is refused with `outcome` and `why`, the
// others with kNotCommitted because the append is one write.
std::vector<AppendResult> RefuseAll(const std::vector<AppendEntry>& entries, size_t at,
                                    AppendOutcome outcome, const absl::Status& why);

// Checks epochs and lsns of an Append against `states` (indexed by shard) and, if all fit, moves
// `last` on. Returns an empty vector then, else the results to report. Limits have been checked.
std::vector<AppendResult> AdmitAppend(const std::vector<AppendEntry>& entries,
                                      std::vector<ShardState>* states);

// splitmix64: nonces from a seed.
inline uint64_t NextNonce(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace flux::store

#endif  // FLUX_STORE_CHECKS_H_
