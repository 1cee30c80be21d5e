// Lists and counts of executions by query, over the index rows of every shard. Blocks on the disk:
// runs off the loop, a slice at a time.
#ifndef FLUX_ENGINE_SHARD_VISIBLE_H_
#define FLUX_ENGINE_SHARD_VISIBLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/shard/keys.h"
#include "engine/visibility/query.h"
#include "flux/v1/workflow.pb.h"
#include "store/store.h"

namespace flux::engine {

// A place in the list of executions: newest start first, then greatest run id. It stays where it
// is, whatever starts or closes meanwhile; relative times of the query stay as they were on the
// first page.
struct VisibleCursor {
  int64_t start_ms = INT64_MAX;
  RunId run{UINT64_MAX, UINT64_MAX};
  int64_t now_ms = 0;  // 0: this is the first page

  // InvalidArgument: not the token of a list.
  static absl::StatusOr<VisibleCursor> Parse(std::string_view text);
  std::string Text() const;
  // Is that place behind this one?
  bool Precedes(int64_t other_start_ms, const RunId& other) const {
    return start_ms != other_start_ms ? start_ms > other_start_ms : run > other;
  }
};

v1::ExecutionInfo InfoOf(const v1::ExecutionSummary& summary);

// What is searched for.
struct VisibleRequest {
  std::string ns;
  Query query;
  VisibleCursor after;
  size_t count = 0;  // of a list: the page's size
  bool counting = false;
  // Rule 18, as of one turn of the loop: rows of these runs are passed over, and those of them that
  // match are here.
  std::vector<RunId> hidden;
  std::vector<v1::ExecutionSummary> fresh;
};

// One search. Step it until it is done; each step reads for some tens of milliseconds. Each shard
// is read from one consistent view. Not thread-safe. Memory: a page, and what is hidden.
class VisibleSearch {
 public:
  VisibleSearch(store::Rows& rows, uint32_t shards, VisibleRequest request);

  // True: done. DataLoss: a damaged row.
  absl::StatusOr<bool> Step();

  // After the last step of a list: the matches, newest first, and where the next page begins. A
  // page may come short of what was asked for and still have a successor.
  struct Page {
    std::vector<v1::ExecutionSummary> executions;
    std::optional<VisibleCursor> next;
  };
  absl::StatusOr<Page> TakePage();
  const std::map<v1::ExecutionStatus, uint64_t>& counts() const { return counts_; }
  uint64_t rows_read() const { return rows_read_; }

 private:
  struct Found {
    int64_t start_ms = 0;
    RunId run;
    std::string workflow_id;
    std::optional<v1::ExecutionSummary> summary;
  };
  static bool Newer(const Found& a, const Found& b) {
    return a.start_ms != b.start_ms ? a.start_ms > b.start_ms : a.run > b.run;
  }
  // An index that holds every match: a label, the workflow, or all executions.
  struct Path {
    const QueryBounds::Label* label = nullptr;
    bool workflow = false;
  };

  absl::Status Begin();
  absl::Status ChoosePath();
  absl::StatusOr<double> Estimate(const Path& path);
  // `values`, unless null: of each range, the value of the path's label in it.
  std::vector<std::pair<std::string, std::string>> RangesOf(
      const Path& path, store::ShardId shard, bool after_cursor,
      std::vector<std::string_view>* values = nullptr) const;
  absl::Status ReadShard(store::ShardId shard);
  absl::Status ReadIds();
  absl::StatusOr<bool> ReadPrefix();
  absl::Status ReadCurrent(const std::string& prefix, uint64_t rows_max);
  absl::StatusOr<std::optional<v1::ExecutionSummary>> ReadSummary(std::string_view workflow_id,
                                                                  const RunId& run);
  bool Wanted(int64_t start_ms, const RunId& run) const;
  void Take(v1::ExecutionStatus status, Found found);

  store::Rows& rows_;
  const uint32_t shards_;
  VisibleRequest request_;
  const QueryBounds bounds_;
  absl::flat_hash_set<RunId> hidden_;
  bool begun_ = false;
  bool done_ = false;
  Path path_;
  store::ShardId next_shard_ = 0;
  std::vector<Found> found_;  // a heap, the oldest in front; at most count + 1
  std::map<v1::ExecutionStatus, uint64_t> counts_;
  uint64_t rows_read_ = 0;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_VISIBLE_H_
