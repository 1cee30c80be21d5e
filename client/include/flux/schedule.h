// Workflows that are started by the clock.
//
//   flux::Schedules schedules(client);
//   absl::Status made = schedules.Create("nightly", kReport,
//       {.times = {.crons = {"30 2 * * *"}, .time_zone = "Europe/Berlin"}}, "all");
//   absl::StatusOr<flux::ScheduleInfo> now = schedules.Get("nightly");    // now->next, now->recent
//
// Each start is an execution with the workflow id PREFIX-TIME, such as
// nightly-2025-01-31T01:30:00Z, and the labels flux.schedule and flux.schedule_time. It follows the
// newest definition of the workflow's name, unless a version is given: a new one that takes other
// arguments makes its starts fail, visibly, until the schedule is updated.
//
// A coordinator that was down makes up for the times it missed, as far back as the catch-up window;
// no time is started twice. The status of a call tells what went wrong:
//   InvalidArgument    the times, the start or an id; the message names the field and the way out
//   NotFound           no such schedule, or no such workflow
//   AlreadyExists      the schedule id is taken
//   Aborted            Update: somebody changed it since `revision`; read it again
//   ResourceExhausted  a limit, or a full disk
//   Unavailable        the coordinator could not be reached until the client's deadline
#ifndef FLUX_SCHEDULE_H_
#define FLUX_SCHEDULE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "flux/client.h"
#include "flux/payload.h"
#include "flux/workflow.h"

namespace flux {

// What to do when a time has come and the run started before is still open.
enum class ScheduleOverlap {
  kDefault = 0,         // skip; Trigger: the schedule's own; Backfill: kBufferAll
  kSkip = 1,            // this time is not started
  kBufferOne = 2,       // it waits until that run has closed, unless one waits already
  kBufferAll = 3,       // it waits, behind others that wait
  kCancelOther = 4,     // that run is cancelled; this one starts once it has closed
  kTerminateOther = 5,  // the same without clean-up
  kAllowAll = 6,        // it starts beside it
};

// Every so long, counted from 1970-01-01T00:00:00Z plus the offset.
struct ScheduleInterval {
  absl::Duration every;  // at least a second
  absl::Duration offset = absl::ZeroDuration();
};

// Every time that one of the expressions or intervals gives; at least one of them.
struct ScheduleTimes {
  // Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly.
  std::vector<std::string> crons = {};
  std::vector<ScheduleInterval> intervals = {};
  std::string time_zone = {};                    // of the expressions: an IANA name; empty: UTC
  absl::Time start = absl::InfinitePast();       // none before it
  absl::Time end = absl::InfiniteFuture();       // none after it
  absl::Duration jitter = absl::ZeroDuration();  // each start is delayed by a part of this
};

struct ScheduleOptions {
  ScheduleTimes times = {};
  ScheduleOverlap overlap = ScheduleOverlap::kSkip;
  // How late a time may be started, after downtime: at least 10 s; zero: a year.
  absl::Duration catchup_window = absl::ZeroDuration();
  bool pause_on_failure = false;        // of a run, or of a start that is refused for good
  uint64_t max_actions = 0;             // starts so many and then no more; 0: no limit
  std::string workflow_id_prefix = {};  // empty: the schedule's id
  std::map<std::string, std::string> labels = {};
  absl::Duration execution_timeout = absl::ZeroDuration();  // zero: the definition's
  std::string version = {};                                 // empty: the newest at each start
  bool paused = false;                                      // Create only
  std::string note = {};                                    // Create only: why it is paused
  uint64_t revision = 0;  // Update only: the one it must be at; 0: any
};

// One of the last starts.
struct ScheduleAction {
  absl::Time time;     // what the schedule's times say
  absl::Time started;  // when it was started, or refused
  std::string workflow_id;
  std::string run_id;  // empty: it was not started
  ExecutionStatus status = ExecutionStatus::kUnspecified;
  std::string error;  // why it was not started
};

struct ScheduleCounts {
  uint64_t started = 0;
  uint64_t skipped = 0;  // an earlier run was open
  uint64_t missed = 0;   // older than the catch-up window when its turn came
  uint64_t failed = 0;   // refused for good
};

struct ScheduleInfo {
  std::string id;
  std::string workflow;
  ScheduleTimes times;
  ScheduleOverlap overlap = ScheduleOverlap::kSkip;
  bool paused = false;
  std::string note;
  std::vector<absl::Time> next;        // Get: up to five; List: one. None: paused, or at its end
  std::vector<ScheduleAction> recent;  // Get: up to ten, the newest first; List: one
  ScheduleCounts counts;
  uint64_t running = 0;   // runs of it that are open
  uint64_t waiting = 0;   // times that wait for one to close
  uint64_t revision = 0;  // Get only
};

// What became of a trigger. Values equal flux.v1.TriggerOutcome's.
enum class TriggerOutcome {
  kUnspecified = 0,
  kStarted = 1,
  kWaiting = 2,   // for an open run to close, or for a full disk
  kSkipped = 3,   // an earlier run is open
  kFailed = 4,    // the start was refused for good
  kRepeated = 5,  // this call was sent twice; the first one holds
};

struct Triggered {
  TriggerOutcome outcome = TriggerOutcome::kUnspecified;
  std::string workflow_id;
  std::string run_id;  // kStarted
  std::string detail;  // why it waits, was skipped or failed
};

namespace internal {
class SchedulesCore;
}  // namespace internal

// The schedules of the client's namespace. Cheap to copy; thread-safe. All calls block, are retried
// like the client's own, and change things durably before they return OK.
class Schedules {
 public:
  explicit Schedules(const Client& client);

