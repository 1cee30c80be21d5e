// What the store's tests share: temporary directories and calls that wait for their completion.
#ifndef FLUX_TESTS_STORE_STORE_TESTING_H_
#define FLUX_TESTS_STORE_STORE_TESTING_H_

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "proto/bridge.h"
#include "store/store.h"

namespace flux::store {

// A directory that goes with the test.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "flux-store-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::vector<AppendResult> AppendAll(Log& log, std::vector<AppendEntry> entries) {
  // Shared, because set_value may still be running when the value is here.
  auto done = std::make_shared<std::promise<std::vector<AppendResult>>>();
  log.Append(std::move(entries),
             [done](std::vector<AppendResult> results) { done->set_value(std::move(results)); });
  return done->get_future().get();
}

inline AppendResult AppendOne(Log& log, ShardId shard, Epoch epoch, Lsn lsn, std::string bytes,
                              std::vector<RowChange> rows = {}) {
  std::vector<AppendEntry> entries(1);
  entries[0] = {shard, epoch, lsn, std::move(bytes), std::move(rows)};
  return AppendAll(log, std::move(entries)).at(0);
}

inline absl::Status WriteRows(Rows& rows, std::vector<RowBatch> batches) {
  auto done = std::make_shared<std::promise<absl::Status>>();
  rows.Write(std::move(batches), [done](const absl::Status& status) { done->set_value(status); });
  return done->get_future().get();
}

inline RowBatch Puts(ShardId shard, Epoch epoch, std::vector<KeyValue> puts) {
  RowBatch batch;
  batch.shard = shard;
  batch.epoch = epoch;
  batch.puts = std::move(puts);
  return batch;
}

inline std::string GetOr(Rows& rows, std::string_view key, std::string otherwise = "(none)") {
  auto value = rows.Get(key);
  EXPECT_TRUE(value.ok()) << value.status();
  if (!value.ok() || !value->has_value()) return otherwise;
  return **value;
}

inline std::vector<std::string> ReadLog(Log& log, ShardId shard, Lsn from, absl::Status* status) {
  std::vector<std::string> entries;
  *status = log.Read(shard, from, [&](Lsn lsn, std::string_view bytes) {
    EXPECT_EQ(lsn, from + entries.size());
    entries.emplace_back(bytes);
    return true;
  });
  return entries;
}

inline std::vector<std::string> ScanKeys(Rows& rows, std::string_view begin, std::string_view end) {
  std::vector<std::string> keys;
  absl::Status status = rows.Scan(begin, end, [&](std::string_view key, std::string_view) {
    keys.emplace_back(key);
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  return keys;
}

// Compresses badly and tells where it came from.
inline std::string Bytes(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
  for (char& c : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    c = static_cast<char>(state >> 56);
  }
  return bytes;
}

}  // namespace flux::store

#endif  // FLUX_TESTS_STORE_STORE_TESTING_H_
