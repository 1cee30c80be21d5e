// What is said of requests that several commands refuse alike, with the way out.
#ifndef FLUX_ENGINE_SHARD_REFUSALS_H_
#define FLUX_ENGINE_SHARD_REFUSALS_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "flux/v1/workflow.pb.h"

namespace flux::engine {

// NotFound. The reference has its namespace filled in.
inline absl::Status NoExecution(const v1::ExecutionRef& ref) {
  return absl::NotFoundError(
      absl::StrCat(ref.run_id().empty()
                       ? absl::StrCat("no execution with workflow id \"", ref.workflow_id(), "\"")
                       : absl::StrCat("no run ", ref.run_id()),
                   " in namespace \"", ref.namespace_(),
                   "\": check both; what has closed is deleted after fluxd's retention"));
}

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_REFUSALS_H_
