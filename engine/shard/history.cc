#include "engine/shard/history.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/shard/keys.h"
#include "engine/shard/loader.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr uint32_t kPageRecords = 1'000;
constexpr uint32_t kPageRecordsMax = 10'000;

// Visits records [from, last], first from the rows, then from the tail in memory.
absl::Status VisitAll(store::Rows& rows, store::ShardId shard, const RunId& run, uint64_t from,
                      uint64_t flushed, uint64_t last, const std::vector<std::string>& tail,
                      const std::function<bool(uint64_t, std::string_view)>& visit) {
  bool more = true;
  if (from <= flushed) {
    FLUX_RETURN_IF_ERROR(VisitHistory(rows, shard, run, from, flushed,
                                      [&](uint64_t ordinal, std::string_view record) {
                                        more = visit(ordinal, record);
                                        return more;
                                      }));
  }
  for (size_t i = 0; more && i < tail.size(); ++i) {
    const uint64_t ordinal = flushed + 1 + i;
    if (ordinal > last) break;
    if (ordinal >= from) more = visit(ordinal, tail[i]);
  }
  return absl::OkStatus();
}

bool Passes(const v1::ExecutionFilter& filter, std::string_view ns, std::string_view workflow,
            std::string_view workflow_id, v1::ExecutionStatus status, int64_t start_ms) {
  if (ns != filter.namespace_()) return false;
  if (!filter.workflow().empty() && workflow != filter.workflow()) return false;
  if (workflow_id.substr(0, filter.workflow_id_prefix().size()) != filter.workflow_id_prefix()) {
    return false;
  }
  if (filter.started_after_ms() != 0 && start_ms < filter.started_after_ms()) return false;
  if (filter.started_before_ms() != 0 && start_ms >= filter.started_before_ms()) return false;
  return filter.statuses_size() == 0 ||
         std::find(filter.statuses().begin(), filter.statuses().end(), status) !=
             filter.statuses().end();
}

// Order of the list: does (a) come before (b)?
bool Before(int64_t a_ms, const RunId& a, int64_t b_ms, const RunId& b) {
  return a_ms != b_ms ? a_ms > b_ms : a > b;
}

RunId RunOf(const v1::ExecutionSummary& summary) {
  return RunId::FromBytes(summary.run_id()).value_or(RunId{});
}

}  // namespace

Histories::Histories(store::Store* store, Definitions* definitions)
    : store_(store), definitions_(definitions) {}

std::optional<Execution> Histories::TakeCursor(const RunId& run, uint64_t ordinal) {
  absl::MutexLock lock(&mutex_);
  for (auto it = cursors_.begin(); it != cursors_.end(); ++it) {
    if (it->run == run && it->execution.ordinal() == ordinal) {
      std::optional<Execution> execution(std::move(it->execution));
      cursors_.erase(it);
      return execution;
    }
  }
  return std::nullopt;
}

void Histories::KeepCursor(const RunId& run, Execution execution) {
  absl::MutexLock lock(&mutex_);
  cursors_.push_front({run, std::move(execution)});
  if (cursors_.size() > kCursorsMax) cursors_.pop_back();
}

