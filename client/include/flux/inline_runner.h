// Runs a workflow with its task functions in one process, on one thread, without a server: for unit
// tests.
//
//   flux::TaskSet tasks;
//   tasks.Register(kSplit, …);
//   absl::StatusOr<Report> report = flux::InlineRunner(tasks).Run(kCodeChart, "chart-17.txt");
//
// Steps run one after the other in the order they are written, so that equal inputs give equal
// runs. Nothing takes time: failed attempts are tried again at once, by their policy; sleeps and
// delays are over when they begin; timeouts do not pass. All else is as on a server. Where time
// matters, or failures, see flux/testing.h.
#ifndef FLUX_INLINE_RUNNER_H_
#define FLUX_INLINE_RUNNER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "flux/internal/simulation.h"
#include "flux/task_set.h"
#include "flux/workflow.h"

namespace flux {

// One attempt that a run made.
struct InlineAttempt {
  std::string step;  // its path: "map[3].charts.code" for one in a body
  std::string task;
  uint32_t attempt = 0;
  std::string failure;  // its type; empty: a value or Skip
};

// An event that a run sent to another execution.
struct InlineEmission {
  std::string workflow_id;
  std::string event;
  Payload value;
};

// Cheap to make. The tasks must outlive it. Not thread-safe; may run several workflows in turn.
// Limits: children nested to kChildDepthMax.
class InlineRunner {
 public:
  static constexpr int kChildDepthMax = internal::kTestChildDepthMax;

  explicit InlineRunner(const TaskSet& tasks) : tasks_(&tasks) {}

  // Tells an event to the next run. As on a server, all readers of a name see the first one, and a
  // loop takes one a turn. A step that finds none takes its default, or fails with
  // flux.timeout.event.
  template <typename T, typename V>
  InlineRunner& Tell(const Event<T>& event, const V& value) {
    internal::Argument made = internal::MakeArgument<typename Event<T>::Value>(value);
    status_.Update(made.status);
    script_.events.push_back({.at = absl::ZeroDuration(),
                              .workflow_id = "",
                              .event = std::string(event.name()),
                              .value = std::move(made.literal)});
    return *this;
  }

  // The result. A failed execution is ToStatus() of its failure; one whose result was skipped is
  // SkippedStatus() (nullopt if the result is optional); InvalidArgument: the graph or an argument
  // is wrong; what TaskSet::status() or Tell() complain of.
  template <typename R, typename... P, typename... A>
  absl::StatusOr<internal::ResultT<R>> Run(const Workflow<R(P...)>& workflow,
                                           const A&... arguments) {
    using Result = internal::ResultT<R>;
    absl::StatusOr<std::vector<Payload>> inputs = workflow.EncodeArguments(arguments...);
    if (!inputs.ok()) return inputs.status();
    absl::StatusOr<internal::RawOutcome> outcome = RunRaw(workflow.spec(), *std::move(inputs));
    if (!outcome.ok()) return outcome.status();
    switch (outcome->kind) {
      case internal::RawOutcome::Kind::kValue:
        return Decode<Result>(std::move(outcome->value));
      case internal::RawOutcome::Kind::kFailure:
        return ToStatus(outcome->failure);
      case internal::RawOutcome::Kind::kSkip:
      case internal::RawOutcome::Kind::kContinue:  // ends as one of the others
        break;
    }
    if constexpr (internal::OptionalTraits<Result>::value) return Result();
    return SkippedStatus("the result of the workflow");
  }

  // Of all runs so far, in order.
  const std::vector<InlineAttempt>& attempts() const { return attempts_; }
  const std::vector<InlineEmission>& emissions() const { return emissions_; }

 private:
  absl::StatusOr<internal::RawOutcome> RunRaw(const internal::WorkflowSpec& workflow,
                                              std::vector<Payload> inputs);

  const TaskSet* tasks_;
  absl::Status status_;
  internal::TestScript script_;  // of the next run
  std::vector<InlineAttempt> attempts_;
  std::vector<InlineEmission> emissions_;
  uint64_t runs_ = 0;
};

}  // namespace flux

#endif  // FLUX_INLINE_RUNNER_H_
