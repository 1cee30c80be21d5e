// Times of a schedule: expressions and intervals together, bounds, jitter.
#include "engine/schedule/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "proto/bridge.h"
#include "tests/schedule/times.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSecond = 1'000;
constexpr int64_t kHour = 3'600'000;

Spec Compiled(const v1::ScheduleSpec& spec, uint64_t seed = 1) {
  auto compiled = Spec::Compile(spec, seed);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return compiled.ok() ? *std::move(compiled) : Spec::Never();
}

v1::ScheduleSpec Every(int64_t every_ms, int64_t offset_ms = 0) {
  v1::ScheduleSpec spec;
  v1::ScheduleInterval& interval = *spec.add_intervals();
  interval.set_every_ms(every_ms);
  interval.set_offset_ms(offset_ms);
  return spec;
}

v1::ScheduleSpec Cron(const std::string& expression) {
  v1::ScheduleSpec spec;
  spec.add_crons(expression);
  return spec;
}

std::string Times(const Spec& spec, const std::string& after, int count) {
  std::vector<std::string> out;
  int64_t at = At(after);
  for (int i = 0; i < count; ++i) {
    const auto next = spec.Next(at);
    out.push_back(Text(next));
    if (!next) break;
    at = *next;
  }
  return absl::StrJoin(out, " ");
}

TEST(Spec, CountsIntervalsFromTheEpochWithTheirOffset) {
  EXPECT_EQ(Times(Compiled(Every(6 * kHour)), "2025-01-01T01:00:00Z", 3),
            "2025-01-01T06:00:00Z 2025-01-01T12:00:00Z 2025-01-01T18:00:00Z");
  EXPECT_EQ(Times(Compiled(Every(6 * kHour, kHour)), "2025-01-01T01:00:00Z", 2),
            "2025-01-01T07:00:00Z 2025-01-01T13:00:00Z");
  EXPECT_EQ(Times(Compiled(Every(1500, 250)), "1970-01-01T00:00:00Z", 3),
            "1970-01-01T00:00:00.25Z 1970-01-01T00:00:01.75Z 1970-01-01T00:00:03.25Z");
  // A second of 90 minutes does not care for the clocks of any zone.
  v1::ScheduleSpec zoned = Every(90 * 60 * kSecond);
  zoned.set_time_zone("Europe/Berlin");
  EXPECT_EQ(Times(Compiled(zoned), "2025-03-30T00:00:00Z", 3),
            "2025-03-30T01:30:00Z 2025-03-30T03:00:00Z 2025-03-30T04:30:00Z");
}

TEST(Spec, UnitesItsPartsAndFiresOnceWhereTheyMeet) {
  v1::ScheduleSpec spec = Every(4 * kHour);
  spec.add_crons("0 6 * * *");
  spec.add_crons("0 8 * * *");
  spec.set_time_zone("UTC");
  EXPECT_EQ(Times(Compiled(spec), "2025-01-01T00:00:00Z", 4),
            "2025-01-01T04:00:00Z 2025-01-01T06:00:00Z 2025-01-01T08:00:00Z 2025-01-01T12:00:00Z");
}

TEST(Spec, KeepsToItsBoundsBothIncluded) {
  v1::ScheduleSpec spec = Cron("0 12 * * *");
  spec.set_start_time_ms(At("2025-02-10T12:00:00Z"));
  spec.set_end_time_ms(At("2025-02-12T12:00:00Z"));
  const Spec compiled = Compiled(spec);
  EXPECT_EQ(Times(compiled, "2020-01-01T00:00:00Z", 9),
            "2025-02-10T12:00:00Z 2025-02-11T12:00:00Z 2025-02-12T12:00:00Z never");
  EXPECT_EQ(compiled.Count(0, INT64_MAX, 100), 3u);
  spec.set_end_time_ms(At("2025-02-12T11:59:59.999Z"));
  EXPECT_EQ(Compiled(spec).Count(0, INT64_MAX, 100), 2u);
  EXPECT_EQ(Times(Spec::Never(), "2020-01-01T00:00:00Z", 1), "never");
}

