// The stream's side of a session: what comes in, what goes out, and the credit that bounds it.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/rpc_convert.h"
#include "proto/bridge.h"
#include "worker/src/session.h"
#include "worker/src/stream.h"

namespace flux::internal {
namespace {

constexpr Nanos kNanosPerMs = 1'000'000;
constexpr Nanos kOutageLogEvery = 30'000 * kNanosPerMs;
constexpr double kPrefetchNanos = 20e6;  // what WorkerOptions::prefetch promises
constexpr Nanos kHeartbeatEveryMin = 5 * kNanosPerMs;
constexpr Nanos kHeartbeatEveryMax = 5'000 * kNanosPerMs;
constexpr Nanos kHeartbeatUnasked =
    1'000 * kNanosPerMs;  // progress of a task without a heartbeat timeout
constexpr Nanos kStreamLasted = 5'000 * kNanosPerMs;
constexpr char kSdkVersion[] = "flux-cpp/0.1.0";

// Often enough that one lost or late heartbeat does not end the attempt.
Nanos HeartbeatEvery(int64_t timeout_ms) {
  if (timeout_ms <= 0) return kHeartbeatUnasked;
  return std::clamp(timeout_ms * kNanosPerMs / 4, kHeartbeatEveryMin, kHeartbeatEveryMax);
}

bool IsFinalRefusal(grpc::StatusCode code) {
  return code == grpc::StatusCode::INVALID_ARGUMENT || code == grpc::StatusCode::UNIMPLEMENTED ||
         code == grpc::StatusCode::PERMISSION_DENIED || code == grpc::StatusCode::UNAUTHENTICATED;
}

}  // namespace

// ---- opening and ending ----

void Session::OpenStream(Lock& lock) {
  const Nanos now = MonotonicNow();
  auto stream = std::make_shared<Stream>(shared_from_this(), stub_.get());
  stream->began = stream->opened = stream->last_read = now;
  FillHello(stream->out.mutable_hello(), now);
  credit_outstanding_ = 0;
  if (!draining_) {
    credit_outstanding_ = CreditToGrant();
    stream->out.set_credit(credit_outstanding_);
  }
  // Before the Welcome nothing follows the hello.
  stream->writing = true;
  stream_ = stream;
  ++streams_alive_;
  draining_sent_ = false;
  pong_owed_ = false;
  lock.unlock();
  stream->Open(stream);
  lock.lock();
}

void Session::FillHello(v1::WorkerHello* hello, Nanos now) const {
  hello->set_worker_id(options_.id);
  hello->set_session_id(session_id_);
  hello->set_queue(options_.queue);
  hello->set_slots(options_.slots);
  hello->set_sdk_version(kSdkVersion);
  for (const auto& [name, handler] : handlers_) hello->add_tasks(name);
  std::sort(hello->mutable_tasks()->begin(), hello->mutable_tasks()->end());
  size_t progress_bytes = 0;
  for (const auto& [key, held] : held_) {
    v1::RunningTask* running = hello->add_running();
    *running->mutable_token() = *held->token;
    running->set_finished(held->state == HeldState::kFinished);
    if (held->started != 0) running->set_elapsed_ms((now - held->started) / kNanosPerMs);
    if (held->heartbeat_called != 0) {
      running->set_since_heartbeat_ms((now - held->heartbeat_called) / kNanosPerMs);
    } else if (held->started != 0) {
      running->set_since_heartbeat_ms((now - held->started) / kNanosPerMs);
    }
    // A result needs none, and what has no room comes with the task's next heartbeat.
    if (held->state != HeldState::kFinished && held->progress.encoding != Encoding::kUnspecified &&
        progress_bytes < kHelloProgressBytesMax) {
      MovePayload(Payload(held->progress), running->mutable_progress());
      progress_bytes += running->progress().ByteSizeLong();
    }
  }
}

void Session::Welcomed(const v1::Welcome& welcome, Nanos now) {
  stream_->welcomed = true;
  ever_welcomed_ = true;
  ++stats_.connects;
  ping_interval_ = welcome.ping_interval_ms() * kNanosPerMs;
  if (welcome.payload_bytes_max() != 0) payload_bytes_max_ = welcome.payload_bytes_max();
  if (outage_logged_) {
    outage_logged_ = false;
    Log(LogLevel::kWarning,
        absl::StrCat("connected to the coordinator at ", options_.target, " again; it is sent ",
                     unacked_, " results that were not acknowledged"));
  }
  // What the stream before this one carried and nobody acknowledged goes again.
  for (const auto& [key, held] : held_) {
    if (held->state == HeldState::kFinished && !held->in_outbox) {
      held->in_outbox = true;
      outbox_.push_back(held);
    }
  }
  for (HeldTask* held : heartbeats_) held->heartbeat_next = now;
}

void Session::CancelStream(Lock& lock) {
  std::shared_ptr<Stream> stream = stream_;
  if (stream == nullptr) return;
  lock.unlock();
  stream->Cancel();
  lock.lock();
}

void Session::AbandonStream(Lock& lock, const char* why) {
  stream_->abandoned = why;
  CancelStream(lock);
}

void Session::OnReadEnded(Stream* stream) {
  Lock lock(mutex_);
  stream->read_ended = true;
  if (stream->writing) return;  // OnWriteDone lets go of it
  lock.unlock();
  stream->Release();
}

void Session::OnWriteDone(Stream* stream) {
  std::vector<std::unique_ptr<HeldTask>> garbage;
  Lock lock(mutex_);
  ReleaseWritten(stream);
  stream->writing = false;
  if (stream->read_ended) {
    garbage.swap(garbage_);
    lock.unlock();
    stream->Release();
    return;
  }
  Flush(lock);
  if (draining_) WakeKeeper();
  garbage.swap(garbage_);
}

void Session::ReleaseWritten(Stream* stream) {
  auto* results = stream->out.mutable_results();
  while (!results->empty()) results->UnsafeArenaReleaseLast();  // they belong to their HeldTasks
  stream->out.Clear();
  for (HeldTask* held : stream->written) {
    held->in_write = false;
    if (held->forgotten && !held->referenced()) Discard(held);
  }
  stream->written.clear();
}

void Session::OnStreamDone(Stream* stream, const grpc::Status& status) {
  std::vector<std::unique_ptr<HeldTask>> garbage;
  Lock lock(mutex_);
  --streams_alive_;
  if (stream_.get() == stream) {
    stream_ = nullptr;
    credit_outstanding_ = 0;
    const Nanos now = MonotonicNow();
    // One that breaks soon after its welcome may do so again: only a stream that lasted is followed
    // at once.
    if (stream->welcomed && now - stream->began >= kStreamLasted) backoff_.Reset();
    // The outbox is filled anew by the next Welcome.
    for (HeldTask* held : outbox_) {
      held->in_outbox = false;
      if (held->forgotten && !held->referenced()) Discard(held);
    }
    outbox_.clear();
    if (!ended_) {
      connect_at_ = now + absl::ToInt64Nanoseconds(backoff_.Next());
      if (!ever_welcomed_ && IsFinalRefusal(status.error_code())) {
        End(FromGrpc(status, "Connect", options_.target));
      } else if (!draining_ || !held_.empty()) {
        if (!outage_logged_ || now >= outage_log_next_) {
          outage_logged_ = true;
          outage_log_next_ = now + kOutageLogEvery;
          const std::string why = stream->abandoned != nullptr ? stream->abandoned
                                  : status.ok()                ? "it closed the stream"
                                                               : status.error_message();
          Log(LogLevel::kWarning,
              absl::StrCat("no connection to the coordinator at ", options_.target, ": ", why, "; ",
                           running_, " tasks go on, ", unacked_,
                           " results are kept; trying again until it is back"));
        }
      }
    }
  }
  WakeKeeper();
  ended_changed_.notify_all();
  garbage.swap(garbage_);
}

// ---- in ----

void Session::OnMessage(Stream* stream, const Inbound& message) {
  // Taken apart before the lock is taken.
  const Nanos now = MonotonicNow();
  std::vector<std::unique_ptr<HeldTask>> tasks;
  tasks.reserve(static_cast<size_t>(message->tasks_size()));
  for (v1::Task& task : *message->mutable_tasks()) {
    tasks.push_back(std::make_unique<HeldTask>());
    HeldTask* held = tasks.back().get();
    held->inbound = message;
    held->task = &task;
    held->token = task.mutable_token();
    held->received = now;
    held->heartbeat_every = HeartbeatEvery(task.heartbeat_ms());
  }

  std::vector<std::unique_ptr<HeldTask>> garbage;
  Lock lock(mutex_);
  if (stream_.get() != stream || ended_) return;
  ++stats_.messages_received;
  stream->last_read = now;
  if (message->has_welcome() && !stream->welcomed) {
    Welcomed(message->welcome(), now);
    WakeKeeper();
  }
  if (message->ping() != 0) {
    pong_ = message->ping();
    pong_owed_ = true;
  }
  if (message->goodbye()) {
    Log(LogLevel::kInfo, absl::StrCat("the coordinator at ", options_.target,
                                      " is stopping; tasks go on until it is back"));
  }
  for (const v1::ResultAck& ack : message->acks()) {
    auto found = held_.find(TokenKey::Of(ack.token()));
    if (found == held_.end() || found->second->state != HeldState::kFinished) continue;
    if (ack.status() == v1::ACK_STATUS_RECORDED || ack.status() == v1::ACK_STATUS_DUPLICATE) {
      ++stats_.acknowledged;
    } else {
      ++stats_.refused;
      if (ack.status() == v1::ACK_STATUS_INVALID) {
        Log(LogLevel::kError, absl::StrCat("the coordinator refused a result: ", ack.detail()));
      } else if (ack.status() == v1::ACK_STATUS_STALE) {
        const v1::Task& task = *found->second->task;
        Log(LogLevel::kWarning,
            absl::StrCat("the result of task '", task.name(), "' of workflow '", task.workflow_id(),
                         "' came too late and is dropped: ", ack.detail()));
      }
    }
    Forget(found);
  }
  for (const v1::CancelTask& cancel : message->cancels()) Withdraw(cancel);
  if (!tasks.empty()) Accept(&tasks);
  if (draining_) WakeKeeper();
  Flush(lock);
  garbage.swap(garbage_);
}

void Session::Accept(std::vector<std::unique_ptr<HeldTask>>* tasks) {
  size_t accepted = 0;
  for (std::unique_ptr<HeldTask>& task : *tasks) {
    if (credit_outstanding_ > 0) --credit_outstanding_;
    auto [entry, inserted] = held_.try_emplace(TokenKey::Of(*task->token), task.get());
    if (!inserted) {
      // The same delivery twice: the first one's result answers both.
      ++stats_.duplicate_deliveries;
      garbage_.push_back(std::move(task));
      continue;
    }
    HeldTask* held = task.release();
    if (draining_) {
      ++queued_;
      HandBack(held);
      continue;
    }
    queue_.push_back(held);
    ++queued_;
    ++accepted;
  }
  if (accepted > 0) WakeExecutors(accepted);
}

void Session::Forget(HeldMap::iterator entry) {
  HeldTask* held = entry->second;
  held_.erase(entry);
  held->forgotten = true;
  UnlistHeartbeat(held);
  if (held->state == HeldState::kFinished) {
    --unacked_;
    unacked_bytes_ -= held->result_bytes;
  } else if (held->state == HeldState::kQueued) {
    --queued_;  // NextTask drops it when it comes to it
    return;
  }
  if (!held->referenced()) Discard(held);
}

void Session::Withdraw(const v1::CancelTask& cancel) {
  auto found = held_.find(TokenKey::Of(cancel.token()));
  if (found == held_.end()) return;
  HeldTask* held = found->second;
  held->cancelled.store(true, std::memory_order_relaxed);
  const std::string& why = cancel.reason();
  if (why == "cancelled" || why == "timeout" || why == "superseded") {
    ++stats_.withdrawn;
    Forget(found);
  }
}

void Session::UnlistHeartbeat(HeldTask* held) {
  if (!held->heartbeat_listed) return;
  held->heartbeat_listed = false;
  heartbeats_.erase(std::find(heartbeats_.begin(), heartbeats_.end(), held));
}

void Session::Discard(HeldTask* held) { garbage_.emplace_back(held); }

void Session::HandBack(HeldTask* held) {
  released_.push_back(*held->token);
  ++stats_.released;
  held_.erase(TokenKey::Of(*held->token));
  --queued_;
  Discard(held);
}

void Session::HandBackQueue() {
  for (HeldTask* held : queue_) {
    if (held->forgotten)
      Discard(held);
    else
      HandBack(held);
  }
  queue_.clear();
}

// ---- out ----

uint32_t Session::Prefetch() const {
  if (options_.prefetch.has_value()) return *options_.prefetch;
  if (task_nanos_ <= 0) return 0;
  const double fit = options_.slots * kPrefetchNanos / task_nanos_;
  return fit >= kPrefetchAdaptiveMax ? kPrefetchAdaptiveMax : static_cast<uint32_t>(fit);
}

uint32_t Session::CreditToGrant() const {
  if (unacked_ >= kUnackedMax || unacked_bytes_ >= kUnackedBytesMax) return 0;
  const uint64_t wanted = uint64_t{options_.slots} + Prefetch();
  const uint64_t taken = queued_ + running_ + credit_outstanding_;
  return wanted > taken ? static_cast<uint32_t>(wanted - taken) : 0;
}

bool Session::CanWrite() const {
  return stream_ != nullptr && stream_->welcomed && !stream_->writing && !stream_->read_ended &&
         !stream_->half_closed;
}

void Session::Flush(Lock& lock) {
  if (!CanWrite()) return;
  if (!FillMessage(&stream_->out, MonotonicNow())) return;
  // Kept alive by `writing` until OnWriteDone.
  Stream* stream = stream_.get();
  stream->writing = true;
  ++stats_.messages_sent;
  lock.unlock();
  stream->Write();
  lock.lock();
}

bool Session::FillMessage(v1::ConnectRequest* out, Nanos now) {
  bool worth = false;
  size_t bytes = 0;
  size_t taken = 0;
  std::vector<HeldTask*>& written = stream_->written;
  while (taken < outbox_.size() && written.size() < kResultsPerMessageMax &&
         bytes < kMessageBytesMax) {
    HeldTask* held = outbox_[taken++];
    held->in_outbox = false;
    if (held->forgotten) {
      if (!held->referenced()) Discard(held);
      continue;
    }
    held->in_write = true;
    written.push_back(held);
    bytes += held->result_bytes;
    out->mutable_results()->UnsafeArenaAddAllocated(held->result.get());
    worth = true;
  }
  outbox_.erase(outbox_.begin(), outbox_.begin() + static_cast<ptrdiff_t>(taken));

  // Apart from the results' bytes: heartbeats do not wait behind results.
  size_t heartbeat_bytes = 0;
  for (size_t i = 0; i < heartbeats_.size() && heartbeat_bytes < kHeartbeatsBytesMax;) {
    HeldTask* held = heartbeats_[i];
    if (held->heartbeat_next > now) {
      ++i;
      continue;
    }
    v1::Heartbeat* heartbeat = out->add_heartbeats();
    *heartbeat->mutable_token() = *held->token;
    if (held->progress.encoding != Encoding::kUnspecified) {
      MovePayload(Payload(held->progress), heartbeat->mutable_progress());
      heartbeat_bytes += heartbeat->progress().ByteSizeLong();
    }
    held->heartbeat_listed = false;
    held->heartbeat_next = now + held->heartbeat_every;
    heartbeats_[i] = heartbeats_.back();
    heartbeats_.pop_back();
    worth = true;
  }
  if (!released_.empty()) {
    for (v1::TaskToken& token : released_) *out->add_released() = std::move(token);
    released_.clear();
    worth = true;
  }
  if (pong_owed_) {
    out->set_pong(pong_);
    pong_owed_ = false;
    worth = true;
  }
  if (draining_) {
    if (!draining_sent_) worth = true;
    out->set_draining(true);
    draining_sent_ = true;
  } else if (const uint32_t credit = CreditToGrant(); credit > 0) {
    // A grant rides on what goes anyway; alone it goes once it is worth a message.
    const uint64_t wanted = uint64_t{options_.slots} + Prefetch();
    if (worth || credit_outstanding_ == 0 || uint64_t{credit} * 4 >= wanted) {
      out->set_credit(credit);
      credit_outstanding_ += credit;
      worth = true;
    }
  }
  return worth;
}

}  // namespace flux::internal
