// Keys and values as the store lays them out in its column families. docs/STORAGE_FORMAT.md
// describes the same.
#ifndef FLUX_STORE_LOG_FORMAT_H_
#define FLUX_STORE_LOG_FORMAT_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/store.h"

namespace flux::store {

// ---- column family "log": one value a commit
// ------------------------------------------------------------------

inline constexpr uint8_t kEntryVersion = 1;
// version (1), nonce (8), length of the body (4), checksum (8); integers little-endian.
inline constexpr size_t kEntryHeaderBytes = 21;
inline constexpr size_t kLogKeyBytes = 12;

using LogKeyBuffer = std::array<char, kLogKeyBytes>;
using EntryHeaderBuffer = std::array<char, kEntryHeaderBytes>;

// Big-endian shard (4), big-endian lsn (8): an entry sorts after its predecessor.
LogKeyBuffer LogKey(ShardId shard, Lsn lsn);
// 0 if `key` is not a log key of this shard.
Lsn LsnOfKey(std::string_view key, ShardId shard);

// The checksum is the XXH3-64 of the body, seeded with the XXH3-64 of (key, version, nonce,
// length): an entry that turns up under another key, or under another header, does not verify.
EntryHeaderBuffer EntryHeader(ShardId shard, Lsn lsn, uint64_t nonce, std::string_view body);

struct Entry {
  uint64_t nonce = 0;
  std::string_view body;  // into the bytes decoded
};
// DataLoss: cut short, checksum, or a newer version; names shard and lsn.
absl::StatusOr<Entry> DecodeEntry(ShardId shard, Lsn lsn, std::string_view bytes);

// ---- column family "default": where each shard stands
// ----------------------------------------------------------

struct ShardBookkeeping {
  Epoch epoch = 0;
  Lsn first = 1;
  // The last entry when this was written; the log must not end before it.
  Lsn seen_last = 0;
  uint64_t seen_nonce = 0;
};
std::string BookkeepingKey(ShardId shard);
std::string EncodeBookkeeping(ShardId shard, const ShardBookkeeping& bookkeeping);
absl::StatusOr<ShardBookkeeping> DecodeBookkeeping(ShardId shard, std::string_view bytes);

// ---- column families "rows" and "chunks"
// -------------------------------------------------------------------------

// A row's value begins with one of these.
inline constexpr char kRowInline = 0;  // the value follows
inline constexpr char kRowChunked =
    1;  // its length (8, little-endian) follows; the bytes are in "chunks"
inline constexpr size_t kChunkBytes = kRowValueBytesMax;

// Chunks have a column family of their own, so that no row key can collide with one and no scan
// meets one. Their keys keep the rows' order and none is a prefix of another: a range of rows is a
// range of chunks. The row key with 00 written as 00 FF, then 00 01.
std::string ChunkPrefix(std::string_view row_key);
// The least key greater than every chunk of that row.
std::string ChunkPrefixEnd(std::string_view row_key);
// The prefix, then the chunk's number (4, big-endian).
std::string ChunkKey(std::string_view prefix, uint32_t chunk);

std::string ChunkedHead(uint64_t bytes);
// The length in a chunked row's value; DataLoss if it is not one.
absl::StatusOr<uint64_t> ChunkedBytes(std::string_view value);

}  // namespace flux::store

#endif  // FLUX_STORE_LOG_FORMAT_H_
