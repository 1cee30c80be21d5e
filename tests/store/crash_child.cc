// The process that a crash test kills: works on a store and says on its standard output what was
// acknowledged.
//
//   crash_child DIR ROUNDS
//   crash_child DIR within FAILPOINT    until it is killed in a compaction of deleted rows
//
// Lines: "E shard epoch" claimed, "A shard lsn" appended, "R shard n" row image n applied, "S n"
// synced row n, "T shard lsn" truncated, "D shard n" the passing rows of that number deleted,
// synced. Each line is one write, so what is read was acknowledged before the process died.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "store/failpoint.h"
#include "store/rocks_store.h"
#include "tests/store/crash_content.h"

namespace flux::store {
namespace {

void Say(const std::string& line) {
  if (::write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::_Exit(4);
  }
}

[[noreturn]] void Fail(const absl::Status& status) {
  std::fprintf(stderr, "crash_child: %s\n", std::string(status.message()).c_str());
  std::_Exit(3);
}

RocksOptions Options(const std::string& directory) {
  RocksOptions options;
  options.path = directory;
  options.shards = kCrashShards;
  options.ballast_bytes = 1 << 20;
  options.reserve_bytes = 0;
  return options;
}

std::unique_ptr<RocksStore> Open(const RocksOptions& options) {
  auto opened = RocksStore::Open(options);
  if (!opened.ok()) Fail(opened.status());
  return *std::move(opened);
}

std::vector<ShardClaim> ClaimAll(Store& store) {
  std::vector<ShardClaim> claims;
  for (ShardId shard = 0; shard < kCrashShards; ++shard) {
    auto claim = store.log().Claim(shard);
    if (!claim.ok()) Fail(claim.status());
    claims.push_back(*claim);
    Say("E " + std::to_string(shard) + " " + std::to_string(claim->epoch) + "\n");
  }
  return claims;
}

void Append(Store& store, ShardId shard, const ShardClaim& claim, Lsn lsn) {
  std::vector<AppendEntry> entries(1);
  entries[0] = {shard,
                claim.epoch,
                lsn,
                CrashEntry(shard, lsn),
                {{CrashPayloadKey(shard, lsn), CrashPayload(shard, lsn)}}};
  store.log().Append(std::move(entries), [shard, lsn](std::vector<AppendResult> results) {
    if (results.at(0).outcome != AppendOutcome::kOk) Fail(results[0].status);
    Say("A " + std::to_string(shard) + " " + std::to_string(lsn) + "\n");
  });
}

int Work(const std::string& directory, int rounds) {
  RocksOptions options = Options(directory);
  // So that rows reach tables soon, and tables are compacted.
  options.rows_buffer_bytes = 256 << 10;
  const std::unique_ptr<RocksStore> opened = Open(options);
  Store& store = *opened;
  const std::vector<ShardClaim> claims = ClaimAll(store);
  std::vector<Lsn> next;
  for (const ShardClaim& claim : claims) next.push_back(claim.last_lsn + 1);
  const auto drain = [&store] {
    auto drained = std::make_shared<std::promise<void>>();
    store.rows().Write({}, [drained](const absl::Status&) { drained->set_value(); });
    drained->get_future().wait();
  };
  for (int round = 0; round < rounds; ++round) {
    for (ShardId shard = 0; shard < kCrashShards; ++shard) {
      const Lsn lsn = next[shard]++;
      RowBatch image;
      image.shard = shard;
      image.epoch = claims[shard].epoch;
      image.puts.push_back({CrashImageKey(shard), std::to_string(lsn)});
      store.rows().Write({image}, [shard, lsn](const absl::Status& status) {
        if (!status.ok()) Fail(status);
        Say("R " + std::to_string(shard) + " " + std::to_string(lsn) + "\n");
      });
      Append(store, shard, claims[shard], lsn);
    }
    const ShardId shard = static_cast<ShardId>(round) % kCrashShards;
    if (round % 3 == 2) {
      RowBatch batch;
      batch.shard = shard;
      batch.epoch = claims[shard].epoch;
      const std::string n = std::to_string(next[0]);
      batch.puts.push_back({"sync/" + n, n});
      absl::Status status = store.rows().WriteSync(batch);
      if (!status.ok()) Fail(status);
      Say("S " + n + "\n");
    }
    if (round % 4 == 3) {
      // With nothing else queued, so that the rows are written by themselves, unsynced.
      drain();
      RowBatch batch;
      batch.shard = shard;
      batch.epoch = claims[shard].epoch;
      batch.puts.push_back({"alone", std::to_string(round)});
      store.rows().Write({batch}, [](const absl::Status& status) {
        if (!status.ok()) Fail(status);
      });
      drain();
    }
    if (round % 5 == 4 && next[shard] > kCrashKept + 1) {
      const Lsn through = next[shard] - 1 - kCrashKept;
      absl::Status status = store.log().Truncate(shard, claims[shard].epoch, through);
      if (!status.ok()) Fail(status);
      Say("T " + std::to_string(shard) + " " + std::to_string(through) + "\n");
    }
  }
  drain();
  return 0;
}

// The bytes of files in the database that end so.
uint64_t FileBytes(const std::string& directory, const std::string& extension) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(directory + "/db", error)) {
    std::error_code gone;
    const uint64_t size = file.file_size(gone);
    if (!gone && file.path().extension() == extension) bytes += size;
  }
  return bytes;
}

