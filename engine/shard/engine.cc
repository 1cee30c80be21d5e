// The loop: what a turn does, how commits leave and come back, and what stops everything.
#include "engine/shard/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

// Waits and turns longer than expected by more than this are stalls of ours, not silence of the
// workers (rule 13).
constexpr int64_t kStallSlackMs = 100;
// The longest the loop sleeps when nothing is due.
constexpr int64_t kIdleWaitMs = 1000;
constexpr int64_t kHousekeepingMs = 20;

// Nearly what it has in memory, without looking at all of it: what may be large is counted.
size_t BytesOf(const v1::ConnectRequest& message) {
  constexpr size_t kEach = 256;
  size_t bytes = kEach;
  for (const v1::TaskResult& result : message.results()) {
    bytes += kEach + result.value().data().size() + result.progress().data().size();
    if (result.has_failure()) bytes += result.failure().ByteSizeLong();
    if (result.has_continuation()) bytes += result.continuation().ByteSizeLong();
  }
  for (const v1::Heartbeat& heartbeat : message.heartbeats()) {
    bytes += kEach + heartbeat.progress().data().size();
  }
  if (message.has_hello()) bytes += message.hello().ByteSizeLong();
  return bytes;
}

}  // namespace

absl::Status Engine::ShuttingDown() {
  return absl::UnavailableError("the coordinator is shutting down; try again");
}

absl::Status Engine::TooMuchWaits() const {
  return absl::ResourceExhaustedError(
      absl::StrCat("requests with ", request_bytes_.held(),
                   " bytes of payload wait for their answers; the limit is ", request_bytes_.max(),
                   ", fluxd's inbox-bytes-max: send it again later, or raise it"));
}

Engine::Engine(EngineOptions options, Environment environment)
    : options_(std::move(options)),
      env_(std::move(environment)),
      request_bytes_(options_.inbox_bytes_max),
      message_bytes_(options_.inbox_bytes_max) {}

Engine::~Engine() = default;

absl::StatusOr<std::unique_ptr<Engine>> Engine::Open(EngineOptions options,
                                                     Environment environment) {
  auto engine = std::unique_ptr<Engine>(new Engine(std::move(options), std::move(environment)));
  FLUX_RETURN_IF_ERROR(engine->Recover());
  return engine;
}

void Engine::Log(int level, const std::string& text) const {
  if (env_.log) env_.log(level, text);
}

DispatchNow Engine::Now() const {
  return {env_.clock->MonotonicMs() - stalled_ms_, env_.clock->WallMs()};
}

int64_t Engine::DecisionMs() {
  last_wall_ms_ = std::max(last_wall_ms_, env_.clock->WallMs());
  return env_.clock->WallMs();
}

bool Engine::ShardOfRun(const RunId& run, store::ShardId* shard) const {
  *shard = static_cast<store::ShardId>(run.low & 0xffff);
  return *shard < shards_.size();
}

Engine::Shard& Engine::Activate(store::ShardId id) {
  Shard& shard = shards_[id];
  if (!shard.active) {
    shard.active = true;
    active_shards_.push_back(id);
  }
  return shard;
}

void Engine::ObserveStall() {
  const int64_t now = env_.clock->MonotonicMs();
  if (last_turn_end_ms_ != 0) {
    const int64_t over = now - std::max(planned_wake_ms_, last_turn_end_ms_) - kStallSlackMs;
    if (over > 0) {
      stalled_ms_ += over;
      ++counters_.stalls;
      if (over > 1000) {
        Log(2,
            absl::StrCat("the loop was held up for ", over, " ms; deadlines are extended by that"));
      }
    }
  }
  last_turn_end_ms_ = now;  // replaced at the end of the turn
}

bool Engine::RunDeferred() {
  while (!deferred_.empty()) {
    if (BatchFull()) {
      if (commit_in_flight_) return false;
      Submit();
    }
    auto job = std::move(deferred_.front());
    deferred_.pop_front();
    job();
  }
  return true;
}