TEST(Spec, CountsTimesUpToALimit) {
  const Spec interval = Compiled(Every(kHour, 600 * kSecond));
  const Spec cron = Compiled(Cron("10 * * * *"));
  for (const char* after : {"2025-01-01T00:00:00Z", "2025-01-01T00:10:00Z"}) {
    for (const char* through :
         {"2025-01-01T00:10:00Z", "2025-01-03T07:09:59Z", "2025-01-03T07:10:00Z"}) {
      EXPECT_EQ(interval.Count(At(after), At(through), 1'000),
                cron.Count(At(after), At(through), 1'000))
          << after << " to " << through;
    }
  }
  EXPECT_EQ(interval.Count(0, At("2025-01-01T00:00:00Z"), 1'000), 1'000u);
  EXPECT_EQ(cron.Count(0, At("2025-01-01T00:00:00Z"), 1'000), 1'000u);
  EXPECT_EQ(cron.Count(5, 5, 1'000), 0u);
  EXPECT_EQ(cron.Count(9, 5, 1'000), 0u);
}

TEST(Spec, JittersTheSameTimeAlwaysAlike) {
  v1::ScheduleSpec spec = Every(kHour);
  spec.set_jitter_ms(60 * kSecond);
  const Spec one = Compiled(spec, 1);
  const Spec again = Compiled(spec, 1);
  const Spec other = Compiled(spec, 2);
  std::set<int64_t> delays;
  int alike = 0;
  int64_t nominal = At("2025-01-01T00:00:00Z");
  for (int i = 0; i < 200; ++i, nominal += kHour) {
    const int64_t fire = one.FireTime(nominal);
    EXPECT_GE(fire, nominal);
    EXPECT_LT(fire, nominal + 60 * kSecond);
    EXPECT_EQ(fire, again.FireTime(nominal));
    alike += fire == other.FireTime(nominal) ? 1 : 0;
    delays.insert(fire - nominal);
  }
  EXPECT_GT(delays.size(), 190u) << "spread over the minute";
  EXPECT_LT(alike, 5) << "schedules of the same times do not fire together";
  // A figure that is promised: it must not change between versions.
  EXPECT_EQ(one.FireTime(At("2025-01-01T00:00:00Z")) - At("2025-01-01T00:00:00Z"), 32'882);
}

TEST(Spec, JitterNeverReachesTheNextTime) {
  v1::ScheduleSpec spec = Cron("0,1,30 * * * *");
  spec.set_jitter_ms(24 * kHour);
  const Spec compiled = Compiled(spec);
  int64_t last = 0;
  int64_t nominal = At("2025-01-01T00:00:00Z");
  for (int i = 0; i < 300; ++i) {
    const int64_t fire = compiled.FireTime(nominal);
    EXPECT_GE(fire, nominal);
    EXPECT_LT(fire, *compiled.Next(nominal));
    EXPECT_GT(fire, last) << "in the order of the times";
    last = fire;
    nominal = *compiled.Next(nominal);
  }
}

TEST(Spec, LoadsZonesOfTheDatabaseOnly) {
  for (const char* good :
       {"", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "EST5EDT"}) {
    EXPECT_TRUE(LoadScheduleZone(good).ok()) << good;
  }
  for (const char* bad :
       {"Mars/Olympus", "/etc/localtime", "localtime", "../../etc/passwd", "Europe/Berlin\n",
        "UTC+1:00", ":Europe/Berlin", "posixrules/../../passwd"}) {
    auto zone = LoadScheduleZone(bad);
    EXPECT_EQ(zone.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(Message(zone.status())), HasSubstr("IANA")) << bad;
  }
  EXPECT_FALSE(LoadScheduleZone(std::string(1'000, 'A')).ok());
}

TEST(Spec, SaysWhatIsWrongWithIt) {
  struct Bad {
    std::function<void(v1::ScheduleSpec&)> change;
    std::string part;
  };
  const std::vector<Bad> cases = {
      {[](auto& s) { s.clear_intervals(); }, "no times"},
      {[](auto& s) { s.mutable_intervals(0)->set_every_ms(999); }, "999 ms"},
      {[](auto& s) { s.mutable_intervals(0)->set_every_ms(kScheduleEveryMaxMs + 1); }, "10 years"},
      {[](auto& s) { s.mutable_intervals(0)->set_offset_ms(kHour); }, "less than the interval"},
      {[](auto& s) { s.mutable_intervals(0)->set_offset_ms(-1); }, "at least 0"},
      {[](auto& s) { s.add_crons("61 * * * *"); }, "minute field"},
      {[](auto& s) { s.set_time_zone("Berlin"); }, "unknown time zone \"Berlin\""},
      {[](auto& s) { s.set_time_zone(std::string(63, 'x') + "é"); },
       "unknown time zone of 65 bytes"},
      {[](auto& s) { s.set_jitter_ms(-1); }, "jitter of -1"},
      {[](auto& s) { s.set_jitter_ms(kScheduleJitterMaxMs + 1); }, "7 days"},
      {[](auto& s) { s.set_start_time_ms(-5); }, "start_time_ms"},
      {[](auto& s) { s.set_end_time_ms(INT64_MAX); }, "end_time_ms"},
      {[](auto& s) {
         s.set_start_time_ms(2'000);
         s.set_end_time_ms(1'000);
       },
       "ends before it starts"},
      {[](auto& s) {
         for (int i = 0; i < kScheduleTimesMax; ++i) s.add_crons("@daily");
       },
       "101 cron expressions"},
  };
  for (const Bad& bad : cases) {
    v1::ScheduleSpec spec = Every(kHour);
    bad.change(spec);
    auto compiled = Spec::Compile(spec, 1);
    EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument) << bad.part;
    EXPECT_THAT(std::string(Message(compiled.status())), HasSubstr(bad.part));
  }
  v1::ScheduleSpec most = Every(kScheduleEveryMinMs);
  for (int i = 1; i < kScheduleTimesMax; ++i) most.add_crons("@daily");
  most.set_jitter_ms(kScheduleJitterMaxMs);
  EXPECT_TRUE(Spec::Compile(most, 1).ok());
}

}  // namespace
}  // namespace flux::engine::testing
