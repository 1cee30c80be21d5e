// The files of a data directory that Flux reads itself, before and beside RocksDB.
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <bit>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "store/data_dir.h"
#include "store/synced_marks.h"
#include "store/wal_scan.h"
#include "tests/fuzz/target.h"

namespace flux::fuzz {
namespace {

constexpr size_t kBlockBytes = 32 * 1024;
constexpr size_t kHeaderBytes = 7;

// A file in memory that has a path: one on a disk would be written there for each input.
class Scratch {
 public:
  explicit Scratch(const char* name) : file_(::memfd_create(name, 0)) {
    Require(file_ >= 0, "a file in memory can be made");
    path_ = ToStd(absl::StrCat("/proc/self/fd/", file_));
  }
  ~Scratch() { ::close(file_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::string& path() const { return path_; }
  const std::string& Write(std::string_view bytes) {
    Require(::ftruncate(file_, 0) == 0 && ::pwrite(file_, bytes.data(), bytes.size(), 0) ==
                                              static_cast<ssize_t>(bytes.size()),
            "it can be written");
    return path_;
  }
  std::string Read() const {
    std::string bytes(static_cast<size_t>(::lseek(file_, 0, SEEK_END)), '\0');
    Require(::pread(file_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
            "it can be read");
    return bytes;
  }

 private:
  const int file_;
  std::string path_;
};

// ---- write-ahead logs and manifests ----

uint32_t Masked(uint32_t crc) { return std::rotr(crc, 15) + 0xA282EAD8u; }

std::string Framed(uint8_t type, std::string_view data) {
  std::string record(kHeaderBytes, '\0');
  const auto length = static_cast<uint16_t>(data.size());
  std::memcpy(record.data() + 4, &length, sizeof(length));
  record[6] = static_cast<char>(type);
  record.append(data);
  const uint32_t crc = Masked(store::Crc32c(0, std::string_view(record).substr(6)));
  std::memcpy(record.data(), &crc, sizeof(crc));
  return record;
}

// Whole records, one in three pieces, an empty one.
std::string SomeRecords() {
  std::string bytes = Framed(1, "the first record");
  for (uint8_t type = 2; type <= 4; ++type) bytes += Framed(type, std::string(50, 'p'));
  bytes += Framed(1, "");
  return bytes + Framed(1, std::string(300, 'l'));
}

// The checksums of what can be read as records are made to fit, so that what is behind them is
// reached.
std::string Sealed(std::string bytes) {
  for (size_t pos = 0; pos + kHeaderBytes <= bytes.size();) {
    uint16_t length = 0;
    std::memcpy(&length, bytes.data() + pos + 4, sizeof(length));
    if (pos + kHeaderBytes + length > bytes.size()) break;
    const uint32_t crc =
        Masked(store::Crc32c(0, std::string_view(bytes).substr(pos + 6, size_t{length} + 1)));
    std::memcpy(bytes.data() + pos, &crc, sizeof(crc));
    pos += kHeaderBytes + length;
  }
  return bytes;
}

void Scan(Scratch& scratch, const std::string& bytes) {
  const auto scan = store::ScanRecordFile(scratch.Write(bytes));
  Require(scan.ok(), "a file that can be read is scanned");
  Require(scan->bytes == bytes.size() && scan->whole_bytes <= scan->bytes, "its size is known");
  Require((scan->end == store::RecordFileEnd::kClean) == scan->problem.empty(),
          "what is wrong is said");
  // The whole part alone is whole, whatever followed it.
  const auto again = store::ScanRecordFile(scratch.Write(bytes.substr(0, scan->whole_bytes)));
  Require(again.ok() && again->end == store::RecordFileEnd::kClean &&
              again->whole_bytes == scan->whole_bytes && again->records == scan->records,
          "the whole part alone is clean, and the same");
}

// The first byte says how far before the end of a block the rest begins; 255: at a block's begin.
void RunWal(std::string_view input) {
  static Scratch scratch("wal");
  if (input.empty()) return;
  std::string before;
  if (const auto room = static_cast<uint8_t>(input[0]); room != 255) {
    before = Framed(1, std::string(kBlockBytes - kHeaderBytes - room, 'b'));
  }
  input.remove_prefix(1);
  Scan(scratch, before + std::string(input));
  Scan(scratch, before + Sealed(std::string(input)));
}

// ---- the marks of what is synced ----

constexpr size_t kSlotBytes = 512;
constexpr size_t kSlotSequenceAt = 8;
constexpr size_t kSlotChecksumAt = 88;

void OpenMarks(Scratch& scratch, const std::string& bytes) {
  const std::string& path = scratch.Write(bytes);
  const auto marks = store::SyncedMarks::Open(path);
  Require(marks.ok(), "a damaged file of marks is one without marks");
  const store::SyncedMarks::State found = (*marks)->found();
  Require((*marks)->Reset({7, 1'000}, {3, 500}).ok(), "marks can be written over any others");
  const auto again = store::SyncedMarks::Open(path);
  Require(again.ok() && (*again)->found().known, "and are found");
  Require((*again)->found().wal == store::SyncedMark{7, 1'000} &&
              (*again)->found().manifest == store::SyncedMark{3, 500},
          "as they were written");
  if (!found.known) {
    Require(found.wal == store::SyncedMark{} && found.manifest == store::SyncedMark{},
            "what is not known is nothing");
  }
}

std::string SomeMarks() {
  Scratch scratch("marks-seed");
  const auto marks = store::SyncedMarks::Open(scratch.path());
  Require(marks.ok() && (*marks)->Reset({4, 100}, {2, 50}).ok() && (*marks)->MarkWal({4, 200}).ok(),
          "marks can be written");
  return scratch.Read();
}

void RunMarks(std::string_view input) {
  static Scratch scratch("marks");
  std::string bytes(input);
  OpenMarks(scratch, bytes);
  for (size_t slot = 0; slot + kSlotChecksumAt + sizeof(uint64_t) <= bytes.size();
       slot += kSlotBytes) {
    bytes[slot + kSlotSequenceAt + 7] = 0;  // nothing could come after the greatest there is
    const uint64_t checksum = XXH3_64bits(bytes.data() + slot, kSlotChecksumAt);
    std::memcpy(bytes.data() + slot + kSlotChecksumAt, &checksum, sizeof(checksum));
  }
  OpenMarks(scratch, bytes);
}

// ---- the FORMAT file ----

void RunDataFormat(std::string_view input) {
  const auto format = store::DecodeDataFormat(input, "FORMAT");
  if (!format.ok()) {
    Require(absl::IsDataLoss(format.status()) || absl::IsFailedPrecondition(format.status()),
            "a damaged FORMAT is DataLoss, one of a newer program FailedPrecondition");
    return;
  }
  const auto again = store::DecodeDataFormat(store::EncodeDataFormat(*format), "FORMAT");
  Require(again.ok() && again->version == format->version && again->shards == format->shards &&
              again->incarnation == format->incarnation,
          "what was read is written and read the same");
}

}  // namespace

std::vector<Target> StoreTargets() {
  return {
      {"wal", [](std::string_view) { return std::string(1, '\xff') + SomeRecords(); }, RunWal, {}},
      {"marks", [](std::string_view) { return SomeMarks(); }, RunMarks, {}},
      {"data_format",
       [](std::string_view) {
         return store::EncodeDataFormat({.shards = 64, .created = "2026-01-02T03:04:05Z"});
       },
       RunDataFormat,
       {"\n", "shards", "version", "0", "4294967296", "-1"}},
  };
}

}  // namespace flux::fuzz
