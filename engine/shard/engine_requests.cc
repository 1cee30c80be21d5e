// What clients ask: starting, stopping and reading executions.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/json_value.h"
#include "engine/core/payload_limit.h"
#include "engine/shard/engine.h"
#include "engine/shard/history.h"
#include "engine/shard/keys.h"
#include "engine/shard/loader.h"
#include "engine/shard/refusals.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr uint32_t kResultWaitMaxMs = 60'000;
constexpr size_t kQueuesNamedMax = 20;  // in the refusal of one that is not known

std::string IdKey(std::string_view ns, std::string_view workflow_id) {
  return absl::StrCat(ToAbsl(ns), absl::string_view("\0", 1), ToAbsl(workflow_id));
}

bool IsOpen(v1::ExecutionStatus status) {
  switch (status) {
    case v1::EXECUTION_STATUS_RUNNING:
    case v1::EXECUTION_STATUS_CANCELLING:
    case v1::EXECUTION_STATUS_FAILING:
    case v1::EXECUTION_STATUS_PAUSED:
      return true;
    default:
      return false;
  }
}

v1::StartWorkflowResponse Started(std::string_view workflow_id, const RunId& run, bool fresh) {
  v1::StartWorkflowResponse response;
  response.set_workflow_id(std::string(workflow_id));
  response.set_run_id(run.Text());
  response.set_started(fresh);
  return response;
}

}  // namespace

absl::Status Engine::CheckId(std::string_view what, std::string_view id, bool required) const {
  if (id.empty()) {
    return required ? absl::InvalidArgumentError(absl::StrCat(ToAbsl(what), " is empty"))
                    : absl::OkStatus();
  }
  if (id.size() > options_.id_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(what), " has ", id.size(),
                                                   " bytes; at most ", options_.id_bytes_max,
                                                   " are allowed: use a shorter one"));
  }
  for (size_t i = 0; i < id.size(); ++i) {
    const auto c = static_cast<unsigned char>(id[i]);
    if (c < 0x20 || c == 0x7f) {
      return absl::InvalidArgumentError(absl::StrCat(ToAbsl(what), " has a control character (0x",
                                                     absl::Hex(c, absl::kZeroPad2), ") at byte ", i,
                                                     ": use printable UTF-8"));
    }
  }
  return absl::OkStatus();
}

absl::Status Engine::CheckRef(v1::ExecutionRef& ref) const {
  if (ref.namespace_().empty()) ref.set_namespace_("default");
  FLUX_RETURN_IF_ERROR(CheckId("namespace", ref.namespace_(), true));
  FLUX_RETURN_IF_ERROR(CheckId("workflow id", ref.workflow_id(), ref.run_id().empty()));
  if (!ref.run_id().empty() && !RunId::FromText(ref.run_id())) {
    return absl::InvalidArgumentError(
        absl::StrCat("run id \"", ref.run_id(), "\" is not one: 32 lower-case hexadecimal digits"));
  }
  return absl::OkStatus();
}

absl::Status Engine::CheckWho(std::string_view identity, std::string_view reason) const {
  FLUX_RETURN_IF_ERROR(CheckId("identity", identity, false));
  if (reason.size() > options_.payload_inline_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the reason has ", reason.size(), " bytes; at most ",
                     options_.payload_inline_bytes, " are allowed: shorten it"));
  }
  return absl::OkStatus();
}

// ---- start
// ------------------------------------------------------------------------------------------------------

absl::Status Engine::CheckLabels(std::string_view whose,
                                 const google::protobuf::Map<std::string, std::string>& labels,
                                 size_t count) const {
  if (count > options_.labels_max) {
    return absl::InvalidArgumentError(absl::StrCat("the ", ToAbsl(whose), " would have ", count,
                                                   " labels; at most ", options_.labels_max,
                                                   " are allowed"));
  }
  for (const auto& [key, value] : labels) {
    FLUX_RETURN_IF_ERROR(CheckId("label name", key, true));
    FLUX_RETURN_IF_ERROR(CheckId(std::string("value of label ").append(key), value, false));
  }
  return absl::OkStatus();
}

