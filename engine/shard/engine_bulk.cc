// Bulk operations: one page of matches after another, each execution operated on as if alone.
//
// state      waits for                      next
// searching  a page of executions           applying, or ended if there is none
// applying   its pace, and the answers      searching, once the whole page has answered: then its
//                                           cursor is made durable
// ended                                     (completed, cancelled or failed)
//
// A restart begins again behind the last durable page; what was done of the page after it is met a
// second time, and by then matches no more, refuses, or has it done.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json_value.h"
#include "engine/shard/engine.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr uint32_t kRateDefault = 500;
constexpr uint32_t kRateMax = 10'000;
constexpr uint32_t kPreviewDefault = 10;
constexpr uint32_t kPreviewMax = 100;
constexpr size_t kRunningMax = 8;
constexpr size_t kEndedMax = 100;
constexpr int kErrorsMax = 10;
constexpr size_t kReasonBytes =
    100;                             // what each execution's reason says beside the operation's own
constexpr size_t kInFlightMax = 64;  // executions of one operation that have not answered
constexpr size_t kPageMin = 10;
constexpr size_t kPageMax = 200;
constexpr int kTriesMax = 5;  // of one execution that is not available
constexpr int64_t kRetryMs = 200;
constexpr int64_t kMilli = 1'000;

bool Ended(const v1::BulkOperation& operation) {
  return operation.state() != v1::BULK_STATE_RUNNING;
}

bool IsEverything(const v1::ExecutionFilter& filter) {
  return filter.workflow().empty() && filter.statuses_size() == 0 &&
         filter.workflow_id_prefix().empty() && filter.started_after_ms() == 0 &&
         filter.started_before_ms() == 0 &&
         filter.query().find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

absl::Status Engine::CheckBulk(v1::StartBulkOperationRequest& request) const {
  if (request.filter().namespace_().empty()) {
    request.mutable_filter()->set_namespace_("default");
  }
  FLUX_RETURN_IF_ERROR(CheckId("namespace", request.filter().namespace_(), true));
  FLUX_RETURN_IF_ERROR(CheckId("identity", request.identity(), false));
  FLUX_RETURN_IF_ERROR(CheckId("request id", request.request_id(), false));
  if (IsEverything(request.filter())) {
    return absl::InvalidArgumentError(
        "the filter is empty and matches everything: if that is meant, say started <= now");
  }
  FLUX_RETURN_IF_ERROR(CheckOperation(request.operation()));
  const size_t bytes_max = options_.payload_inline_bytes - kReasonBytes;
  if (const size_t bytes = request.operation().ByteSizeLong() + request.reason().size();
      bytes > bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("operation and reason have ", bytes,
                                                   " bytes together; at most ", bytes_max,
                                                   " are allowed"));
  }
  if (request.rate_per_second() == 0) request.set_rate_per_second(kRateDefault);
  if (request.rate_per_second() > kRateMax) {
    return absl::InvalidArgumentError(absl::StrCat("rate_per_second is ", request.rate_per_second(),
                                                   "; at most ", kRateMax, " are allowed"));
  }
  if (request.preview_rows() == 0) request.set_preview_rows(kPreviewDefault);
  request.set_preview_rows(std::min(request.preview_rows(), kPreviewMax));
  return absl::OkStatus();
}

// ---- requests
// ---------------------------------------------------------------------------------------------

void Engine::StartBulk(v1::StartBulkOperationRequest request,
                       Reply<v1::StartBulkOperationResponse> reply) {
  if (absl::Status status = CheckBulk(request); !status.ok()) return reply(status);
  const int64_t now = env_.clock->WallMs();
  absl::StatusOr<Query> query = Query::FromFilter(request.filter(), now);
  if (!query.ok()) return reply(query.status());
  // What starts from now on is none of it.
  if (request.filter().started_before_ms() == 0 || request.filter().started_before_ms() > now + 1) {
    request.mutable_filter()->set_started_before_ms(now + 1);
    query = Query::FromFilter(request.filter(), now);
  }
  Post([this, now, request = std::move(request), query = *std::move(query),
        reply = std::move(reply)]() mutable {
    if (std::optional<v1::StartBulkOperationResponse> begun = BulkOf(request)) {
      return ReplyWith<v1::StartBulkOperationResponse>(std::move(reply), *std::move(begun));
    }
    VisibleRequest count;
    count.ns = request.filter().namespace_();
    count.query = query;
    count.counting = true;
    Search(std::move(count), [this, now, request = std::move(request), query = std::move(query),
                              reply = std::move(reply)](
                                 absl::StatusOr<std::unique_ptr<VisibleSearch>> counted) mutable {
      if (!counted.ok()) return reply(counted.status());
      uint64_t matched = 0;
      for (const auto& [status, number] : (*counted)->counts()) matched += number;
      Post([this, now, matched, request = std::move(request), query = std::move(query),
            reply = std::move(reply)]() mutable {
        if (request.preview()) {
          PreviewBulk(request, matched, std::move(query), std::move(reply));
        } else {
          ReplyWith<v1::StartBulkOperationResponse>(
              std::move(reply), BeginBulk(std::move(request), matched, std::move(query), now));
        }
      });
    });
  });
}

