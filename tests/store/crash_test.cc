// A process that works on a store is killed with SIGKILL at every place where it writes, and at
// random moments; what it acknowledged must be there afterwards.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>
#include <set>
#include <sstream>

#include "gtest/gtest.h"
#include "store/data_dir.h"
#include "store/failpoint.h"
#include "store/rocks_store.h"
#include "tests/store/crash_content.h"
#include "tests/store/store_testing.h"

namespace flux::store {
namespace {

// What the child said before it died.
struct Ledger {
  std::map<ShardId, Epoch> epochs;
  std::map<ShardId, Lsn> appended;
  std::map<ShardId, Lsn>
      image_before_append;  // row image applied before the last acknowledged append
  std::map<ShardId, Lsn> image;
  std::map<ShardId, Lsn> truncated;
  std::map<ShardId, std::set<Lsn>> passed;  // numbers of passing rows that were deleted
  std::set<std::string> synced;
  size_t lines = 0;

  void Take(const std::string& line) {
    std::istringstream in(line);
    std::string what;
    in >> what;
    ++lines;
    if (what == "S") {
      std::string n;
      in >> n;
      synced.insert(n);
      return;
    }
    ShardId shard = 0;
    uint64_t value = 0;
    in >> shard >> value;
    if (what == "E") epochs[shard] = value;
    if (what == "R") image[shard] = value;
    if (what == "T") truncated[shard] = value;
    if (what == "D") passed[shard].insert(value);
    if (what == "A") {
      appended[shard] = value;
      image_before_append = image;  // one write-ahead log: a sync covers every shard's earlier rows
    }
  }
};

class Child {
 public:
  // Starts the child; it is killed once `lines_max` lines have been read (0: it runs until it dies
  // by itself).
  static int Run(const std::string& directory, const std::string& failpoint, size_t lines_max,
                 Ledger* ledger, int rounds = 60) {
    return Start({directory, std::to_string(rounds)}, failpoint, lines_max, ledger);
  }
  // Starts one that is killed at the failpoint, in a compaction of deleted rows.
  static int RunWithin(const std::string& directory, const std::string& failpoint, Ledger* ledger) {
    return Start({directory, "within", failpoint}, "", 0, ledger);
  }

