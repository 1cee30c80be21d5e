#include "store/wal_scan.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"
#include "store/posix_file.h"

namespace flux::store {
namespace {

static_assert(std::endian::native == std::endian::little, "headers are read in place");

constexpr size_t kBlockBytes = 32 * 1024;
constexpr size_t kHeaderBytes = 7;
constexpr size_t kReadBytes = 32 * kBlockBytes;

// The types that a log without recycling, compression and timestamps has.
enum RecordType : uint8_t { kZero = 0, kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0);
    table[i] = crc;
  }
  return table;
}

uint32_t CrcByTable(uint32_t crc, const char* bytes, size_t size) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  for (size_t i = 0; i < size; ++i) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(bytes[i])) & 0xFF];
  }
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t CrcByInstruction(uint32_t crc, const char* bytes,
                                                            size_t size) {
  uint64_t wide = crc;
  for (; size >= 8; bytes += 8, size -= 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes, sizeof(word));
    wide = _mm_crc32_u64(wide, word);
  }
  crc = static_cast<uint32_t>(wide);
  for (; size > 0; ++bytes, --size) crc = _mm_crc32_u8(crc, static_cast<uint8_t>(*bytes));
  return crc;
}
#endif

uint32_t Unmask(uint32_t masked) { return std::rotl(masked - 0xA282EAD8u, 15); }

bool AllZero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

// Walks a file block by block.
class Scanner {
 public:
  Scanner(int fd, const std::string& path, uint64_t bytes) : fd_(fd), path_(path) {
    scan_.bytes = bytes;
  }

  absl::StatusOr<RecordFileScan> Run() {
    for (uint64_t at = 0; at < scan_.bytes && !stop_; at += kReadBytes) {
      FLUX_ASSIGN_OR_RETURN(std::string bytes, ReadAt(fd_, at, kReadBytes, path_));
      for (size_t block = 0; block < bytes.size() && !stop_; block += kBlockBytes) {
        Block(std::string_view(bytes).substr(block, kBlockBytes), at + block);
      }
    }
    if (!stop_ && in_record_) {
      Stop(RecordFileEnd::kCutShort, scan_.bytes, "the file ends inside a record");
    }
    if (zeros_from_ != 0) FLUX_RETURN_IF_ERROR(LookPastZeros());
    return scan_;
  }

 private:
  void Stop(RecordFileEnd end, uint64_t at, absl::string_view why) {
    stop_ = true;
    scan_.end = end;
    scan_.problem = absl::StrCat(why, " at byte ", at);
  }

  void Block(std::string_view block, uint64_t at) {
    size_t pos = 0;
    while (pos + kHeaderBytes <= kBlockBytes && pos < block.size() && !stop_) {
      const std::string_view rest = block.substr(pos);
      if (rest.size() < kHeaderBytes) {
        if (AllZero(rest)) return Zeros(at + pos);
        return Stop(RecordFileEnd::kCutShort, at + pos, "the file ends inside a record header");
      }
      uint32_t crc = 0;
      uint16_t length = 0;
      std::memcpy(&crc, rest.data(), sizeof(crc));
      std::memcpy(&length, rest.data() + 4, sizeof(length));
      const uint8_t type = static_cast<uint8_t>(rest[6]);
      if (type == kZero && length == 0 && crc == 0) return Zeros(at + pos);
      if (pos + kHeaderBytes + length > kBlockBytes) {
        return Stop(RecordFileEnd::kBad, at + pos, "a record is longer than its block");
      }
      if (rest.size() < kHeaderBytes + length) {
        return Stop(RecordFileEnd::kCutShort, at + pos, "the file ends inside a record");
      }
      if (Crc32c(0, rest.substr(6, 1 + size_t{length})) != Unmask(crc)) {
        return Stop(RecordFileEnd::kBad, at + pos, "a record's checksum does not match");
      }
      const bool begins = type == kFull || type == kFirst;
      if (type < kFull || type > kLast || begins == in_record_) {
        return Stop(RecordFileEnd::kBad, at + pos, "a record is out of place");
      }
      pos += kHeaderBytes + length;
      in_record_ = type == kFirst || type == kMiddle;
      if (!in_record_) {
        scan_.whole_bytes = at + pos;
        ++scan_.records;
      }
    }
    // The last bytes of a block are zero where no header fits.
    if (!stop_ && pos < block.size() && !AllZero(block.substr(pos))) {
      Stop(RecordFileEnd::kBad, at + pos, "the padding of a block is not zero");
    }
  }

  // Zeros where a header should be: the end if nothing follows, else something was erased.
  void Zeros(uint64_t at) {
    stop_ = true;
    zeros_from_ = at + 1;
  }

  absl::Status LookPastZeros() {
    const uint64_t from = zeros_from_ - 1;
    for (uint64_t at = from; at < scan_.bytes; at += kReadBytes) {
      FLUX_ASSIGN_OR_RETURN(std::string bytes, ReadAt(fd_, at, kReadBytes, path_));
      if (AllZero(bytes)) continue;
      Stop(RecordFileEnd::kBad, from, "zero bytes stand in front of other records");
      return absl::OkStatus();
    }
    Stop(RecordFileEnd::kZeros, from, "there are only zero bytes from here to the end");
    return absl::OkStatus();
  }

  const int fd_;
  const std::string& path_;
  RecordFileScan scan_;
  bool in_record_ = false;
  bool stop_ = false;
  uint64_t zeros_from_ = 0;  // offset + 1; 0: none met
};

}  // namespace

uint32_t Crc32c(uint32_t crc, std::string_view bytes) {
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("sse4.2");
  if (fast) return ~CrcByInstruction(~crc, bytes.data(), bytes.size());
#endif
  return ~CrcByTable(~crc, bytes.data(), bytes.size());
}

absl::StatusOr<RecordFileScan> ScanRecordFile(const std::string& path) {
  FLUX_ASSIGN_OR_RETURN(FileDescriptor file, OpenFile(path, O_RDONLY));
  FLUX_ASSIGN_OR_RETURN(uint64_t bytes, FileBytes(path));
  return Scanner(file.get(), path, bytes).Run();
}

}  // namespace flux::store