void Engine::Turn() {
  if (fatal_) return;
  ObserveStall();
  ++counters_.turns;
  const int64_t began_ms = last_turn_end_ms_;

  const bool was_held_up = held_up();
  RunJobs();
  // What came while it was held up is no later than a deadline that passed meanwhile.
  if (was_held_up && jobs_.empty() && !fatal_) RunJobs();
  if (fatal_) return;
  TakeCommit();
  if (fatal_) return;
  if (streams_paused_.load(std::memory_order_relaxed) && inbox_.size() < options_.inbox_max / 2 &&
      message_bytes_.held() < message_bytes_.max() / 2) {
    streams_paused_.store(false, std::memory_order_relaxed);
    if (resume_) resume_();
  }
  RunDeferred();
  // What arrived before any deadline fires (rule 13).
  if (!held_up()) {
    FireTimersDue();
    // While shutting down nobody is given up: sessions and what they run go on with the next
    // process.
    if (!shutting_down_) dispatcher_->Tick(Now());
    RunDeferred();
    if (!waiter_deadlines_.empty()) ExpireWaiters();
    if (!message_retries_.empty()) RetryMessages();
  }
  PumpLoads();
  if (began_ms - last_housekeeping_ms_ >= kHousekeepingMs) {
    last_housekeeping_ms_ = began_ms;
    Housekeep();
  }
  FinishBatch();

  const int64_t end = env_.clock->MonotonicMs();
  if (end - began_ms > 2 * kStallSlackMs) stalled_ms_ += end - began_ms - kStallSlackMs;
  last_turn_end_ms_ = end;
  planned_wake_ms_ = end;
}

void Engine::RunJobs() {
  if (jobs_.empty()) inbox_.Drain(&jobs_);
  for (; next_job_ < jobs_.size(); ++next_job_) {
    // The log is free again: what is decided so far follows at once, whatever else waits.
    if (TakeCommit()) FinishBatch();
    if (fatal_) return;
    if (BatchFull()) {
      if (commit_in_flight_) return;  // as large as it may get: the rest waits for the log
      FinishBatch();
    }
    jobs_[next_job_]();
    if (fatal_) return;
  }
  jobs_.clear();
  next_job_ = 0;
}

bool Engine::TakeCommit() {
  if (!inbox_.has_urgent()) return false;
  inbox_.TakeUrgent()();
  return !fatal_;
}

void Engine::FinishBatch() {
  WeighMemory();
  dispatcher_->Flush(Now());
  while (!deferred_.empty() && RunDeferred()) dispatcher_->Flush(Now());
  BuildFlushes();
  Submit();
}

int64_t Engine::NextDeadlineMs() const {
  const int64_t now = env_.clock->MonotonicMs();
  int64_t next = now + kIdleWaitMs;
  if (held_up()) {
    // All of it counts as a stall: there are messages that it has not looked at.
    planned_wake_ms_ = now;
    return next;
  }
  if (!deferred_.empty()) next = now;
  if (const int64_t deadline = dispatcher_->NextDeadlineMs(); deadline != INT64_MAX) {
    next = std::min(next, deadline + stalled_ms_);
  }
  if (!timers_.empty()) {
    next =
        std::min(next, now + std::max<int64_t>(0, timers_.begin()->first - env_.clock->WallMs()));
  }
  if (!waiter_deadlines_.empty()) next = std::min(next, waiter_deadlines_.begin()->first);
  if (!message_retries_.empty()) next = std::min(next, message_retries_.begin()->first);
  if (!flush_queue_.empty() || !lru_.empty() || bulks_running_ > 0) {
    const bool soon = !flush_queue_.empty() || bulks_running_ > 0;
    next = std::min(next, last_housekeeping_ms_ + kHousekeepingMs * (soon ? 1 : 10));
  }
  next = std::max(next, now);
  planned_wake_ms_ = next;
  return next;
}

bool Engine::Quiet() const {
  return !commit_in_flight_ && flushes_in_flight_ == 0 && outputs_.empty() &&
         active_shards_.empty() && jobs_.empty() && deferred_.empty() && inbox_.size() == 0;
}

