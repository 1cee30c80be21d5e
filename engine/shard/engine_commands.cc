// Commands on executions: decide, record, apply, and what follows from it; and the dispatcher's
// wishes.
#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/dropped.h"
#include "engine/core/json_value.h"
#include "engine/core/payload_limit.h"
#include "engine/core/record.h"
#include "engine/shard/engine.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

// Timers fired in one turn before other work is looked at again.
constexpr int kTimersPerTurn = 2'000;

// What limits by key count the task under: the value its pointer finds in its first input. Empty:
// none.
std::string LimitKey(const Execution& execution, const TaskOffer& offer) {
  const std::string& pointer = offer.task->limit_key_pointer();
  if (pointer.empty()) return "";
  v1::Task task;
  if (!FillTask(execution, offer.key, SIZE_MAX, &task).ok() || task.inputs_size() == 0) return "";
  const auto value = FindJsonPointer(task.inputs(0).payload().data(), pointer);
  return value.ok() ? std::string(*value) : "";
}

// Records an execution may hold that its rows lack.
constexpr size_t kTailRecordsMax = 4'096;

// Results whose executions' memory is asked for together.
constexpr int kPrefetchWindow = 16;

// In place of a result that cannot be taken: its token, and the failure.
v1::TaskResult Failed(v1::TaskResult result, std::string_view type, std::string message) {
  result.clear_labels();
  result.clear_step_labels();
  v1::Failure* failure = result.mutable_failure();  // replaces the value
  failure->set_type(std::string(type));
  failure->set_message(std::move(message));
  failure->set_non_retriable(true);
  failure->set_source("coordinator");
  return result;
}

}  // namespace

// ---- records
// ------------------------------------------------------------------------------------------------

absl::StatusOr<Verdict> Engine::Execute(Slot& slot, Command&& command, uint64_t* retried) {
  std::shared_ptr<const Graph> graph;
  if (const auto* migrate = std::get_if<Migrate>(&command)) graph = migrate->graph;
  FLUX_ASSIGN_OR_RETURN(Decision decision,
                        Decide(*slot.execution, std::move(command), DecisionMs()));
  for (v1::Record& record : decision.records) {
    if (retried != nullptr && record.has_step_retried()) ++*retried;
    AddRecord(slot, std::move(record), graph);
  }
  if (!decision.records.empty()) Touch(slot);
  return decision.verdict;
}

void Engine::Append(Slot& slot, uint64_t ordinal, const v1::Record& record) {
  Shard& shard = Activate(slot.shard);
  if (const uint64_t blob = BlobOf(record); blob != 0) {
    std::string bytes = BlobPayload(record).SerializeAsString();
    shard.batch.AddBlob(slot.run, blob, bytes.size());
    batch_bytes_ += bytes.size();
    shard.rows.push_back({keys::Payload(slot.shard, slot.run, blob), std::move(bytes)});
  }
  if (record.has_started()) {
    const v1::ExecutionStarted& started = record.started();
    for (int i = 0; i < started.input_blobs_size(); ++i) {
      const uint64_t blob = started.input_blobs(i);
      if (blob == 0) continue;
      std::string bytes = started.inputs(i).SerializeAsString();
      shard.batch.AddBlob(slot.run, blob, bytes.size());
      batch_bytes_ += bytes.size();
      shard.rows.push_back({keys::Payload(slot.shard, slot.run, blob), std::move(bytes)});
    }
  }
  std::string bytes = SerializeRecord(record);
  shard.batch.Add(slot.run, ordinal, bytes);
  batch_bytes_ += bytes.size();
  slot.tail.push_back(std::move(bytes));
  slot.last_lsn = shard.next_lsn;
  ++counters_.records;
  if (slot.flushing) {
    if (slot.next_unflushed_lsn == 0) slot.next_unflushed_lsn = shard.next_lsn;
  } else if (slot.first_unflushed_lsn == 0) {
    Pin(slot, shard.next_lsn);
  }
  // What a busy execution has in memory only for the rows' sake stays small.
  if (slot.tail.size() >= kTailRecordsMax && !slot.flushing) QueueFlush(slot, false);
}

