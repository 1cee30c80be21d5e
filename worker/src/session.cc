#include "worker/src/session.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "worker/src/stream.h"

namespace flux::internal {
namespace {

constexpr Nanos kNanosPerMs = 1'000'000;
constexpr Nanos kNever = std::numeric_limits<Nanos>::max();

constexpr Nanos kTick = kNanosPerMs / 4;  // how long a result may wait for company
constexpr Nanos kQueueWaitFine =
    2 * kNanosPerMs;  // short tasks queued for less need no more threads
constexpr Nanos kStuckAfter =
    1'000 * kNanosPerMs;  // nothing finished for so long: the queue is handed back
constexpr Nanos kWelcomeTimeout = 10'000 * kNanosPerMs;
constexpr Nanos kCloseTimeout = 2'000 * kNanosPerMs;  // for the coordinator to end a drained stream
constexpr Nanos kStallNoticed = 1'000 * kNanosPerMs;  // this process itself stood still
constexpr int kSilentPings = 3;
constexpr absl::Duration kBackoffInitial = absl::Milliseconds(50);
constexpr absl::Duration kBackoffMax =
    absl::Seconds(2);  // well within the coordinator's session grace

}  // namespace

Nanos MonotonicNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// ---- life ----

Session::Session(WorkerOptions options, TaskHandlers handlers)
    : options_(std::move(options)),
      handlers_(std::move(handlers)),
      session_id_(RandomId()),
      channel_(MakeChannel(options_.target)),
      stub_(v1::WorkerService::NewStub(channel_)),
      backoff_(kBackoffInitial, kBackoffMax) {
  eager_ = std::max(1u, std::thread::hardware_concurrency());
}

Session::~Session() {
  // Everything has stopped. What is not forgotten is in held_; the rest is where it was left.
  for (HeldTask* held : queue_) {
    if (held->forgotten) delete held;
  }
  for (HeldTask* held : outbox_) {
    if (held->forgotten) delete held;
  }
  for (auto& [key, held] : held_) garbage_.emplace_back(held);
  held_.clear();
}

void Session::Start() {
  Lock lock(mutex_);
  const size_t first = std::min<size_t>(options_.slots, eager_);
  while (executors_.size() < first && AddExecutor()) {
  }
  if (executors_.empty()) {
    End(absl::ResourceExhaustedError("the worker could not start a single thread for its tasks"));
  }
  keeper_ = std::thread([this] { KeeperMain(); });
}

void Session::RequestDrain() {
  Lock lock(mutex_);
  if (draining_) return;
  draining_ = true;
  const Nanos now = MonotonicNow();
  const Nanos timeout = absl::ToInt64Nanoseconds(options_.drain_timeout);  // it may be infinite
  drain_deadline_ = timeout < kNever - now ? now + timeout : kNever;
  HandBackQueue();
  WakeKeeper();
}

absl::Status Session::Wait() {
  Lock lock(mutex_);
  ended_changed_.wait(lock, [this] { return ended_; });
  return end_status_;
}

void Session::Join() {
  if (keeper_.joinable()) keeper_.join();
  // No executor is added once the keeper has ended.
  for (const std::unique_ptr<Executor>& executor : executors_) {
    if (executor->thread.joinable()) executor->thread.join();
  }
  Lock lock(mutex_);
  ended_changed_.wait(lock, [this] { return streams_alive_ == 0; });
}

void Session::End(absl::Status status) {
  if (ended_) return;
  ended_ = true;
  end_status_ = std::move(status);
  executors_stop_ = true;
  for (const auto& [key, held] : held_) held->cancelled.store(true, std::memory_order_relaxed);
  while (WakeOne()) {
  }
  ended_changed_.notify_all();
  WakeKeeper();
}

WorkerStats Session::stats() const {
  Lock lock(mutex_);
  WorkerStats stats = stats_;
  stats.queued = queued_;
  stats.running = running_;
  stats.unacknowledged = unacked_;
  return stats;
}

void Session::Log(LogLevel level, const std::string& text) const { options_.log(level, text); }

// ---- keeper ----

void Session::WakeKeeper() {
  if (keeper_woken_) return;
  keeper_woken_ = true;
  keeper_wake_.notify_one();
}

void Session::KeeperMain() {
  std::vector<std::unique_ptr<HeldTask>> garbage;
  Lock lock(mutex_);
  while (!ended_) {
    keeper_woken_ = false;
    const Nanos now = MonotonicNow();
    keeper_due_ = KeeperTurn(lock, now);
    if (!garbage_.empty()) {
      garbage.swap(garbage_);
      lock.unlock();
      garbage.clear();
      lock.lock();
    }
    if (ended_) break;
    const Nanos wait = keeper_due_ - MonotonicNow();
    if (keeper_due_ == kNever) {
      keeper_wake_.wait(lock, [this] { return keeper_woken_; });
    } else if (wait > 0) {
      keeper_wake_.wait_for(lock, std::chrono::nanoseconds(wait), [this] { return keeper_woken_; });
    }
  }
  CancelStream(lock);
}

Nanos Session::KeeperTurn(Lock& lock, Nanos now) {
  // Silence while this process was suspended is its own, not the coordinator's.
  if (stream_ != nullptr && keeper_due_ != 0 && keeper_due_ != kNever &&
      now - keeper_due_ > kStallNoticed) {
    stream_->last_read = now;
    stream_->opened = now;
  }
  Nanos due = ConnectionTurn(lock, now);
  due = std::min(due, WorkTurn(lock, now));
  if (draining_ && !ended_) due = std::min(due, DrainTurn(lock, now));
  return due;
}

Nanos Session::ConnectionTurn(Lock& lock, Nanos now) {
  if (stream_ == nullptr) {
    if (draining_ && held_.empty()) return kNever;  // nothing left to say
    if (now < connect_at_) return connect_at_;
    OpenStream(lock);
  }
  if (stream_ == nullptr) return now;  // it has failed already
  const Nanos limit = !stream_->welcomed   ? kWelcomeTimeout
                      : ping_interval_ > 0 ? kSilentPings * ping_interval_
                                           : kNever;
  if (limit == kNever || stream_->abandoned != nullptr) return kNever;
  const Nanos deadline = (stream_->welcomed ? stream_->last_read : stream_->opened) + limit;
  if (now < deadline) return deadline;
  AbandonStream(lock, stream_->welcomed ? "it has been silent for three pings"
                                        : "it did not answer the worker's hello");
  return kNever;
}

Nanos Session::WorkTurn(Lock& lock, Nanos now) {
  Nanos due = kNever;
  if (!outbox_.empty()) Flush(lock);
  if (stream_ != nullptr && stream_->welcomed) {
    bool flush = false;
    for (const HeldTask* held : heartbeats_) {
      if (held->heartbeat_next <= now)
        flush = true;
      else
        due = std::min(due, held->heartbeat_next);
    }
    if (flush) Flush(lock);  // else OnWriteDone does
  }
  const bool was_ticking = keeper_ticking_;
  const bool can_add = !parked_.empty() || executors_.size() < options_.slots;
  keeper_ticking_ = (queued_ > 0 && can_add) || (!outbox_.empty() && CanWrite());
  if (keeper_ticking_) {
    if (!was_ticking) {
      finished_at_tick_ = finished_count_;
      ramp_next_ = now + kTick;
    } else if (now >= ramp_next_) {
      Ramp();
      finished_at_tick_ = finished_count_;
      ramp_next_ = now + kTick;
    }
    due = std::min(due, ramp_next_);
  }
  // Prefetched on the strength of short tasks, and now waiting behind long ones: others may have a
  // slot free.
  if (queued_ == 0 || options_.prefetch.has_value()) {
    stuck_check_ = 0;
  } else if (stuck_check_ == 0 || finished_count_ != finished_at_check_) {
    stuck_check_ = now + kStuckAfter;
    finished_at_check_ = finished_count_;
  } else if (now >= stuck_check_) {
    HandBackQueue();
    // Tasks take at least this long now, so that not as many are fetched again.
    task_nanos_ = std::max(task_nanos_, static_cast<double>(kStuckAfter));
    Flush(lock);
    stuck_check_ = 0;
  }
  if (stuck_check_ != 0) due = std::min(due, stuck_check_);
  return due;
}

void Session::Ramp() {
  if (queued_ == 0) return;
  const size_t busy = std::max<size_t>(active(), 1);
  const uint64_t finished = finished_count_ - finished_at_tick_;
  size_t add = 0;
  if (finished < busy) {
    add = busy;  // long tasks, or tasks that block: double
  } else if (static_cast<double>(queued_) * task_nanos_ / static_cast<double>(busy) >
             static_cast<double>(kQueueWaitFine)) {
    add = 1;
  }
  add = std::min(add, queued_);
  while (add > 0 && (WakeOne() || AddExecutor())) --add;
}

Nanos Session::DrainTurn(Lock& lock, Nanos now) {
  if (now >= drain_deadline_) {
    End(absl::DeadlineExceededError(
        absl::StrCat("the worker stopped after its drain timeout of ",
                     absl::FormatDuration(options_.drain_timeout), " with ", running_,
                     " tasks still running and ", unacked_,
                     " results not acknowledged: the coordinator will deliver those tasks again")));
    return kNever;
  }
  Flush(lock);
  if (running_ > 0 || unacked_ > 0) return drain_deadline_;
  if (stream_ == nullptr) {
    End(absl::OkStatus());
    return kNever;
  }
  if (!stream_->welcomed) {
    // Tasks may be on their way already: they are handed back, if that is to be had soon.
    const Nanos welcome_by = stream_->opened + kCloseTimeout;
    if (now < welcome_by) return std::min(welcome_by, drain_deadline_);
    End(absl::OkStatus());
    return kNever;
  }
  if (stream_->half_closed) {
    const Nanos close_by = stream_->opened + kCloseTimeout;  // `opened` is set anew below
    if (now < close_by) return std::min(close_by, drain_deadline_);
    End(absl::OkStatus());
    return kNever;
  }
  if (CanWrite() && draining_sent_ && released_.empty()) {
    Stream* stream = stream_.get();
    stream->half_closed = true;
    stream->writing = true;  // keeps the stream until OnWriteDone
    stream->opened = now;
    lock.unlock();
    stream->HalfClose();
    lock.lock();
    return std::min(now + kCloseTimeout, drain_deadline_);
  }
  return drain_deadline_;  // OnWriteDone wakes the keeper
}

}  // namespace flux::internal
