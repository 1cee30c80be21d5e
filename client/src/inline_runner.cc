#include "flux/inline_runner.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux {

absl::StatusOr<internal::RawOutcome> InlineRunner::RunRaw(const internal::WorkflowSpec& workflow,
                                                          std::vector<Payload> inputs) {
  FLUX_RETURN_IF_ERROR(status_);
  internal::TestScript script = std::exchange(script_, {});
  script.instant = true;
  script.workflow_id = "inline";
  script.run_id = absl::StrCat("inline-", ++runs_);
  FLUX_ASSIGN_OR_RETURN(internal::TestReport report,
                        internal::Simulate(*tasks_, script, workflow, std::move(inputs)));
  for (TestAttempt& attempt : report.attempts) {
    attempts_.push_back({std::move(attempt.step), std::move(attempt.task), attempt.attempt,
                         std::move(attempt.failure)});
  }
  for (TestEmission& emission : report.emissions) {
    emissions_.push_back(
        {std::move(emission.workflow_id), std::move(emission.event), std::move(emission.value)});
  }
  // Waits end by themselves here, so that nothing but a mistake of ours leaves a run stuck.
  if (!report.stuck.empty()) return absl::InternalError(report.stuck);
  return std::move(report.outcome);
}

}  // namespace flux
