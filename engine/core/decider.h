// Decides one command: looks at the execution and answers with records. Private to engine/core.
#ifndef FLUX_ENGINE_CORE_DECIDER_H_
#define FLUX_ENGINE_CORE_DECIDER_H_

#include <algorithm>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/core/core.h"
#include "engine/core/state.h"

namespace flux::engine::internal {

// One overload a command; decide.cc and decide_operator.cc hold the tables.
class Decider {
 public:
  Decider(const ExecutionState& state, NowMs now)
      : s_(state), now_(std::max(now, state.last_time_ms)) {}

  // ---- decide.cc: workers, time, other executions ----
  absl::StatusOr<Decision> operator()(ReportResult&& command);
  absl::StatusOr<Decision> operator()(EndAttempt&& command);
  absl::StatusOr<Decision> operator()(Redeliver&& command);
  absl::StatusOr<Decision> operator()(FireTimers&& command);
  absl::StatusOr<Decision> operator()(Cancel&& command);
  absl::StatusOr<Decision> operator()(Terminate&& command);
  absl::StatusOr<Decision> operator()(SettleOutbox&& command);
  absl::StatusOr<Decision> operator()(ReportChild&& command);

  // ---- decide_operator.cc ----
  absl::StatusOr<Decision> operator()(SendEvent&& command);
  absl::StatusOr<Decision> operator()(CancelEvent&& command);
  absl::StatusOr<Decision> operator()(EditEvent&& command);
  absl::StatusOr<Decision> operator()(ReplayEvent&& command);
  absl::StatusOr<Decision> operator()(Pause&& command);
  absl::StatusOr<Decision> operator()(Resume&& command);
  absl::StatusOr<Decision> operator()(Retry&& command);
  absl::StatusOr<Decision> operator()(Park&& command);
  absl::StatusOr<Decision> operator()(Resolve&& command);
  absl::StatusOr<Decision> operator()(Rewind&& command);

  // ---- migrate.cc ----
  absl::StatusOr<Decision> operator()(Migrate&& command);

 private:
  static Decision Refused(Verdict verdict) {
    Decision decision;
    decision.verdict = verdict;
    return decision;
  }
  static void SetRef(const StepKey& key, v1::StepRef* ref) {
    ref->set_frame(key.frame);
    ref->set_step(key.step);
  }
  v1::Record* Add(Decision* decision) const {
    v1::Record* record = &decision->records.emplace_back();
    record->set_time_ms(now_);
    return record;
  }
  // A result that counts for nothing: told the first time, if its delivery was one of the step's.
  Decision Stale(const StepKey& key, const StepState& step, const ReportResult& command) const;
  // Null: the delivery is not the step's current one, or it is not scheduled.
  const StepState* Current(const StepKey& key, uint64_t delivery) const;
  const v1::TaskStep& Task(const StepKey& key) const {
    return s_.Plan(*s_.FindFrame(key.frame), key.step).task;
  }
  // "execution chart-17 (run …)".
  std::string Name() const;
  // The step's path, quoted.
  std::string PathOf(const StepKey& key) const;
  absl::Status CheckOpen(const char* what) const;
  // A step's state allows what an operator wants of it only while the execution runs.
  absl::Status CheckRunning(const char* what) const;
  // Why a fragment cannot go on beside the graphs there are; "" if it can.
  std::string EventsDisagree(const Graph& fragment) const;
  Decision Completed(const StepKey& key, ReportResult&& command) const;
  Decision Continued(const StepKey& key, const StepState& step, ReportResult&& command) const;
  Decision Failed(const StepKey& key, const StepState& step, v1::Failure failure,
                  v1::Payload progress) const;
  // Readers of the event that took it; in order of (frame, step).
  std::vector<StepKey> WaitsOf(const std::string& event) const;
  // In order of (frame, step).
  std::vector<StepKey> ParkedSteps() const;
  // Is the step in a body of the other, however deep?
  bool LiesIn(const StepKey& step, const StepKey& outer) const;
  void AddReopened(const std::string& identity, const std::string& reason,
                   Decision* decision) const;

  const ExecutionState& s_;
  const NowMs now_;
};

}  // namespace flux::engine::internal

#endif  // FLUX_ENGINE_CORE_DECIDER_H_
