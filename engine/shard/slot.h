// One execution's place in memory: loading, resident, or on its way out. At most one exists per
// run.
#ifndef FLUX_ENGINE_SHARD_SLOT_H_
#define FLUX_ENGINE_SHARD_SLOT_H_

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "engine/core/core.h"
#include "flux/v1/record.pb.h"
#include "store/store.h"

namespace flux::engine {

struct Slot;

// Runs once the slot is resident, or with the reason why it cannot be (then `slot` is null).
using SlotCallback = absl::AnyInvocable<void(Slot* slot, const absl::Status& status)>;

using TaskName = std::pair<std::string, std::string>;  // queue, task
using TaskCounts = std::map<std::string, size_t>;      // of one queue, by task

struct SpilledStep {
  const TaskName* name = nullptr;  // in its slot's spilled_names
  bool unsure = false;             // a process before this one may have handed it out
  // Loaded from where ready rows stood for it, perhaps spilled unsure before: its delivery number
  // must not be used, whether the rows are there still or not.
  bool stood_in_rows = false;
  int64_t start_by_ms = 0;  // wall; when its schedule_to_start has passed. 0: never
};

// State                 entered by                 left by
// loading (no execution) the first command for it   its rows being read
// resident               a start, or loaded         eviction, once all of it is in acknowledged
// rows
struct Slot {
  RunId run;
  store::ShardId shard = 0;
  std::string id_key;  // namespace 0 workflow_id
  std::optional<Execution> execution;
  // For the load, in order; resident with some of them: a full batch had no room for them yet.
  std::deque<SlotCallback> waiting;

  // ---- what the rows lack ----
  v1::RunRoot root;                    // as acknowledged
  v1::RunRoot sent_root;               // while flushing: as sent
  std::deque<std::string> tail;        // serialised records behind root.flushed_ordinal
  store::Lsn first_unflushed_lsn = 0;  // oldest commit with a record the rows lack; 0: none
  store::Lsn last_lsn = 0;             // newest commit that touched it
  std::list<Slot*>::iterator
      pin;  // in its shard's list by first_unflushed_lsn; valid if that is not 0
  store::Lsn next_unflushed_lsn = 0;  // while flushing: first commit behind the image
  bool flush_queued = false;
  bool flushing = false;
  bool evict = false;  // drop it after the flush, if nothing came meanwhile

  // ---- what waits in it ----
  int64_t timer_ms = 0;  // as entered in the loop's timer set; 0: not in it
  absl::btree_map<StepKey, SpilledStep> spilled;   // scheduled steps the dispatcher had no room for
  std::map<TaskName, size_t> spilled_names;        // of them, so many of each name; none of 0
  std::set<std::pair<int64_t, StepKey>> start_by;  // (start_by_ms, step) of those that have one
  // The step that is being taken back from disk, and since when it has waited.
  std::optional<std::pair<StepKey, int64_t>> refilled;
  uint64_t sent_message = 0;  // the newest message of its outbox that is on its way
  bool recovered =
      false;  // loaded from the log tail after a restart: its tasks may be in a worker's hands
  std::list<Slot*>::iterator lru;
  int64_t touched_ms = 0;   // monotonic
  size_t memory_bytes = 0;  // as counted in the cache

  uint64_t flushed() const { return root.flushed_ordinal(); }
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_SLOT_H_
