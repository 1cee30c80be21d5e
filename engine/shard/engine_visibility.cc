// The index of executions: written with the rows, searched with what the rows lack laid over them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/shard/engine.h"
#include "engine/shard/index.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr uint32_t kPageDefault = 100;
constexpr uint32_t kPageMax = 1'000;
constexpr size_t kBuildRows = 500;  // executions read at a time while the index is built

}  // namespace

// ---- writing
// -------------------------------------------------------------------------------------------------

// The row of the group's counts joins the batch; one that stands in it already is replaced.
void Engine::PutCounts(Shard& shard, const std::string& group, Flush& flush, size_t batch) {
  std::string key = keys::Counts(shard.id, group);
  std::string row = shard.counts.Row(group);
  store::RowBatch& to = flush.batches[batch];
  if (const auto known = flush.counted.find(key);
      known != flush.counted.end() && known->second.first == batch) {
    to.puts[known->second.second].value = std::move(row);
    return;
  }
  flush.counted[key] = {batch, to.puts.size()};
  to.puts.push_back({std::move(key), std::move(row)});
}

void Engine::IndexSlot(const Slot& slot, const v1::ExecutionSummary& summary, v1::RunRoot& root,
                       Flush& flush, size_t batch) {
  const v1::IndexMark* before = root.has_indexed() ? &root.indexed() : nullptr;
  IndexUpdate update = UpdateIndex(slot.shard, summary, before);
  Shard& shard = shards_[slot.shard];
  const std::string group = ShardCounts::Group(summary.namespace_(), summary.workflow());
  if (before == nullptr || before->status() != summary.status() ||
      before->workflow() != summary.workflow()) {
    shard.counts.Add(group, summary.status(), +1);
    if (before != nullptr) {
      const std::string old = ShardCounts::Group(summary.namespace_(), before->workflow());
      shard.counts.Add(old, before->status(), -1);
      if (old != group) PutCounts(shard, old, flush, batch);
    }
    PutCounts(shard, group, flush, batch);
  }
  store::RowBatch& to = flush.batches[batch];
  for (store::KeyValue& put : update.puts) to.puts.push_back(std::move(put));
  for (std::string& key : update.deletes) to.deletes.push_back(std::move(key));
  *root.mutable_indexed() = std::move(update.mark);
}

// ---- opening
// -------------------------------------------------------------------------------------------------

absl::Status Engine::OpenIndex() {
  FLUX_ASSIGN_OR_RETURN(std::optional<std::string> version,
                        env_.store->rows().Get(keys::IndexVersion()));
  if (!version || *version != kIndexVersion) {
    uint64_t executions = 0;
    for (const Shard& shard : shards_) FLUX_RETURN_IF_ERROR(BuildIndex(shard.id, &executions));
    if (executions > 0) {
      Log(1, absl::StrCat("built the index of ", executions, " executions from their rows"));
    }
    store::RowBatch batch;
    batch.epoch = shards_[0].epoch;
    batch.puts.push_back({keys::IndexVersion(), std::string(kIndexVersion)});
    FLUX_RETURN_IF_ERROR(env_.store->rows().WriteSync(std::move(batch)));
  }
  for (Shard& shard : shards_) {
    const auto [begin, end] = keys::TableRange(shard.id, keys::Table::kCounts);
    const std::string head = begin;
    absl::Status bad;
    FLUX_RETURN_IF_ERROR(
        env_.store->rows().Scan(begin, end, [&](std::string_view key, std::string_view value) {
          if (key != keys::IndexVersion()) bad = shard.counts.Load(key.substr(head.size()), value);
          return bad.ok();
        }));
    FLUX_RETURN_IF_ERROR(bad);
  }
  return absl::OkStatus();
}

