// Runs a workflow with its task functions in one process, on one thread, under a simulated clock: a
// wait of 48 hours takes a millisecond. For tests of what happens over time, and when things fail.
//
//   flux::testing::TestRun run(tasks);                       // a flux::TaskSet
//   run.FailTimes(kCode, 2, kBusy("try later"));             // its first two attempts
//   run.SendEventAfter(absl::Hours(3), kApproved, true);
//   auto outcome = run.Run(kCodeChart, "chart-17.txt");
//   ASSERT_TRUE(outcome.ok()) << outcome.status();
//   EXPECT_EQ(outcome->pages, 3);
//   EXPECT_EQ(outcome.attempts(kCode), 3);
//   EXPECT_EQ(outcome.elapsed(), absl::Hours(3));
//
// Everything is as on a server: retries wait for their backoff (without its jitter), timeouts and
// sleeps pass, events are there when they are there, children run beside their parent, and what is
// due at the same instant happens in the order it is written. Task functions are called when their
// attempt begins and take no time unless TakesTime() says so; there are always workers enough. An
// event that is emitted to a workflow id which is not part of the run is only noted. Equal scripts
// give equal runs.
#ifndef FLUX_TESTING_H_
#define FLUX_TESTING_H_

#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/error.h"
#include "flux/internal/simulation.h"
#include "flux/task_set.h"
#include "flux/workflow.h"

namespace flux::testing {

// What came of a run. Reads as an absl::StatusOr of the result. A value object; thread-compatible.
template <typename R>
class TestOutcome {
 public:
  using Value = internal::ResultT<R>;

  TestOutcome(absl::StatusOr<Value> result, internal::TestReport report)
      : result_(std::move(result)), report_(std::move(report)) {}

  // The result. A failed run is ToStatus() of its failure, a cancelled one Cancelled; a skipped
  // result is SkippedStatus() (nullopt if the result is optional). FailedPrecondition: nothing more
  // can happen, and why. InvalidArgument: the graph, an argument or the script is wrong.
  const absl::StatusOr<Value>& result() const { return result_; }
  bool ok() const { return result_.ok(); }
  absl::Status status() const { return result_.status(); }
  // ok() must hold.
  const Value& operator*() const { return *result_; }
  const Value* operator->() const { return &*result_; }
  // True if nothing more could happen before the run closed: something waits for an event that
  // nobody sends, or is parked.
  bool stuck() const { return !report_.stuck.empty(); }

  // From its start until it closed (undo tasks included), by the simulated clock.
  absl::Duration elapsed() const { return report_.elapsed; }

  // How often the task was tried, over all its steps.
  template <typename Signature>
  int attempts(const Task<Signature>& task) const {
    int count = 0;
    for (const TestAttempt& attempt : report_.attempts)
      count += attempt.task == task.name() ? 1 : 0;
    return count;
  }
  // In order of their beginning; of children, too.
  const std::vector<TestAttempt>& attempts() const { return report_.attempts; }
  // In order of their end; of children, too.
  const std::vector<TestStep>& steps() const { return report_.steps; }
  // Paths of the steps that completed, in that order.
  std::vector<std::string> order() const {
    std::vector<std::string> paths;
    for (const TestStep& step : report_.steps) {
      if (step.state == "completed") paths.push_back(step.step);
    }
    return paths;
  }
  // "completed", "skipped", "failed" or "cancelled"; empty: the step has not ended.
  std::string state(std::string_view step) const {
    std::string state;
    for (const TestStep& ended : report_.steps) {
      if (ended.step == step) state = ended.state;
    }
    return state;
  }
  // Paths of the steps whose undo task ran, in that order.
  const std::vector<std::string>& undone() const { return report_.undone; }
  const std::vector<TestEmission>& emissions() const { return report_.emissions; }
  // In order of their start.
  const std::vector<TestChild>& children() const { return report_.children; }
  // As tasks set them.
  const std::map<std::string, std::string>& labels() const { return report_.labels; }

 private:
  absl::StatusOr<Value> result_;
  internal::TestReport report_;
};

// A script, and the runs that follow it: each Run() begins anew. Times are counted from the start
// of a run. The tasks must outlive it. Not thread-safe. Limits: children nested to 50;
// continuations that are not in tail position to 512; 100 million actions a run, so that a loop
// which never ends is found out.
class TestRun {
 public:
  explicit TestRun(const TaskSet& tasks) : tasks_(&tasks) {}

