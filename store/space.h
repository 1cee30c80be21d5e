// Watches the free space under a data directory, and holds a ballast file to give back when there
// is none left.
#ifndef FLUX_STORE_SPACE_H_
#define FLUX_STORE_SPACE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace flux::store {

struct SpaceOptions {
  std::string ballast_path;
  uint64_t reserve_bytes = 0;
  uint64_t ballast_bytes = 0;
  // How long an answer of the operating system is good for.
  std::chrono::milliseconds cache_for{100};
  std::function<absl::StatusOr<uint64_t>()> free_bytes;
  std::function<void(std::string)> on_warning;
};

// Thread-safe. Calls may ask the operating system, never the disk (but for making the ballast).
class SpaceWatch {
 public:
  explicit SpaceWatch(SpaceOptions options);

  // Makes the ballast if there is room for it beside the reserve, and gives it back if there is
  // next to none.
  void Adjust();
  // Free space, at most `cache_for` old; the ballast does not count as free.
  uint64_t FreeBytes();
  // Also lets the ballast go when the space is nearly gone, and restores it when there is plenty.
  bool BelowReserve();
  // The disk is full: gives the ballast's space back at once.
  void ReleaseBallast();

 private:
  // mutex_ is held.
  uint64_t Refresh(bool force);
  void AdjustLocked();
  void ReleaseLocked();
  void MakeLocked();

  const SpaceOptions options_;
  std::mutex mutex_;
  uint64_t free_bytes_ = 0;
  bool ballast_held_ = false;
  std::chrono::steady_clock::time_point refreshed_{};
};

}  // namespace flux::store

#endif  // FLUX_STORE_SPACE_H_