// From the rows by workflow id, for stores that were written before there was this index. Begun
// anew if it is cut short: its version is written last.
absl::Status Engine::BuildIndex(store::ShardId id, uint64_t* executions) {
  store::Rows& rows = env_.store->rows();
  store::RowBatch batch;
  size_t bytes = 0;
  const auto write = [&] {
    batch.shard = id;
    batch.epoch = shards_[id].epoch;
    bytes = 0;
    return rows.WriteSync(std::exchange(batch, {}));
  };
  const auto put = [&](store::KeyValue row) {
    bytes += row.key.size() + row.value.size();
    batch.puts.push_back(std::move(row));
    return bytes < kRowBatchTarget ? absl::OkStatus() : write();
  };
  for (keys::Table table : {keys::Table::kVisible, keys::Table::kByWorkflow, keys::Table::kByLabel,
                            keys::Table::kEnded, keys::Table::kCounts}) {
    batch.delete_ranges.push_back(keys::TableRange(id, table));
  }
  FLUX_RETURN_IF_ERROR(write());

  auto [begin, end] = keys::TableRange(id, keys::Table::kCurrent);
  ShardCounts counts;
  for (bool more = true; more;) {
    std::vector<v1::ExecutionSummary> summaries;
    absl::Status bad;
    FLUX_RETURN_IF_ERROR(rows.Scan(begin, end, [&](std::string_view key, std::string_view value) {
      if (!summaries.emplace_back().ParseFromArray(value.data(), static_cast<int>(value.size()))) {
        bad = absl::DataLossError(absl::StrCat("an index row of shard ", id, " cannot be parsed"));
        return false;
      }
      begin = std::string(key) + '\0';
      return summaries.size() < kBuildRows;
    }));
    FLUX_RETURN_IF_ERROR(bad);
    more = summaries.size() == kBuildRows;
    for (const v1::ExecutionSummary& summary : summaries) {
      const RunId run = RunId::FromBytes(summary.run_id()).value_or(RunId{});
      FLUX_ASSIGN_OR_RETURN(std::optional<std::string> row, rows.Get(keys::Root(id, run)));
      v1::RunRoot root;
      if (!row || !root.ParseFromString(*row)) {
        return absl::DataLossError(
            absl::StrCat("the root row of run ", run.Text(), " is ", row ? "damaged" : "missing"));
      }
      IndexUpdate update = UpdateIndex(id, summary, nullptr);
      for (store::KeyValue& each : update.puts) FLUX_RETURN_IF_ERROR(put(std::move(each)));
      *root.mutable_indexed() = std::move(update.mark);
      FLUX_RETURN_IF_ERROR(put({keys::Root(id, run), root.SerializeAsString()}));
      counts.Add(ShardCounts::Group(summary.namespace_(), summary.workflow()), summary.status(),
                 +1);
      ++*executions;
    }
  }
  for (const auto& [group, unused] : counts.groups()) {
    FLUX_RETURN_IF_ERROR(put({keys::Counts(id, group), counts.Row(group)}));
  }
  return write();
}

// ---- searching
// -----------------------------------------------------------------------------------------------

// Rule 18: what the rows do not have yet is laid over them, without reading or writing any.
void Engine::Overlay(VisibleRequest* request) const {
  const QueryBounds bounds = request->query.Bounds();
  request->hidden.assign(standing_.begin(), standing_.end());
  std::vector<const Slot*> slots;
  for (const Shard& shard : shards_) {
    for (const Slot* slot : shard.pins) {
      if (!slot->execution) continue;
      request->hidden.push_back(slot->run);
      const Execution& execution = *slot->execution;
      const v1::ExecutionStarted& started = execution.started();
      const bool possible =
          (bounds.statuses & StatusBit(execution.status())) != 0 &&
          execution.start_time_ms() >= bounds.start_min &&
          execution.start_time_ms() <= bounds.start_max && started.namespace_() == request->ns &&
          (!bounds.workflow_ids ||
           std::binary_search(bounds.workflow_ids->begin(), bounds.workflow_ids->end(),
                              started.workflow_id())) &&
          (request->counting || request->after.Precedes(execution.start_time_ms(), slot->run));
      if (possible) slots.push_back(slot);
    }
  }
  // A page takes no more of them than it has room for; each summary costs.
  const auto older = [](const Slot* a, const Slot* b) {
    const int64_t a_ms = a->execution->start_time_ms();
    const int64_t b_ms = b->execution->start_time_ms();
    return a_ms != b_ms ? a_ms < b_ms : a->run < b->run;
  };
  std::make_heap(slots.begin(), slots.end(), older);
  while (!slots.empty() && (request->counting || request->fresh.size() <= request->count)) {
    std::pop_heap(slots.begin(), slots.end(), older);
    v1::ExecutionSummary summary = Summarize(*slots.back()->execution);
    slots.pop_back();
    if (request->query.Check(FieldsOf(summary)) == Match::kYes) {
      request->fresh.push_back(std::move(summary));
    }
  }
}

void Engine::Search(VisibleRequest request, SearchCallback done) {
  Overlay(&request);
  auto search = std::make_unique<VisibleSearch>(
      env_.store->rows(), static_cast<uint32_t>(shards_.size()), std::move(request));
  ReplyLater([this, search = std::move(search), done = std::move(done)]() mutable {
    StepSearch(std::move(search), std::move(done));
  });
}

// Each step is a job of its own, so that loads and other searches come in between.
void Engine::StepSearch(std::unique_ptr<VisibleSearch> search, SearchCallback done) {
  env_.background->Run([this, search = std::move(search), done = std::move(done)]() mutable {
    const absl::StatusOr<bool> finished = search->Step();
    if (!finished.ok()) return done(finished.status());
    if (*finished) return done(std::move(search));
    StepSearch(std::move(search), std::move(done));
  });
}

