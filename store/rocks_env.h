// RocksDB's view of the disk: the default one, plus the marks of what is synced and the failpoints
// of crash tests. Included by rocks_store.cc only; RocksDB's types go no further.
#ifndef FLUX_STORE_ROCKS_ENV_H_
#define FLUX_STORE_ROCKS_ENV_H_

#include <memory>

#include "rocksdb/env.h"
#include "rocksdb/file_system.h"
#include "store/synced_marks.h"

namespace flux::store {

// Passes everything on to the default file system. Write-ahead logs and manifests report each sync
// to `marks`, which must outlive it. With `sync_wal` false the write-ahead log is never synced: a
// crash of the machine then loses what was acknowledged (a crash of the process does not).
std::shared_ptr<rocksdb::FileSystem> NewMarkingFileSystem(SyncedMarks* marks, bool sync_wal);

}  // namespace flux::store

#endif  // FLUX_STORE_ROCKS_ENV_H_
