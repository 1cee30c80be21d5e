#include "engine/shard/loader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr uint64_t kReserveMax = 16 << 20;  // whatever a damaged row says

absl::Status Damaged(const RunId& run, std::string_view what) {
  return absl::DataLossError(absl::StrCat("run ", run.Text(), ": ", ToAbsl(what)));
}

absl::StatusOr<std::string> ReadSnapshot(store::Rows& rows, store::ShardId shard, const RunId& run,
                                         uint64_t ordinal, uint32_t pages, uint64_t size) {
  std::string bytes;
  bytes.reserve(std::min<uint64_t>(size, kReserveMax));
  for (uint32_t page = 0; page < pages; ++page) {
    FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row,
                          rows.Get(keys::Snapshot(shard, run, ordinal, page)));
    if (!row) {
      return Damaged(run, std::string(absl::StrCat("snapshot page ", page, " of ", pages,
                                                   " at record ", ordinal, " is missing")));
    }
    bytes += *row;
  }
  if (bytes.size() != size) {
    return Damaged(run, std::string(absl::StrCat("the snapshot at record ", ordinal, " has ",
                                                 bytes.size(), " bytes, not ", size)));
  }
  return bytes;
}

absl::StatusOr<std::optional<v1::RunRoot>> ReadRoot(store::Rows& rows, store::ShardId shard,
                                                    const RunId& run) {
  FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row, rows.Get(keys::Root(shard, run)));
  if (!row) return std::optional<v1::RunRoot>();
  std::optional<v1::RunRoot> root;
  if (!root.emplace().ParseFromString(*row)) {
    return Damaged(run, "its root row cannot be parsed");
  }
  return root;
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
  FLUX_RETURN_IF_ERROR(rows.Scan(
      keys::History(shard, run, ChunkStart(from)), keys::PrefixEnd(keys::HistoryPrefix(shard, run)),
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
  FLUX_ASSIGN_OR_RETURN(std::optional<v1::RunRoot> row, ReadRoot(rows, shard, run));
  if (!row) return std::optional<LoadedRun>();
  v1::RunRoot& root = *row;

  std::optional<Execution> execution;
  const BlobReader blobs = BlobsOf(rows, shard, run);
  if (root.snapshot_ordinal() > 0) {
    FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Graph> graph,
                          definitions.ByHash(root.definition_hash()));
    FLUX_ASSIGN_OR_RETURN(std::string bytes,
                          ReadSnapshot(rows, shard, run, root.snapshot_ordinal(),
                                       root.snapshot_pages(), root.snapshot_bytes()));
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

absl::StatusOr<std::optional<Execution>> LoadBase(store::Rows& rows, Definitions& definitions,
                                                  store::ShardId shard, const RunId& run) {
  FLUX_ASSIGN_OR_RETURN(std::optional<v1::RunRoot> root, ReadRoot(rows, shard, run));
  if (!root || !root->has_base()) return std::optional<Execution>();
  const v1::HistoryBase& base = root->base();
  FLUX_ASSIGN_OR_RETURN(std::shared_ptr<const Graph> graph,
                        definitions.ByHash(base.definition_hash()));
  FLUX_ASSIGN_OR_RETURN(std::string bytes,
                        ReadSnapshot(rows, shard, run, base.ordinal(), base.pages(), base.bytes()));
  FLUX_ASSIGN_OR_RETURN(Execution execution,
                        LoadSnapshot(std::move(graph), bytes, BlobsOf(rows, shard, run)));
  return std::optional<Execution>(std::move(execution));
}

absl::StatusOr<uint64_t> HistoryBegin(store::Rows& rows, store::ShardId shard, const RunId& run) {
  FLUX_ASSIGN_OR_RETURN(std::optional<v1::RunRoot> root, ReadRoot(rows, shard, run));
  return root ? root->base().ordinal() + 1 : 1;
}

bool RequestIsKept(const v1::ExecutionSummary& run, size_t newer, int64_t now_ms) {
  return newer < kRunsPerIdMin ||
         (newer < kRunsPerIdMax &&
          (run.close_time_ms() == 0 || run.close_time_ms() + kRequestsKeptMs > now_ms));
}

absl::StatusOr<IdRows> LoadId(store::Rows& rows, store::ShardId shard, std::string_view ns,
                              std::string_view workflow_id, int64_t now_ms) {
  IdRows out;
  bool damaged = false;
  const auto prefix_range = [](std::string prefix) {
    std::string end = keys::PrefixEnd(prefix);
    return std::pair(std::move(prefix), std::move(end));
  };
  const std::string requests = keys::RequestPrefix(shard, ns, workflow_id);
  using Next = store::Rows::Next;
  FLUX_RETURN_IF_ERROR(rows.ScanRanges(
      {prefix_range(keys::CurrentPrefix(shard, ns, workflow_id)), prefix_range(requests)},
      [&](size_t range, std::string_view key, std::string_view value) {
        if (range == 0) {
          v1::ExecutionSummary& summary = out.runs.emplace_back();
          damaged = !summary.ParseFromArray(value.data(), static_cast<int>(value.size()));
          if (damaged) return Next::kStop;
          if (RequestIsKept(summary, out.runs.size() - 1, now_ms)) return Next::kRow;
          out.runs.pop_back();
          return Next::kRange;
        }
        v1::StoredRequest request;
        std::optional<RunId> run;
        if (request.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          run = RunId::FromBytes(request.run_id());
        }
        damaged = !run.has_value();
        if (damaged) return Next::kStop;
        if (request.forget_ms() > now_ms) {
          out.requests.emplace_back(key.substr(requests.size()), *run);
        }
        return Next::kRow;
      }));
  if (damaged) {
    return absl::DataLossError(
        absl::StrCat("a row of workflow id \"", ToAbsl(workflow_id), "\" cannot be parsed"));
  }
  return out;
}

}  // namespace flux::engine