absl::StatusOr<v1::GetHistoryResponse> Histories::Page(const v1::GetHistoryRequest& request,
                                                       store::ShardId shard, const RunId& run,
                                                       uint64_t flushed, uint64_t last,
                                                       const std::vector<std::string>& tail) {
  uint64_t first = 1;
  if (!request.page_token().empty() &&
      (!absl::SimpleAtoi(request.page_token(), &first) || first == 0)) {
    return absl::InvalidArgumentError(absl::StrCat("page token \"", request.page_token(),
                                                   "\" is not from a page of this history"));
  }
  const uint64_t size =
      std::min(request.page_size() == 0 ? kPageRecords : request.page_size(), kPageRecordsMax);
  const uint64_t through = std::min(last, first + size - 1);

  std::optional<Execution> execution = TakeCursor(run, first - 1);
  const uint64_t from = execution ? first : 1;
  const BlobReader blobs = BlobsOf(store_->rows(), shard, run);
  std::vector<v1::HistoryEvent> story;
  absl::Status bad;
  FLUX_RETURN_IF_ERROR(
      VisitAll(store_->rows(), shard, run, from, flushed, through, tail,
               [&](uint64_t ordinal, std::string_view bytes) {
                 absl::StatusOr<v1::Record> record = ParseRecord(bytes, blobs);
                 if (!record.ok()) {
                   bad = absl::DataLossError(absl::StrCat("run ", run.Text(), " record ", ordinal,
                                                          ": ", record.status().message()));
                   return false;
                 }
                 Effects effects;
                 if (ordinal >= first) effects.story = &story;
                 if (!execution) {
                   auto graph = definitions_->ByHash(record->started().definition_hash());
                   if (!graph.ok()) {
                     bad = graph.status();
                     return false;
                   }
                   execution.emplace(Create(*std::move(graph), *record, &effects));
                 } else {
                   std::shared_ptr<const Graph> graph;
                   if (record->has_migrated()) {
                     auto found = definitions_->ByHash(record->migrated().definition_hash());
                     if (!found.ok()) {
                       bad = found.status();
                       return false;
                     }
                     graph = *std::move(found);
                   }
                   Apply(*execution, *std::move(record), &effects, std::move(graph));
                 }
                 return ordinal < through;
               }));
  FLUX_RETURN_IF_ERROR(bad);
  v1::GetHistoryResponse response;
  for (v1::HistoryEvent& event : story) {
    if (!request.payloads()) event.clear_payload();
    *response.add_events() = std::move(event);
  }
  if (through < last) response.set_next_page_token(absl::StrCat(through + 1));
  if (execution && through < last) KeepCursor(run, *std::move(execution));
  return response;
}

absl::StatusOr<v1::VerifyExecutionResponse> Histories::Compare(store::ShardId shard,
                                                               const RunId& run, uint64_t flushed,
                                                               uint64_t last,
                                                               const std::vector<std::string>& tail,
                                                               const std::string& live) {
  v1::VerifyExecutionResponse response;
  response.set_records(last);
  const BlobReader blobs = BlobsOf(store_->rows(), shard, run);
  const auto check = [&](std::optional<Execution> execution, std::string_view how) -> absl::Status {
    const uint64_t from = execution ? execution->ordinal() + 1 : 1;
    absl::Status replayed;
    FLUX_RETURN_IF_ERROR(VisitAll(store_->rows(), shard, run, from, flushed, last, tail,
                                  [&](uint64_t, std::string_view record) {
                                    replayed =
                                        Replay(*definitions_, blobs, run, {record}, execution);
                                    return replayed.ok();
                                  }));
    FLUX_RETURN_IF_ERROR(replayed);
    const std::string replay = execution ? SaveSnapshot(*execution) : "";
    if (replay != live && response.difference().empty()) {
      size_t at = 0;
      while (at < replay.size() && at < live.size() && replay[at] == live[at]) ++at;
      response.set_difference(absl::StrCat(ToAbsl(how), ": ", replay.size(), " bytes against ",
                                           live.size(), " in memory, first difference at byte ",
                                           at));
    }
    return absl::OkStatus();
  };
  FLUX_RETURN_IF_ERROR(check(std::nullopt, "replayed from the first record"));
  FLUX_ASSIGN_OR_RETURN(std::optional<LoadedRun> rows,
                        LoadRun(store_->rows(), *definitions_, shard, run));
  if (rows && rows->execution.ordinal() <= last) {
    FLUX_RETURN_IF_ERROR(check(std::move(rows->execution), "loaded from its rows"));
  }
  response.set_equal(response.difference().empty());
  return response;
}

// ---- lists
// ----------------------------------------------------------------------------------------------------------

absl::StatusOr<VisibleCursor> VisibleCursor::Parse(std::string_view text) {
  VisibleCursor cursor;
  if (text.empty()) return cursor;
  const size_t dash = text.find('-');
  const std::optional<RunId> run =
      dash == std::string_view::npos ? std::nullopt : RunId::FromText(text.substr(dash + 1));
  if (!run || !absl::SimpleAtoi(ToAbsl(text.substr(0, dash)), &cursor.start_ms)) {
    return absl::InvalidArgumentError(
        absl::StrCat("page token \"", ToAbsl(text), "\" is not from a list of executions"));
  }
  cursor.run = *run;
  return cursor;
}

VisibleCursor VisibleCursor::After(const v1::ExecutionSummary& summary) {
  return {summary.start_time_ms(), RunOf(summary)};
}

std::string VisibleCursor::Text() const { return absl::StrCat(start_ms, "-", run.Text()); }

