// The workloads of flux-bench, each of which starts its own coordinator and worker and answers with
// one JSON object.
#ifndef FLUX_BENCH_WORKLOADS_H_
#define FLUX_BENCH_WORKLOADS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace flux::bench {

struct Options {
  uint32_t in_flight = 1024;
  uint64_t steps = 0;               // 0: the workload's default
  uint64_t executions = 1'000'000;  // list: how many there are
  double seconds = 10;
  uint32_t payload_bytes = 16;
  double ceiling_seconds = 3;  // of the ceiling measured in the same run; 0: none
  bool once = false;           // chain: one round of `in_flight` executions, however long it takes
};

using Answer = nlohmann::ordered_json;

absl::StatusOr<Answer> RunCeiling(const Options& options);
// `in_flight` executions of `steps` sequential tasks each, replaced as they end, for `seconds`.
absl::StatusOr<Answer> RunChain(const Options& options);
// One execution, a map over `steps` items, `in_flight` of them at a time.
absl::StatusOr<Answer> RunMap(const Options& options);
// Starts of one-task executions that no worker serves, `in_flight` unanswered at a time.
absl::StatusOr<Answer> RunStart(const Options& options);
// `steps` executions that sleep for an hour: memory before, while and after; and the time of a
// restart.
absl::StatusOr<Answer> RunIdle(const Options& options);
// `executions` that have closed or sleep, started once; then each kind of query over them, again
// and again for up to `seconds`.
absl::StatusOr<Answer> RunList(const Options& options);

}  // namespace flux::bench

#endif  // FLUX_BENCH_WORKLOADS_H_