void Engine::List(v1::ListExecutionsRequest request, Reply<v1::ListExecutionsResponse> reply) {
  VisibleRequest wanted;
  wanted.ns = request.filter().namespace_().empty() ? "default" : request.filter().namespace_();
  wanted.count = std::clamp<uint32_t>(request.page_size() == 0 ? kPageDefault : request.page_size(),
                                      1, kPageMax);
  const absl::StatusOr<VisibleCursor> after = VisibleCursor::Parse(request.page_token());
  if (!after.ok()) return reply(after.status());
  wanted.after = *after;
  absl::StatusOr<Query> query = Query::FromFilter(
      request.filter(), after->now_ms != 0 ? after->now_ms : env_.clock->WallMs());
  if (!query.ok()) return reply(query.status());
  wanted.query = *std::move(query);
  Post([this, wanted = std::move(wanted), reply = std::move(reply)]() mutable {
    Search(std::move(wanted), [reply = std::move(reply)](
                                  absl::StatusOr<std::unique_ptr<VisibleSearch>> search) mutable {
      if (!search.ok()) return reply(search.status());
      absl::StatusOr<VisibleSearch::Page> page = (*search)->TakePage();
      if (!page.ok()) return reply(page.status());
      v1::ListExecutionsResponse response;
      for (const v1::ExecutionSummary& summary : page->executions) {
        *response.add_executions() = InfoOf(summary);
      }
      if (page->next) response.set_next_page_token(page->next->Text());
      reply(std::move(response));
    });
  });
}

// The counts kept by workflow and status, with what the rows lack, or have too much, set right.
// An empty namespace: all of them.
template <typename Visit>
void Engine::VisitCounts(const std::string& ns, Visit count) const {
  const std::string head = ns.empty() ? "" : ns + '\0';
  for (const Shard& shard : shards_) {
    const auto& groups = shard.counts.groups();
    for (auto it = groups.lower_bound(head);
         it != groups.end() && std::string_view(it->first).substr(0, head.size()) == head; ++it) {
      std::string_view workflow = std::string_view(it->first);
      workflow.remove_prefix(workflow.find('\0') + 1);
      workflow.remove_suffix(1);
      for (int status = kStatusMin; status <= kStatusMax; ++status) {
        count(workflow, static_cast<v1::ExecutionStatus>(status),
              it->second[static_cast<size_t>(status)]);
      }
    }
    for (const Slot* slot : shard.pins) {
      if (!slot->execution) continue;
      const v1::ExecutionStarted& started = slot->execution->started();
      if (!ns.empty() && started.namespace_() != ns) continue;
      const v1::RunRoot& root = slot->flushing ? slot->sent_root : slot->root;
      if (root.has_indexed()) {
        count(root.indexed().workflow(), root.indexed().status(), ~uint64_t{0});  // one less
      }
      count(started.workflow(), slot->execution->status(), 1);
    }
  }
  for (const RunId& run : standing_) {
    const Deletion& deletion = deletions_.at(run);
    if ((ns.empty() || deletion.ns == ns) && deletion.indexed) {
      count(deletion.indexed->workflow(), deletion.indexed->status(), ~uint64_t{0});
    }
  }
}

std::map<v1::ExecutionStatus, uint64_t> Engine::CountByIndex(const std::string& ns,
                                                             const Query& query) const {
  std::map<v1::ExecutionStatus, uint64_t> counts;
  VisitCounts(ns, [&](std::string_view workflow, v1::ExecutionStatus status, uint64_t by) {
    ExecutionFields fields;
    fields.workflow = workflow;
    fields.status = status;
    if (by != 0 && query.Check(fields) == Match::kYes) counts[status] += by;
  });
  return counts;
}

uint64_t Engine::CountOpen() const {
  uint64_t open = 0;
  VisitCounts("", [&](std::string_view, v1::ExecutionStatus status, uint64_t by) {
    if ((kOpenStatuses & StatusBit(status)) != 0) open += by;
  });
  return open;
}

void Engine::Count(v1::CountExecutionsRequest request, Reply<v1::CountExecutionsResponse> reply) {
  VisibleRequest wanted;
  wanted.ns = request.filter().namespace_().empty() ? "default" : request.filter().namespace_();
  wanted.counting = true;
  absl::StatusOr<Query> query = Query::FromFilter(request.filter(), env_.clock->WallMs());
  if (!query.ok()) return reply(query.status());
  wanted.query = *std::move(query);
  const auto answer = [](const std::map<v1::ExecutionStatus, uint64_t>& counts) {
    v1::CountExecutionsResponse response;
    uint64_t all = 0;
    for (const auto& [status, count] : counts) {
      if (count == 0) continue;
      all += count;
      auto* entry = response.add_by_status();
      entry->set_status(status);
      entry->set_count(count);
    }
    response.set_count(all);
    return response;
  };
  Post([this, answer, wanted = std::move(wanted), reply = std::move(reply)]() mutable {
    if (wanted.query.OnlyStatusAndWorkflow()) {
      return ReplyWith<v1::CountExecutionsResponse>(std::move(reply),
                                                    answer(CountByIndex(wanted.ns, wanted.query)));
    }
    Search(std::move(wanted), [answer, reply = std::move(reply)](
                                  absl::StatusOr<std::unique_ptr<VisibleSearch>> search) mutable {
      if (!search.ok()) return reply(search.status());
      reply(answer((*search)->counts()));
    });
  });
}

}  // namespace flux::engine