void Engine::AddRecord(Slot& slot, v1::Record&& record, std::shared_ptr<const Graph> graph) {
  Append(slot, slot.execution->ordinal() + 1, record);
  effects_.Clear();
  const bool migrated = record.has_migrated();
  Apply(*slot.execution, std::move(record), &effects_, std::move(graph));
  Take(slot, effects_);
  if (migrated) Requeue(slot);
}

void Engine::Take(Slot& slot, const Effects& effects) {
  if (effects.all_revoked) {
    dispatcher_->WithdrawRun(slot.run, "cancelled");
    while (!slot.spilled.empty()) ForgetSpilled(slot, slot.spilled.begin()->first);
  }
  for (const auto& [key, delivery] : effects.revoked) {
    dispatcher_->Withdraw({slot.run, key, delivery}, "cancelled");
    ForgetSpilled(slot, key);
  }
  if (effects.paused) Withhold(slot);
  if (effects.resumed) OfferAll(slot);
  if (!IsPaused(*slot.execution)) {
    for (const StepKey& key : effects.ready) OfferStep(slot, key, false);
  }
  if (effects.outbox) SendPending(slot);
  if (effects.closed) {
    ++counters_.closes;
    NotifyClosed(slot);
    QueueFlush(slot, true);
  }
}

void Engine::OfferStep(Slot& slot, const StepKey& key, bool maybe_delivered) {
  TaskOffer offer = flux::engine::Offer(*slot.execution, key);
  if (slot.refilled && slot.refilled->first == key) offer.scheduled_ms = slot.refilled->second;
  const std::string limit_key = LimitKey(*slot.execution, offer);
  DisplacedTask displaced;
  const OfferOutcome outcome =
      dispatcher_->Offer(slot.run, offer, maybe_delivered, Now(), limit_key, &displaced);
  if (outcome == OfferOutcome::kSpilled) {
    if (IsPaused(*slot.execution)) {  // nothing stands for it: resuming offers it again
      slot.recovered = slot.recovered || maybe_delivered;
      return;
    }
    MarkSpilled(slot, offer, {.unsure = maybe_delivered}, true);
    return;
  }
  ForgetSpilled(slot, key);
  if (outcome == OfferOutcome::kDisplaced) Displace(displaced);
}

void Engine::Withhold(Slot& slot) {
  dispatcher_->Withhold(slot.run);
  // Nothing stands for it while it is paused; resuming offers it all again.
  while (!slot.spilled.empty()) {
    const auto& [key, step] = *slot.spilled.begin();
    slot.recovered = slot.recovered || step.unsure || step.stood_in_rows;
    ForgetSpilled(slot, StepKey(key));
  }
}

void Engine::OfferAll(Slot& slot) {
  for (const StepKey& key : ReadyTasks(*slot.execution)) OfferStep(slot, key, slot.recovered);
}

void Engine::Touch(Slot& slot) {
  slot.touched_ms = last_turn_end_ms_;
  lru_.splice(lru_.end(), lru_, slot.lru);
  const size_t bytes = MemoryBytes(*slot.execution) + sizeof(Slot);
  cache_bytes_ += bytes - slot.memory_bytes;
  slot.memory_bytes = bytes;
  ArmTimer(slot);
}

// ---- timers
// -------------------------------------------------------------------------------------------------

void Engine::DisarmTimer(Slot& slot) {
  if (slot.timer_ms == 0) return;
  timers_.erase({slot.timer_ms, slot.run});
  slot.timer_ms = 0;
}

int64_t Engine::DueMs(const Slot& slot) {
  if (slot.execution->closed()) return 0;
  const int64_t timer = NextTimerMs(*slot.execution).value_or(0);
  if (slot.start_by.empty()) return timer;
  const int64_t start_by = slot.start_by.begin()->first;
  return timer == 0 ? start_by : std::min(timer, start_by);
}

