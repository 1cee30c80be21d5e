#include "store/rocks_env.h"

#include <signal.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

#include "store/failpoint.h"
#include "store/recovery.h"

namespace flux::store {
namespace {

using rocksdb::FileOptions;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

std::string_view FileName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

bool IsTable(std::string_view path) { return path.ends_with(".sst"); }

IOStatus MarkStatus(const absl::Status& status) {
  if (status.ok()) return IOStatus::OK();
  const std::string message(status.message());
  return absl::IsResourceExhausted(status) ? IOStatus::NoSpace(message)
                                           : IOStatus::IOError(message);
}

// A file of which it matters how far it is synced. RocksDB uses it from one thread at a time.
class MarkedFile : public rocksdb::FSWritableFileWrapper {
 public:
  MarkedFile(std::unique_ptr<FSWritableFile> target, SyncedMarks* marks, uint64_t number,
             bool is_wal, bool sync)
      : FSWritableFileWrapper(target.get()),
        owned_(std::move(target)),
        marks_(marks),
        number_(number),
        is_wal_(is_wal),
        sync_(sync) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    IOStatus status = BeforeWrite(data, options, debug);
    if (status.ok()) status = owned_->Append(data, options, debug);
    if (status.ok()) bytes_ += data.size();
    return status;
  }

  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    IOStatus status = BeforeWrite(data, options, debug);
    if (status.ok()) status = owned_->Append(data, options, verification, debug);
    if (status.ok()) bytes_ += data.size();
    return status;
  }

  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return Synced(sync_ ? BeforeSync() : IOStatus::OK(),
                  [&] { return sync_ ? owned_->Sync(options, debug) : IOStatus::OK(); });
  }

  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Synced(sync_ ? BeforeSync() : IOStatus::OK(),
                  [&] { return sync_ ? owned_->Fsync(options, debug) : IOStatus::OK(); });
  }

 private:
  IOStatus BeforeWrite(const Slice& data, const IOOptions& options, IODebugContext* debug) {
    if (!is_wal_) {
      return Failpoint::Hit("manifest_write") ? IOStatus::IOError("injected fault: manifest_write")
                                              : IOStatus::OK();
    }
    if (Failpoint::Hit("wal_write")) return IOStatus::NoSpace("injected fault: wal_write");
    if (Failpoint::Armed("wal_write_torn")) {
      const Slice half(data.data(), data.size() / 2);
      IOStatus status = owned_->Append(half, options, debug);
      if (status.ok()) bytes_ += half.size();
      if (!status.ok()) return status;
    }
    if (Failpoint::Hit("wal_write_torn")) {
      return IOStatus::IOError("injected fault: wal_write_torn");
    }
    return IOStatus::OK();
  }

  IOStatus BeforeSync() {
    if (is_wal_ && Failpoint::Hit("wal_sync")) return IOStatus::IOError("injected fault: wal_sync");
    return IOStatus::OK();
  }

  template <typename SyncCall>
  IOStatus Synced(IOStatus before, SyncCall sync) {
    if (!before.ok()) return before;
    const uint64_t bytes = bytes_;
    IOStatus status = sync();
    if (!status.ok()) return status;
    return MarkStatus(is_wal_ ? marks_->MarkWal({number_, bytes})
                              : marks_->MarkManifest({number_, bytes}));
  }

  const std::unique_ptr<FSWritableFile> owned_;
  SyncedMarks* const marks_;
  const uint64_t number_;
  const bool is_wal_;
  const bool sync_;
  uint64_t bytes_ = 0;
};

// A table file: nothing is noted of it, but it may fail, within compactions and elsewhere.
class TableFile : public rocksdb::FSWritableFileWrapper {
 public:
  explicit TableFile(std::unique_ptr<FSWritableFile> target)
      : FSWritableFileWrapper(target.get()), owned_(std::move(target)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    const IOStatus status = BeforeWrite();
    return status.ok() ? owned_->Append(data, options, debug) : status;
  }

  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    const IOStatus status = BeforeWrite();
    return status.ok() ? owned_->Append(data, options, verification, debug) : status;
  }

 private:
  IOStatus BeforeWrite() {
    // Flushes write at a higher priority.
    const bool compaction = GetIOPriority() == rocksdb::Env::IO_LOW;
    if (compaction && Failpoint::Hit("compaction_write")) {
      return IOStatus::NoSpace("injected fault: compaction_write");
    }
    return Failpoint::Hit("table_write") ? IOStatus::IOError("injected fault: table_write")
                                         : IOStatus::OK();
  }

  const std::unique_ptr<FSWritableFile> owned_;
};

class MarkingFileSystem : public rocksdb::FileSystemWrapper {
 public:
  MarkingFileSystem(SyncedMarks* marks, bool sync_wal)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), marks_(marks), sync_wal_(sync_wal) {}

  const char* Name() const override { return "FluxMarkingFileSystem"; }

  IOStatus NewWritableFile(const std::string& path, const FileOptions& options,
                           std::unique_ptr<FSWritableFile>* result,
                           IODebugContext* debug) override {
    IOStatus status = FileSystemWrapper::NewWritableFile(path, options, result, debug);
    if (!status.ok()) return status;
    const uint64_t wal = WalNumber(FileName(path));
    const uint64_t manifest = ManifestNumber(FileName(path));
    if (wal != 0) {
      *result = std::make_unique<MarkedFile>(std::move(*result), marks_, wal, true, sync_wal_);
    } else if (manifest != 0) {
      *result = std::make_unique<MarkedFile>(std::move(*result), marks_, manifest, false, true);
    } else if (IsTable(path)) {
      *result = std::make_unique<TableFile>(std::move(*result));
    }
    return status;
  }

  IOStatus DeleteFile(const std::string& path, const IOOptions& options,
                      IODebugContext* debug) override {
    const uint64_t wal = WalNumber(FileName(path));
    if (wal != 0) {
      IOStatus status = MarkStatus(marks_->RetireWal(wal));
      if (!status.ok()) return status;
    }
    if (IsTable(path) && Failpoint::Hit("compaction_delete")) {
      return IOStatus::IOError("injected fault: compaction_delete");
    }
    return FileSystemWrapper::DeleteFile(path, options, debug);
  }

 private:
  SyncedMarks* const marks_;
  const bool sync_wal_;
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> NewMarkingFileSystem(SyncedMarks* marks, bool sync_wal) {
  return std::make_shared<MarkingFileSystem>(marks, sync_wal);
}

}  // namespace flux::store
