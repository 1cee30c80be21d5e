// Coordinators and workers are killed with SIGKILL at every place where the store writes, and at
// random moments, while clients start workflows and workers run them. What was acknowledged must be
// there in the end, done once, and nothing may be stuck.
//
// FLUX_E2E_SEED=N repeats a run's choices (its timing can only be alike); FLUX_LONG=1 kills ten
// times as often: 500 times under load, not 50.
#include <signal.h>

#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/data_dir.h"
#include "store/failpoint.h"
#include "tests/e2e/load.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/workflows.h"

namespace flux::e2e {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kExitStore = 3;

uint64_t Seed() {
  uint64_t seed = 0;
  const char* given = std::getenv("FLUX_E2E_SEED");
  if (given == nullptr || !absl::SimpleAtoi(given, &seed))
    seed = std::random_device()() % 1'000'000;
  std::cout << "seed " << seed << " (FLUX_E2E_SEED to repeat)" << std::endl;
  return seed;
}

bool Long() { return std::getenv("FLUX_LONG") != nullptr; }

class Crash : public EndToEnd {
 protected:
  Crash() {
    // Short, so that executions leave memory and come back, and the log is cut, all the time.
    SetFlags({{"idle-before-eviction", "20ms"},
              {"log-tail-bytes-max", "1MiB"},
              {"cache-bytes-max", "1MiB"}});
  }

  void StartWorkers(int count) {
    for (int i = 0; i < count; ++i)
      StartWorker({.id = absl::StrCat("w", ++worker_number_), .dawdle_ms = 25});
  }

  // Everything ends and is as promised, before and after one more restart.
  void Finish(Load& load) {
    for (auto& [id, worker] : workers_) worker.process().Signal(SIGCONT);
    load.End();
    load.Check(api(), ledger_);
    if (HasFatalFailure()) return;
    EXPECT_EQ(ExitCode(fluxd_.process().Terminate()), 0);
    StartFluxd();
    load.Check(api(), ledger_);
  }

  int worker_number_ = 0;
};

// ---- at every write
// --------------------------------------------------------------------------------------------

class CrashAtWrite : public Crash, public ::testing::WithParamInterface<std::string_view> {
 protected:
  // Which passes of the place to act at: the first, and some under load.
  static std::vector<int> Hits(std::string_view point) {
    if (absl::StartsWith(absl::string_view(point.data(), point.size()), "create_")) return {1};
    if (point.substr(0, 5) == "claim") return {1, 7};
    if (point.substr(0, 10) == "write_sync") return {1, 3};
    if (point.substr(0, 8) == "truncate") return {1, 9};
    if (point.substr(0, 4) == "rows") return {1, 6, 25};
    if (point.substr(0, 6) == "append") return {1, 12, 70};
    if (point == "format_raise" || point == "tail_cut") return {1};
    if (point == "manifest_write" || point == "table_write") return {1, 2};
    return {1, 40, 150};  // the log file itself
  }