absl::Status Engine::CheckStart(v1::StartWorkflowRequest& request, const Graph& graph) const {
  if (request.namespace_().empty()) request.set_namespace_("default");
  FLUX_RETURN_IF_ERROR(CheckId("namespace", request.namespace_(), true));
  FLUX_RETURN_IF_ERROR(CheckId("workflow id", request.workflow_id(), false));
  FLUX_RETURN_IF_ERROR(CheckId("request id", request.request_id(), false));
  FLUX_RETURN_IF_ERROR(CheckId("identity", request.identity(), false));
  FLUX_RETURN_IF_ERROR(CheckLabels("execution", request.labels(), request.labels().size()));
  size_t bytes = 0;
  for (int i = 0; i < request.inputs_size(); ++i) {
    FLUX_RETURN_IF_ERROR(CheckPayload(absl::StrCat("input ", i), request.inputs(i)));
    bytes += PayloadBytes(request.inputs(i));
  }
  // They become one record.
  if (bytes > options_.task_input_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the inputs have ", bytes, " bytes together; the limit is ",
                     options_.task_input_bytes_max, ": pass references to the data instead"));
  }
  return flux::engine::CheckStart(graph, request.inputs(), request.execution_timeout_ms());
}

absl::StatusOr<std::shared_ptr<const Graph>> Engine::GraphOf(
    const v1::StartWorkflowRequest& request) const {
  return request.definition_hash().empty()
             ? definitions_->ByName(request.workflow(), request.version())
             : definitions_->ByHash(request.definition_hash());
}

absl::Status Engine::ValidateStart(v1::StartWorkflowRequest request) const {
  FLUX_ASSIGN_OR_RETURN(const std::shared_ptr<const Graph> graph, GraphOf(request));
  return CheckStart(request, *graph);
}

void Engine::Start(v1::StartWorkflowRequest request, Reply<v1::StartWorkflowResponse> reply) {
  absl::StatusOr<std::shared_ptr<const Graph>> graph = GraphOf(request);
  if (!graph.ok()) return reply(graph.status());
  if (absl::Status status = CheckStart(request, **graph); !status.ok()) return reply(status);
  size_t bytes = 0;
  for (const v1::Payload& input : request.inputs()) bytes += input.ByteSizeLong();
  if (absl::Status status = TakeIn(bytes, &reply); !status.ok()) return reply(status);
  request.clear_parent();
  Post([this, request = std::move(request), graph = *std::move(graph),
        reply = std::move(reply)]() mutable {
    if (shutting_down_) {
      return ReplyWith<v1::StartWorkflowResponse>(std::move(reply), ShuttingDown());
    }
    if (env_.store->BelowReserve()) {
      return ReplyWith<v1::StartWorkflowResponse>(std::move(reply), FullDisk("starts"));
    }
    TakeStart(std::move(request), std::move(graph), std::move(reply));
  });
}

void Engine::TakeStart(v1::StartWorkflowRequest request, std::shared_ptr<const Graph> graph,
                       Reply<v1::StartWorkflowResponse> reply) {
  ++counters_.starts;
  if (request.workflow_id().empty()) {
    // A fresh random id cannot be in use, unless its request was here before: those carry a
    // request id.
    request.set_workflow_id(
        request.request_id().empty()
            ? RunId::Make(env_.clock->WallMs(), env_.random(), env_.random()).Text()
            : request.request_id());
    if (request.request_id().empty()) {
      const std::string id_key = IdKey(request.namespace_(), request.workflow_id());
      ids_[id_key].loaded = true;
      return StartNew(id_key, std::move(request), std::move(graph), std::move(reply));
    }
  }
  const std::string id_key = IdKey(request.namespace_(), request.workflow_id());
  WithId(id_key, [this, id_key, request = std::move(request), graph = std::move(graph),
                  reply = std::move(reply)](const absl::Status& status) mutable {
    if (!status.ok()) {
      return ReplyWith<v1::StartWorkflowResponse>(std::move(reply), status);
    }
    StartKnown(id_key, std::move(request), std::move(graph), std::move(reply));
  });
}

