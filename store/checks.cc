#include "store/checks.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::store {
namespace {

constexpr size_t kKeyShownBytes = 64;

std::string Shown(std::string_view key) {
  return absl::CHexEscape(ToAbsl(key.substr(0, kKeyShownBytes)));
}

}  // namespace

absl::Status CheckKey(std::string_view key) {
  if (key.empty()) return absl::InvalidArgumentError("a row key is empty");
  if (key.size() > kKeyBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("row key '", Shown(key), "...' has ", key.size(),
                                                   " bytes; the limit is ", kKeyBytesMax));
  }
  return absl::OkStatus();
}

absl::Status CheckShard(ShardId shard, uint32_t shards) {
  if (shard >= shards) {
    return absl::InvalidArgumentError(
        absl::StrCat("shard ", shard, " does not exist; this store has ", shards));
  }
  return absl::OkStatus();
}

absl::Status CheckEpoch(const ShardState& state, ShardId shard, Epoch epoch) {
  if (!state.claimed) {
    return absl::FailedPreconditionError(absl::StrCat(
        "shard ", shard, " is fenced: it has not been claimed since the store was opened"));
  }
  if (epoch != state.epoch) {
    return absl::FailedPreconditionError(absl::StrCat("shard ", shard, " is fenced: epoch ", epoch,
                                                      " is not the current one, ", state.epoch));
  }
  return absl::OkStatus();
}

absl::Status CheckBatchLimits(const RowBatch& batch) {
  size_t bytes = 0;
  for (const KeyValue& put : batch.puts) {
    FLUX_RETURN_IF_ERROR(CheckKey(put.key));
    if (put.value.size() > kRowBytesMax) {
      return absl::ResourceExhaustedError(absl::StrCat("row '", Shown(put.key), "' has ",
                                                       put.value.size(), " bytes; the limit is ",
                                                       kRowBytesMax));
    }
    if (put.value.size() <= kRowValueBytesMax) bytes += put.key.size() + put.value.size();
  }
  for (const std::string& key : batch.deletes) {
    FLUX_RETURN_IF_ERROR(CheckKey(key));
    bytes += key.size();
  }
  for (const auto* ranges : {&batch.delete_ranges, &batch.emptied}) {
    for (const auto& [begin, end] : *ranges) {
      FLUX_RETURN_IF_ERROR(CheckKey(begin));
      FLUX_RETURN_IF_ERROR(CheckKey(end));
      if (begin > end) {
        return absl::InvalidArgumentError(
            absl::StrCat(ranges == &batch.emptied ? "emptied" : "delete", " range begins at '",
                         Shown(begin), "', after its end '", Shown(end), "'"));
      }
      bytes += begin.size() + end.size();
    }
  }
  if (bytes > kRowBatchBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat("a row batch of shard ", batch.shard, " has ",
                                                     bytes, " bytes; the limit is ",
                                                     kRowBatchBytesMax, ": split it"));
  }
  return absl::OkStatus();
}

absl::Status CheckAppendLimits(const std::vector<AppendEntry>& entries, uint32_t shards) {
  size_t bytes = 0;
  for (const AppendEntry& entry : entries) {
    FLUX_RETURN_IF_ERROR(CheckShard(entry.shard, shards));
    if (entry.bytes.size() > kLogEntryBytesMax) {
      return absl::ResourceExhaustedError(absl::StrCat("log entry ", entry.lsn, " of shard ",
                                                       entry.shard, " has ", entry.bytes.size(),
                                                       " bytes; the limit is ", kLogEntryBytesMax));
    }
    for (const RowChange& row : entry.rows) {
      FLUX_RETURN_IF_ERROR(CheckKey(row.key));
      if (row.value.has_value() && row.value->size() > kRowBytesMax) {
        return absl::ResourceExhaustedError(absl::StrCat("row '", Shown(row.key), "' has ",
                                                         row.value->size(), " bytes; the limit is ",
                                                         kRowBytesMax));
      }
    }
    bytes += EntryBytes(entry);
  }
  if (bytes > kAppendBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("an append has ", bytes, " bytes; the limit is ", kAppendBytesMax));
  }
  return absl::OkStatus();
}

size_t BatchBytes(const RowBatch& batch) {
  size_t bytes = 0;
  for (const KeyValue& put : batch.puts) bytes += put.key.size() + put.value.size();
  for (const std::string& key : batch.deletes) bytes += key.size();
  for (const auto* ranges : {&batch.delete_ranges, &batch.emptied}) {
    for (const auto& [begin, end] : *ranges) bytes += begin.size() + end.size();
  }
  return bytes;
}

size_t EntryBytes(const AppendEntry& entry) {
  size_t bytes = entry.bytes.size();
  for (const RowChange& row : entry.rows) {
    bytes += row.key.size() + (row.value.has_value() ? row.value->size() : 0);
  }
  return bytes;
}

absl::Status StoppedStatus(const absl::Status& cause) {
  return absl::FailedPreconditionError(absl::StrCat(
      "the store is stopped after a failed write and must be reopened; the failure was: ",
      cause.message()));
}

absl::Status QueueFullStatus(size_t limit) {
  return absl::ResourceExhaustedError(
      absl::StrCat("more than ", limit, " bytes wait to be written; wait for acknowledgements"));
}

std::vector<AppendResult> RefuseAll(const std::vector<AppendEntry>& entries, size_t at,
                                    AppendOutcome outcome, const absl::Status& why) {
  std::vector<AppendResult> results;
  results.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    AppendResult result;
    result.shard = entries[i].shard;
    result.lsn = entries[i].lsn;
    result.outcome = i == at ? outcome : AppendOutcome::kNotCommitted;
    result.status = i == at ? why
                            : absl::FailedPreconditionError(
                                  absl::StrCat("not written because shard ", entries[at].shard,
                                               " of the same append was refused: ", why.message()));
    results.push_back(std::move(result));
  }
  return results;
}

std::vector<AppendResult> AdmitAppend(const std::vector<AppendEntry>& entries,
                                      std::vector<ShardState>* states) {
  for (size_t i = 0; i < entries.size(); ++i) {
    const AppendEntry& entry = entries[i];
    ShardState& state = (*states)[entry.shard];
    absl::Status why = CheckEpoch(state, entry.shard, entry.epoch);
    AppendOutcome outcome = AppendOutcome::kFenced;
    if (why.ok()) {
      if (entry.lsn == state.last + 1) {
        state.last = entry.lsn;
        continue;
      }
      outcome = AppendOutcome::kNotCommitted;
      why = absl::FailedPreconditionError(absl::StrCat("shard ", entry.shard, ": lsn ", entry.lsn,
                                                       " is not the next one, ", state.last + 1));
    }
    for (size_t j = 0; j < i; ++j) --(*states)[entries[j].shard].last;
    return RefuseAll(entries, i, outcome, why);
  }
  return {};
}

}  // namespace flux::store
