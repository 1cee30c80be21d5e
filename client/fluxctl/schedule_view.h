// View models of schedules, as view.h has those of executions. Pure.
#ifndef FLUX_CLIENT_FLUXCTL_SCHEDULE_VIEW_H_
#define FLUX_CLIENT_FLUXCTL_SCHEDULE_VIEW_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "client/fluxctl/json.h"
#include "client/fluxctl/table.h"
#include "flux/v1/schedule.pb.h"

namespace flux::ctl {

// "buffer-one", as the command line takes it; skip for unset.
std::string OverlapName(v1::ScheduleOverlap overlap);
// The times in one line: "0 9 * * MON-FRI, every 6h (+1h)".
std::string ScheduleTimesText(const v1::ScheduleSpec& spec);
// "in 3m05s", "now"; empty for none.
std::string UntilText(int64_t time_ms, absl::Time now);

// `schedule list`. The columns stay the same from page to page.
Table SchedulesTable(const google::protobuf::RepeatedPtrField<v1::ScheduleSummary>& schedules,
                     absl::Time now);
// `schedule show`: the schedule, and its last starts.
Block ScheduleBlock(const v1::GetScheduleResponse& response, absl::Time now);
Table ScheduleActionsTable(const v1::ScheduleState& state, absl::Time now);
// The next times after a change.
Table NextTimesTable(const google::protobuf::RepeatedField<int64_t>& times_ms, absl::Time now);

// The document of `schedule show`, with the overlap policy that holds where none was given.
Json ScheduleJson(const v1::GetScheduleResponse& response);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_SCHEDULE_VIEW_H_