void Engine::StartKnown(const std::string& id_key, v1::StartWorkflowRequest request,
                        std::shared_ptr<const Graph> graph,
                        Reply<v1::StartWorkflowResponse> reply) {
  const IdEntry& entry = ids_[id_key];
  const auto answer = [&](const RunId& run) {
    ReplyWith<v1::StartWorkflowResponse>(std::move(reply),
                                         Started(request.workflow_id(), run, false));
  };
  // Rule 10: the request id comes before any policy.
  Slot* current = nullptr;
  for (const RunId& run : entry.in_memory) {
    Slot& slot = *slots_.at(run);
    if (!slot.execution) continue;
    if (run == entry.current) current = &slot;
    if (!request.request_id().empty() &&
        slot.execution->started().request_id() == request.request_id()) {
      return answer(run);
    }
  }
  if (const auto deleted = entry.requests.find(request.request_id());
      deleted != entry.requests.end()) {
    return answer(deleted->second);
  }
  v1::ExecutionStatus status = v1::EXECUTION_STATUS_UNSPECIFIED;
  std::string workflow;
  if (current != nullptr) {
    status = current->execution->status();
    workflow = current->execution->started().workflow();
  }
  for (const v1::ExecutionSummary& summary : entry.runs) {
    if (!request.request_id().empty() && summary.request_id() == request.request_id()) {
      return answer(RunId::FromBytes(summary.run_id()).value_or(RunId{}));
    }
    if (current == nullptr && summary.run_id() == entry.current.Bytes()) {
      status = summary.status();
      workflow = summary.workflow();
    }
  }
  if (status == v1::EXECUTION_STATUS_UNSPECIFIED) {
    return StartNew(id_key, std::move(request), std::move(graph), std::move(reply));
  }
  const std::string who = absl::StrCat("workflow id \"", request.workflow_id(), "\"");
  if (IsOpen(status)) {
    switch (request.conflict_policy()) {
      case v1::CONFLICT_POLICY_USE_EXISTING:
        return answer(entry.current);
      case v1::CONFLICT_POLICY_TERMINATE_EXISTING: {
        const RunId run = entry.current;
        WithRun(run, [this, id_key, request = std::move(request), graph = std::move(graph),
                      reply = std::move(reply)](Slot* slot, const absl::Status& found) mutable {
          if (slot == nullptr) {
            return ReplyWith<v1::StartWorkflowResponse>(std::move(reply), found);
          }
          if (const IdEntry& now = ids_[id_key]; !now.loaded || now.current != slot->run) {
            // While it was loaded another may have started: that one is to be looked at.
            return WithId(
                id_key, [this, id_key, request = std::move(request), graph = std::move(graph),
                         reply = std::move(reply)](const absl::Status& known) mutable {
                  if (!known.ok()) {
                    return ReplyWith<v1::StartWorkflowResponse>(std::move(reply), known);
                  }
                  StartKnown(id_key, std::move(request), std::move(graph), std::move(reply));
                });
          }
          if (!slot->execution->closed()) {
            auto verdict = Execute(
                *slot, flux::engine::Terminate{"replaced by a new start", request.identity()});
            if (!verdict.ok()) {
              return ReplyWith<v1::StartWorkflowResponse>(std::move(reply), verdict.status());
            }
          }
          StartNew(id_key, std::move(request), std::move(graph), std::move(reply));
        });
        return;
      }
      default:
        return ReplyWith<v1::StartWorkflowResponse>(
            std::move(reply),
            absl::AlreadyExistsError(absl::StrCat(
                who, " is in use by running execution ", entry.current.Text(), " of workflow \"",
                workflow, "\": use another id, or ask for the running one or its replacement ",
                "(conflict policy)")));
    }
  }
  const bool refused =
      request.reuse_policy() == v1::REUSE_POLICY_REJECT ||
      (request.reuse_policy() == v1::REUSE_POLICY_ALLOW_IF_FAILED &&
       (status == v1::EXECUTION_STATUS_COMPLETED || status == v1::EXECUTION_STATUS_SKIPPED));
  if (refused) {
    return ReplyWith<v1::StartWorkflowResponse>(
        std::move(reply),
        absl::AlreadyExistsError(absl::StrCat(who, " was used by execution ", entry.current.Text(),
                                              ", which has closed, and the reuse policy does not ",
                                              "allow it again: use another id")));
  }
  StartNew(id_key, std::move(request), std::move(graph), std::move(reply));
}

