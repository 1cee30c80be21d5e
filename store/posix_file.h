// The few file operations the store does itself, with statuses that name the file and the way out.
#ifndef FLUX_STORE_POSIX_FILE_H_
#define FLUX_STORE_POSIX_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace flux::store {

// What errno `error` means for `what` (e.g. "write /data/FORMAT"): PermissionDenied (not ours, or a
// read-only file system), ResourceExhausted (full disk, quota), NotFound, FailedPrecondition (not a
// directory), else Unavailable.
absl::Status ErrnoStatus(int error, std::string_view what);

// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

absl::StatusOr<FileDescriptor> OpenFile(const std::string& path, int flags);
absl::Status WriteAt(int fd, std::string_view bytes, uint64_t offset, const std::string& path);
// Up to `bytes_max` from `offset`; shorter only at the end of the file.
absl::StatusOr<std::string> ReadAt(int fd, uint64_t offset, size_t bytes_max,
                                   const std::string& path);
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t bytes_max);
absl::Status SyncFile(int fd, const std::string& path);
absl::Status SyncDirectory(const std::string& path);
// Cuts the file and makes that durable.
absl::Status TruncateFile(const std::string& path, uint64_t bytes);
// Replaces `path` by `bytes`: the old content or the new is there after a crash, and the new once
// this returns OK.
absl::Status ReplaceFile(const std::string& path, std::string_view bytes);
absl::StatusOr<uint64_t> FileBytes(const std::string& path);
// Free bytes for us on the file system that holds `path`.
absl::StatusOr<uint64_t> FreeBytes(const std::string& path);

}  // namespace flux::store

#endif  // FLUX_STORE_POSIX_FILE_H_
