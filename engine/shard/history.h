// Reading what has been: pages of an execution's history, and the comparison of disk and memory.
// All of it blocks on the disk and runs off the loop.
#ifndef FLUX_ENGINE_SHARD_HISTORY_H_
#define FLUX_ENGINE_SHARD_HISTORY_H_

#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/core.h"
#include "engine/shard/definitions.h"
#include "flux/v1/admin.pb.h"
#include "flux/v1/workflow.pb.h"
#include "store/store.h"

namespace flux::engine {

// Replays histories into events. Thread-safe. Keeps the execution as it stood at the end of the
// last few pages, so that reading on from page to page costs a page each, not the history before
// it. Limits: kCursorsMax of them, kCursorsBytesMax together but for the newest, kCursorMs each.
class Histories {
 public:
  struct Limits {
    size_t page_bytes = 0;    // a page ends behind the record that passes it
    size_t answer_bytes = 0;  // a payload with which a page would have more is left out
  };

  // `now_ms` is monotonic, and called from any thread.
  Histories(store::Store* store, Definitions* definitions, Limits limits,
            std::function<int64_t()> now_ms);

  // `tail` holds the serialised records behind `flushed`; the history is read up to record `last`.
  // A page that would begin before the run's base begins behind it, with an event that says so.
  absl::StatusOr<v1::GetHistoryResponse> Page(const v1::GetHistoryRequest& request,
                                              store::ShardId shard, const RunId& run,
                                              uint64_t flushed, uint64_t last,
                                              const std::vector<std::string>& tail);

  // Replays the whole history that is kept, and the rows from their snapshot, and compares both
  // with `live`.
  absl::StatusOr<v1::VerifyExecutionResponse> Compare(store::ShardId shard, const RunId& run,
                                                      uint64_t flushed, uint64_t last,
                                                      const std::vector<std::string>& tail,
                                                      const std::string& live);

  // Lets go of what nobody has read on from. Takes as long as freeing an execution does.
  void DropOldCursors();
  bool HasOldCursors() const;
  size_t cursors() const;

 private:
  struct Cursor {
    RunId run;
    Execution execution;
    size_t bytes = 0;
    int64_t kept_ms = 0;
  };
  static constexpr size_t kCursorsMax = 8;
  static constexpr size_t kCursorsBytesMax = 64 * 1024 * 1024;
  static constexpr int64_t kCursorMs = 60'000;

  absl::StatusOr<v1::GetHistoryResponse> PageFrom(uint64_t first,
                                                  const v1::GetHistoryRequest& request,
                                                  store::ShardId shard, const RunId& run,
                                                  uint64_t flushed, uint64_t last,
                                                  const std::vector<std::string>& tail);
  absl::StatusOr<v1::VerifyExecutionResponse> CompareOnce(store::ShardId shard, const RunId& run,
                                                          uint64_t flushed, uint64_t last,
                                                          const std::vector<std::string>& tail,
                                                          const std::string& live);
  std::optional<Execution> TakeCursor(const RunId& run, uint64_t ordinal);
  void KeepCursor(const RunId& run, Execution execution);

  store::Store* const store_;
  Definitions* const definitions_;
  const Limits limits_;
  const std::function<int64_t()> now_ms_;
  mutable std::mutex mutex_;   // guards what follows
  std::list<Cursor> cursors_;  // the newest first
  size_t cursor_bytes_ = 0;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_HISTORY_H_