void Engine::StartNew(const std::string& id_key, v1::StartWorkflowRequest request,
                      std::shared_ptr<const Graph> graph, Reply<v1::StartWorkflowResponse> reply) {
  const int64_t now = DecisionMs();
  const store::ShardId shard = keys::ShardOf(request.namespace_(), request.workflow_id(),
                                             static_cast<uint32_t>(shards_.size()));
  // Later runs of an id have greater run ids, whatever the clock does.
  RunId run = RunId::Make(now, env_.random(), env_.random());
  run.low = (run.low & ~uint64_t{0xffff}) | shard;
  if (const IdEntry& entry = ids_[id_key]; run <= entry.current) {
    run.high = entry.current.high + (uint64_t{1} << 16);
  }

  v1::ExecutionStarted started;
  started.set_namespace_(request.namespace_());
  started.set_workflow_id(request.workflow_id());
  started.set_run_id(run.Bytes());
  started.set_workflow(graph->name());
  started.set_version(graph->definition().version());
  started.set_definition_hash(graph->hash());
  started.mutable_inputs()->Swap(request.mutable_inputs());
  started.set_request_id(request.request_id());
  started.set_seed(env_.random());
  started.mutable_labels()->swap(*request.mutable_labels());
  started.set_identity(request.identity());
  started.set_execution_timeout_ms(request.execution_timeout_ms() > 0
                                       ? request.execution_timeout_ms()
                                       : graph->definition().execution_timeout_ms());
  if (request.has_parent()) started.mutable_parent()->Swap(request.mutable_parent());
  AssignInputBlobs(&started);

  absl::StatusOr<v1::Record> record = DecideStart(*graph, std::move(started), now);
  if (!record.ok()) {
    ReplyWith<v1::StartWorkflowResponse>(std::move(reply), record.status());
    DropIdIfUnused(id_key);
    return;
  }
  Slot& slot = NewSlot(run, shard, id_key);
  Append(slot, 1, *record);
  effects_.Clear();
  slot.execution.emplace(Create(std::move(graph), *record, &effects_));
  EnterId(slot);
  Take(slot, effects_);
  Touch(slot);
  ReplyWith<v1::StartWorkflowResponse>(std::move(reply), Started(request.workflow_id(), run, true));
}

// ---- finding
// ------------------------------------------------------------------------------------------------------

void Engine::WithExecution(const v1::ExecutionRef& ref, SlotCallback callback) {
  const auto unknown = [ref] { return NoExecution(ref); };
  const auto load = [this, ref, unknown](const RunId& run, SlotCallback done) {
    WithRun(run,
            [ref, unknown, done = std::move(done)](Slot* slot, const absl::Status& status) mutable {
              if (slot == nullptr)
                return done(nullptr, absl::IsNotFound(status) ? unknown() : status);
              const v1::ExecutionStarted& started = slot->execution->started();
              if (started.namespace_() != ref.namespace_() ||
                  (!ref.workflow_id().empty() && started.workflow_id() != ref.workflow_id())) {
                return done(nullptr, unknown());
              }
              done(slot, absl::OkStatus());
            });
  };
  if (!ref.run_id().empty()) {
    load(*RunId::FromText(ref.run_id()), std::move(callback));
    return;
  }
  const std::string id_key = IdKey(ref.namespace_(), ref.workflow_id());
  WithId(id_key, [this, id_key, load, unknown,
                  callback = std::move(callback)](const absl::Status& status) mutable {
    if (!status.ok()) return callback(nullptr, status);
    const RunId run = ids_[id_key].current;
    if (run.empty()) {
      callback(nullptr, unknown());
      DropIdIfUnused(id_key);
      return;
    }
    load(run, std::move(callback));
  });
}

// ---- results
// ------------------------------------------------------------------------------------------------------

void Engine::GetResult(v1::GetResultRequest request, Reply<v1::GetResultResponse> reply) {
  if (absl::Status status = CheckRef(*request.mutable_execution()); !status.ok()) {
    return reply(status);
  }
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    const uint32_t wait_ms = std::min(request.wait_ms(), kResultWaitMaxMs);
    WithExecution(request.execution(), [this, wait_ms, reply = std::move(reply)](
                                           Slot* slot, const absl::Status& status) mutable {
      if (slot == nullptr) return ReplyWith<v1::GetResultResponse>(std::move(reply), status);
      if (slot->execution->closed() || wait_ms == 0) {
        return ReplyWith<v1::GetResultResponse>(std::move(reply), ResultOf(*slot));
      }
      AddWaiter(slot->run, wait_ms, std::move(reply));
    });
  });
}

void Engine::AddWaiter(const RunId& run, uint32_t wait_ms, Reply<v1::GetResultResponse> reply) {
  if (shutting_down_) return ReplyWith<v1::GetResultResponse>(std::move(reply), ShuttingDown());
  Waiter waiter;
  waiter.deadline_ms = env_.clock->MonotonicMs() + wait_ms;
  waiter.number = next_number_++;
  waiter.reply = std::move(reply);
  waiter_deadlines_.insert({waiter.deadline_ms, {waiter.number, run}});
  waiters_[run].push_back(std::move(waiter));
}

