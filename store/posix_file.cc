#include "store/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::store {

absl::Status ErrnoStatus(int error, std::string_view what) {
  const std::string message = absl::StrCat("cannot ", ToAbsl(what), ": ", std::strerror(error));
  switch (error) {
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(message, "; check its owner and mode, or choose another directory"));
    case EROFS:
      return absl::PermissionDeniedError(
          absl::StrCat(message, "; the directory must be on a file system that can be written"));
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(absl::StrCat(message, "; free some space"));
    case ENOENT:
      return absl::NotFoundError(message);
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
      return absl::FailedPreconditionError(message);
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(message);
    default:
      return absl::UnavailableError(message);
  }
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

absl::StatusOr<FileDescriptor> OpenFile(const std::string& path, int flags) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoStatus(errno, "open " + path);
  return FileDescriptor(fd);
}

absl::Status WriteAt(int fd, std::string_view bytes, uint64_t offset, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write " + path);
    }
    bytes.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadAt(int fd, uint64_t offset, size_t bytes_max,
                                   const std::string& path) {
  std::string bytes(bytes_max, '\0');
  size_t have = 0;
  while (have < bytes_max) {
    const ssize_t got =
        ::pread(fd, bytes.data() + have, bytes_max - have, static_cast<off_t>(offset + have));
    if (got < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "read " + path);
    }
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t bytes_max) {
  FLUX_ASSIGN_OR_RETURN(FileDescriptor file, OpenFile(path, O_RDONLY));
  return ReadAt(file.get(), 0, bytes_max, path);
}

absl::Status SyncFile(int fd, const std::string& path) {
  if (::fsync(fd) != 0) return ErrnoStatus(errno, "sync " + path);
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  FLUX_ASSIGN_OR_RETURN(FileDescriptor directory, OpenFile(path, O_RDONLY | O_DIRECTORY));
  return SyncFile(directory.get(), path);
}

absl::Status TruncateFile(const std::string& path, uint64_t bytes) {
  FLUX_ASSIGN_OR_RETURN(FileDescriptor file, OpenFile(path, O_RDWR));
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, "cut " + path);
  }
  return SyncFile(file.get(), path);
}

absl::Status ReplaceFile(const std::string& path, std::string_view bytes) {
  const std::string temporary = path + ".tmp";
  {
    FLUX_ASSIGN_OR_RETURN(FileDescriptor file, OpenFile(temporary, O_WRONLY | O_CREAT | O_TRUNC));
    FLUX_RETURN_IF_ERROR(WriteAt(file.get(), bytes, 0, temporary));
    FLUX_RETURN_IF_ERROR(SyncFile(file.get(), temporary));
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoStatus(errno, "rename " + temporary + " to " + path);
  }
  return SyncDirectory(std::filesystem::path(path).parent_path().string());
}

absl::StatusOr<uint64_t> FileBytes(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "look at " + path);
  return static_cast<uint64_t>(info.st_size);
}

absl::StatusOr<uint64_t> FreeBytes(const std::string& path) {
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0)
    return ErrnoStatus(errno, "ask the free space of " + path);
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

}  // namespace flux::store
