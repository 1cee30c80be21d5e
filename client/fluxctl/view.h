// View models: what the services answer, as tables and blocks. Pure: the clock comes as an
// argument, the theme only chooses glyphs. Rendering is table.h's.
#ifndef FLUX_CLIENT_FLUXCTL_VIEW_H_
#define FLUX_CLIENT_FLUXCTL_VIEW_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/fluxctl/table.h"
#include "flux/v1/admin.pb.h"
#include "flux/v1/workflow.pb.h"

namespace flux::ctl {

// "running", "backing off", … and the style it is shown in.
std::string StatusName(v1::ExecutionStatus status);
Style StatusStyle(v1::ExecutionStatus status);
std::string StateName(v1::StepState state);
Style StateStyle(v1::StepState state);
bool IsOpen(v1::ExecutionStatus status);
bool IsFinished(v1::StepState state);
// Closed in a way that a script should take for success: completed, or skipped by its own logic.
bool Succeeded(v1::ExecutionStatus status);

// "type: message", whichever of the two there is.
std::string FailureText(const v1::Failure& failure);
// "412/1000 done, 3 failed, 20 in flight". `frames_max` is how many frames were asked for: where
// that many are unfinished there may be more in flight, shown as 10+.
std::string MapText(const v1::StepInfo& step, uint32_t frames_max);
// From when the step was scheduled to its end, or to `now`; "" before it is scheduled.
std::string StepDuration(const v1::StepInfo& step, absl::Time now);
// Why an unfinished step waits, who runs a running one, why a failed one failed. One sentence, or
// empty.
std::string StepDetail(const v1::StepInfo& step, absl::Time now);

// `list`. The columns stay the same from page to page.
Table ExecutionsTable(const google::protobuf::RepeatedPtrField<v1::ExecutionInfo>& executions,
                      absl::Time now);
Table CountTable(const v1::CountExecutionsResponse& response);

// `show`: the header, and the tree of steps.
Block ExecutionBlock(const v1::DescribeExecutionResponse& response, absl::Time now);
struct StepsOptions {
  uint32_t frames_max = 10;
  bool payloads = false;
  bool unicode = false;
};
Table StepsTable(const v1::DescribeExecutionResponse& response, absl::Time now,
                 const StepsOptions& options);

struct HistoryOptions {
  bool absolute = false;  // else: since `origin_ms`
  int64_t origin_ms = 0;  // time of the first event
  bool payloads = false;
};
Table HistoryTable(const google::protobuf::RepeatedPtrField<v1::HistoryEvent>& events,
                   const HistoryOptions& options);

Table EventsTable(const google::protobuf::RepeatedPtrField<v1::EventInfo>& events, absl::Time now,
                  bool payloads);

// What became of a definition's steps between two versions, by name. Everything that a step says is
// compared, references by the names they lead to; where a step stands in the text is not.
struct StepChange {
  std::string step;
  std::string kind;  // of the new one, if there is one
  std::string what;  // "added", "removed" or "changed"
  struct Field {
    std::string name;  // "task.retry.max_attempts"
    std::string from;  // empty: it was not set
    std::string to;
  };
  std::vector<Field> fields;  // of a changed one
};
std::vector<StepChange> DiffSteps(const v1::Definition& from, const v1::Definition& to);
// The same of what the workflow itself says: its parameters, result, timeout.
std::vector<StepChange::Field> DiffHeads(const v1::Definition& from, const v1::Definition& to);
Table DiffTable(const std::vector<StepChange::Field>& heads, const std::vector<StepChange>& steps);

Table WorkersTable(const google::protobuf::RepeatedPtrField<v1::WorkerInfo>& workers,
                   absl::Time now);
Table QueuesTable(const google::protobuf::RepeatedPtrField<v1::TaskQueueInfo>& queues,
                  absl::Time now);
Block QueueBlock(const v1::TaskQueueInfo& queue, absl::Time now);
Table QueueTasksTable(const v1::TaskQueueInfo& queue);

Table DefinitionsTable(const google::protobuf::RepeatedPtrField<v1::DefinitionSummary>& definitions,
                       absl::Time now);
Block DefinitionBlock(const v1::GetDefinitionResponse& response, absl::Time now);
Table DefinitionTable(const v1::Definition& definition, bool unicode);

Block ServerBlock(const v1::GetServerInfoResponse& info, absl::Time now);
Table CountersTable(const v1::GetServerInfoResponse& info);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_VIEW_H_
