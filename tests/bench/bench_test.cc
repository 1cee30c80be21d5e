// flux-bench: each workload in its least form answers with every figure it promises.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/e2e/processes.h"

namespace flux::e2e {
namespace {

using Json = nlohmann::json;

// Of what is freed a sanitizer keeps a part, and counts it as the coordinator's.
#ifdef FLUX_SANITIZED
constexpr double kIdleMibMost = 512;
#else
constexpr double kIdleMibMost = 64;
#endif

struct Bound {
  const char* key;
  double at_least;
  double at_most;
};

struct Workload {
  const char* name;
  std::vector<std::string> arguments;
  bool has_worker;
  double in_flight;
  double steps = 0;                       // where it is known; else some
  std::vector<const char*> queries = {};  // each with figures of its own
  std::vector<Bound> bounds = {};         // of figures that are this workload's alone
  const char* form = "";                  // tells two tests of one workload apart
};

class Bench : public ::testing::TestWithParam<Workload> {};

double Number(const Json& answer, const char* key) {
  const auto found = answer.find(key);
  if (found == answer.end() || !found->is_number()) {
    ADD_FAILURE() << "no figure " << key;
    return -1;
  }
  return found->get<double>();
}

TEST_P(Bench, AnswersWithEveryFigure) {
  const Workload& workload = GetParam();
  std::vector<std::string> arguments = {workload.name, "--json", "--ceiling-seconds", "0.3"};
  arguments.insert(arguments.end(), workload.arguments.begin(), workload.arguments.end());
  const Finished finished = RunToEnd(FLUX_BENCH, arguments);
  ASSERT_EQ(finished.exit_code, 0) << finished.log;
  EXPECT_EQ(finished.output.find('\n'), finished.output.size() - 1) << "not one line";
  const Json answer = Json::parse(finished.output, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(answer.is_object()) << finished.output;
  SCOPED_TRACE(finished.output);

  EXPECT_EQ(answer.value("workload", ""), workload.name);
  EXPECT_EQ(Number(answer, "in_flight"), workload.in_flight);
  const double steps = Number(answer, "steps");
  EXPECT_GT(steps, 0);
  if (workload.steps > 0) {
    EXPECT_EQ(steps, workload.steps);
  }
  const double seconds = Number(answer, "seconds");
  EXPECT_GT(seconds, 0);
  EXPECT_LT(seconds, 60);
  const double rate = Number(answer, "steps_per_s");
  EXPECT_NEAR(rate * seconds / steps, 1, 0.05);
  const double p50 = Number(answer, "p50_ms");
  EXPECT_GT(p50, 0);
  EXPECT_GE(Number(answer, "p99_ms"), p50);
  EXPECT_LT(Number(answer, "p99_ms"), 60'000);
  EXPECT_GT(Number(answer, "coordinator_cpu_s_per_million"), 0);
  const double worker = Number(answer, "worker_cpu_s_per_million");
  if (workload.has_worker) {
    EXPECT_GT(worker, 0);
  } else {
    EXPECT_EQ(worker, 0);
  }
  EXPECT_GT(Number(answer, "coordinator_rss_mib"), 1);
  EXPECT_LT(Number(answer, "coordinator_rss_mib"), 4'096);
  EXPECT_GT(Number(answer, "disk_bytes_per_step"), 0);
  const double ceiling = Number(answer, "ceiling_steps_per_s");
  EXPECT_GT(ceiling, 0);
  EXPECT_NEAR(Number(answer, "ratio"), rate / ceiling, 0.002);
  for (const Bound& bound : workload.bounds) {
    SCOPED_TRACE(bound.key);
    EXPECT_GE(Number(answer, bound.key), bound.at_least);
    EXPECT_LE(Number(answer, bound.key), bound.at_most);
  }
  for (const char* query : workload.queries) {
    SCOPED_TRACE(query);
    const Json& figures = answer.value(query, Json::object());
    EXPECT_GE(Number(figures, "runs"), 5);
    EXPECT_GT(Number(figures, "p50_ms"), 0);
    EXPECT_GE(Number(figures, "p99_ms"), Number(figures, "p50_ms"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Each, Bench,
    ::testing::Values(
        Workload{"ceiling", {"--in-flight", "64", "--seconds", "0.3"}, true, 64},
        Workload{"chain", {"--in-flight", "16", "--steps", "20", "--seconds", "0.3"}, true, 16},
        // Long enough that a tenth of it is many times what the figures are read at.
        Workload{.name = "chain",
                 .arguments = {"--in-flight", "1", "--steps", "10000", "--once"},
                 .has_worker = true,
                 .in_flight = 1,
                 .bounds = {{"chain_steps", 10'000, 10'000}, {"last_over_second_tenth", 0.1, 10}},
                 .form = "_once"},
        Workload{.name = "map",
                 .arguments = {"--in-flight", "64", "--steps", "20000"},
                 .has_worker = true,
                 .in_flight = 64,
                 .steps = 20'000,
                 .bounds = {{"items", 20'000, 20'000}, {"bytes_per_item", 1, 10'000}}},
        Workload{"start", {"--in-flight", "64", "--seconds", "0.3"}, false, 64},
        Workload{.name = "idle",
                 .arguments = {"--in-flight", "64", "--steps", "2000"},
                 .has_worker = false,
                 .in_flight = 64,
                 .steps = 2'000,
                 .bounds = {{"executions", 2'000, 2'000},
                            {"resident_executions", 0, 0},
                            {"above_empty_mib", -64, kIdleMibMost},
                            {"restart_s", 0, 2}}},
        Workload{"list",
                 {"--in-flight", "64", "--executions", "3000", "--seconds", "0.1"},
                 false,
                 64,
                 3'000,
                 {"first_page", "deep_page", "label_page", "time_range_page", "kept_count",
                  "label_count", "scanned_count"}}),
    [](const ::testing::TestParamInfo<Workload>& workload) {
      return std::string(workload.param.name) + workload.param.form;
    });

}  // namespace
}  // namespace flux::e2e
