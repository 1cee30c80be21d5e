// The real clock, threads and background pool behind an Engine; only a main() builds them.
#ifndef FLUX_ENGINE_SERVER_RUNTIME_H_
#define FLUX_ENGINE_SERVER_RUNTIME_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "engine/shard/engine.h"

namespace flux::server {

class SystemClock final : public engine::Clock {
 public:
  int64_t WallMs() const override;
  int64_t MonotonicMs() const override;
};

// A few threads that run jobs in the order they came. Destruction runs what is queued, then joins.
class ThreadPool final : public engine::Background {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  void Run(absl::AnyInvocable<void()> job) override;

 private:
  void Work();

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<absl::AnyInvocable<void()>> jobs_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

// The loop's thread. Starts at construction.
class EngineThread {
 public:
  explicit EngineThread(engine::Engine* engine);
  ~EngineThread();
  // Finishes what is on its way to the disk, for at most `timeout`, and joins. True if all of it
  // got there.
  bool Drain(absl::Duration timeout);

 private:
  void Loop();

  engine::Engine* const engine_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> quiet_{false};
  std::thread thread_;
};

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_RUNTIME_H_
