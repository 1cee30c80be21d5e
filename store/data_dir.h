// A data directory: what is in it, whose it is, and that nobody else has it open.
//
//   FORMAT     what this directory is: text, written first
//   LOCK       held with flock while open; holds the owner's process id
//   SYNCED     how far the database's files are known to be on disk (store/synced_marks.h)
//   BALLAST    preallocated; given back when the disk is full
//   db/        the RocksDB database
#ifndef FLUX_STORE_DATA_DIR_H_
#define FLUX_STORE_DATA_DIR_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/posix_file.h"

namespace flux::store {

// Raised when a change makes older programs misread what newer ones wrote.
inline constexpr uint32_t kDataFormatVersion = 2;

// The FORMAT file.
struct DataFormat {
  uint32_t version = kDataFormatVersion;
  uint32_t shards = 0;
  uint32_t incarnation = 1;
  std::string created;  // RFC 3339, UTC; for people
};

std::string EncodeDataFormat(const DataFormat& format);
// `path` is for messages. FailedPrecondition: newer than this program. DataLoss: damaged.
absl::StatusOr<DataFormat> DecodeDataFormat(std::string_view bytes, const std::string& path);

// An open data directory; closing it lets the lock go.
class DataDir {
 public:
  // Creates the directory (with parents) if it is missing or empty and `create` is set.
  // NotFound: missing and not to be created. FailedPrecondition: not a directory, not a Flux data
  // directory, open in another process, or of a newer format. PermissionDenied: cannot be written.
  // DataLoss: FORMAT is damaged.
  static absl::StatusOr<DataDir> Open(const std::string& path, uint32_t shards_at_creation,
                                      bool create);

  const std::string& path() const { return path_; }
  std::string db_path() const { return path_ + "/db"; }
  std::string synced_path() const { return path_ + "/SYNCED"; }
  std::string ballast_path() const { return path_ + "/BALLAST"; }
  const DataFormat& format() const { return format_; }

  // Says from now on that this program writes here, so that an older one refuses the directory.
  // Called once everything has been judged, before anything is written. Durable.
  absl::Status RaiseFormat();

 private:
  std::string path_;
  DataFormat format_;
  FileDescriptor lock_;
};

}  // namespace flux::store

#endif  // FLUX_STORE_DATA_DIR_H_