void Engine::BeginShutdown(absl::AnyInvocable<void()> begun) {
  Post([this, begun = std::move(begun)]() mutable {
    shutting_down_ = true;
    dispatcher_->Stop();
    for (auto& [run, waiters] : std::exchange(waiters_, {})) {
      for (Waiter& waiter : waiters) {
        ReplyWith<v1::GetResultResponse>(std::move(waiter.reply), ShuttingDown());
      }
    }
    waiter_deadlines_.clear();
    // Rows written now are rows not replayed at the next start.
    for (auto& [run, slot] : slots_) {
      if (slot->execution && slot->first_unflushed_lsn != 0) QueueFlush(*slot, false);
    }
    last_flush_ms_ = 0;
    dispatcher_->Flush(Now());
    ReplyLater(std::move(begun));
  });
}

void Engine::Submit() {
  if (commit_in_flight_ || fatal_) return;
  if (active_shards_.empty()) {
    if (!outputs_.empty()) Release(std::exchange(outputs_, {}));
    return;
  }
  std::vector<store::AppendEntry> entries;
  entries.reserve(active_shards_.size());
  for (store::ShardId id : active_shards_) {
    Shard& shard = shards_[id];
    shard.active = false;
    store::AppendEntry& entry = entries.emplace_back();
    entry.shard = id;
    entry.epoch = shard.epoch;
    entry.lsn = shard.next_lsn++;
    uint64_t bytes = shard.batch.size();
    for (const store::RowChange& row : shard.rows) {
      bytes += row.key.size() + (row.value.has_value() ? row.value->size() : 0);
    }
    shard.sizes.emplace_back(entry.lsn, bytes);
    tail_bytes_ += bytes;
    counters_.commit_bytes += bytes;
    entry.bytes = shard.batch.Take();
    entry.rows = std::exchange(shard.rows, {});
  }
  active_shards_.clear();
  batch_bytes_ = 0;
  ++counters_.commits;
  commit_in_flight_ = true;
  in_flight_outputs_ = std::exchange(outputs_, {});
  env_.store->log().Append(std::move(entries), [this](std::vector<store::AppendResult> results) {
    inbox_.PushUrgent([this, results = std::move(results)] { Committed(results); });
  });
}

void Engine::Committed(const std::vector<store::AppendResult>& results) {
  commit_in_flight_ = false;
  for (const store::AppendResult& result : results) {
    if (result.outcome != store::AppendOutcome::kOk) {
      // Rule 3: memory is ahead of a log that did not take it. Nothing may leave any more.
      Fatal(result.status);
      return;
    }
    shards_[result.shard].durable_lsn = result.lsn;
  }
  Release(std::exchange(in_flight_outputs_, {}));
}

void Engine::Release(Outputs outputs) {
  for (auto& [stream, message] : outputs.messages) env_.workers->Send(stream, std::move(message));
  for (auto& [stream, why] : outputs.closes) env_.workers->Close(stream, why);
  for (auto& reply : outputs.replies) reply();
  for (Flush& flush : outputs.flushes) {
    ++flushes_in_flight_;
    row_queue_.push_back(std::move(flush));
  }
  SendRows();
}

void Engine::Fatal(const absl::Status& status) {
  if (fatal_) return;
  fatal_ = true;
  Log(3, absl::StrCat("stopping: a write to the store failed: ", status.ToString()));
  if (env_.on_fatal) env_.on_fatal(status);
}

void Engine::OnWorkerOpen(StreamId stream, std::string peer) {
  Post([this, stream, peer = std::move(peer)]() mutable {
    peers_[stream].address = std::move(peer);
  });
}

bool Engine::OnWorkerMessage(StreamId stream, std::unique_ptr<v1::ConnectRequest> message) {
  ByteBudget::Hold hold = message_bytes_.Take(BytesOf(*message));
  const bool full = message_bytes_.full() || inbox_.size() + 1 >= options_.inbox_max;
  // Before its message is there: whoever takes that up has to see it.
  if (full) streams_paused_.store(true, std::memory_order_relaxed);
  Post([this, stream, hold = std::move(hold), message = std::move(message)]() mutable {
    HandleWorkerMessage(stream, std::move(message));
    hold = {};
  });
  return !full;
}

void Engine::OnWorkerClosed(StreamId stream) {
  Post([this, stream] {
    peers_.erase(stream);
    if (!shutting_down_) dispatcher_->StreamClosed(stream, Now());
  });
}

}  // namespace flux::engine