void Engine::ArmTimer(Slot& slot) {
  const int64_t due = DueMs(slot);
  if (due == slot.timer_ms) return;
  DisarmTimer(slot);
  slot.timer_ms = due;
  if (due != 0) timers_.insert({due, slot.run});
}

void Engine::FireTimersDue() {
  const int64_t now = env_.clock->WallMs();
  for (int i = 0; i < kTimersPerTurn && !timers_.empty() && timers_.begin()->first <= now; ++i) {
    const RunId run = timers_.begin()->second;
    const auto it = slots_.find(run);
    if (it == slots_.end() || !it->second->execution) {
      // An evicted run: loading it arms its timer again.
      timers_.erase(timers_.begin());
      WithRun(run, [this, run](Slot* slot, const absl::Status& status) {
        if (slot == nullptr && !absl::IsNotFound(status)) {
          Log(3, absl::StrCat("run ", run.Text(),
                              " has a timer due but cannot be loaded: ", status.ToString()));
        }
      });
      continue;
    }
    Slot& slot = *it->second;
    if (slot.timer_ms != timers_.begin()->first) {  // left behind by an earlier residence
      timers_.erase(timers_.begin());
      continue;
    }
    DisarmTimer(slot);
    if (NextTimerMs(*slot.execution).value_or(now + 1) <= now) {
      if (auto verdict = Execute(slot, FireTimers{}); !verdict.ok() && !slot.execution->closed()) {
        Log(3, absl::StrCat("run ", run.Text(), ": timers: ", verdict.status().ToString()));
      }
    }
    EndOverdueStarts(slot, now);
    ArmTimer(slot);
  }
}

// The dispatcher watches what it holds; what it had no room for is watched here, by the wall clock,
// since it may have waited on disk.
void Engine::EndOverdueStarts(Slot& slot, int64_t now) {
  while (!slot.start_by.empty() && slot.start_by.begin()->first <= now) {
    const StepKey key = slot.start_by.begin()->second;
    const uint64_t delivery = flux::engine::Offer(*slot.execution, key).delivery;
    ForgetSpilled(slot, key);
    if (auto verdict = Execute(
            slot, flux::engine::EndAttempt{key, delivery, AttemptEnd::kScheduleToStart, {}, ""});
        !verdict.ok()) {
      Log(3, absl::StrCat("run ", slot.run.Text(), ": cannot end an attempt that waited too long: ",
                          verdict.status().ToString()));
    }
  }
}

// ---- workers
// ------------------------------------------------------------------------------------------------

DeliveryKey Engine::KeyOf(const v1::TaskToken& token) {
  return {RunId::FromBytes(token.run_id()).value_or(RunId{}),
          {token.frame(), token.step()},
          token.delivery()};
}

void Engine::HandleWorkerMessage(StreamId stream, std::unique_ptr<v1::ConnectRequest> message) {
  const DispatchNow now = Now();
  if (message->has_hello()) {
    Peer& peer = peers_[stream];
    peer.worker_id = message->hello().worker_id();
    if (absl::Status status = dispatcher_->Hello(stream, peer.address, message->hello(), now);
        !status.ok()) {
      outputs_.closes.emplace_back(stream, std::move(status));
      return;
    }
  }
  dispatcher_->Alive(stream, now);
  if (message->credit() > 0) {
    if (absl::Status status = dispatcher_->Credit(stream, message->credit(), now); !status.ok()) {
      outputs_.closes.emplace_back(stream, std::move(status));
      return;
    }
  }
  for (int i = 0; i < message->results_size(); ++i) {
    if (i % kPrefetchWindow == 0) PrefetchResults(message->results(), i);
    HandleResult(stream, std::move(*message->mutable_results(i)));
  }
  for (v1::Heartbeat& heartbeat : *message->mutable_heartbeats()) {
    if (heartbeat.token().incarnation() != incarnation_) continue;
    dispatcher_->Heartbeat(stream, KeyOf(heartbeat.token()),
                           std::move(*heartbeat.mutable_progress()), now);
  }
  for (const v1::TaskToken& token : message->released()) {
    if (token.incarnation() == incarnation_) dispatcher_->Released(stream, KeyOf(token));
  }
  if (message->draining()) dispatcher_->Draining(stream);
  if (message->pong() != 0) dispatcher_->Pong(stream, message->pong(), now);
}

