// Named places in the store where a test may kill the process or make an operation fail.
//
//   FLUX_FAILPOINT="append_after_write:7"          SIGKILL at the 7th hit of that place
//   FLUX_FAILPOINT="wal_sync:3:error,wal_write:9"  the 3rd hit fails; the 9th write kills
//
// The environment is read once, at the first hit. A specification that names no known place, or is
// malformed, ends the process with a message: a crash test that arms nothing would pass without
// testing anything.
#ifndef FLUX_STORE_FAILPOINT_H_
#define FLUX_STORE_FAILPOINT_H_

#include <atomic>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace flux::store {

// Static functions only; thread-safe. Costs one relaxed load a hit while nothing is armed.
class Failpoint {
 public:
  // Counts a pass of `name`. Kills the process, or returns true if the caller is to fail here.
  static bool Hit(std::string_view name) {
    return state_.load(std::memory_order_relaxed) != kNothingArmed && HitSlow(name);
  }

  // Whether the next Hit of `name` acts; for what must be prepared before it does.
  static bool Armed(std::string_view name) {
    return state_.load(std::memory_order_relaxed) != kNothingArmed && ArmedSlow(name);
  }

  // Every place there is, for tests that iterate over them.
  static const std::vector<std::string_view>& Names();

  // Arms what the environment variable would, replacing what was armed; "" disarms all. Counting
  // starts anew. InvalidArgument: malformed, or an unknown name (the message lists the known ones);
  // nothing changes.
  static absl::Status Arm(std::string_view specification);

 private:
  static constexpr int kEnvironmentUnread = 0;
  static constexpr int kNothingArmed = 1;
  static constexpr int kArmed = 2;

  static bool HitSlow(std::string_view name);
  static bool ArmedSlow(std::string_view name);
  static void ReadEnvironment();

  static inline std::atomic<int> state_{kEnvironmentUnread};
};

}  // namespace flux::store

#endif  // FLUX_STORE_FAILPOINT_H_
