// Where everything lies among the rows: the key layout of docs/STORAGE_FORMAT.md.
//
// Every key begins with the shard (2 bytes, big-endian) and a table letter. Numbers are big-endian,
// so that bytewise order is numeric order; ids are terminated by a zero byte, which validated ids
// cannot contain.
#ifndef FLUX_ENGINE_SHARD_KEYS_H_
#define FLUX_ENGINE_SHARD_KEYS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/core/run_id.h"
#include "store/store.h"

namespace flux::engine::keys {

enum class Table : char {
  kActive = 'A',      // run                     → empty: a task of it may be in a worker's hands
  kBulk = 'B',        // id (shard 0)            → StoredBulkOperation
  kCurrent = 'C',     // ns 0 workflow_id 0 ~run → ExecutionSummary; the newest run first
  kDefinition = 'D',  // hash (shard 0)          → StoredDefinition
  kHistory = 'H',     // run first_ordinal       → HistoryChunk
  kClock = 'I',       // (shard 0)               → the newest time the clock was trusted to show
  kDeleted = 'J',     // ~delete_ms ~run         → DeletionNote; the newest deletion first
  kSchedule = 'K',    // ns 0 id 0 part (shard 0) → StoredSchedule (D), ScheduleState (S)
  kName = 'M',        // name 0 ~sequence (shard 0) → hash
  kSession = 'N',     // session_id (shard 0)    → SessionChange
  kPayload = 'P',     // run ordinal             → Payload
  kRequest = 'Q',     // ns 0 workflow_id 0 request_id → StoredRequest: of a deleted run's start
  kReady = 'R',       // queue 0 since_ms run    → names of tasks, 0 between: an evicted run waits
  kSnapshot = 'S',    // run ordinal page        → bytes
  kVisible = 'V',  // ns 0 place              → index value (index.h); place: status ~start ~run
  kByWorkflow = 'F',  // ns 0 workflow 0 place   → index value
  kByLabel = 'L',     // ns 0 name 0 value 0 place → index value
  kEnded = 'E',       // close_ms run            → EndedValue (index.h)
  kCounts = 'G',     // ns 0 workflow 0         → VisibleCounts; (shard 0) 0: version of the index
  kForget = 'T',     // forget_ms ns 0 workflow_id 0 request_id → empty: when a request row may go
  kTombstone = 'Z',  // run                     → Tombstone
  kWake = 'W',       // due_ms run              → empty: the earliest timer of a run
  kRoot = 'X',       // run                     → RunRoot
};

// [begin, end) of a whole table of a shard.
std::pair<std::string, std::string> TableRange(store::ShardId shard, Table table);
// The first key after every key that begins with `prefix`.
std::string PrefixEnd(std::string prefix);

std::string Active(store::ShardId shard, const RunId& run);
std::string Bulk(std::string_view id);
std::string Clock();
std::string CurrentPrefix(store::ShardId shard, std::string_view ns, std::string_view workflow_id);
std::string Current(store::ShardId shard, std::string_view ns, std::string_view workflow_id,
                    const RunId& run);
std::string Definition(std::string_view hash);
std::string NamePrefix(std::string_view name);
std::string Name(std::string_view name, uint64_t sequence);
std::string HistoryPrefix(store::ShardId shard, const RunId& run);
std::string History(store::ShardId shard, const RunId& run, uint64_t first_ordinal);
std::string ScheduleDefinition(std::string_view ns, std::string_view id);
std::string ScheduleState(std::string_view ns, std::string_view id);
std::string Session(std::string_view session_id);
std::string Payload(store::ShardId shard, const RunId& run, uint64_t ordinal);
std::string PayloadPrefix(store::ShardId shard, const RunId& run);
std::string ReadyPrefix(store::ShardId shard, std::string_view queue);
std::string Ready(store::ShardId shard, std::string_view queue, int64_t since_ms, const RunId& run);
std::string RequestPrefix(store::ShardId shard, std::string_view ns, std::string_view workflow_id);
std::string Request(store::ShardId shard, std::string_view ns, std::string_view workflow_id,
                    std::string_view request_id);
// The row that says when a request row, by its key, may go; and back.
std::string Forget(std::string_view request_key, int64_t forget_ms);
std::string ForgetUntil(store::ShardId shard, int64_t forget_ms);  // the end of those before it
std::string RequestOf(std::string_view forget_key);
std::string Snapshot(store::ShardId shard, const RunId& run, uint64_t ordinal, uint32_t page);
std::string SnapshotsPrefix(store::ShardId shard, const RunId& run);
std::string SnapshotPrefix(store::ShardId shard, const RunId& run, uint64_t ordinal);
// Index rows: a prefix, then the place.
std::string VisiblePrefix(store::ShardId shard, std::string_view ns);
std::string WorkflowPrefix(store::ShardId shard, std::string_view ns, std::string_view workflow);
std::string LabelPrefix(store::ShardId shard, std::string_view ns, std::string_view name,
                        std::string_view value);
// Behind an index prefix: newest start first, then greatest run, within a status.
struct Place {
  uint8_t status = 0;
  int64_t start_ms = 0;
  RunId run;
};
std::string At(std::string prefix, const Place& place);
// The keys of a status with starts in [start_min, start_max], both at least 0.
std::pair<std::string, std::string> PlaceRange(const std::string& prefix, uint8_t status,
                                               int64_t start_min, int64_t start_max);
// The place an index key ends with.
std::optional<Place> PlaceOf(std::string_view key);
std::string Ended(store::ShardId shard, int64_t close_ms, const RunId& run);
// Behind every run that closed before `close_ms`.
std::string EndedUntil(store::ShardId shard, int64_t close_ms);
// The close time that a key of kEnded names. nullopt: malformed.
std::optional<int64_t> ClosedOf(std::string_view key);
// `group`: ns 0 workflow 0.
std::string Counts(store::ShardId shard, std::string_view group);
std::string IndexVersion();
std::string Tombstone(store::ShardId shard, const RunId& run);
std::string Deleted(store::ShardId shard, int64_t delete_ms, const RunId& run);
// The first key of deletions before `delete_ms`.
std::string DeletedBefore(store::ShardId shard, int64_t delete_ms);
// When, and which run, by a key of kDeleted. nullopt: malformed.
std::optional<std::pair<int64_t, RunId>> DeletionOf(std::string_view key);
std::string Wake(store::ShardId shard, int64_t due_ms, const RunId& run);
std::string WakeUntil(store::ShardId shard, int64_t due_ms);
std::string Root(store::ShardId shard, const RunId& run);

// The run id a key of kActive, kReady, kWake, kRoot, kEnded or kTombstone ends with.
std::optional<RunId> TrailingRun(std::string_view key);
// What a kWake key is due at.
int64_t WakeDue(std::string_view key);
// The shard an execution lives in. XXH3-64 of "namespace 0 workflow_id", masked; `shards` is a
// power of two.
store::ShardId ShardOf(std::string_view ns, std::string_view workflow_id, uint32_t shards);

}  // namespace flux::engine::keys

#endif  // FLUX_ENGINE_SHARD_KEYS_H_
