#include "engine/shard/kept_history.h"

#include <algorithm>
#include <utility>

#include "engine/shard/keys.h"
#include "engine/shard/loader.h"

namespace flux::engine {
namespace {

constexpr size_t kBlobsMax = 1'000;  // listed in a root row

void DropSnapshot(store::ShardId shard, const RunId& run, uint64_t ordinal,
                  store::RowBatch* unneeded) {
  std::string prefix = keys::SnapshotPrefix(shard, run, ordinal);
  std::string end = keys::PrefixEnd(prefix);
  unneeded->delete_ranges.emplace_back(std::move(prefix), std::move(end));
}

v1::HistoryBase BaseOf(const v1::RunRoot& root, const Execution& execution, std::string_view image,
                       uint64_t turn) {
  v1::HistoryBase base;
  base.set_ordinal(root.snapshot_ordinal());
  base.set_pages(root.snapshot_pages());
  base.set_bytes(root.snapshot_bytes());
  base.set_definition_hash(root.definition_hash());
  base.set_turn(turn);
  base.set_next_blob(NextBlob(execution));
  const std::vector<uint64_t> blobs = BlobsOfSnapshot(image);
  if (blobs.size() > kBlobsMax) {
    base.set_blobs_unknown(true);
  } else {
    base.mutable_blobs()->Assign(blobs.begin(), blobs.end());
  }
  return base;
}

// What lies before `base` and was not dropped when `before` became the base.
void DropBefore(const v1::HistoryBase& base, const v1::HistoryBase& before, store::ShardId shard,
                const RunId& run, store::RowBatch* unneeded) {
  unneeded->delete_ranges.emplace_back(keys::History(shard, run, ChunkStart(before.ordinal() + 1)),
                                       keys::History(shard, run, ChunkStart(base.ordinal() + 1)));
  if (base.blobs_unknown()) return;
  const auto needed = [&](uint64_t blob) {
    return std::binary_search(base.blobs().begin(), base.blobs().end(), blob);
  };
  uint64_t from = 1;
  if (before.next_blob() != 0 && !before.blobs_unknown()) {
    from = before.next_blob();
    for (const uint64_t blob : before.blobs()) {
      if (!needed(blob)) unneeded->deletes.push_back(keys::Payload(shard, run, blob));
    }
  }
  const auto drop_until = [&](uint64_t end) {
    if (from < end) {
      unneeded->delete_ranges.emplace_back(keys::Payload(shard, run, from),
                                           keys::Payload(shard, run, end));
    }
    from = std::max(from, end + 1);
  };
  for (const uint64_t blob : base.blobs()) drop_until(blob);
  drop_until(base.next_blob());
}

}  // namespace

bool IsBase(const v1::RunRoot& root, uint64_t ordinal) {
  return (root.has_base() && root.base().ordinal() == ordinal) ||
         (root.has_next_base() && root.next_base().ordinal() == ordinal);
}

void MoveBase(const KeptHistory& kept, const Execution& execution, std::string_view image,
              store::ShardId shard, const RunId& run, v1::RunRoot* root,
              store::RowBatch* unneeded) {
  const Repetition repetition = RepetitionOf(execution);
  if (root->has_next_base()) {
    v1::HistoryBase& next = *root->mutable_next_base();
    const uint64_t records = root->snapshot_ordinal() - next.ordinal();
    // A lower turn is of another loop, or of a loop begun anew: its turns count from here.
    next.set_turn(std::min(next.turn(), repetition.turn));
    if (!repetition.any) {
      DropSnapshot(shard, run, next.ordinal(), unneeded);
      root->clear_next_base();
    } else if ((records >= kept.records_min && repetition.turn >= next.turn() + kept.turns_min) ||
               records >= kept.records_most) {
      DropBefore(next, root->base(), shard, run, unneeded);
      if (root->has_base()) DropSnapshot(shard, run, root->base().ordinal(), unneeded);
      root->mutable_base()->Swap(&next);
      root->clear_next_base();
    }
  }
  if (repetition.any && !root->has_next_base()) {
    *root->mutable_next_base() = BaseOf(*root, execution, image, repetition.turn);
  }
}

}  // namespace flux::engine
