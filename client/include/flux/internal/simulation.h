// Internal: runs in process and under a simulated clock, for flux/inline_runner.h and
// flux/testing.h.
#ifndef FLUX_INTERNAL_SIMULATION_H_
#define FLUX_INTERNAL_SIMULATION_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/internal/tracer.h"
#include "flux/outcome.h"
#include "flux/payload.h"
#include "flux/task_set.h"

namespace flux {

// One attempt at a task.
struct TestAttempt {
  std::string workflow_id;
  std::string step;  // its path, as a server has it: "codes[3].parse"
  std::string task;
  uint32_t attempt = 0;
  absl::Duration at;    // when it began, since the start of the run
  std::string failure;  // its type; empty: a value, Skip, or it was cancelled
  std::map<std::string, std::string> labels = {};  // that it set of its step
};

// A step that ended.
struct TestStep {
  std::string workflow_id;
  std::string step;   // its path
  std::string kind;   // "task", "map", …
  std::string state;  // "completed", "skipped", "failed", "cancelled"
  absl::Duration at;  // when it ended, since the start of the run
};

// An event sent by an Emit.
struct TestEmission {
  std::string workflow_id;  // whom it is for
  std::string event;
  Payload value;
  absl::Duration at;  // when it was sent; a Delay() comes on top
};

// An execution that a Child step started.
struct TestChild {
  std::string workflow_id;
  std::string workflow;
  std::string status;  // "running", "completed", …
  absl::Duration started;
  absl::Duration closed;  // unless it is running
};

namespace internal {

// What is to happen to a run. Times are counted from its start.
struct TestScript {
  struct Attempt {
    bool hang = false;  // it never answers
    Failure failure;
  };
  struct Plan {
    std::deque<Attempt> next;  // of the task's next attempts, one after the other
    bool always = false;       // the last of them stands for all that follow
    absl::Duration takes;
  };
  struct Event {
    absl::Duration at;
    std::string workflow_id;  // empty: the run's own
    std::string event;
    Payload value;
  };
  std::map<std::string, Plan> tasks;
  // How long an attempt takes, whatever `tasks` says of it; null: as `tasks` says.
  std::function<absl::Duration(const TestAttempt&)> takes = nullptr;
  std::vector<Event> events;
  absl::Duration cancel_at = absl::InfiniteDuration();
  std::string workflow_id = "test";
  std::string run_id = "test-1";
  // Nothing takes time and steps run in the order they are written; a wait that nothing will end
  // ends as at its timeout.
  bool instant = false;
};

struct TestReport {
  RawOutcome outcome;  // unless stuck
  std::string stuck;   // why nothing more can happen; empty: it closed
  absl::Duration elapsed;
  std::vector<TestAttempt> attempts;
  std::vector<TestStep> steps;
  std::vector<TestEmission> emissions;
  std::vector<TestChild> children;
  std::vector<std::string> undone;  // paths of steps whose undo task ran, in that order
  std::map<std::string, std::string> labels;
};

// Limits of a run.
inline constexpr int kTestChildDepthMax = 50;
inline constexpr uint32_t kTestFrameDepthMax = 512;       // as the server's (kFrameDepthMax)
inline constexpr uint64_t kTestActionsMax = 100'000'000;  // an endless loop ends here

// Runs a workflow to its end, or until nothing more can happen. Deterministic. InvalidArgument: the
// graph is wrong; ResourceExhausted: kTestActionsMax.
absl::StatusOr<TestReport> Simulate(const TaskSet& tasks, const TestScript& script,
                                    const WorkflowSpec& workflow, std::vector<Payload> inputs);
// The same for a definition that was not traced here, as bytes. It must be one that a server takes.
absl::StatusOr<TestReport> SimulateDefinition(const TaskSet& tasks, const TestScript& script,
                                              const std::string& definition_bytes,
                                              std::vector<Payload> inputs);

}  // namespace internal
}  // namespace flux

#endif  // FLUX_INTERNAL_SIMULATION_H_
