// Asks the index of executions the same thing again and again, and times the answers.
#ifndef FLUX_BENCH_ASKER_H_
#define FLUX_BENCH_ASKER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "bench/workloads.h"
#include "flux/v1/workflow.grpc.pb.h"

namespace flux::bench {

// Blocks; `workflows` must outlive it. Each measurement takes up to `seconds`, and answers with
// {p50_ms, p99_ms, runs}; Internal if a call fails or finds another number than is expected.
class Asker {
 public:
  Asker(v1::WorkflowService::Stub* workflows, double seconds)
      : workflows_(workflows), seconds_(seconds) {}

  absl::StatusOr<v1::ListExecutionsResponse> List(const v1::ListExecutionsRequest& request) const;

  absl::StatusOr<Answer> TimePage(const v1::ListExecutionsRequest& request,
                                  uint64_t expected) const;
  absl::StatusOr<Answer> TimeCount(const std::string& query, uint64_t expected) const;

 private:
  absl::StatusOr<Answer> Repeat(const std::function<absl::Status()>& ask) const;

  v1::WorkflowService::Stub* const workflows_;
  const double seconds_;
};

}  // namespace flux::bench

#endif  // FLUX_BENCH_ASKER_H_
