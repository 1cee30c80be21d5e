#include "store/space.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/posix_file.h"

namespace flux::store {

SpaceWatch::SpaceWatch(SpaceOptions options) : options_(std::move(options)) {
  std::lock_guard<std::mutex> lock(mutex_);
  absl::StatusOr<uint64_t> bytes = FileBytes(options_.ballast_path);
  ballast_held_ = bytes.ok() && *bytes > 0;
}

uint64_t SpaceWatch::Refresh(bool force) {
  const auto now = std::chrono::steady_clock::now();
  if (force || refreshed_ == std::chrono::steady_clock::time_point{} ||
      now - refreshed_ >= options_.cache_for) {
    absl::StatusOr<uint64_t> free = options_.free_bytes();
    // A system that does not say is taken to have room: writes will tell.
    free_bytes_ = free.ok() ? *free : std::numeric_limits<uint64_t>::max();
    refreshed_ = now;
  }
  return free_bytes_;
}

void SpaceWatch::Adjust() {
  std::lock_guard<std::mutex> lock(mutex_);
  Refresh(true);
  AdjustLocked();
}

void SpaceWatch::AdjustLocked() {
  if (ballast_held_) {
    if (free_bytes_ < std::min(options_.reserve_bytes / 4, options_.ballast_bytes)) ReleaseLocked();
  } else if (free_bytes_ / 2 > options_.ballast_bytes &&
             free_bytes_ - 2 * options_.ballast_bytes >= options_.reserve_bytes) {
    MakeLocked();
  }
}

void SpaceWatch::ReleaseBallast() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ballast_held_) ReleaseLocked();
}

void SpaceWatch::ReleaseLocked() {
  ballast_held_ = false;
  if (::truncate(options_.ballast_path.c_str(), 0) != 0) return;
  options_.on_warning(absl::StrCat("the disk is nearly full: gave back ", options_.ballast_bytes,
                                   " bytes of ballast, ", options_.ballast_path,
                                   "; free some space"));
  Refresh(true);
}

void SpaceWatch::MakeLocked() {
  if (options_.ballast_bytes == 0) return;
  absl::StatusOr<FileDescriptor> file = OpenFile(options_.ballast_path, O_WRONLY | O_CREAT);
  if (!file.ok()) return;
  if (::posix_fallocate(file->get(), 0, static_cast<off_t>(options_.ballast_bytes)) != 0) {
    (void)::ftruncate(file->get(), 0);
    return;
  }
  ballast_held_ = true;
  Refresh(true);
}

uint64_t SpaceWatch::FreeBytes() {
  std::lock_guard<std::mutex> lock(mutex_);
  return Refresh(false);
}

bool SpaceWatch::BelowReserve() {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto before = refreshed_;
  Refresh(false);
  if (refreshed_ != before) AdjustLocked();
  return free_bytes_ < options_.reserve_bytes;
}

}  // namespace flux::store
