// An open RocksDB with our options and column families, and the translation of its statuses.
// Included by the store's own .cc files only; RocksDB's types go no further.
#ifndef FLUX_STORE_ROCKS_DATABASE_H_
#define FLUX_STORE_ROCKS_DATABASE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "store/rocks_store.h"
#include "store/synced_marks.h"

namespace flux::store {

// ResourceExhausted (full disk), DataLoss (corruption), PermissionDenied, else Unavailable; `what`
// leads the message.
absl::Status FromRocks(const rocksdb::Status& status, std::string_view what);

// Owns the database; closing waits for its background work.
class RocksDatabase {
 public:
  struct Callbacks {
    std::function<void(std::string)> on_warning;  // set
    std::function<void()> on_disk_full;           // set; from a background thread
  };
  static absl::StatusOr<std::unique_ptr<RocksDatabase>> Open(const RocksOptions& options,
                                                             const std::string& path, bool create,
                                                             SyncedMarks* marks,
                                                             Callbacks callbacks);
  ~RocksDatabase();

  rocksdb::DB* db() const { return db_.get(); }
  rocksdb::ColumnFamilyHandle* bookkeeping() const { return handles_[0]; }
  rocksdb::ColumnFamilyHandle* log() const { return handles_[1]; }
  rocksdb::ColumnFamilyHandle* rows() const { return handles_[2]; }
  rocksdb::ColumnFamilyHandle* chunks() const { return handles_[3]; }

  // Bytes in buffers that are not in table files.
  uint64_t BufferedBytes() const;
  // Starts writing all buffers out; does not wait.
  void StartFlush();

 private:
  RocksDatabase() = default;

  std::shared_ptr<rocksdb::FileSystem> file_system_;
  std::unique_ptr<rocksdb::Env> env_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace flux::store

#endif  // FLUX_STORE_ROCKS_DATABASE_H_
