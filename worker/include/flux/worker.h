// Runs task functions for a coordinator.
//
//   int main() {
//     flux::Worker worker({.target = "127.0.0.1:4510", .queue = "nlp", .slots = 8});
//     worker.Register(kCode, [](const Page& page) -> absl::StatusOr<Codes> { … });
//     worker.Register(kSplit, [](flux::TaskContext& context, const std::string& path) { … });
//     absl::Status status = worker.Run();          // until SIGTERM or SIGINT
//     if (!status.ok()) std::cerr << status << '\n';
//     return status.ok() ? 0 : 1;
//   }
//
// A worker keeps one stream to its coordinator and returns to it, for as long as it lives, when it
// breaks: functions go on meanwhile, and a result is kept until the coordinator has acknowledged
// that it is durable. A task may be delivered more than once (after a worker was lost);
// TaskContext::fencing_token() tells deliveries apart.
//
// What a function may end with: a value; an absl::Status (a failure: retried by the task's policy,
// unless its error type is listed as non-retriable); flux::Skip; flux::Continue (flux/continue.h),
// a graph that takes the step's place. An exception is caught and counts as the failure
// "flux.task.exception". Other failures that the worker itself reports, none of them retried unless
// said so:
//   flux.task.unknown       no function of that name is registered
//   flux.task.bad_input     an argument does not decode, or its JSON pointer finds nothing
//   flux.task.bad_result    the result cannot be encoded, or the graph to go on with is wrong
//   flux.payload_too_large  the result is over the coordinator's limit for a payload
#ifndef FLUX_WORKER_H_
#define FLUX_WORKER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "flux/payload.h"
#include "flux/task.h"
#include "flux/task_context.h"
#include "flux/task_set.h"

namespace flux {

namespace internal {
class Session;
}

enum class LogLevel { kInfo, kWarning, kError };

struct WorkerOptions {
  std::string target = "127.0.0.1:4510";  // the coordinator, host:port
  // Of all namespaces: a worker is handed the tasks of any of them that name its queue.
  std::string queue = "default";
  // Tasks that run at one time, each on a thread of its own. 0: one a CPU.
  uint32_t slots = 0;
  // Tasks fetched beyond the slots, so that a slot which falls free need not wait for the network.
  // Unset: as many as the slots finish in about 20 ms, by their recent run time: none for long
  // tasks, up to 2,048 for the shortest.
  std::optional<uint32_t> prefetch = {};
  std::string id = {};  // names the worker to people; empty: host:pid
  // How long a drain waits for functions that run and results that are not acknowledged.
  absl::Duration drain_timeout = absl::Seconds(30);
  bool handle_signals = true;  // Run() drains on SIGTERM and SIGINT; a second one kills as usual
  // Connections lost and found, results refused. Must not call the worker. Unset: warnings and
  // errors go to stderr.
  std::function<void(LogLevel, std::string_view)> log = {};
};

struct WorkerStats {
  uint64_t completed = 0;  // functions that returned a value or Skip
  uint64_t failed = 0;
  uint64_t acknowledged = 0;  // results the coordinator has recorded
  uint64_t refused = 0;       // results it answered with stale or invalid
  uint64_t duplicate_deliveries = 0;
  uint64_t withdrawn = 0;  // deliveries the coordinator took back
  uint64_t released = 0;   // handed back unstarted
  uint64_t connects = 0;   // streams that were welcomed
  uint64_t messages_sent = 0;
  uint64_t messages_received = 0;
  uint64_t queued = 0;          // now
  uint64_t running = 0;         // now
  uint64_t unacknowledged = 0;  // results held, now
};

// Register everything, then Run, or Start and Drain. Thread-safe from Start on; before, it belongs
// to one thread. Limits: slots of 1 to 4,096; slots and prefetch of 80,000 together; 20,000 results
// or 64 MiB of them unacknowledged, above which no new task is taken.
class Worker {
 public:
  explicit Worker(WorkerOptions options);
  // Drains first if it runs, and waits for functions that still run after the drain's timeout.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // One function a task name, as TaskSet::Register takes it; a second one is a mistake that Start
  // reports. Before Start.
  template <typename R, typename... A, typename F>
  Worker& Register(const Task<R(A...)>& task, F function) {
    tasks_.Register(task, std::move(function));
    return *this;
  }
  // All of a set's.
  Worker& Register(const TaskSet& tasks);
  // A function on payloads.
  Worker& RegisterRaw(std::string_view name, internal::TaskHandler function) {
    tasks_.RegisterRaw(name, std::move(function));
    return *this;
  }

  // Starts, blocks until SIGTERM, SIGINT or Stop, then drains. OK: everything that ran was
  // acknowledged. InvalidArgument, Unimplemented, PermissionDenied, Unauthenticated: bad options,
  // or the coordinator refuses this worker; DeadlineExceeded: the drain's timeout passed, the
  // message says what was left; FailedPrecondition: started before. An unreachable coordinator is
  // waited for.
  absl::Status Run();

  // Connects in the background. InvalidArgument: bad options or no task registered;
  // FailedPrecondition: started before.
  absl::Status Start();
  // Makes Run return, after a drain. Returns at once; from any thread. Not from a signal handler.
  void Stop();
  // Takes no new tasks, hands back what has not begun, waits for what runs
  // (TaskContext::cancelled() turns true for what is left at the timeout) and for the
  // acknowledgement of every result, then closes the stream. Status as Run's.
  absl::Status Drain();

  WorkerStats stats() const;

 private:
  WorkerOptions options_;
  TaskSet tasks_;
  std::shared_ptr<internal::Session>
      session_;  // shared with gRPC's callbacks, which may outlive the worker
};

}  // namespace flux

#endif  // FLUX_WORKER_H_
