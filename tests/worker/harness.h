// What the worker's tests share: tasks, a gate that holds them, options for a scripted coordinator.
#ifndef FLUX_TESTS_WORKER_HARNESS_H_
#define FLUX_TESTS_WORKER_HARNESS_H_

#include <condition_variable>
#include <mutex>
#include <string>
#include <string_view>

#include "flux/worker.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/fake_coordinator.h"

namespace flux::testing {

using Seen = FakeCoordinator::Seen;

inline constexpr Task<int(int)> kDouble{"double"};
inline constexpr Task<int(int)> kBlock{"block"};
inline constexpr Task<std::string(int)> kText{"text"};
inline constexpr ErrorType kBadPage{"bad-page"};

// Holds task functions until a test opens it; counts who is inside.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++inside_;
    ++passed_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    --inside_;
  }
  // False: not within the tests' patience.
  bool AwaitInside(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return inside_ >= count; });
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  int passed() {
    std::lock_guard lock(mutex_);
    return passed_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int inside_ = 0;
  int passed_ = 0;
};

inline WorkerOptions Options(const std::string& target) {
  WorkerOptions options;
  options.target = target;
  options.slots = 2;
  options.prefetch = 1;
  options.id = "tester:1";
  options.drain_timeout = absl::Seconds(20);
  options.handle_signals = false;
  options.log = [](LogLevel, std::string_view) {};
  return options;
}

inline int Double(int n) { return 2 * n; }

}  // namespace flux::testing

#endif  // FLUX_TESTS_WORKER_HARNESS_H_
