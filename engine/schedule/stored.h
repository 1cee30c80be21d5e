// Schedules as rows: reading them back, and what is derived from a definition alone.
#ifndef FLUX_ENGINE_SCHEDULE_STORED_H_
#define FLUX_ENGINE_SCHEDULE_STORED_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "flux/v1/schedule.pb.h"
#include "flux/v1/workflow.pb.h"
#include "store/store.h"

namespace flux::engine {

struct LoadedSchedule {
  v1::StoredSchedule stored;
  v1::ScheduleState state;
};

// Every schedule of the store, in the order of namespace and id. Blocks. DataLoss: a row that
// cannot be parsed or lacks its other half, by the schedule's name where it is known.
absl::StatusOr<std::vector<LoadedSchedule>> LoadSchedules(store::Rows& rows);

// The number that a schedule's jitter hangs on: XXH3-64 of "namespace 0 id". Part of what is
// promised: it must not change.
uint64_t ScheduleSeed(std::string_view ns, std::string_view id);

// The longest start that the schedule can make: what is checked before it is accepted.
v1::StartWorkflowRequest SampleStart(const v1::Schedule& schedule);

absl::Status ShuttingDownStatus();

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SCHEDULE_STORED_H_