  // Makes the definition known and the schedule with it. The arguments are those of every start.
  template <typename R, typename... P, typename... A>
  absl::Status Create(std::string id, const Workflow<R(P...)>& workflow, ScheduleOptions options,
                      const A&... arguments) const {
    absl::StatusOr<internal::StartCall> call = MakeCall(workflow, arguments...);
    if (!call.ok()) return std::move(call).status();
    return CreateRaw(std::move(id), std::move(call->workflow), std::move(options),
                     std::move(call->inputs));
  }
  // By name: NotFound unless the coordinator has a definition of it.
  absl::Status CreateRaw(std::string id, std::string workflow, ScheduleOptions options,
                         std::vector<Payload> inputs) const;

  // Replaces all that Create gave. New times hold from now on; what waits and runs goes on, and a
  // paused schedule stays paused.
  template <typename R, typename... P, typename... A>
  absl::Status Update(std::string id, const Workflow<R(P...)>& workflow, ScheduleOptions options,
                      const A&... arguments) const {
    absl::StatusOr<internal::StartCall> call = MakeCall(workflow, arguments...);
    if (!call.ok()) return std::move(call).status();
    return UpdateRaw(std::move(id), std::move(call->workflow), std::move(options),
                     std::move(call->inputs));
  }
  absl::Status UpdateRaw(std::string id, std::string workflow, ScheduleOptions options,
                         std::vector<Payload> inputs) const;

  absl::StatusOr<ScheduleInfo> Get(std::string id) const;
  // All whose ids begin with `id_prefix`, in the order of their ids.
  absl::StatusOr<std::vector<ScheduleInfo>> List(std::string id_prefix = "") const;
  // Executions it has started go on. NotFound may mean that an earlier try of this call did it.
  absl::Status Delete(std::string id) const;
  // Times that pass while it is paused are not made up for.
  absl::Status Pause(std::string id, std::string note = "") const;
  absl::Status Resume(std::string id, std::string note = "") const;
  // Starts one now, also while it is paused.
  absl::StatusOr<Triggered> Trigger(std::string id,
                                    ScheduleOverlap overlap = ScheduleOverlap::kDefault) const;
  // Starts one for each time from `from` to `to`, both included and in the past. How many those
  // are, counted up to 100,000.
  absl::StatusOr<uint64_t> Backfill(std::string id, absl::Time from, absl::Time to,
                                    ScheduleOverlap overlap = ScheduleOverlap::kDefault) const;

 private:
  template <typename R, typename... P, typename... A>
  absl::StatusOr<internal::StartCall> MakeCall(const Workflow<R(P...)>& workflow,
                                               const A&... arguments) const {
    absl::StatusOr<internal::StartCall> call = Client::MakeCall(workflow, {}, arguments...);
    if (!call.ok()) return call;
    if (absl::Status put = client_.PutTraced(*call->traced); !put.ok()) return put;
    return call;
  }

  Client client_;
  std::shared_ptr<const internal::SchedulesCore> core_;  // shared between copies
};

}  // namespace flux

#endif  // FLUX_SCHEDULE_H_