  // The next `times` attempts at the task, over all its steps, fail so; its function is not called.
  // Scripts for one task add up: first these, then those. `failure` must not be OK.
  template <typename Signature>
  TestRun& FailTimes(const Task<Signature>& task, int times, const absl::Status& failure) {
    return Plan(task.name(), times, /*hang=*/false, failure);
  }
  // All further attempts fail so.
  template <typename Signature>
  TestRun& FailAlways(const Task<Signature>& task, const absl::Status& failure) {
    Plan(task.name(), 1, /*hang=*/false, failure);
    script_.tasks[std::string(task.name())].always = true;
    return *this;
  }
  // The next `times` attempts never answer, and end by their timeout.
  template <typename Signature>
  TestRun& HangTimes(const Task<Signature>& task, int times) {
    return Plan(task.name(), times, /*hang=*/true, errors::kStartToClose("it hangs"));
  }
  // Each attempt takes so long: the result comes then, unless a timeout comes first.
  template <typename Signature>
  TestRun& TakesTime(const Task<Signature>& task, absl::Duration duration) {
    if (duration < absl::ZeroDuration() || duration == absl::InfiniteDuration()) {
      Refuse(
          absl::InvalidArgumentError("TakesTime() is given a time that is no length of time; "
                                     "HangTimes() is for attempts that never end"));
    }
    script_.tasks[std::string(task.name())].takes = duration;
    return *this;
  }

  // An event from outside, there from the start or coming later; to the run itself, or to a child
  // by its workflow id. It is lost if that has closed.
  template <typename T, typename V>
  TestRun& SendEvent(const Event<T>& event, const V& value) {
    return SendEventAfter(absl::ZeroDuration(), event, value);
  }
  template <typename T, typename V>
  TestRun& SendEventAfter(absl::Duration after, const Event<T>& event, const V& value,
                          std::string_view workflow_id = {}) {
    static_assert(!internal::kIsValue<V>,
                  "flux: an event is sent with a plain value, not with a flux::Value");
    if constexpr (!internal::kIsValue<V>) {
      internal::Argument made = internal::MakeArgument<typename Event<T>::Value>(value);
      Refuse(made.status);
      script_.events.push_back({.at = after,
                                .workflow_id = std::string(workflow_id),
                                .event = std::string(event.name()),
                                .value = std::move(made.literal)});
    }
    return *this;
  }
  TestRun& CancelAfter(absl::Duration after) {
    script_.cancel_at = after;
    return *this;
  }
  // Of the run; "test" unless said otherwise.
  TestRun& WorkflowId(std::string_view workflow_id) {
    script_.workflow_id = std::string(workflow_id);
    return *this;
  }

  template <typename R, typename... P, typename... A>
  TestOutcome<R> Run(const Workflow<R(P...)>& workflow, const A&... arguments) const {
    using Outcome = TestOutcome<R>;
    if (!status_.ok()) return Outcome(status_, {});
    absl::StatusOr<std::vector<Payload>> inputs = workflow.EncodeArguments(arguments...);
    if (!inputs.ok()) return Outcome(inputs.status(), {});
    absl::StatusOr<internal::TestReport> report =
        internal::Simulate(*tasks_, script_, workflow.spec(), *std::move(inputs));
    if (!report.ok()) return Outcome(report.status(), {});
    absl::StatusOr<typename Outcome::Value> result = ResultOf<typename Outcome::Value>(*report);
    return Outcome(std::move(result), *std::move(report));
  }

 private:
  template <typename Result>
  static absl::StatusOr<Result> ResultOf(const internal::TestReport& report) {
    if (!report.stuck.empty()) return absl::FailedPreconditionError(report.stuck);
    switch (report.outcome.kind) {
      case internal::RawOutcome::Kind::kValue:
        return Decode<Result>(report.outcome.value);
      case internal::RawOutcome::Kind::kFailure:
        return ToStatus(report.outcome.failure);
      case internal::RawOutcome::Kind::kSkip:
      case internal::RawOutcome::Kind::kContinue:  // ends as one of the others
        break;
    }
    if constexpr (internal::OptionalTraits<Result>::value) return Result();
    return SkippedStatus("the result of the workflow");
  }

  TestRun& Plan(std::string_view task, int times, bool hang, const absl::Status& failure) {
    if (failure.ok()) {
      Refuse(absl::InvalidArgumentError("a failure of a script is an OK status; give it an error"));
      return *this;
    }
    internal::TestScript::Plan& plan = script_.tasks[std::string(task)];
    for (int i = 0; i < times; ++i) plan.next.push_back({hang, FailureOf(failure)});
    return *this;
  }
  void Refuse(const absl::Status& status) { status_.Update(status); }

  const TaskSet* tasks_;
  internal::TestScript script_;
  absl::Status status_;
};

}  // namespace flux::testing

#endif  // FLUX_TESTING_H_
