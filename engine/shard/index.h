// The index rows of executions: how they are made from a summary, and what they say.
//
// Every execution has a row under its status, one under workflow and status, and one under each
// label and status, all ordered newest start first; a closed one has a row by its close time. All
// but the last hold the same value. They are written in the row batches that flush executions, with
// the counts of each workflow and status. docs/decisions/0070 says why.
#ifndef FLUX_ENGINE_SHARD_INDEX_H_
#define FLUX_ENGINE_SHARD_INDEX_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "engine/shard/keys.h"
#include "engine/visibility/query.h"
#include "flux/v1/record.pb.h"
#include "store/store.h"

namespace flux::engine {

// Changes with the layout of the index; an older index is built anew when a store is opened.
inline constexpr std::string_view kIndexVersion = "3";

// What an index row says beside its key: enough for every query that does not ask for labels, or
// for steps.
struct IndexValue {
  int64_t close_ms = 0;
  std::string_view workflow;
  std::string_view workflow_id;
  std::string_view version;
  std::string_view failure_type;
  uint64_t parked = 0;

  std::string Encode() const;
  // Views into `bytes`. nullopt: malformed.
  static std::optional<IndexValue> Decode(std::string_view bytes);
  static IndexValue Of(const v1::ExecutionSummary& summary);
};

// What the row by close time says: what retention goes by, without a look at any other row.
struct EndedValue {
  v1::ExecutionStatus status = v1::EXECUTION_STATUS_UNSPECIFIED;
  std::string_view ns;
  std::string_view workflow_id;
  std::string_view workflow;

  std::string Encode() const;
  // Views into `bytes`. nullopt: malformed.
  static std::optional<EndedValue> Decode(std::string_view bytes);
  static EndedValue Of(const v1::ExecutionSummary& summary);
};

// What to write so that the rows say `summary` where they said `before` (null: nothing).
struct IndexUpdate {
  std::vector<store::KeyValue> puts;
  std::vector<std::string> deletes;
  v1::IndexMark mark;  // what they say then
};
IndexUpdate UpdateIndex(store::ShardId shard, const v1::ExecutionSummary& summary,
                        const v1::IndexMark* before);

// Every index row that stands by `mark`.
std::vector<std::string> IndexKeys(store::ShardId shard, std::string_view ns, int64_t start_ms,
                                   const RunId& run, const v1::IndexMark& mark);

// The executions of one shard, by workflow and status, as its index rows have them once every batch
// made so far is written. Thread-compatible. O(workflows).
class ShardCounts {
 public:
  using ByStatus = std::array<uint64_t, kStatusMax + 1>;

  // `group`: ns 0 workflow 0.
  static std::string Group(std::string_view ns, std::string_view workflow);

  // As a row holds it. DataLoss: malformed.
  absl::Status Load(std::string_view group, std::string_view row);
  void Add(const std::string& group, v1::ExecutionStatus status, int64_t by);
  // The row of a group; empty if nothing is left of it, and the row goes.
  std::string Row(const std::string& group) const;

  // By group.
  const absl::btree_map<std::string, ByStatus>& groups() const { return groups_; }

 private:
  absl::btree_map<std::string, ByStatus> groups_;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_INDEX_H_
