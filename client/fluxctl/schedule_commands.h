// The schedule commands: options in, calls made, views printed. app_schedule.cc fills the options.
#ifndef FLUX_CLIENT_FLUXCTL_SCHEDULE_COMMANDS_H_
#define FLUX_CLIENT_FLUXCTL_SCHEDULE_COMMANDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/fluxctl/commands.h"
#include "flux/v1/schedule.pb.h"

namespace flux::ctl {

// What create and update take. What is not given is left to the server (create) or as it is
// (update).
struct ScheduleOptions {
  std::string id;
  std::vector<std::string> crons;
  std::vector<std::string> every;  // DURATION or DURATION+OFFSET
  std::optional<std::string> time_zone;
  std::optional<std::string> start_at;  // a time, or "none"
  std::optional<std::string> end_at;
  std::optional<std::string> jitter;
  std::optional<std::string> overlap;
  std::optional<std::string> catchup_window;
  std::optional<bool> pause_on_failure;
  std::optional<uint64_t> max_actions;
  bool paused = false;  // create only
  std::string note;     // create only
  StartOptions start;   // workflow_id is the prefix
};
// Sets what the options say. InvalidArgument names the option.
absl::Status ApplyOptions(const ScheduleOptions& options, absl::Time now, v1::Schedule* schedule);

CommandResult CreateSchedule(Context& context, const ScheduleOptions& options);
CommandResult UpdateSchedule(Context& context, const ScheduleOptions& options);

struct ScheduleListOptions {
  std::string id_prefix;
  uint64_t limit = 100;  // 0: all
};
CommandResult ListSchedules(Context& context, const ScheduleListOptions& options);
CommandResult ShowSchedule(Context& context, const std::string& id);
CommandResult DeleteSchedule(Context& context, const std::string& id);

struct SchedulePauseOptions {
  std::string id;
  std::string note;
};
CommandResult PauseSchedule(Context& context, const SchedulePauseOptions& options);
CommandResult ResumeSchedule(Context& context, const SchedulePauseOptions& options);

struct ScheduleTriggerOptions {
  std::string id;
  std::string overlap;  // empty: the schedule's
};
CommandResult TriggerSchedule(Context& context, const ScheduleTriggerOptions& options);

struct ScheduleBackfillOptions {
  std::string id;
  std::string from;
  std::string to = "now";
  std::string overlap;  // empty: one after the other
};
CommandResult BackfillSchedule(Context& context, const ScheduleBackfillOptions& options);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_SCHEDULE_COMMANDS_H_
