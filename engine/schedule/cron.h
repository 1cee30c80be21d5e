// Cron expressions of five fields: minute, hour, day of month, month, day of week.
//
//   FLUX_ASSIGN_OR_RETURN(Cron cron, Cron::Parse("30 8 * * MON-FRI"));
//   std::optional<int64_t> next = cron.Next(now_ms, zone);
//
// A field is a list of *, n, a-b, each with an optional /step (n/step means n-last/step); months
// and days of the week also by their first three letters. Day 0 and 7 are Sunday. Where both the
// day of month and the day of week are restricted (neither begins with *), either suffices:
// crontab(5). The short forms are @hourly, @daily (@midnight), @weekly, @monthly and @yearly
// (@annually).
#ifndef FLUX_ENGINE_SCHEDULE_CRON_H_
#define FLUX_ENGINE_SCHEDULE_CRON_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"

namespace flux::engine {

// Later instants are never answered: the end of the year 9999.
inline constexpr int64_t kScheduleTimeMaxMs = 253'402'300'799'999;

// An immutable value.
class Cron {
 public:
  // InvalidArgument names the field and what is wrong with it; also for an expression that no date
  // ever satisfies (30 February).
  static absl::StatusOr<Cron> Parse(std::string_view text);

  // The first instant after `after_ms` at which the clocks of `zone` show a time that the
  // expression names. A local time that is skipped by a change of the clocks counts as the first
  // instant after the gap, so that several of them are one; a local time that comes twice counts
  // when it comes first. None: it lies behind kScheduleTimeMaxMs.
  std::optional<int64_t> Next(int64_t after_ms, const absl::TimeZone& zone) const;

  bool Matches(absl::CivilMinute minute) const;

 private:
  Cron() = default;
  bool MatchesDay(absl::CivilDay day) const;
  bool Satisfiable() const;

  // A bit for each value.
  uint64_t minutes_ = 0;
  uint64_t hours_ = 0;
  uint64_t days_ = 0;
  uint64_t months_ = 0;
  uint64_t weekdays_ = 0;  // 0: Sunday
  bool any_day_ = false;   // the field begins with *
  bool any_weekday_ = false;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SCHEDULE_CRON_H_
