#include "engine/schedule/stored.h"

#include <xxhash.h>

#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/schedule/schedule.h"
#include "engine/shard/keys.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr int64_t kSampleTimeMs = 1'000'000'000'001;

absl::Status Damaged(std::string_view key, const char* what) {
  return absl::DataLossError(
      absl::StrCat("the schedule row ", absl::CHexEscape(ToAbsl(key)), " ", what));
}

}  // namespace

absl::StatusOr<std::vector<LoadedSchedule>> LoadSchedules(store::Rows& rows) {
  std::vector<LoadedSchedule> out;
  absl::Status bad;
  std::string wanted;  // the state row that must follow
  const auto [begin, end] = keys::TableRange(0, keys::Table::kSchedule);
  FLUX_RETURN_IF_ERROR(rows.Scan(begin, end, [&](std::string_view key, std::string_view value) {
    const auto parse = [value](google::protobuf::MessageLite* message) {
      return message->ParseFromArray(value.data(), static_cast<int>(value.size()));
    };
    if (!wanted.empty()) {
      if (key != wanted || !parse(&out.back().state)) {
        bad = Damaged(wanted, key == wanted ? "cannot be parsed" : "is missing");
        return false;
      }
      wanted.clear();
      return true;
    }
    LoadedSchedule& loaded = out.emplace_back();
    if (!parse(&loaded.stored)) {
      bad = Damaged(key, "cannot be parsed");
      return false;
    }
    const v1::Schedule& schedule = loaded.stored.schedule();
    if (key != keys::ScheduleDefinition(schedule.namespace_(), schedule.schedule_id())) {
      bad = Damaged(key, "holds another schedule");
      return false;
    }
    wanted = keys::ScheduleState(schedule.namespace_(), schedule.schedule_id());
    return true;
  }));
  FLUX_RETURN_IF_ERROR(bad);
  if (!wanted.empty()) return Damaged(wanted, "is missing");
  return out;
}

uint64_t ScheduleSeed(std::string_view ns, std::string_view id) {
  std::string text(ns);
  text += '\0';
  text += id;
  return XXH3_64bits(text.data(), text.size());
}

v1::StartWorkflowRequest SampleStart(const v1::Schedule& schedule) {
  v1::ScheduleStart start;
  start.set_nominal_time_ms(kSampleTimeMs);
  start.set_cause(v1::SCHEDULE_CAUSE_BACKFILL);
  start.set_backfill(UINT64_MAX);
  const std::string& prefix = schedule.start().workflow_id();
  start.set_workflow_id(absl::StrCat(prefix.empty() ? schedule.schedule_id() : prefix, "-",
                                     ScheduleTimeText(kSampleTimeMs), "-trigger"));
  return ScheduledStart(schedule, start);
}

absl::Status ShuttingDownStatus() {
  return absl::UnavailableError("the coordinator is shutting down; try again");
}

}  // namespace flux::engine