// What maps and joins made of many steps' results may be larger than any one of them.
absl::StatusOr<v1::GetResultResponse> Engine::ResultOf(const Slot& slot) const {
  if (const size_t bytes = ResultBytes(*slot.execution); bytes > options_.answer_bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "execution ", slot.execution->started().workflow_id(), " (run ", slot.run.Text(),
        ") has completed, but its result has ", bytes, " bytes and an answer holds at most ",
        options_.answer_bytes_max,
        ": read the results of its steps one by one from its history (with payloads), and let the "
        "workflow return a reference to the data instead"));
  }
  v1::GetResultResponse response;
  FillResult(*slot.execution, &response);
  response.set_run_id(slot.run.Text());
  return response;
}

void Engine::NotifyClosed(Slot& slot) {
  const auto it = waiters_.find(slot.run);
  if (it == waiters_.end()) return;
  std::vector<Waiter> waiters = std::move(it->second);
  waiters_.erase(it);
  for (Waiter& waiter : waiters) {
    waiter_deadlines_.erase({waiter.deadline_ms, {waiter.number, slot.run}});
    ReplyWith<v1::GetResultResponse>(std::move(waiter.reply), ResultOf(slot));
  }
}

void Engine::ExpireWaiters() {
  const int64_t now = env_.clock->MonotonicMs();
  while (!waiter_deadlines_.empty() && waiter_deadlines_.begin()->first <= now) {
    const auto [number, run] = waiter_deadlines_.begin()->second;
    waiter_deadlines_.erase(waiter_deadlines_.begin());
    const auto it = waiters_.find(run);
    if (it == waiters_.end()) continue;
    std::vector<Waiter>& waiters = it->second;
    const auto found = std::find_if(waiters.begin(), waiters.end(),
                                    [n = number](const Waiter& w) { return w.number == n; });
    if (found == waiters.end()) continue;
    v1::GetResultResponse response;
    response.set_status(v1::EXECUTION_STATUS_RUNNING);
    response.set_run_id(run.Text());
    ReplyWith<v1::GetResultResponse>(std::move(found->reply), std::move(response));
    waiters.erase(found);
    if (waiters.empty()) waiters_.erase(it);
  }
}

// ---- reading
// ------------------------------------------------------------------------------------------------------

LiveLookup Engine::LiveOf(const Slot& slot) const {
  return [this, &slot](const StepKey& key, uint64_t delivery) {
    const TaskOffer offer = flux::engine::Offer(*slot.execution, key);
    return dispatcher_->Look({slot.run, key, delivery}, *offer.task);
  };
}

void Engine::Describe(v1::DescribeExecutionRequest request,
                      Reply<v1::DescribeExecutionResponse> reply) {
  if (absl::Status status = CheckRef(*request.mutable_execution()); !status.ok()) {
    return reply(status);
  }
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    WithExecution(request.execution(),
                  [this, items = request.items_max(), payloads = request.payloads(),
                   reply = std::move(reply)](Slot* slot, const absl::Status& status) mutable {
                    if (slot == nullptr) {
                      return ReplyWith<v1::DescribeExecutionResponse>(std::move(reply), status);
                    }
                    v1::DescribeExecutionResponse response;
                    DescribeExecution(*slot->execution, items == 0 ? 10 : items, payloads,
                                      LiveOf(*slot), &response, options_.answer_bytes_max);
                    response.set_server_time_ms(env_.clock->WallMs());
                    ReplyWith<v1::DescribeExecutionResponse>(std::move(reply), std::move(response));
                  });
  });
}

void Engine::Progress(v1::ExecutionRef ref, Reply<v1::WatchExecutionResponse> reply) {
  if (absl::Status status = CheckRef(ref); !status.ok()) return reply(status);
  Post([this, ref = std::move(ref), reply = std::move(reply)]() mutable {
    WithExecution(ref,
                  [this, reply = std::move(reply)](Slot* slot, const absl::Status& status) mutable {
                    if (slot == nullptr) {
                      return ReplyWith<v1::WatchExecutionResponse>(std::move(reply), status);
                    }
                    v1::WatchExecutionResponse response;
                    DescribeProgress(*slot->execution, LiveOf(*slot), &response);
                    response.set_server_time_ms(env_.clock->WallMs());
                    response.set_closed(slot->execution->closed());
                    ReplyWith<v1::WatchExecutionResponse>(std::move(reply), std::move(response));
                  });
  });
}