// Of the passing rows nearly all are deleted once they lie in tables and nothing else goes on: the
// next compaction is one of deleted rows, with appends beside it.
int WorkWithin(const std::string& directory, const std::string& failpoint) {
  RocksOptions options = Options(directory);
  options.idle_flush_after = absl::Milliseconds(20);
  options.reclaim_interval = absl::Milliseconds(5);
  options.reclaim_bytes_min = 1 << 20;
  const std::unique_ptr<RocksStore> store = Open(options);
  const std::vector<ShardClaim> claims = ClaimAll(*store);
  uint64_t bytes = 0;
  for (Lsn number = 1; number <= kCrashPassing; ++number) {
    for (ShardId shard = 0; shard < kCrashShards; ++shard) {
      RowBatch rows;
      rows.shard = shard;
      rows.epoch = claims[shard].epoch;
      for (int row = 0; row < kCrashPassingRows; ++row) {
        rows.puts.push_back(
            {CrashPassingKey(shard, number, row), CrashPassing(shard, number, row)});
        bytes += rows.puts.back().value.size();
      }
      if (absl::Status status = store->rows().WriteSync(rows); !status.ok()) Fail(status);
    }
  }
  while (FileBytes(directory, ".sst") < bytes || FileBytes(directory, ".log") > bytes / 100) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (absl::Status status = Failpoint::Arm(failpoint); !status.ok()) Fail(status);
  for (Lsn number = 1; number <= kCrashPassing; ++number) {
    if (number % 8 == 0) continue;
    for (ShardId shard = 0; shard < kCrashShards; ++shard) {
      RowBatch rows;
      rows.shard = shard;
      rows.epoch = claims[shard].epoch;
      rows.delete_ranges.emplace_back(CrashPassingKey(shard, number, 0),
                                      CrashPassingKey(shard, number, kCrashPassingRows));
      if (absl::Status status = store->rows().WriteSync(rows); !status.ok()) Fail(status);
      Say("D " + std::to_string(shard) + " " + std::to_string(number) + "\n");
    }
  }
  for (Lsn more = 1;; ++more) {
    for (ShardId shard = 0; shard < kCrashShards; ++shard) {
      Append(*store, shard, claims[shard], claims[shard].last_lsn + more);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace
}  // namespace flux::store

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[2]) == "within") {
    return flux::store::WorkWithin(argv[1], argv[3]);
  }
  if (argc != 3) return 2;
  return flux::store::Work(argv[1], std::atoi(argv[2]));
}
