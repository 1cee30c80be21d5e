// When a schedule fires: the union of its cron expressions and intervals, within its bounds.
#ifndef FLUX_ENGINE_SCHEDULE_SPEC_H_
#define FLUX_ENGINE_SCHEDULE_SPEC_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/schedule/cron.h"
#include "flux/v1/schedule.pb.h"

namespace flux::engine {

// Limits of a ScheduleSpec.
inline constexpr int kScheduleTimesMax = 100;  // expressions and intervals
inline constexpr int64_t kScheduleEveryMinMs = 1'000;
inline constexpr int64_t kScheduleEveryMaxMs = 10LL * 366 * 24 * 3600 * 1000;
inline constexpr int64_t kScheduleJitterMaxMs = 7LL * 24 * 3600 * 1000;

// Loads a zone of the tz database by its IANA name; empty is UTC. InvalidArgument.
absl::StatusOr<absl::TimeZone> LoadScheduleZone(std::string_view name);

// A compiled ScheduleSpec: an immutable value. Instants are milliseconds since 1970 in UTC.
//
// A nominal time is what the expressions say. The start is made at its fire time: the nominal time
// and a delay from 0 to the jitter, which depends on the seed and the nominal time alone and ends
// before the next nominal time. So fire times keep the order of the nominal times.
class Spec {
 public:
  // `seed`: any number that is the schedule's own. InvalidArgument names the part that is wrong and
  // what to write instead.
  static absl::StatusOr<Spec> Compile(const v1::ScheduleSpec& spec, uint64_t seed);

  // No time at all.
  static Spec Never();

  // The first nominal time after `after_ms`; none: there is no more.
  std::optional<int64_t> Next(int64_t after_ms) const;
  int64_t FireTime(int64_t nominal_ms) const;
  // How many nominal times lie in (after, through], counted up to `limit`.
  uint64_t Count(int64_t after_ms, int64_t through_ms, uint64_t limit) const;
  int64_t jitter_ms() const { return jitter_ms_; }

 private:
  struct Interval {
    int64_t every_ms = 0;
    int64_t offset_ms = 0;
  };

  Spec() = default;

  std::vector<Cron> crons_;
  std::vector<Interval> intervals_;
  absl::TimeZone zone_;
  int64_t start_ms_ = 0;
  int64_t end_ms_ = kScheduleTimeMaxMs;
  int64_t jitter_ms_ = 0;
  uint64_t seed_ = 0;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SCHEDULE_SPEC_H_
