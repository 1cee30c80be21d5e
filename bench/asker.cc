#include "bench/asker.h"

#include <grpcpp/grpcpp.h>

#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "bench/shared.h"
#include "proto/bridge.h"

namespace flux::bench {
namespace {

constexpr int kRunsMin = 5;
constexpr int kRunsMax = 1'000;

absl::Status Compare(const v1::ExecutionFilter& filter, uint64_t found, uint64_t expected) {
  if (found == expected) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("{", filter.ShortDebugString(), "} found ", found,
                                          " executions, not ", expected));
}

}  // namespace

absl::StatusOr<v1::ListExecutionsResponse> Asker::List(
    const v1::ListExecutionsRequest& request) const {
  grpc::ClientContext context;
  v1::ListExecutionsResponse response;
  const grpc::Status status = workflows_->ListExecutions(&context, request, &response);
  if (status.ok()) return response;
  return absl::InternalError(absl::StrCat("ListExecutions: ", status.error_message()));
}

absl::StatusOr<Answer> Asker::TimePage(const v1::ListExecutionsRequest& request,
                                       uint64_t expected) const {
  return Repeat([&]() -> absl::Status {
    FLUX_ASSIGN_OR_RETURN(const v1::ListExecutionsResponse page, List(request));
    return Compare(request.filter(), static_cast<uint64_t>(page.executions_size()), expected);
  });
}

absl::StatusOr<Answer> Asker::TimeCount(const std::string& query, uint64_t expected) const {
  v1::CountExecutionsRequest request;
  request.mutable_filter()->set_query(query);
  return Repeat([&]() -> absl::Status {
    grpc::ClientContext context;
    v1::CountExecutionsResponse response;
    const grpc::Status status = workflows_->CountExecutions(&context, request, &response);
    if (!status.ok()) {
      return absl::InternalError(absl::StrCat("CountExecutions: ", status.error_message()));
    }
    return Compare(request.filter(), response.count(), expected);
  });
}

absl::StatusOr<Answer> Asker::Repeat(const std::function<absl::Status()>& ask) const {
  auto latency = std::make_unique<Histogram>();
  const int64_t until_ns = NowNs() + static_cast<int64_t>(seconds_ * 1e9);
  int runs = 0;
  while (runs < kRunsMin || (runs < kRunsMax && NowNs() < until_ns)) {
    const int64_t began = NowNs();
    FLUX_RETURN_IF_ERROR(ask());
    latency->Add(NowNs() - began);
    ++runs;
  }
  const auto counts = latency->Read();
  const auto ms = [&](double share) {
    return std::round(Histogram::QuantileMs(counts, share) * 1e4) / 1e4;
  };
  return Answer{{"p50_ms", ms(0.5)}, {"p99_ms", ms(0.99)}, {"runs", runs}};
}

}  // namespace flux::bench
