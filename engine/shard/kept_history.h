// How much of its history a run keeps. One that goes round and round (loops, chains of
// continuations) does not grow on disk: what lies before its base, a snapshot of some time ago, is
// dropped.
#ifndef FLUX_ENGINE_SHARD_KEPT_HISTORY_H_
#define FLUX_ENGINE_SHARD_KEPT_HISTORY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/core/core.h"
#include "flux/v1/record.pb.h"
#include "store/store.h"

namespace flux::engine {

// Beyond its base a repeating run keeps at least this much, and no more than twice as much and what
// comes between two snapshots.
struct KeptHistory {
  uint64_t records_min = 10'000;
  uint64_t turns_min = 100;           // of the loop that has made the most
  uint64_t records_most = 1'000'000;  // however few turns that is
};

// `image` is a snapshot that is about to be written, and `root` names it already. Moves the root's
// bases on, and adds to `unneeded` the rows that nothing needs once that root stands; they go in
// one batch with it.
void MoveBase(const KeptHistory& kept, const Execution& execution, std::string_view image,
              store::ShardId shard, const RunId& run, v1::RunRoot* root, store::RowBatch* unneeded);

// Is the snapshot at this ordinal one of the root's bases?
bool IsBase(const v1::RunRoot& root, uint64_t ordinal);

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_KEPT_HISTORY_H_