void Engine::PreviewBulk(const v1::StartBulkOperationRequest& request, uint64_t matched,
                         Query query, Reply<v1::StartBulkOperationResponse> reply) {
  VisibleRequest first;
  first.ns = request.filter().namespace_();
  first.query = std::move(query);
  first.count = request.preview_rows();
  Search(std::move(first), [matched, reply = std::move(reply)](
                               absl::StatusOr<std::unique_ptr<VisibleSearch>> search) mutable {
    if (!search.ok()) return reply(search.status());
    absl::StatusOr<VisibleSearch::Page> page = (*search)->TakePage();
    if (!page.ok()) return reply(page.status());
    v1::StartBulkOperationResponse response;
    response.set_matched(matched);
    for (const v1::ExecutionSummary& summary : page->executions) {
      *response.add_first() = InfoOf(summary);
    }
    reply(std::move(response));
  });
}

std::optional<v1::StartBulkOperationResponse> Engine::BulkOf(
    const v1::StartBulkOperationRequest& request) const {
  if (request.preview() || request.request_id().empty()) return std::nullopt;
  for (const auto& [id, bulk] : bulks_) {
    if (bulk->row.request_id() != request.request_id()) continue;
    v1::StartBulkOperationResponse response;
    *response.mutable_operation() = bulk->row.operation();
    response.set_matched(bulk->row.operation().matched());
    return response;
  }
  return std::nullopt;
}

absl::StatusOr<v1::StartBulkOperationResponse> Engine::BeginBulk(
    v1::StartBulkOperationRequest request, uint64_t matched, Query query, int64_t now) {
  if (shutting_down_) return ShuttingDown();
  // The same request may have come again while the first was counting.
  if (std::optional<v1::StartBulkOperationResponse> begun = BulkOf(request)) return *begun;
  if (bulks_running_ >= kRunningMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(bulks_running_,
                     " bulk operations are running, and that is the most: wait for "
                     "one of them to end, or cancel it"));
  }
  auto bulk = std::make_unique<Bulk>();
  std::string id;
  do {  // ordered by time
    id = RunId::Make(now, env_.random(), env_.random()).Text().substr(0, 16);
  } while (bulks_.contains(id));
  v1::BulkOperation& operation = *bulk->row.mutable_operation();
  operation.set_id(id);
  operation.mutable_filter()->Swap(request.mutable_filter());
  operation.mutable_operation()->Swap(request.mutable_operation());
  operation.set_rate_per_second(request.rate_per_second());
  operation.set_identity(request.identity());
  operation.set_reason(request.reason());
  operation.set_state(v1::BULK_STATE_RUNNING);
  operation.set_start_time_ms(now);
  operation.set_matched(matched);
  bulk->row.set_request_id(request.request_id());
  bulk->query = std::move(query);
  ++bulks_running_;
  Bulk& begun = *bulk;
  bulks_[id] = std::move(bulk);
  SaveBulk(begun);
  v1::StartBulkOperationResponse response;
  *response.mutable_operation() = begun.row.operation();
  response.set_matched(matched);
  return response;
}

void Engine::GetBulk(v1::GetBulkOperationRequest request,
                     Reply<v1::GetBulkOperationResponse> reply) {
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    const auto it = bulks_.find(request.id());
    if (it == bulks_.end()) {
      return ReplyWith<v1::GetBulkOperationResponse>(
          std::move(reply),
          absl::NotFoundError(absl::StrCat("no bulk operation \"", request.id(), "\"")));
    }
    v1::GetBulkOperationResponse response;
    *response.mutable_operation() = it->second->row.operation();
    ReplyWith<v1::GetBulkOperationResponse>(std::move(reply), std::move(response));
  });
}

void Engine::ListBulks(Reply<v1::ListBulkOperationsResponse> reply) {
  Post([this, reply = std::move(reply)]() mutable {
    v1::ListBulkOperationsResponse response;
    for (auto it = bulks_.rbegin(); it != bulks_.rend(); ++it) {
      *response.add_operations() = it->second->row.operation();
    }
    ReplyWith<v1::ListBulkOperationsResponse>(std::move(reply), std::move(response));
  });
}

