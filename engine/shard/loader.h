// Reads executions back from their rows. Blocks on the disk: called off the loop, or during
// recovery.
#ifndef FLUX_ENGINE_SHARD_LOADER_H_
#define FLUX_ENGINE_SHARD_LOADER_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/core.h"
#include "engine/shard/definitions.h"
#include "flux/v1/record.pb.h"
#include "store/store.h"

namespace flux::engine {

// History chunks are cut at multiples of this many records (rule 9), besides wherever a flush
// ended.
inline constexpr uint64_t kHistoryCut = 256;

// The chunk that holds this record begins there or later.
inline uint64_t ChunkStart(uint64_t ordinal) {
  return (ordinal - 1) / kHistoryCut * kHistoryCut + 1;
}

// An execution as its rows have it: snapshot at S and the history chunks (S, F].
struct LoadedRun {
  v1::RunRoot root;
  Execution execution;
};

// nullopt: the run has no rows (never flushed, or unknown). DataLoss: damaged or missing rows; the
// message names the run and the row.
absl::StatusOr<std::optional<LoadedRun>> LoadRun(store::Rows& rows, Definitions& definitions,
                                                 store::ShardId shard, const RunId& run);

// The execution as its history begins: nullopt, with the first record. Rows may go while it reads,
// see HistoryBegin.
absl::StatusOr<std::optional<Execution>> LoadBase(store::Rows& rows, Definitions& definitions,
                                                  store::ShardId shard, const RunId& run);
// The first record that is kept. It moves on while the run does: what was read and lacks something
// is to be read again if it has.
absl::StatusOr<uint64_t> HistoryBegin(store::Rows& rows, store::ShardId shard, const RunId& run);

// What is known of a workflow id: its runs, and whose starts' request ids are remembered.
inline constexpr size_t kRunsPerIdMin = 16;
inline constexpr size_t kRunsPerIdMax = 10'000;
inline constexpr int64_t kDeletionNotesKeptMs = 90 * 24 * int64_t{3'600'000};  // since the deletion
inline constexpr int64_t kRequestsKeptMs = 24 * 3'600'000;  // behind the close of the run (rule 10)
struct IdRows {
  // The newest first: so many at least, and those that closed within the last day.
  std::vector<v1::ExecutionSummary> runs;
  std::vector<std::pair<std::string, RunId>> requests;  // of deleted runs
};
absl::StatusOr<IdRows> LoadId(store::Rows& rows, store::ShardId shard, std::string_view ns,
                              std::string_view workflow_id, int64_t now_ms);
// Is a run that many newer ones follow still to be known for its request id?
bool RequestIsKept(const v1::ExecutionSummary& run, size_t newer, int64_t now_ms);

// Reads payloads over the inline limit.
BlobReader BlobsOf(store::Rows& rows, store::ShardId shard, const RunId& run);

// Visits the serialised records of the history chunks with ordinals in [from, through], in order.
// `visit` returns false to stop. DataLoss: a gap.
absl::Status VisitHistory(
    store::Rows& rows, store::ShardId shard, const RunId& run, uint64_t from, uint64_t through,
    const std::function<bool(uint64_t ordinal, std::string_view record)>& visit);

// Applies serialised records to `execution`, which may be empty if the first one starts it. Their
// ordinals follow on from the execution's. DataLoss names run and ordinal.
absl::Status Replay(Definitions& definitions, const BlobReader& blobs, const RunId& run,
                    const std::vector<std::string_view>& records,
                    std::optional<Execution>& execution);

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_LOADER_H_
