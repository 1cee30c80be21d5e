// Reads the framing of RocksDB's record files (write-ahead logs and manifests) to tell how far they
// are whole.
//
// RocksDB itself cannot: depending on its recovery mode it either refuses a torn tail, which every
// crash may leave, or drops a cut one silently, acknowledged or not. Format:
// rocksdb/db/log_format.h; 32 KiB blocks of records, each with a header of a masked CRC-32C (4
// bytes), a length (2) and a type (1). docs/STORAGE_FORMAT.md says what was measured.
#ifndef FLUX_STORE_WAL_SCAN_H_
#define FLUX_STORE_WAL_SCAN_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace flux::store {

enum class RecordFileEnd {
  kClean,     // the last record is followed by nothing
  kCutShort,  // the file ends inside a record
  kZeros,     // the last record is followed by nothing but zero bytes
  kBad,       // a record whose bytes are all there is not what was written
};

struct RecordFileScan {
  uint64_t bytes = 0;  // of the file
  uint64_t whole_bytes =
      0;  // up to the end of the last good record of an unbroken run from the beginning
  uint64_t records = 0;
  RecordFileEnd end = RecordFileEnd::kClean;
  std::string problem;  // for people; empty if clean
};

// Reads the file once. Any status is the operating system's refusal; damage is in the result.
absl::StatusOr<RecordFileScan> ScanRecordFile(const std::string& path);

// CRC-32C (Castagnoli) of `bytes`, continuing from `crc`; 0 to begin.
uint32_t Crc32c(uint32_t crc, std::string_view bytes);

}  // namespace flux::store

#endif  // FLUX_STORE_WAL_SCAN_H_