void Engine::History(v1::GetHistoryRequest request, Reply<v1::GetHistoryResponse> reply) {
  if (absl::Status status = CheckRef(*request.mutable_execution()); !status.ok()) {
    return reply(status);
  }
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    const v1::ExecutionRef ref = request.execution();
    WithExecution(ref, [this, request = std::move(request), reply = std::move(reply)](
                           Slot* slot, const absl::Status& status) mutable {
      if (slot == nullptr) return ReplyWith<v1::GetHistoryResponse>(std::move(reply), status);
      // Everything up to here is decided; the answer leaves once it is durable, so reading waits
      // for that, too.
      std::vector<std::string> tail(slot->tail.begin(), slot->tail.end());
      const uint64_t last = slot->execution->ordinal();
      ReplyLater([this, run = slot->run, shard = slot->shard, flushed = slot->flushed(), last,
                  tail = std::move(tail), request = std::move(request),
                  reply = std::move(reply)]() mutable {
        env_.background->Run([this, run, shard, flushed, last, tail = std::move(tail),
                              request = std::move(request), reply = std::move(reply)]() mutable {
          reply(histories_->Page(request, shard, run, flushed, last, tail));
        });
      });
    });
  });
}

void Engine::Verify(v1::VerifyExecutionRequest request, Reply<v1::VerifyExecutionResponse> reply) {
  if (absl::Status status = CheckRef(*request.mutable_execution()); !status.ok()) {
    return reply(status);
  }
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    WithExecution(request.execution(), [this, reply = std::move(reply)](
                                           Slot* slot, const absl::Status& status) mutable {
      if (slot == nullptr) return ReplyWith<v1::VerifyExecutionResponse>(std::move(reply), status);
      std::vector<std::string> tail(slot->tail.begin(), slot->tail.end());
      ReplyLater([this, run = slot->run, shard = slot->shard, flushed = slot->flushed(),
                  live = SaveSnapshot(*slot->execution), last = slot->execution->ordinal(),
                  tail = std::move(tail), reply = std::move(reply)]() mutable {
        env_.background->Run([this, run, shard, flushed, last, live = std::move(live),
                              tail = std::move(tail), reply = std::move(reply)]() mutable {
          reply(histories_->Compare(shard, run, flushed, last, tail, live));
        });
      });
    });
  });
}

// ---- stopping
// -------------------------------------------------------------------------------------------------------

template <typename Response, typename Request>
void Engine::StopExecution(Request request, Command command, Reply<Response> reply) {
  v1::ExecutionRef ref = std::move(*request.mutable_execution());
  absl::Status checked = CheckRef(ref);
  if (checked.ok()) checked = CheckWho(request.identity(), request.reason());
  if (!checked.ok()) return reply(checked);
  Post([this, ref = std::move(ref), command = std::move(command),
        reply = std::move(reply)]() mutable {
    WithExecution(ref, [this, command = std::move(command), reply = std::move(reply)](
                           Slot* slot, const absl::Status& status) mutable {
      if (slot == nullptr) return ReplyWith<Response>(std::move(reply), status);
      const absl::StatusOr<Verdict> verdict = Execute(*slot, std::move(command));
      if (!verdict.ok()) return ReplyWith<Response>(std::move(reply), verdict.status());
      ReplyWith<Response>(std::move(reply), Response());
    });
  });
}

void Engine::Cancel(v1::CancelExecutionRequest request, Reply<v1::CancelExecutionResponse> reply) {
  Command command = flux::engine::Cancel{request.reason(), request.identity()};
  StopExecution(std::move(request), std::move(command), std::move(reply));
}

void Engine::Terminate(v1::TerminateExecutionRequest request,
                       Reply<v1::TerminateExecutionResponse> reply) {
  Command command = flux::engine::Terminate{request.reason(), request.identity()};
  StopExecution(std::move(request), std::move(command), std::move(reply));
}

// ---- operators
// ------------------------------------------------------------------------------------------------------