v1::ExecutionInfo InfoOf(const v1::ExecutionSummary& summary) {
  v1::ExecutionInfo info;
  info.set_namespace_(summary.namespace_());
  info.set_workflow_id(summary.workflow_id());
  info.set_run_id(RunOf(summary).Text());
  info.set_workflow(summary.workflow());
  info.set_version(summary.version());
  info.set_definition_hash(summary.definition_hash());
  info.set_status(summary.status());
  info.set_start_time_ms(summary.start_time_ms());
  info.set_close_time_ms(summary.close_time_ms());
  *info.mutable_labels() = summary.labels();
  info.set_history_records(summary.history_records());
  info.set_steps_completed(summary.steps_completed());
  info.set_failure_type(summary.failure_type());
  return info;
}

absl::StatusOr<std::vector<v1::ExecutionSummary>> ListVisible(
    store::Rows& rows, const std::vector<store::ShardId>& shards, const v1::ExecutionFilter& filter,
    const VisibleCursor& cursor, size_t count, std::vector<v1::ExecutionSummary> fresh) {
  std::set<RunId> overlaid;
  std::vector<v1::ExecutionSummary> found;
  for (v1::ExecutionSummary& summary : fresh) {
    const RunId run = RunOf(summary);
    overlaid.insert(run);
    if (Before(cursor.start_ms, cursor.run, summary.start_time_ms(), run) &&
        Passes(filter, summary.namespace_(), summary.workflow(), summary.workflow_id(),
               summary.status(), summary.start_time_ms())) {
      found.push_back(std::move(summary));
    }
  }
  // Each shard gives its first `count`; the first `count` of all of them together are the answer.
  // Index rows hold only what filters need; the summaries of the chosen are read afterwards.
  for (store::ShardId shard : shards) {
    const std::string prefix = keys::VisiblePrefix(shard, filter.namespace_());
    const std::string begin =
        cursor.start_ms == INT64_MAX
            ? prefix
            : keys::Visible(shard, filter.namespace_(), cursor.start_ms, cursor.run) + '\0';
    size_t taken = 0;
    FLUX_RETURN_IF_ERROR(rows.Scan(
        begin, keys::PrefixEnd(prefix), [&](std::string_view key, std::string_view value) {
          const std::optional<keys::VisibleKey> parsed = keys::ParseVisible(key);
          const size_t split = value.find('\0', 1);
          if (!parsed || split == std::string_view::npos) return true;
          if (filter.started_after_ms() != 0 && parsed->start_ms < filter.started_after_ms()) {
            return false;  // the newest come first
          }
          if (overlaid.contains(parsed->run)) return true;
          const auto status = static_cast<v1::ExecutionStatus>(value[0]);
          const std::string_view workflow = value.substr(1, split - 1);
          const std::string_view workflow_id = value.substr(split + 1);
          if (!Passes(filter, filter.namespace_(), workflow, workflow_id, status,
                      parsed->start_ms)) {
            return true;
          }
          v1::ExecutionSummary& summary = found.emplace_back();
          summary.set_namespace_(filter.namespace_());
          summary.set_workflow_id(std::string(workflow_id));
          summary.set_run_id(parsed->run.Bytes());
          summary.set_status(status);
          summary.set_start_time_ms(parsed->start_ms);
          return ++taken < count;
        }));
  }
  if (count == SIZE_MAX) return found;  // counting needs no more
  std::sort(found.begin(), found.end(),
            [](const v1::ExecutionSummary& a, const v1::ExecutionSummary& b) {
              return Before(a.start_time_ms(), RunOf(a), b.start_time_ms(), RunOf(b));
            });
  if (found.size() > count) found.resize(count);
  for (v1::ExecutionSummary& summary : found) {
    if (!summary.workflow().empty()) continue;  // a fresh one is whole
    const RunId run = RunOf(summary);
    FLUX_ASSIGN_OR_RETURN(
        std::optional<std::string> row,
        rows.Get(keys::Current(run.low & 0xffff, filter.namespace_(), summary.workflow_id(), run)));
    if (!row || !summary.ParseFromString(*row)) {
      return absl::DataLossError(
          absl::StrCat("the index row of run ", run.Text(), " is ", row ? "damaged" : "missing"));
    }
  }
  return found;
}

}  // namespace flux::engine