 private:
  static int Start(std::vector<std::string> arguments, const std::string& failpoint,
                   size_t lines_max, Ledger* ledger) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::string program = FLUX_CRASH_CHILD;
    std::vector<char*> words = {program.data()};
    for (std::string& argument : arguments) words.push_back(argument.data());
    words.push_back(nullptr);
    std::vector<std::string> environment_strings = {"FLUX_FAILPOINT=" + failpoint};
    for (char** variable = environ; *variable != nullptr; ++variable) {
      const std::string text = *variable;
      if (text.rfind("FLUX_FAILPOINT=", 0) != 0) environment_strings.push_back(text);
    }
    std::vector<char*> environment;
    for (std::string& text : environment_strings) environment.push_back(text.data());
    environment.push_back(nullptr);
    pid_t pid = 0;
    EXPECT_EQ(
        ::posix_spawn(&pid, program.c_str(), &actions, nullptr, words.data(), environment.data()),
        0);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    std::string buffer;
    char chunk[4096];
    bool killed = false;
    for (ssize_t got = 0; (got = ::read(ends[0], chunk, sizeof(chunk))) > 0;) {
      buffer.append(chunk, static_cast<size_t>(got));
      for (size_t end = 0; (end = buffer.find('\n')) != std::string::npos;) {
        ledger->Take(buffer.substr(0, end));
        buffer.erase(0, end + 1);
      }
      if (lines_max != 0 && ledger->lines >= lines_max && !killed) {
        killed = true;
        ::kill(pid, SIGKILL);
      }
    }
    ::close(ends[0]);
    int status = 0;
    ::waitpid(pid, &status, 0);
    return status;
  }
};

void Check(const std::string& directory, const Ledger& ledger) {
  RocksOptions options;
  options.path = directory;
  options.shards = kCrashShards;
  options.ballast_bytes = 0;
  options.reserve_bytes = 0;
  auto opened = RocksStore::Open(options);
  ASSERT_TRUE(opened.ok()) << opened.status();
  Store& store = **opened;
  for (ShardId shard = 0; shard < kCrashShards; ++shard) {
    auto claim = store.log().Claim(shard);
    ASSERT_TRUE(claim.ok()) << claim.status();
    if (auto epoch = ledger.epochs.find(shard); epoch != ledger.epochs.end()) {
      EXPECT_GT(claim->epoch, epoch->second) << "shard " << shard;
    }
    if (auto appended = ledger.appended.find(shard); appended != ledger.appended.end()) {
      EXPECT_GE(claim->last_lsn, appended->second) << "shard " << shard << " lost entries";
    }
    // Truncation is not synced, but it never goes further than it was asked to.
    if (ledger.truncated.contains(shard)) {
      EXPECT_GE(claim->last_lsn + 1 - claim->first_lsn, kCrashKept);
    }
    Lsn expected = claim->first_lsn;
    const absl::Status read =
        store.log().Read(shard, claim->first_lsn, [&](Lsn lsn, std::string_view bytes) {
          EXPECT_EQ(lsn, expected++);
          EXPECT_EQ(bytes, CrashEntry(shard, lsn)) << "shard " << shard << " lsn " << lsn;
          return true;
        });
    EXPECT_TRUE(read.ok()) << read;
    EXPECT_EQ(expected, claim->last_lsn + 1);
    // Payload rows are there with each entry, also of entries that were truncated since, and not
    // beyond the log.
    for (Lsn lsn = 1; lsn <= claim->last_lsn; ++lsn) {
      EXPECT_EQ(GetOr(store.rows(), CrashPayloadKey(shard, lsn)), CrashPayload(shard, lsn));
    }
    EXPECT_EQ(GetOr(store.rows(), CrashPayloadKey(shard, claim->last_lsn + 1)), "(none)");
    if (auto image = ledger.image_before_append.find(shard);
        image != ledger.image_before_append.end()) {
      const std::string found = GetOr(store.rows(), CrashImageKey(shard), "0");
      EXPECT_GE(std::stoull(found), image->second) << "shard " << shard << ": an older row image";
    }
  }
  for (const auto& [shard, passed] : ledger.passed) {
    for (Lsn number = *passed.begin(); number < *passed.rbegin(); ++number) {
      for (int row = 0; row < kCrashPassingRows; ++row) {
        const std::string found = GetOr(store.rows(), CrashPassingKey(shard, number, row));
        // They are deleted in order: what was left out lies beside deleted ones.
        EXPECT_TRUE(found ==
                    (passed.contains(number) ? "(none)" : CrashPassing(shard, number, row)))
            << "passing row " << row << " of shard " << shard << ", number " << number;
      }
    }
  }
  for (const std::string& n : ledger.synced) EXPECT_EQ(GetOr(store.rows(), "sync/" + n), n);
}

class StoreCrash : public ::testing::TestWithParam<std::string_view> {};

// As a store of the first version would have left it.
void MakeOlder(const std::string& data) {
  const std::string path = data + "/FORMAT";
  std::ifstream in(path, std::ios::binary);
  auto format = DecodeDataFormat(std::string(std::istreambuf_iterator<char>(in), {}), path);
  ASSERT_TRUE(format.ok()) << format.status();
  format->version = 1;
  std::ofstream(path, std::ios::binary | std::ios::trunc) << EncodeDataFormat(*format);
}

// Which passes of the place to act at.
std::vector<int> Hits(const std::string& point) {
  const auto begins = [&](const char* with) { return point.rfind(with, 0) == 0; };
  if (begins("create_") || point == "format_raise" || point == "tail_cut") return {1};
  if (begins("append_") || begins("wal_")) return {1, 25};
  if (point == "table_write") return {1, 2};  // a table each of the log and the rows
  if (point == "compaction_delete") return {1, 2};
  return {1, 4};
}

TEST_P(StoreCrash, NothingAcknowledgedIsLostWhenKilledHere) {
  const std::string point(GetParam());
  const bool reopening = point == "table_write" || point == "format_raise" || point == "tail_cut";
  for (int hit : Hits(point)) {
    SCOPED_TRACE(point + ":" + std::to_string(hit));
    TempDir directory;
    const std::string data = directory.path() + "/data";
    Ledger ledger;
    if (reopening) {
      ASSERT_EQ(Child::Run(data, "", 0, &ledger, 10), 0);
      MakeOlder(data);
    }
    const std::string failpoint = point + ":" + std::to_string(hit);
    // Within a compaction of deleted rows, and until it is reached.
    const bool within = point.rfind("compaction_", 0) == 0;
    const int status = within ? Child::RunWithin(data, failpoint, &ledger)
                              : Child::Run(data, failpoint, 0, &ledger);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the failpoint was not reached; status " << status;
    EXPECT_EQ(ledger.passed.empty(), !within);
    Check(data, ledger);
    // And once more over what is there.
    Ledger second;
    EXPECT_EQ(Child::Run(data, "", 0, &second, 10), 0);
    second.synced.insert(ledger.synced.begin(), ledger.synced.end());
    second.passed = ledger.passed;
    Check(data, second);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryFailpoint, StoreCrash, ::testing::ValuesIn(Failpoint::Names()),
                         [](const ::testing::TestParamInfo<std::string_view>& point) {
                           return std::string(point.param);
                         });

TEST(StoreRandomCrash, NothingAcknowledgedIsLostWhenKilledAtRandomAgainAndAgain) {
  TempDir directory;
  const std::string data = directory.path() + "/data";
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::set<std::string> synced;
  for (int round = 0; round < 15; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    Ledger ledger;
    Child::Run(data, "", 1 + random() % 400, &ledger);
    synced.insert(ledger.synced.begin(), ledger.synced.end());
    ledger.synced = synced;
    Check(data, ledger);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace flux::store