  // A directory that has been in use, by a program of the first version: what is passed while it is
  // opened is passed in no new one.
  void MakeOlder() {
    StartFluxd();
    KillFluxd();
    const std::string path = fluxd_.data() + "/FORMAT";
    auto format = store::DecodeDataFormat(ReadFile(path), path);
    ASSERT_TRUE(format.ok()) << format.status();
    format->version = 1;
    WriteFile(path, store::EncodeDataFormat(*format));
  }
};

TEST_P(CrashAtWrite, NothingAcknowledgedIsLostWhenKilledHere) {
  const std::string point(GetParam());
  if (point == "table_write" || point == "format_raise" || point == "tail_cut") {
    ASSERT_NO_FATAL_FAILURE(MakeOlder());
  }
  Load load(fluxd_.target(), 1);
  StartWorkers(2);
  load.Begin(3);
  for (int hit : Hits(point)) {
    SCOPED_TRACE(absl::StrCat(point, ":", hit));
    ASSERT_TRUE(fluxd_.Launch({}, {{"FLUX_FAILPOINT", absl::StrCat(point, ":", hit)}}).ok());
    std::optional<int> ended;
    ASSERT_TRUE(Eventually([&] {
      load.Allow(1);  // for as long as it lives
      ended = fluxd_.process().Wait(absl::Milliseconds(10));
      return ended.has_value();
    })) << "the failpoint was not reached";
    ASSERT_TRUE(WasKilled(ended)) << "status " << *ended;
  }
  StartFluxd();
  ASSERT_TRUE(Eventually([&] { return load.acknowledged() > 0; }));
  Finish(load);
}

// Compactions come seldom under this load; tests/store/crash_test.cc is killed in many.
std::vector<std::string_view> AllButCompactions() {
  std::vector<std::string_view> names = store::Failpoint::Names();
  std::erase_if(names, [](std::string_view name) { return name.starts_with("compaction_"); });
  return names;
}

INSTANTIATE_TEST_SUITE_P(EveryFailpoint, CrashAtWrite, ::testing::ValuesIn(AllButCompactions()),
                         [](const ::testing::TestParamInfo<std::string_view>& point) {
                           return std::string(point.param);
                         });

// A write that fails: nothing more may be promised, so fluxd ends, and a restart has it all.
TEST_F(Crash, AFailedWriteEndsFluxdWithTheReasonAndLosesNothing) {
  Load load(fluxd_.target(), 2);
  StartWorkers(2);
  load.Begin(3);
  load.Allow(5);
  for (const char* point :
       {"write_sync_before_write:2:error", "append_before_write:20:error",
        "append_after_write:20:error", "rows_before_write:5:error", "truncate_before_write:3:error",
        "claim_before_write:5:error", "wal_write:30:error", "wal_write_torn:30:error",
        "wal_sync:30:error", "mark_write:30:error"}) {
    SCOPED_TRACE(point);
    const size_t logged = fluxd_.log().size();
    ASSERT_TRUE(fluxd_.Launch({}, {{"FLUX_FAILPOINT", point}}).ok());
    std::optional<int> ended;
    ASSERT_TRUE(Eventually([&] {
      load.Allow(1);
      ended = fluxd_.process().Wait(absl::Milliseconds(10));
      return ended.has_value();
    })) << "the failpoint was not reached";
    EXPECT_EQ(ExitCode(ended), kExitStore) << "status " << *ended;
    EXPECT_THAT(fluxd_.log().substr(logged), HasSubstr("injected fault"));
  }
  StartFluxd();
  Finish(load);
}

// ---- at random moments
// -----------------------------------------------------------------------------------------

TEST_F(Crash, NothingAcknowledgedIsLostWhenEverythingIsKilledAtRandom) {
  const uint64_t seed = Seed();
  SCOPED_TRACE(absl::StrCat("FLUX_E2E_SEED=", seed));
  std::mt19937_64 random(seed);
  const int kills = Long() ? 500 : 50;
  Load load(fluxd_.target(), seed);
  load.Begin(4);
  StartWorkers(3);
  std::string suspended;
  // Those that struck before anything was acknowledged count as recoveries, not as load.
  const int kills_max = 4 * kills;
  int under_load = 0;
  int kill = 0;
  for (; under_load < kills && kill < kills_max; ++kill) {
    ASSERT_TRUE(fluxd_.Launch().ok());
    load.Allow(12);
    // One in six dies while it is still recovering.
    if (random() % 6 == 0) {
      absl::SleepFor(absl::Milliseconds(random() % 60));
    } else {
      const absl::Status serving = fluxd_.AwaitServing();
      ASSERT_TRUE(serving.ok()) << serving;
      const int before = load.acknowledged();
      // Mostly less than the workers' grace, sometimes more.
      absl::SleepFor(absl::Milliseconds(random() % (random() % 5 == 0 ? 1'200 : 400)));
      under_load += load.acknowledged() > before ? 1 : 0;
    }
    if (random() % 3 == 0) {
      auto victim = workers_.begin();
      std::advance(victim, static_cast<ptrdiff_t>(random() % workers_.size()));
      if (victim->first == suspended) suspended.clear();
      workers_.erase(victim);  // SIGKILL
      StartWorkers(1);
    }
    if (!suspended.empty()) {
      workers_.at(suspended).process().Signal(SIGCONT);
      suspended.clear();
    } else if (random() % 4 == 0) {
      suspended = workers_.rbegin()->first;
      workers_.at(suspended).process().Signal(SIGSTOP);
    }
    fluxd_.Kill();
  }
  EXPECT_EQ(under_load, kills) << "of " << kill << " kills: it was hardly ever under load";
  StartFluxd();
  Finish(load);
  std::cout << load.acknowledged() << " executions through " << kill << " kills, " << under_load
            << " of them under load; " << ledger_.Find({.event = "begin"}).size()
            << " deliveries, of which "
            << ledger_.Find({.event = "begin"}).size() - ledger_.Find({.event = "end"}).size()
            << " died with their worker" << std::endl;
}

}  // namespace
}  // namespace flux::e2e
