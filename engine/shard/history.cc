#include "engine/shard/history.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/core/payload_limit.h"
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

// Leaves the event's payload out, and says so, if a page of `bytes` has no room for it.
void TrimPayload(size_t bytes, size_t bytes_max, v1::HistoryEvent* event) {
  const size_t payload = PayloadBytes(event->payload());
  if (payload == 0 || bytes + payload <= bytes_max) return;
  event->clear_payload();
  absl::StrAppend(event->mutable_detail(), event->detail().empty() ? "" : "; ", "its payload of ",
                  payload, " bytes is left out: an answer has no room for it");
}

// Reads again what lacked something if the rows it needed may have gone meanwhile: the run moved
// its base on.
template <typename Read>
auto ReadSettled(store::Rows& rows, store::ShardId shard, const RunId& run, const Read& read)
    -> decltype(read()) {
  for (;;) {
    FLUX_ASSIGN_OR_RETURN(const uint64_t before, HistoryBegin(rows, shard, run));
    auto result = read();
    if (!absl::IsDataLoss(result.status())) return result;
    FLUX_ASSIGN_OR_RETURN(const uint64_t after, HistoryBegin(rows, shard, run));
    if (after == before) return result;
  }
}

}  // namespace

Histories::Histories(store::Store* store, Definitions* definitions, Limits limits,
                     std::function<int64_t()> now_ms)
    : store_(store), definitions_(definitions), limits_(limits), now_ms_(std::move(now_ms)) {}

std::optional<Execution> Histories::TakeCursor(const RunId& run, uint64_t ordinal) {
  std::lock_guard lock(mutex_);
  for (auto it = cursors_.begin(); it != cursors_.end(); ++it) {
    if (it->run == run && it->execution.ordinal() == ordinal) {
      std::optional<Execution> execution(std::move(it->execution));
      cursor_bytes_ -= it->bytes;
      cursors_.erase(it);
      return execution;
    }
  }
  return std::nullopt;
}

void Histories::KeepCursor(const RunId& run, Execution execution) {
  const size_t bytes = MemoryBytes(execution);
  std::list<Cursor> dropped;  // freed without the lock
  std::lock_guard lock(mutex_);
  cursors_.push_front({run, std::move(execution), bytes, now_ms_()});
  cursor_bytes_ += bytes;
  while (cursors_.size() > kCursorsMax ||
         (cursors_.size() > 1 && cursor_bytes_ > kCursorsBytesMax)) {
    cursor_bytes_ -= cursors_.back().bytes;
    dropped.splice(dropped.end(), cursors_, std::prev(cursors_.end()));
  }
}

bool Histories::HasOldCursors() const {
  std::lock_guard lock(mutex_);
  return !cursors_.empty() && now_ms_() - cursors_.back().kept_ms >= kCursorMs;
}

void Histories::DropOldCursors() {
  std::list<Cursor> dropped;  // freed without the lock
  std::lock_guard lock(mutex_);
  const int64_t now = now_ms_();
  while (!cursors_.empty() && now - cursors_.back().kept_ms >= kCursorMs) {
    cursor_bytes_ -= cursors_.back().bytes;
    dropped.splice(dropped.end(), cursors_, std::prev(cursors_.end()));
  }
}

size_t Histories::cursors() const {
  std::lock_guard lock(mutex_);
  return cursors_.size();
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
  return ReadSettled(store_->rows(), shard, run,
                     [&] { return PageFrom(first, request, shard, run, flushed, last, tail); });
}

absl::StatusOr<v1::GetHistoryResponse> Histories::PageFrom(uint64_t first,
                                                           const v1::GetHistoryRequest& request,
                                                           store::ShardId shard, const RunId& run,
                                                           uint64_t flushed, uint64_t last,
                                                           const std::vector<std::string>& tail) {
  std::vector<v1::HistoryEvent> story;
  FLUX_ASSIGN_OR_RETURN(const uint64_t begin, HistoryBegin(store_->rows(), shard, run));
  std::optional<Execution> execution = TakeCursor(run, first - 1);
  if (!execution || first < begin) {
    FLUX_ASSIGN_OR_RETURN(execution, LoadBase(store_->rows(), *definitions_, shard, run));
  }
  if (execution && execution->ordinal() >= first) {
    v1::HistoryEvent& dropped = story.emplace_back();
    dropped.set_ordinal(execution->ordinal());
    dropped.set_time_ms(execution->last_time_ms());
    dropped.set_type("history.dropped");
    dropped.set_detail(
        absl::StrCat("records ", first, " to ", execution->ordinal(),
                     " are not kept: an execution that goes round and round keeps its last turns"));
    dropped.set_derived(true);
    first = execution->ordinal() + 1;
  }
  const uint64_t size =
      std::min(request.page_size() == 0 ? kPageRecords : request.page_size(), kPageRecordsMax);
  uint64_t through = std::min(last, first + size - 1);
  size_t page_bytes = 0;
  size_t weighed = 0;  // events of the story that `page_bytes` counts
  const uint64_t from = execution ? execution->ordinal() + 1 : 1;
  const BlobReader blobs = BlobsOf(store_->rows(), shard, run);
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
                 for (; weighed < story.size(); ++weighed) {
                   v1::HistoryEvent& event = story[weighed];
                   if (!request.payloads()) event.clear_payload();
                   TrimPayload(page_bytes, limits_.answer_bytes, &event);
                   page_bytes += event.ByteSizeLong();
                 }
                 if (page_bytes > limits_.page_bytes && ordinal >= first) through = ordinal;
                 return ordinal < through;
               }));
  FLUX_RETURN_IF_ERROR(bad);
  v1::GetHistoryResponse response;
  for (v1::HistoryEvent& event : story) *response.add_events() = std::move(event);
  if (through < last) response.set_next_page_token(absl::StrCat(through + 1));
  if (execution && through < last) KeepCursor(run, *std::move(execution));
  return response;
}

absl::StatusOr<v1::VerifyExecutionResponse> Histories::Compare(store::ShardId shard,
                                                               const RunId& run, uint64_t flushed,
                                                               uint64_t last,
                                                               const std::vector<std::string>& tail,
                                                               const std::string& live) {
  return ReadSettled(store_->rows(), shard, run,
                     [&] { return CompareOnce(shard, run, flushed, last, tail, live); });
}

absl::StatusOr<v1::VerifyExecutionResponse> Histories::CompareOnce(
    store::ShardId shard, const RunId& run, uint64_t flushed, uint64_t last,
    const std::vector<std::string>& tail, const std::string& live) {
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
  FLUX_ASSIGN_OR_RETURN(std::optional<Execution> base,
                        LoadBase(store_->rows(), *definitions_, shard, run));
  if (!base || base->ordinal() <= last) {
    FLUX_RETURN_IF_ERROR(check(std::move(base), "replayed from where its history begins"));
  }
  FLUX_ASSIGN_OR_RETURN(std::optional<LoadedRun> rows,
                        LoadRun(store_->rows(), *definitions_, shard, run));
  if (rows && rows->execution.ordinal() <= last) {
    FLUX_RETURN_IF_ERROR(check(std::move(rows->execution), "loaded from its rows"));
  }
  response.set_equal(response.difference().empty());
  return response;
}

}  // namespace flux::engine
