// Thousands of simulated lives, and the proof that a mistake would be noticed.
#include "tests/sim/simulator.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flux::sim {
namespace {

// Several blocks, so that they run beside each other.
constexpr uint64_t kBlocks = 4;

uint64_t SeedsPerBlock() {
  const bool long_form = std::getenv("FLUX_LONG") != nullptr;
#ifdef FLUX_SANITIZED
  return long_form ? 2'500 : 50;
#else
  return long_form ? 25'000 : 500;
#endif
}

class Seeds : public ::testing::TestWithParam<uint64_t> {};

TEST_P(Seeds, ComeToWhatTheirGraphsSayWhateverHappens) {
  const uint64_t count = SeedsPerBlock();
  uint64_t crashes = 0, deliveries = 0;
  for (uint64_t i = 1; i <= count; ++i) {
    const uint64_t seed = GetParam() * count + i;
    const SimReport report = Simulate({.seed = seed});
    crashes += report.crashes;
    deliveries += report.deliveries;
    EXPECT_TRUE(report.problems.empty()) << "seed " << seed << " with " << report.plan << "\n"
                                         << absl::StrJoin(report.problems, "\n")
                                         << "\nreplay: flux-sim --seed " << seed << " --verbose";
    if (HasFailure()) return;
  }
  // They are no empty runs.
  EXPECT_GT(crashes, count);
  EXPECT_GT(deliveries, 10 * count);
}

INSTANTIATE_TEST_SUITE_P(Blocks, Seeds, ::testing::Range(uint64_t{0}, kBlocks));

// docs/SIMULATION.md says what each was, and what tests it if the generator changes.
TEST(Simulator, SeedsThatFoundMistakesFindNoneAnyMore) {
  for (const uint64_t seed : {2934u, 1645u, 5615u, 11106u, 11521u, 19918u, 50516u, 60501u}) {
    const SimReport report = Simulate({.seed = seed});
    EXPECT_TRUE(report.problems.empty()) << "seed " << seed << "\n"
                                         << absl::StrJoin(report.problems, "\n");
  }
}

TEST(Simulator, EqualSeedsAreEqualRuns) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const SimReport first = Simulate({.seed = seed});
    const SimReport second = Simulate({.seed = seed});
    EXPECT_EQ(first.digest, second.digest) << "seed " << seed;
    EXPECT_EQ(first.simulated_ms, second.simulated_ms) << "seed " << seed;
  }
}

TEST(Simulator, FaultsCanBeNamed) {
  EXPECT_TRUE(CheckOptions({.faults = {"crash-every-ms=500", "power=1000"}}).ok());
  EXPECT_FALSE(CheckOptions({.faults = {"crash-every-ms"}}).ok());
  EXPECT_FALSE(CheckOptions({.faults = {"no-such-fault=1"}}).ok());
  const SimReport quiet = Simulate({.seed = 3, .quiet = true});
  EXPECT_TRUE(quiet.problems.empty());
  EXPECT_EQ(quiet.crashes, 0u);
  const SimReport crashing = Simulate({.seed = 3, .faults = {"crash-every-ms=500"}, .quiet = true});
  EXPECT_GT(crashing.crashes, 2u);
}

class Planted : public ::testing::TestWithParam<BugInfo> {};

// Measured: docs/SIMULATION.md says how many seeds each takes.
TEST_P(Planted, BugIsFoundWithinAThousandSeeds) {
  for (uint64_t seed = 1; seed <= 1'000; ++seed) {
    if (!Simulate({.seed = seed, .bug = GetParam().bug}).problems.empty()) {
      RecordProperty("found_by_seed", absl::StrCat(seed));
      return;
    }
  }
  FAIL() << GetParam().name << " was not found by a thousand seeds";
}

INSTANTIATE_TEST_SUITE_P(Bugs, Planted, ::testing::ValuesIn(Bugs()), [](const auto& bug) {
  std::string name = bug.param.name;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace flux::sim