// What a result needs of its execution lies behind several pointers that nobody has followed since
// the step was handed out: a window of results waits for each of them once instead of one by one.
void Engine::PrefetchResults(const google::protobuf::RepeatedPtrField<v1::TaskResult>& results,
                             int first) const {
  std::array<std::pair<const Slot*, StepKey>, kPrefetchWindow> window;
  size_t size = 0;
  for (int i = first; i < std::min<int>(results.size(), first + kPrefetchWindow); ++i) {
    const DeliveryKey key = KeyOf(results[i].token());
    const auto it = slots_.find(key.run);
    if (it == slots_.end()) continue;
    const Slot* slot = it->second.get();
    window[size++] = {slot, key.step};
    __builtin_prefetch(&slot->execution);
    __builtin_prefetch(&slot->tail);
    __builtin_prefetch(&slot->lru);
  }
  for (int level = 0; level < kPrefetchLevels; ++level) {
    for (size_t i = 0; i < size; ++i) {
      const auto& [slot, step] = window[i];
      if (slot->execution) Prefetch(*slot->execution, step, level);
    }
  }
}

void Engine::HandleResult(StreamId stream, v1::TaskResult&& result) {
  ++counters_.results;
  const DeliveryKey key = KeyOf(result.token());
  store::ShardId shard = 0;
  if (result.token().incarnation() != incarnation_ || key.run.empty() ||
      !ShardOfRun(key.run, &shard)) {
    ++counters_.results_stale;
    dispatcher_->Ack(stream, result.token(), v1::ACK_STATUS_STALE,
                     "stale: the token is not of this data directory; drop the result");
    return;
  }
  const auto it = slots_.find(key.run);
  const bool resident = it != slots_.end() && it->second->execution.has_value();
  if (resident && IsCurrent(*it->second->execution, key.step, key.delivery) &&
      !IsCurrent(*it->second->execution, result.token())) {
    // The dispatcher knows deliveries by their number alone: it must not take this for the real
    // one's end.
    ++counters_.results_stale;
    dispatcher_->Ack(stream, result.token(), v1::ACK_STATUS_STALE,
                     WhyDropped(*it->second->execution, result.token(), Verdict::kStale));
    return;
  }
  // A result that breaks a limit ends its attempt as a failure; the ack tells the worker why.
  std::string note;
  if (result.outcome_case() == v1::TaskResult::OUTCOME_NOT_SET) {
    note = "the result has no outcome: set value, failure or skip";
    result = Failed(std::move(result), "flux.invalid_result", note);
  } else if (result.has_value() && PayloadBytes(result.value()) > options_.payload_bytes_max) {
    note = OverPayloadLimit("the result", PayloadBytes(result.value()), options_.payload_bytes_max,
                            "return");
    result = Failed(std::move(result), kPayloadTooLarge, note);
  } else if (result.has_failure() &&
             result.failure().ByteSizeLong() > options_.payload_inline_bytes) {
    note = absl::StrCat("the failure has more than ", options_.payload_inline_bytes, " bytes");
    result = Failed(std::move(result), kPayloadTooLarge, note);
  } else if (absl::Status type = CheckId("the failure's type", result.failure().type(), false);
             !type.ok()) {
    note = std::string(type.message());
    result = Failed(std::move(result), "flux.invalid_result", note);
  } else if (PayloadBytes(result.progress()) > options_.payload_inline_bytes) {
    note = absl::StrCat("the progress has more than ", options_.payload_inline_bytes, " bytes");
    result.clear_progress();
    result = Failed(std::move(result), kPayloadTooLarge, note);
  } else if (result.has_continuation()) {
    for (const v1::Payload& input : result.continuation().inputs()) {
      if (PayloadBytes(input) <= options_.payload_bytes_max) continue;
      note = OverPayloadLimit("an input of the continuation", PayloadBytes(input),
                              options_.payload_bytes_max, "pass");
      result = Failed(std::move(result), kPayloadTooLarge, note);
      break;
    }
  }
  // Who sent it is told in the history, though the stream may be gone once a run is loaded; and it
  // may be gone already.
  const auto peer = peers_.find(stream);
  std::string worker_id =
      peer == peers_.end() ? dispatcher_->HolderOf(key) : peer->second.worker_id;
  dispatcher_->ResultArrived(stream, key, result.has_failure());
  if (resident) {
    FinishResult(stream, key, it->second.get(), std::move(result), std::move(worker_id),
                 std::move(note));
    return;
  }
  WithRun(key.run, [this, stream, key, result = std::move(result), worker_id = std::move(worker_id),
                    note = std::move(note)](Slot* slot, const absl::Status&) mutable {
    FinishResult(stream, key, slot, std::move(result), std::move(worker_id), std::move(note));
  });
}

