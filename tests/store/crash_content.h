// What the crash tests' child writes, so that the parent can tell whether it is all there.
#ifndef FLUX_TESTS_STORE_CRASH_CONTENT_H_
#define FLUX_TESTS_STORE_CRASH_CONTENT_H_

#include <string>

#include "store/store.h"

namespace flux::store {

inline constexpr uint32_t kCrashShards = 4;
inline constexpr Lsn kCrashKept = 25;  // entries that truncation leaves

inline std::string CrashEntry(ShardId shard, Lsn lsn) {
  const std::string name = std::to_string(shard) + ":" + std::to_string(lsn) + ";";
  std::string bytes;
  // Sizes from a few bytes to some blocks of the write-ahead log.
  const size_t size = 1 + (lsn * 7919 + shard * 104729) % 3000 + (lsn % 17 == 0 ? 70'000 : 0);
  while (bytes.size() < size) bytes += name;
  return bytes;
}
inline std::string CrashPayloadKey(ShardId shard, Lsn lsn) {
  return "payload/" + std::to_string(shard) + "/" + std::to_string(lsn);
}
inline std::string CrashPayload(ShardId shard, Lsn lsn) {
  return CrashEntry(shard, lsn) + (lsn % 13 == 0 ? std::string(100'000, 'p') : "");
}
// Rows in tables, nearly all of which are then deleted: so many numbers a shard, with some rows
// each.
inline constexpr Lsn kCrashPassing = 96;
inline constexpr int kCrashPassingRows = 3;
inline std::string CrashPassingKey(ShardId shard, Lsn number, int row) {
  return "passing/" + std::to_string(shard) + "/" + std::to_string(1000 + number) + "/" +
         std::to_string(row);
}
inline std::string CrashPassing(ShardId shard, Lsn number, int row) {
  std::string bytes;  // which compression makes no smaller
  for (uint64_t state = number * 7919 + shard * 104729 + static_cast<uint64_t>(row) + 1;
       bytes.size() < (row == 0 ? 90'000 : 10'000);) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    bytes.push_back(static_cast<char>(state >> 56));
  }
  return bytes;
}
inline std::string CrashImageKey(ShardId shard) { return "image/" + std::to_string(shard); }

}  // namespace flux::store

#endif  // FLUX_TESTS_STORE_CRASH_CONTENT_H_