void Engine::Info(Reply<v1::GetServerInfoResponse> reply) {
  Post([this, reply = std::move(reply)]() mutable {
    v1::GetServerInfoResponse info;
    info.set_version(options_.version);
    info.set_start_time_ms(start_wall_ms_);
    info.set_data_directory(ToUtf8(options_.data_directory));  // a path is any bytes
    info.set_shards(static_cast<uint32_t>(shards_.size()));
    info.set_incarnation(incarnation_);
    info.set_executions_resident(slots_.size());
    info.set_executions_open(CountOpen());
    const DispatchStats dispatch = dispatcher_->stats();
    info.set_tasks_ready(dispatch.ready);
    info.set_tasks_running(dispatch.running);
    auto& counters = *info.mutable_counters();
    counters["commits"] = counters_.commits;
    counters["records"] = counters_.records;
    counters["commit_bytes"] = counters_.commit_bytes;
    counters["results"] = counters_.results;
    counters["results_stale"] = counters_.results_stale;
    counters["results_duplicate"] = counters_.results_duplicate;
    counters["starts"] = counters_.starts;
    counters["closes"] = counters_.closes;
    counters["loads"] = counters_.loads;
    counters["evictions"] = counters_.evictions;
    counters["flushes"] = counters_.flushes;
    counters["row_bytes"] = counters_.row_bytes;
    counters["turns"] = counters_.turns;
    counters["truncations"] = counters_.truncations;
    counters["snapshots"] = counters_.snapshots;
    counters["stalls"] = counters_.stalls;
    counters["deletions"] = counters_.deletions;
    counters["retention_deletions"] = counters_.retention_deletions;
    counters["log_tail_bytes"] = tail_bytes_;
    counters["row_bytes_under_way"] = row_bytes_under_way_;
    counters["cache_bytes"] = cache_bytes_;
    counters["history_cursors"] = histories_->cursors();
    counters["handed_out"] = dispatch.handed_out;
    counters["heartbeats"] = dispatch.heartbeats;
    counters["attempts_expired"] = dispatch.expired;
    counters["tasks_lost"] = dispatch.lost;
    counters["claims_kept"] = dispatch.claims_kept;
    counters["claims_refused"] = dispatch.claims_refused;
    counters["tasks_held_for_grace"] = dispatch.held_for_grace;
    counters["sessions"] = dispatch.sessions;
    absl::flat_hash_set<RunId> runs_spilled;
    for (const auto& [name, runs] : spilled_resident_) {
      runs_spilled.insert(runs.begin(), runs.end());
    }
    counters["executions_spilled_in_memory"] = runs_spilled.size();
    if (env_.store->BelowReserve()) {
      info.set_degraded(true);
      info.set_degraded_reason(
          "the disk is nearly full: starts, events and new schedules are refused");
    }
    ReplyWith<v1::GetServerInfoResponse>(std::move(reply), std::move(info));
  });
}

void Engine::ListWorkers(v1::ListWorkersRequest request, Reply<v1::ListWorkersResponse> reply) {
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    v1::ListWorkersResponse response;
    dispatcher_->ListWorkers(request.queue(), &response);
    ReplyWith<v1::ListWorkersResponse>(std::move(reply), std::move(response));
  });
}

void Engine::ListQueues(Reply<v1::ListTaskQueuesResponse> reply) {
  Post([this, reply = std::move(reply)]() mutable {
    v1::ListTaskQueuesResponse response;
    dispatcher_->ListQueues(&response);
    ReplyWith<v1::ListTaskQueuesResponse>(std::move(reply), std::move(response));
  });
}

void Engine::GetQueue(v1::GetTaskQueueRequest request, Reply<v1::GetTaskQueueResponse> reply) {
  Post([this, request = std::move(request), reply = std::move(reply)]() mutable {
    v1::GetTaskQueueResponse response;
    if (!dispatcher_->DescribeQueue(request.name(), &response)) {
      size_t all = 0;
      const std::vector<std::string> names = dispatcher_->QueueNames(kQueuesNamedMax, &all);
      std::string known = absl::StrJoin(names, ", ");
      if (all > names.size()) absl::StrAppend(&known, " and ", all - names.size(), " more");
      return ReplyWith<v1::GetTaskQueueResponse>(
          std::move(reply), absl::NotFoundError(absl::StrCat(
                                "no task queue \"", request.name(), "\" has workers or work",
                                known.empty() ? "" : "; known are: ", known)));
    }
    ReplyWith<v1::GetTaskQueueResponse>(std::move(reply), std::move(response));
  });
}

}  // namespace flux::engine
