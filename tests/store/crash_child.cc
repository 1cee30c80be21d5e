// The process that a crash test kills: works on a store and says on its standard output what was
// acknowledged.
//
//   crash_child DIR ROUNDS
//
// Lines: "E shard epoch" claimed, "A shard lsn" appended, "R shard n" row image n applied, "S n"
// synced row n, "T shard lsn" truncated, "D shard lsn" the passing rows of that entry deleted. Each
// line is one write, so what is read was acknowledged before the process died.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <vector>

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

int Work(const std::string& directory, int rounds) {
  RocksOptions options;
  options.path = directory;
  options.shards = kCrashShards;
  options.ballast_bytes = 1 << 20;
  options.reserve_bytes = 0;
  // Rows reach tables soon, and deleted ones are compacted away again and again.
  options.rows_buffer_bytes = 256 << 10;
  options.reclaim_interval = absl::Milliseconds(5);
  options.reclaim_bytes_min = 128 << 10;
  auto opened = RocksStore::Open(options);
  if (!opened.ok()) Fail(opened.status());
  Store& store = **opened;
  std::vector<ShardClaim> claims;
  for (ShardId shard = 0; shard < kCrashShards; ++shard) {
    auto claim = store.log().Claim(shard);
    if (!claim.ok()) Fail(claim.status());
    claims.push_back(*claim);
    Say("E " + std::to_string(shard) + " " + std::to_string(claim->epoch) + "\n");
  }
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
      for (int row = 0; row < kCrashPassingRows; ++row) {
        image.puts.push_back({CrashPassingKey(shard, lsn, row), CrashPassing(shard, lsn, row)});
      }
      store.rows().Write({image}, [shard, lsn](const absl::Status& status) {
        if (!status.ok()) Fail(status);
        Say("R " + std::to_string(shard) + " " + std::to_string(lsn) + "\n");
      });
      std::vector<AppendEntry> entries(1);
      entries[0] = {shard,
                    claims[shard].epoch,
                    lsn,
                    CrashEntry(shard, lsn),
                    {{CrashPayloadKey(shard, lsn), CrashPayload(shard, lsn)}}};
      store.log().Append(std::move(entries), [shard, lsn](std::vector<AppendResult> results) {
        if (results.at(0).outcome != AppendOutcome::kOk) Fail(results[0].status);
        Say("A " + std::to_string(shard) + " " + std::to_string(lsn) + "\n");
      });
    }
    if (round % 2 == 1) {
      for (ShardId shard = 0; shard < kCrashShards; ++shard) {
        if (next[shard] <= claims[shard].last_lsn + kCrashPassingKept) continue;
        const Lsn lsn = next[shard] - kCrashPassingKept;
        RowBatch passed;
        passed.shard = shard;
        passed.epoch = claims[shard].epoch;
        passed.delete_ranges.emplace_back(CrashPassingKey(shard, lsn, 0),
                                          CrashPassingKey(shard, lsn, kCrashPassingRows));
        store.rows().Write({passed}, [shard, lsn](const absl::Status& status) {
          if (!status.ok()) Fail(status);
          Say("D " + std::to_string(shard) + " " + std::to_string(lsn) + "\n");
        });
      }
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

}  // namespace
}  // namespace flux::store

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return flux::store::Work(argv[1], std::atoi(argv[2]));
}
