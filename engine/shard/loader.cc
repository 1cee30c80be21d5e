#include "engine/shard/loader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

absl::Status Damaged(const RunId& run, std::string_view what) {
  return absl::DataLossError(absl::StrCat("run ", run.Text(), ": ", ToAbsl(what)));
}

absl::StatusOr<std::string> ReadSnapshot(store::Rows& rows, store::ShardId shard, const RunId& run,
                                         const v1::RunRoot& root) {
  std::string bytes;
  bytes.reserve(root.snapshot_bytes());
  for (uint32_t page = 0; page < root.snapshot_pages(); ++page) {
    FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row,
                          rows.Get(keys::Snapshot(shard, run, root.snapshot_ordinal(), page)));
    if (!row) {
      return Damaged(
          run, std::string(absl::StrCat("snapshot page ", page, " of ", root.snapshot_pages(),
                                        " at record ", root.snapshot_ordinal(), " is missing")));
    }
    bytes += *row;
  }
  if (bytes.size() != root.snapshot_bytes()) {
    return Damaged(run, std::string(absl::StrCat("snapshot has ", bytes.size(), " bytes, not ",
                                                 root.snapshot_bytes())));
  }
  return bytes;
}

}  // namespace

BlobReader BlobsOf(store::Rows& rows, store::ShardId shard, const RunId& run) {
  return [&rows, shard, run](uint64_t ordinal) -> absl::StatusOr<v1::Payload> {
    FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row,
                          rows.Get(keys::Payload(shard, run, ordinal)));
    v1::Payload payload;
    if (!row || !payload.ParseFromString(*row)) {
      return Damaged(
          run, std::string(absl::StrCat("payload ", ordinal, row ? " is damaged" : " is missing")));
    }
    return payload;
  };
}

absl::Status VisitHistory(
    store::Rows& rows, store::ShardId shard, const RunId& run, uint64_t from, uint64_t through,
    const std::function<bool(uint64_t ordinal, std::string_view record)>& visit) {
  uint64_t next = from;
  absl::Status bad;
  // Chunks never cross a cut, so the one that holds `from` begins at or behind the cut before it.
  const uint64_t cut = (from - 1) / kHistoryCut * kHistoryCut + 1;
  FLUX_RETURN_IF_ERROR(rows.Scan(
      keys::History(shard, run, cut), keys::PrefixEnd(keys::HistoryPrefix(shard, run)),
      [&](std::string_view, std::string_view value) {
        v1::HistoryChunk chunk;
        if (!chunk.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          bad = Damaged(run, "a history chunk cannot be parsed");
          return false;
        }
        uint64_t ordinal = chunk.first_ordinal();
        if (ordinal > next) {
          if (ordinal <= through) {
            bad = Damaged(run, std::string(absl::StrCat("history records from ", next, " to ",
                                                        ordinal - 1, " are missing")));
          }
          return false;
        }
        for (const std::string& record : chunk.records()) {
          if (ordinal > through) return false;
          if (ordinal == next) {
            if (!visit(ordinal, record)) return false;
            ++next;
          }
          ++ordinal;
        }
        return next <= through;
      }));
  return bad;
}

absl::Status Replay(Definitions& definitions, const BlobReader& blobs, const RunId& run,
                    const std::vector<std::string_view>& records,
                    std::optional<Execution>& execution) {
  for (std::string_view bytes : records) {
    absl::StatusOr<v1::Record> record = ParseRecord(bytes, blobs);
    if (!record.ok()) {
      return Damaged(
          run, std::string(absl::StrCat("record ", execution ? execution->ordinal() + 1 : 1, ": ",
                                        record.status().message())));
    }
    if (!execution) {
      if (!record->has_started()) return Damaged(run, "its history does not begin with a start");
      FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Graph> graph,
                            definitions.ByHash(record->started().definition_hash()));
      execution.emplace(Create(std::move(graph), *record, nullptr));
    } else {
      std::shared_ptr<const Graph> graph;
      if (record->has_migrated()) {
        FLUX_ASSIGN_OR_RETURN(graph, definitions.ByHash(record->migrated().definition_hash()));
      }
      Apply(*execution, *std::move(record), nullptr, std::move(graph));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<LoadedRun>> LoadRun(store::Rows& rows, Definitions& definitions,
                                                 store::ShardId shard, const RunId& run) {
  FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row, rows.Get(keys::Root(shard, run)));
  if (!row) return std::optional<LoadedRun>();
  v1::RunRoot root;
  if (!root.ParseFromString(*row)) return Damaged(run, "its root row cannot be parsed");

  std::optional<Execution> execution;
  const BlobReader blobs = BlobsOf(rows, shard, run);
  if (root.snapshot_ordinal() > 0) {
    FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Graph> graph,
                          definitions.ByHash(root.definition_hash()));
    FLUX_ASSIGN_OR_RETURN(std::string bytes, ReadSnapshot(rows, shard, run, root));
    FLUX_ASSIGN_OR_RETURN(Execution loaded, LoadSnapshot(std::move(graph), bytes, blobs));
    execution.emplace(std::move(loaded));
  }
  absl::Status replayed;
  FLUX_RETURN_IF_ERROR(VisitHistory(rows, shard, run, root.snapshot_ordinal() + 1,
                                    root.flushed_ordinal(), [&](uint64_t, std::string_view record) {
                                      replayed =
                                          Replay(definitions, blobs, run, {record}, execution);
                                      return replayed.ok();
                                    }));
  FLUX_RETURN_IF_ERROR(replayed);
  if (!execution || execution->ordinal() != root.flushed_ordinal()) {
    return Damaged(run, std::string(absl::StrCat("its rows end at record ",
                                                 execution ? execution->ordinal() : 0,
                                                 ", its root row says ", root.flushed_ordinal())));
  }
  std::optional<LoadedRun> loaded;
  loaded.emplace(LoadedRun{std::move(root), *std::move(execution)});
  return loaded;
}

absl::StatusOr<std::vector<v1::ExecutionSummary>> LoadSummaries(store::Rows& rows,
                                                                store::ShardId shard,
                                                                std::string_view ns,
                                                                std::string_view workflow_id,
                                                                size_t count) {
  std::vector<v1::ExecutionSummary> out;
  bool damaged = false;
  const std::string prefix = keys::CurrentPrefix(shard, ns, workflow_id);
  FLUX_RETURN_IF_ERROR(
      rows.Scan(prefix, keys::PrefixEnd(prefix), [&](std::string_view, std::string_view value) {
        v1::ExecutionSummary& summary = out.emplace_back();
        damaged = !summary.ParseFromArray(value.data(), static_cast<int>(value.size()));
        return !damaged && out.size() < count;
      }));
  if (damaged) {
    return absl::DataLossError(
        absl::StrCat("an index row of workflow id \"", ToAbsl(workflow_id), "\" cannot be parsed"));
  }
  return out;
}

}  // namespace flux::engine