void Engine::CancelBulk(v1::CancelBulkOperationRequest request,
                        Reply<v1::CancelBulkOperationResponse> reply) {
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    const auto it = bulks_.find(request.id());
    absl::Status status;
    if (it == bulks_.end()) {
      status = absl::NotFoundError(absl::StrCat("no bulk operation \"", request.id(), "\""));
    } else if (Ended(it->second->row.operation())) {
      status = absl::FailedPreconditionError(
          absl::StrCat("bulk operation \"", request.id(), "\" has ended already"));
    }
    if (!status.ok()) {
      return ReplyWith<v1::CancelBulkOperationResponse>(std::move(reply), std::move(status));
    }
    Bulk& bulk = *it->second;
    EndBulk(bulk, v1::BULK_STATE_CANCELLED,
            request.identity().empty() ? "" : absl::StrCat("cancelled by ", request.identity()));
    v1::CancelBulkOperationResponse response;
    *response.mutable_operation() = bulk.row.operation();
    ReplyWith<v1::CancelBulkOperationResponse>(std::move(reply), std::move(response));
  });
}

// ---- on disk
// ----------------------------------------------------------------------------------------------

// Leaves with the log entry that is being built.
void Engine::SaveBulk(const Bulk& bulk) {
  Shard& shard = Activate(0);
  shard.rows.push_back({keys::Bulk(bulk.row.operation().id()), bulk.row.SerializeAsString()});
}

absl::Status Engine::LoadBulks() {
  const auto [begin, end] = keys::TableRange(0, keys::Table::kBulk);
  absl::Status bad;
  FLUX_RETURN_IF_ERROR(
      env_.store->rows().Scan(begin, end, [&](std::string_view, std::string_view value) {
        auto bulk = std::make_unique<Bulk>();
        if (!bulk->row.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          bad = absl::DataLossError("the row of a bulk operation cannot be parsed");
          return false;
        }
        const v1::BulkOperation& operation = bulk->row.operation();
        absl::StatusOr<Query> query =
            Query::FromFilter(operation.filter(), operation.start_time_ms());
        absl::StatusOr<VisibleCursor> cursor = VisibleCursor::Parse(bulk->row.cursor());
        bad = query.ok() ? cursor.status() : query.status();
        if (!bad.ok()) return false;
        bulk->query = *std::move(query);
        bulk->after = *cursor;
        if (!Ended(operation)) ++bulks_running_;
        bulks_[operation.id()] = std::move(bulk);
        return true;
      }));
  return bad;
}

void Engine::EndBulk(Bulk& bulk, v1::BulkState state, std::string failure) {
  --bulks_running_;
  v1::BulkOperation& operation = *bulk.row.mutable_operation();
  operation.set_state(state);
  operation.set_failure(std::move(failure));
  operation.set_end_time_ms(env_.clock->WallMs());
  bulk.page.clear();
  SaveBulk(bulk);
  Log(1, absl::StrCat("bulk operation ", operation.id(), " of ", operation.identity(),
                      " ended: ", operation.done(), " done, ", operation.refused(), " refused, ",
                      operation.failed(), " failed"));
  size_t ended = bulks_.size() - bulks_running_;
  store::RowBatch old;
  for (auto it = bulks_.begin(); ended > kEndedMax && it != bulks_.end();) {
    const bool goes = Ended(it->second->row.operation()) && it->second.get() != &bulk &&
                      it->second->in_flight == 0 && !it->second->searching;
    if (!goes) {
      ++it;
      continue;
    }
    old.deletes.push_back(keys::Bulk(it->first));
    it = bulks_.erase(it);
    --ended;
  }
  if (old.deletes.empty()) return;
  old.epoch = shards_[0].epoch;
  Flush flush;
  flush.batches.push_back(std::move(old));
  QueueRows(std::move(flush));
}

// ---- going on
// ---------------------------------------------------------------------------------------------

void Engine::PumpBulks() {
  if (bulks_running_ == 0 || shutting_down_) return;
  std::vector<std::string> running;
  for (const auto& [id, bulk] : bulks_) {
    if (!Ended(bulk->row.operation())) running.push_back(id);
  }
  for (const std::string& id : running) PumpBulk(*bulks_.at(id));
}

