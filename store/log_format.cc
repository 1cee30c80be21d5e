#include "store/log_format.h"

#include <xxhash.h>

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "store/checks.h"

namespace flux::store {
namespace {

static_assert(std::endian::native == std::endian::little, "integers are copied in place");

template <typename T>
void PutBigEndian(char* to, T value) {
  for (size_t i = sizeof(T); i-- > 0; value = static_cast<T>(value >> 8)) {
    to[i] = static_cast<char>(value & 0xFF);
  }
}

template <typename T>
void PutLittleEndian(char* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

template <typename T>
T GetLittleEndian(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

constexpr size_t kNonceAt = 1;
constexpr size_t kLengthAt = 9;
constexpr size_t kChecksumAt = 13;

uint64_t EntryChecksum(ShardId shard, Lsn lsn, const char* header, std::string_view body) {
  std::array<char, kLogKeyBytes + kChecksumAt> context;
  const LogKeyBuffer key = LogKey(shard, lsn);
  std::memcpy(context.data(), key.data(), key.size());
  std::memcpy(context.data() + key.size(), header, kChecksumAt);
  return XXH3_64bits_withSeed(body.data(), body.size(),
                              XXH3_64bits(context.data(), context.size()));
}

constexpr uint8_t kBookkeepingVersion = 1;
constexpr size_t kBookkeepingBytes = 1 + 4 * 8 + 8;

}  // namespace

LogKeyBuffer LogKey(ShardId shard, Lsn lsn) {
  LogKeyBuffer key;
  PutBigEndian<uint32_t>(key.data(), shard);
  PutBigEndian<uint64_t>(key.data() + 4, lsn);
  return key;
}

Lsn LsnOfKey(std::string_view key, ShardId shard) {
  if (key.size() != kLogKeyBytes) return 0;
  const LogKeyBuffer first = LogKey(shard, 0);
  if (std::memcmp(key.data(), first.data(), 4) != 0) return 0;
  Lsn lsn = 0;
  for (size_t i = 4; i < kLogKeyBytes; ++i) lsn = lsn << 8 | static_cast<uint8_t>(key[i]);
  return lsn;
}

EntryHeaderBuffer EntryHeader(ShardId shard, Lsn lsn, uint64_t nonce, std::string_view body) {
  EntryHeaderBuffer header;
  header[0] = static_cast<char>(kEntryVersion);
  PutLittleEndian<uint64_t>(header.data() + kNonceAt, nonce);
  PutLittleEndian<uint32_t>(header.data() + kLengthAt, static_cast<uint32_t>(body.size()));
  PutLittleEndian<uint64_t>(header.data() + kChecksumAt,
                            EntryChecksum(shard, lsn, header.data(), body));
  return header;
}

absl::StatusOr<Entry> DecodeEntry(ShardId shard, Lsn lsn, std::string_view bytes) {
  const auto loss = [&](absl::string_view why) {
    return absl::DataLossError(
        absl::StrCat("shard ", shard, ": log entry ", lsn, " is damaged: ", why));
  };
  if (bytes.empty()) return loss("it is empty");
  const uint8_t version = static_cast<uint8_t>(bytes[0]);
  if (version > kEntryVersion) {
    return absl::DataLossError(absl::StrCat("shard ", shard, ": log entry ", lsn, " has format ",
                                            int{version}, ", newer than this program's ",
                                            int{kEntryVersion}, "; upgrade"));
  }
  if (version == 0) return loss("its format version is 0");
  if (bytes.size() < kEntryHeaderBytes) return loss("it is shorter than its header");
  Entry entry;
  entry.nonce = GetLittleEndian<uint64_t>(bytes.data() + kNonceAt);
  entry.body = bytes.substr(kEntryHeaderBytes);
  const uint32_t length = GetLittleEndian<uint32_t>(bytes.data() + kLengthAt);
  if (length != entry.body.size()) {
    return loss(absl::StrCat("it has ", entry.body.size(), " bytes and says ", length));
  }
  if (GetLittleEndian<uint64_t>(bytes.data() + kChecksumAt) !=
      EntryChecksum(shard, lsn, bytes.data(), entry.body)) {
    return loss("its checksum does not match");
  }
  return entry;
}

std::string BookkeepingKey(ShardId shard) {
  std::string key = "shard/";
  key.resize(key.size() + 4);
  PutBigEndian<uint32_t>(key.data() + key.size() - 4, shard);
  return key;
}

std::string EncodeBookkeeping(ShardId shard, const ShardBookkeeping& bookkeeping) {
  std::string bytes(kBookkeepingBytes, '\0');
  bytes[0] = static_cast<char>(kBookkeepingVersion);
  PutLittleEndian(bytes.data() + 1, bookkeeping.epoch);
  PutLittleEndian(bytes.data() + 9, bookkeeping.first);
  PutLittleEndian(bytes.data() + 17, bookkeeping.seen_last);
  PutLittleEndian(bytes.data() + 25, bookkeeping.seen_nonce);
  PutLittleEndian<uint64_t>(bytes.data() + 33,
                            XXH3_64bits_withSeed(bytes.data(), kBookkeepingBytes - 8, shard));
  return bytes;
}

absl::StatusOr<ShardBookkeeping> DecodeBookkeeping(ShardId shard, std::string_view bytes) {
  if (!bytes.empty() && static_cast<uint8_t>(bytes[0]) > kBookkeepingVersion) {
    return absl::DataLossError(absl::StrCat("shard ", shard, ": its bookkeeping has format ",
                                            int{static_cast<uint8_t>(bytes[0])},
                                            ", newer than this program's; upgrade"));
  }
  if (bytes.size() != kBookkeepingBytes ||
      GetLittleEndian<uint64_t>(bytes.data() + 33) !=
          XXH3_64bits_withSeed(bytes.data(), kBookkeepingBytes - 8, shard)) {
    return absl::DataLossError(
        absl::StrCat("shard ", shard, ": its bookkeeping row (epoch and oldest lsn) is damaged"));
  }
  ShardBookkeeping result;
  result.epoch = GetLittleEndian<uint64_t>(bytes.data() + 1);
  result.first = GetLittleEndian<uint64_t>(bytes.data() + 9);
  result.seen_last = GetLittleEndian<uint64_t>(bytes.data() + 17);
  result.seen_nonce = GetLittleEndian<uint64_t>(bytes.data() + 25);
  return result;
}

std::string ChunkPrefix(std::string_view row_key) {
  std::string prefix;
  prefix.reserve(row_key.size() + 2);
  for (char c : row_key) {
    prefix.push_back(c);
    if (c == '\0') prefix.push_back('\xFF');
  }
  prefix.push_back('\0');
  prefix.push_back('\x01');
  return prefix;
}

std::string ChunkPrefixEnd(std::string_view row_key) {
  std::string end = ChunkPrefix(row_key);
  end.back() = '\x02';
  return end;
}

std::string ChunkKey(std::string_view prefix, uint32_t chunk) {
  std::string key(prefix);
  key.resize(key.size() + 4);
  PutBigEndian<uint32_t>(key.data() + key.size() - 4, chunk);
  return key;
}

std::string ChunkedHead(uint64_t bytes) {
  std::string head(9, kRowChunked);
  PutLittleEndian(head.data() + 1, bytes);
  return head;
}

absl::StatusOr<uint64_t> ChunkedBytes(std::string_view value) {
  if (value.size() != 9 || value[0] != kRowChunked) {
    return absl::DataLossError("the head of a chunked row is damaged");
  }
  const uint64_t bytes = GetLittleEndian<uint64_t>(value.data() + 1);
  if (bytes > kRowBytesMax) {
    return absl::DataLossError(
        absl::StrCat("the head of a chunked row says ", bytes, " bytes, more than any row has"));
  }
  return bytes;
}

}  // namespace flux::store