void Engine::FinishResult(StreamId stream, const DeliveryKey& key, Slot* slot,
                          v1::TaskResult&& result, std::string worker_id, std::string note) {
  if (slot == nullptr) {
    ++counters_.results_stale;
    dispatcher_->Ack(
        stream, result.token(), v1::ACK_STATUS_STALE,
        absl::StrCat("stale: there is no run ", key.run.Text(), " any more; drop the result"));
    return;
  }
  if (!result.labels().empty() || !result.step_labels().empty()) {
    absl::Status labels =
        CheckLabels("execution", result.labels(), CountLabels(*slot->execution, result.labels()));
    labels.Update(CheckLabels("step", result.step_labels(), result.step_labels().size()));
    if (!labels.ok()) {
      note = std::string(labels.message());
      result = Failed(std::move(result), "flux.invalid_result", note);
    }
  }
  Command command(std::in_place_type<ReportResult>);
  ReportResult& report = std::get<ReportResult>(command);
  if (result.has_value()) report.blob = BlobFor(*slot, result.value());
  report.worker_id = std::move(worker_id);
  report.result = std::move(result);
  const v1::TaskToken& token = report.result.token();
  // A worker that had it before a restart may answer while it waits on disk to be offered again.
  if (slot->spilled.contains(key.step) && IsCurrent(*slot->execution, token)) {
    ForgetSpilled(*slot, key.step);
  }
  const absl::StatusOr<Verdict> verdict = Execute(*slot, std::move(command));
  v1::AckStatus status = v1::ACK_STATUS_STALE;
  std::string_view detail = note;
  std::string why;
  if (!verdict.ok()) {
    status = v1::ACK_STATUS_INVALID;
    detail = Message(verdict.status());
  } else if (*verdict == Verdict::kAccepted) {
    status = detail.empty() ? v1::ACK_STATUS_RECORDED : v1::ACK_STATUS_INVALID;
  } else if (*verdict == Verdict::kDuplicate) {
    status = v1::ACK_STATUS_DUPLICATE;
    ++counters_.results_duplicate;
  } else {
    ++counters_.results_stale;
  }
  if (verdict.ok() && *verdict != Verdict::kAccepted) {
    why = WhyDropped(*slot->execution, token, *verdict);
    detail = why;
  }
  // Its worker is done with it; if the step still waits for this delivery, somebody else gets the
  // next one.
  const bool again = status != v1::ACK_STATUS_RECORDED && IsCurrent(*slot->execution, token);
  dispatcher_->Ack(stream, token, status, detail);
  if (again) Redeliver(key, "its result was refused");
}