void Engine::PumpBulk(Bulk& bulk) {
  const v1::BulkOperation& operation = bulk.row.operation();
  const std::string id = operation.id();
  const int64_t now = env_.clock->MonotonicMs();
  const int64_t rate = operation.rate_per_second();
  // A tenth of a second's worth may come at once, or one.
  const int64_t saved_max = std::max(kMilli, rate * kMilli / 10);
  if (bulk.paced_ms == 0) bulk.paced_ms = now - 100;
  bulk.saved_milli = std::min(saved_max, bulk.saved_milli + rate * (now - bulk.paced_ms));
  bulk.paced_ms = now;

  while (!bulk.page.empty() && bulk.page.front().not_before_ms <= now &&
         bulk.saved_milli >= kMilli && bulk.in_flight < kInFlightMax) {
    bulk.saved_milli -= kMilli;
    Bulk::Item item = std::move(bulk.page.front());
    bulk.page.pop_front();
    ApplyBulk(bulk, std::move(item));
  }
  if (!bulk.page.empty() || bulk.in_flight > 0 || bulk.searching) return;
  if (bulk.paged) {  // the page is dealt with
    bulk.paged = false;
    if (bulk.last) return EndBulk(bulk, v1::BULK_STATE_COMPLETED, "");
    bulk.after = bulk.page_end;
    bulk.row.set_cursor(bulk.after.Text());
    SaveBulk(bulk);
  }
  bulk.searching = true;
  VisibleRequest next;
  next.ns = operation.filter().namespace_();
  next.query = bulk.query;
  next.after = bulk.after;
  next.count = std::clamp<size_t>(operation.rate_per_second() / 2, kPageMin, kPageMax);
  Search(std::move(next), [this, id](absl::StatusOr<std::unique_ptr<VisibleSearch>> search) {
    absl::StatusOr<VisibleSearch::Page> page =
        search.ok() ? (*search)->TakePage() : absl::StatusOr<VisibleSearch::Page>(search.status());
    Post([this, id, page = std::move(page)]() mutable { TakeBulkPage(id, std::move(page)); });
  });
}

void Engine::TakeBulkPage(const std::string& id, absl::StatusOr<VisibleSearch::Page> page) {
  Bulk& bulk = *bulks_.at(id);
  bulk.searching = false;
  if (Ended(bulk.row.operation())) return;
  if (!page.ok()) {
    return EndBulk(bulk, v1::BULK_STATE_FAILED, ToUtf8(Message(page.status())));
  }
  bulk.paged = true;
  bulk.last = !page->next.has_value();
  if (page->next) bulk.page_end = *page->next;
  for (v1::ExecutionSummary& summary : page->executions) {
    Bulk::Item& item = bulk.page.emplace_back();
    item.workflow_id = std::move(*summary.mutable_workflow_id());
    item.run = RunId::FromBytes(summary.run_id()).value_or(RunId{});
  }
  PumpBulk(bulk);
}

void Engine::ApplyBulk(Bulk& bulk, Bulk::Item item) {
  const v1::BulkOperation& operation = bulk.row.operation();
  v1::OperateExecutionRequest request;
  request.mutable_execution()->set_namespace_(operation.filter().namespace_());
  request.mutable_execution()->set_workflow_id(item.workflow_id);
  request.mutable_execution()->set_run_id(item.run.Text());
  *request.mutable_operation() = operation.operation();
  request.set_identity(operation.identity());
  request.set_reason(
      operation.reason().empty()
          ? absl::StrCat("bulk operation ", operation.id())
          : absl::StrCat(operation.reason(), " (bulk operation ", operation.id(), ")"));
  ++bulk.in_flight;
  Operate(std::move(request), [this, id = operation.id(), item = std::move(item)](
                                  const absl::StatusOr<v1::OperateExecutionResponse>& answer) {
    BulkAnswered(id, item, answer.status());
  });
}

void Engine::BulkAnswered(const std::string& id, Bulk::Item item, const absl::Status& status) {
  Bulk& bulk = *bulks_.at(id);
  v1::BulkOperation& operation = *bulk.row.mutable_operation();
  --bulk.in_flight;
  if (absl::IsUnavailable(status) && !Ended(operation) && ++item.tries < kTriesMax) {
    item.not_before_ms = env_.clock->MonotonicMs() + kRetryMs;
    bulk.page.push_back(std::move(item));
    return;
  }
  if (status.ok()) {
    operation.set_done(operation.done() + 1);
    return;
  }
  const bool refused = absl::IsFailedPrecondition(status) || absl::IsNotFound(status);
  if (refused) {
    operation.set_refused(operation.refused() + 1);
  } else {
    operation.set_failed(operation.failed() + 1);
  }
  if (operation.errors_size() == kErrorsMax) return;
  v1::BulkError* error = operation.add_errors();
  error->set_workflow_id(item.workflow_id);
  error->set_run_id(item.run.Text());
  error->set_message(ToUtf8(Message(status)));
}

}  // namespace flux::engine
