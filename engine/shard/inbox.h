// What other threads have for the loop: jobs, in the order they came.
#ifndef FLUX_ENGINE_SHARD_INBOX_H_
#define FLUX_ENGINE_SHARD_INBOX_H_

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace flux::engine {

// Thread-safe. Unbounded by itself: its producers watch size() (worker streams stop reading,
// handlers refuse).
class Inbox {
 public:
  using Job = absl::AnyInvocable<void()>;

  void Push(Job job) {
    absl::MutexLock lock(&mutex_);
    jobs_.push_back(std::move(job));
    size_.store(jobs_.size(), std::memory_order_relaxed);
  }

  // Moves everything that waits into `jobs`, which must be empty.
  void Drain(std::vector<Job>* jobs) {
    absl::MutexLock lock(&mutex_);
    jobs->swap(jobs_);
    size_.store(0, std::memory_order_relaxed);
  }

  // Returns when something waits or after `timeout`.
  void Wait(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(this, &Inbox::HasJobs), timeout);
  }

  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  bool HasJobs() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !jobs_.empty(); }

  absl::Mutex mutex_;
  std::vector<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  std::atomic<size_t> size_{0};
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_INBOX_H_
