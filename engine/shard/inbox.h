// What other threads have for the loop: jobs, in the order they came, and the urgent one, which
// goes before them.
#ifndef FLUX_ENGINE_SHARD_INBOX_H_
#define FLUX_ENGINE_SHARD_INBOX_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace flux::engine {

// Thread-safe. Unbounded by itself: its producers watch size() and what their jobs bring along
// (byte_budget.h): worker streams stop reading, requests are refused.
class Inbox {
 public:
  using Job = absl::AnyInvocable<void()>;

  void Push(Job job) {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
      size_.store(jobs_.size(), std::memory_order_relaxed);
    }
    pushed_.notify_one();
  }

  // The loop takes it between two jobs. One waits at a time.
  void PushUrgent(Job job) {
    {
      std::lock_guard lock(mutex_);
      urgent_ = std::move(job);
      has_urgent_.store(true, std::memory_order_release);
    }
    pushed_.notify_one();
  }

  bool has_urgent() const { return has_urgent_.load(std::memory_order_acquire); }
  Job TakeUrgent() {
    std::lock_guard lock(mutex_);
    has_urgent_.store(false, std::memory_order_relaxed);
    return std::exchange(urgent_, nullptr);
  }

  // Moves everything else that waits into `jobs`, which must be empty.
  void Drain(std::vector<Job>* jobs) {
    std::lock_guard lock(mutex_);
    jobs->swap(jobs_);
    size_.store(0, std::memory_order_relaxed);
  }

  // Returns when something waits (only the urgent job counts if `urgent_only`) or after `timeout`.
  void Wait(absl::Duration timeout, bool urgent_only = false) {
    std::unique_lock lock(mutex_);
    pushed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this, urgent_only] {
      return has_urgent() || (!urgent_only && !jobs_.empty());
    });
  }

  size_t size() const { return size_.load(std::memory_order_relaxed) + (has_urgent() ? 1 : 0); }

 private:
  std::mutex mutex_;
  std::condition_variable pushed_;
  std::vector<Job> jobs_;  // guarded by mutex_
  std::atomic<size_t> size_{0};
  Job urgent_;  // guarded by mutex_
  std::atomic<bool> has_urgent_{false};
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_INBOX_H_
