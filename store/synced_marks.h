// The SYNCED file: how far the newest write-ahead log and the manifest are known to be on disk.
//
// It is written after every fdatasync of either and not synced itself (except when a new file
// begins), so it costs a microsecond a commit. After a killed process it is exact, because the page
// cache lives on. After a power failure it is a lower bound. Whatever lies below a mark was
// promised to somebody: damage there is data loss, not a torn tail.
#ifndef FLUX_STORE_SYNCED_MARKS_H_
#define FLUX_STORE_SYNCED_MARKS_H_

#include <cstdint>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/posix_file.h"

namespace flux::store {

// A numbered file of the database, and how many of its bytes are synced. Number 0: none.
struct SyncedMark {
  uint64_t number = 0;
  uint64_t bytes = 0;
  bool operator==(const SyncedMark&) const = default;
};

// Thread-safe.
class SyncedMarks {
 public:
  struct State {
    bool known = false;      // false: the file is new or unreadable
    bool same_boot = false;  // written since the machine started
    SyncedMark wal;
    SyncedMark manifest;
  };

  // Opens or creates the file. The state found is in found().
  static absl::StatusOr<std::unique_ptr<SyncedMarks>> Open(const std::string& path);

  const State& found() const { return found_; }

  // `mark.bytes` of that file are synced. Ignored if a newer file has been marked.
  absl::Status MarkWal(SyncedMark mark);
  absl::Status MarkManifest(SyncedMark mark);
  // The write-ahead log is about to be deleted, everything in it being elsewhere; durable when this
  // returns.
  absl::Status RetireWal(uint64_t number);
  // What recovery established, durable when this returns; also makes the marks those of this boot.
  absl::Status Reset(SyncedMark wal, SyncedMark manifest);

 private:
  SyncedMarks(std::string path, FileDescriptor file);

  // mutex_ is held.
  absl::Status Write(bool sync);

  const std::string path_;
  const FileDescriptor file_;
  std::string boot_id_;
  State found_;
  std::mutex mutex_;
  uint64_t sequence_ = 0;
  SyncedMark wal_;
  SyncedMark manifest_;
};

}  // namespace flux::store

#endif  // FLUX_STORE_SYNCED_MARKS_H_