// ---- DispatchHost
// -------------------------------------------------------------------------------------------

bool Engine::BuildTask(const DeliveryKey& key, v1::Task* task) {
  const auto it = slots_.find(key.run);
  if (it == slots_.end() || !it->second->execution) return false;
  Slot& slot = *it->second;
  if (!IsCurrent(*slot.execution, key.step, key.delivery)) return false;
  if (absl::Status status =
          FillTask(*slot.execution, key.step, options_.task_input_bytes_max, task);
      !status.ok()) {
    // The step can never run: its attempt ends here, through the same door as a worker's failure.
    v1::TaskResult result;
    *result.mutable_token() = task->token();
    ReportResult report;
    report.result =
        Failed(std::move(result), "flux.input_too_large", std::string(status.message()));
    report.worker_id = "coordinator";
    deferred_.push_back(
        [this, key, report = std::move(report)]() mutable { OnDelivery(key, std::move(report)); });
    return false;
  }
  v1::TaskToken* token = task->mutable_token();
  token->set_incarnation(incarnation_);
  token->set_run_id(key.run.Bytes());
  token->set_shard(slot.shard);
  return true;
}

void Engine::Send(StreamId stream, ArenaPtr<v1::ConnectResponse> message) {
  outputs_.messages.emplace_back(stream, std::move(message));
}

void Engine::Close(StreamId stream, absl::Status why) {
  outputs_.closes.emplace_back(stream, std::move(why));
}

void Engine::OnDelivery(const DeliveryKey& key, Command command) {
  WithRun(key.run, [this, key, command = std::move(command)](Slot* slot,
                                                             const absl::Status& status) mutable {
    if (slot == nullptr) {
      if (!absl::IsNotFound(status)) {
        Log(3, absl::StrCat("run ", key.run.Text(), ": ", status.ToString()));
      }
      return;
    }
    if (auto verdict = Execute(*slot, std::move(command)); !verdict.ok()) {
      Log(1, absl::StrCat("run ", key.run.Text(), ": ", verdict.status().ToString()));
    }
  });
}

void Engine::EndAttempt(const DeliveryKey& key, AttemptEnd reason, const v1::Payload& progress,
                        const std::string& worker_id) {
  flux::engine::EndAttempt command{key.step, key.delivery, reason, progress, worker_id};
  deferred_.push_back(
      [this, key, command = std::move(command)]() mutable { OnDelivery(key, std::move(command)); });
}

void Engine::Redeliver(const DeliveryKey& key, const std::string& reason) {
  flux::engine::Redeliver command{key.step, key.delivery, reason};
  deferred_.push_back(
      [this, key, command = std::move(command)]() mutable { OnDelivery(key, std::move(command)); });
}

void Engine::CheckClaim(const DeliveryKey& key) {
  deferred_.push_back([this, key] {
    store::ShardId shard = 0;
    if (key.run.empty() || !ShardOfRun(key.run, &shard)) {
      dispatcher_->ClaimChecked(key, false);
      return;
    }
    WithRun(key.run, [this, key](Slot* slot, const absl::Status&) {
      const bool current = slot != nullptr && IsCurrent(*slot->execution, key.step, key.delivery);
      // Offered first, so that the claim learns its timeouts, queue and limit key.
      if (current && (slot->spilled.contains(key.step) || IsPaused(*slot->execution))) {
        OfferStep(*slot, key.step, true);
      }
      dispatcher_->ClaimChecked(key, current);
    });
  });
}

void Engine::RecordSession(v1::SessionChange change) {
  Shard& shard = Activate(0);
  store::RowChange& row = shard.rows.emplace_back();
  row.key = keys::Session(change.session_id());
  if (!change.closed()) row.value = change.SerializeAsString();
  batch_bytes_ += row.key.size() + row.value.value_or("").size();
}

}  // namespace flux::engine
