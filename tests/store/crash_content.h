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
inline std::string CrashImageKey(ShardId shard) { return "image/" + std::to_string(shard); }

}  // namespace flux::store

#endif  // FLUX_TESTS_STORE_CRASH_CONTENT_H_
