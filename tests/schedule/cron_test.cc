// Cron expressions: which times they name, what they refuse, and what a change of the clocks does.
#include "engine/schedule/cron.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/schedule/spec.h"
#include "proto/bridge.h"
#include "tests/schedule/times.h"

namespace flux::engine::testing {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMinuteMs = 60'000;

absl::TimeZone Zone(const std::string& name) {
  auto zone = LoadScheduleZone(name);
  EXPECT_TRUE(zone.ok()) << zone.status();
  return zone.ok() ? *zone : absl::UTCTimeZone();
}

// The first times of the expression after `after`, as text, separated by blanks.
std::string Times(const std::string& expression, const std::string& zone, const std::string& after,
                  int count) {
  auto cron = Cron::Parse(expression);
  EXPECT_TRUE(cron.ok()) << cron.status();
  if (!cron.ok()) return "";
  std::vector<std::string> out;
  int64_t at = At(after);
  for (int i = 0; i < count; ++i) {
    const auto next = cron->Next(at, Zone(zone));
    out.push_back(Text(next));
    if (!next) break;
    at = *next;
  }
  return absl::StrJoin(out, " ");
}

struct Case {
  std::string expression;
  std::string zone;
  std::string after;
  std::string times;  // in UTC
};

void Check(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const int count = static_cast<int>(std::count(c.times.begin(), c.times.end(), ' ')) + 1;
    EXPECT_EQ(Times(c.expression, c.zone, c.after, count), c.times)
        << "\"" << c.expression << "\" in " << c.zone << " after " << c.after;
  }
}

TEST(Cron, NamesTheTimesOfItsFields) {
  Check({
      {"* * * * *", "", "2025-01-31T23:58:30Z",
       "2025-01-31T23:59:00Z 2025-02-01T00:00:00Z 2025-02-01T00:01:00Z"},
      // Strictly after, to the millisecond.
      {"0 12 * * *", "", "2025-01-01T12:00:00Z", "2025-01-02T12:00:00Z"},
      {"0 12 * * *", "", "2025-01-01T11:59:59.999Z", "2025-01-01T12:00:00Z"},
      {"5,35 8-9 * * *", "", "2025-01-01T00:00:00Z",
       "2025-01-01T08:05:00Z 2025-01-01T08:35:00Z 2025-01-01T09:05:00Z 2025-01-01T09:35:00Z "
       "2025-01-02T08:05:00Z"},
      {"*/20 0 * * *", "", "2025-01-01T00:00:00Z",
       "2025-01-01T00:20:00Z 2025-01-01T00:40:00Z 2025-01-02T00:00:00Z"},
      {"10-30/10 6 * * *", "", "2025-01-01T00:00:00Z",
       "2025-01-01T06:10:00Z 2025-01-01T06:20:00Z 2025-01-01T06:30:00Z 2025-01-02T06:10:00Z"},
      {"45/10 6 * * *", "", "2025-01-01T00:00:00Z",
       "2025-01-01T06:45:00Z 2025-01-01T06:55:00Z 2025-01-02T06:45:00Z"},
      {"0 9 * * MON-FRI", "", "2025-01-03T10:00:00Z",  // a Friday
       "2025-01-06T09:00:00Z 2025-01-07T09:00:00Z"},
      {"0 9 * * mon,Wed", "", "2025-01-06T09:00:00Z", "2025-01-08T09:00:00Z 2025-01-13T09:00:00Z"},
      {"0 0 1 JAN,jul *", "", "2025-02-01T00:00:00Z", "2025-07-01T00:00:00Z 2026-01-01T00:00:00Z"},
      {"0 0 31 * *", "", "2025-01-31T00:00:00Z", "2025-03-31T00:00:00Z 2025-05-31T00:00:00Z"},
      {"0 0 29 2 *", "", "2025-01-01T00:00:00Z", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
      {"0 0 29 FEB *", "", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"},
  });
}

TEST(Cron, CountsSundayAsZeroAndAsSeven) {
  const std::string sundays = "2025-01-05T00:00:00Z 2025-01-12T00:00:00Z";
  Check({{"0 0 * * 0", "", "2025-01-01T00:00:00Z", sundays},
         {"0 0 * * 7", "", "2025-01-01T00:00:00Z", sundays},
         {"0 0 * * SUN", "", "2025-01-01T00:00:00Z", sundays},
         {"0 0 * * FRI-SUN", "", "2025-01-01T00:00:00Z",
          "2025-01-03T00:00:00Z 2025-01-04T00:00:00Z 2025-01-05T00:00:00Z 2025-01-10T00:00:00Z"},
         {"0 0 * * 6-7", "", "2025-01-01T00:00:00Z",
          "2025-01-04T00:00:00Z 2025-01-05T00:00:00Z 2025-01-11T00:00:00Z"},
         {"0 0 * * */3", "", "2025-01-01T12:00:00Z",  // Sunday, Wednesday, Saturday
          "2025-01-04T00:00:00Z 2025-01-05T00:00:00Z 2025-01-08T00:00:00Z"}});
}

TEST(Cron, TakesEitherDayWhereBothAreRestricted) {
  Check({
      // 13 January is a Monday; Fridays are the 3rd, 10th, 17th.
      {"0 0 13 * FRI", "", "2025-01-04T00:00:00Z",
       "2025-01-10T00:00:00Z 2025-01-13T00:00:00Z 2025-01-17T00:00:00Z"},
      // A field that begins with * does not count as restricted: crontab(5).
      {"0 0 */2 * FRI", "", "2025-01-01T00:00:00Z", "2025-01-03T00:00:00Z 2025-01-17T00:00:00Z"},
      // Never by its day alone, but every Monday.
      {"0 0 31 2 MON", "", "2025-01-01T00:00:00Z", "2025-02-03T00:00:00Z 2025-02-10T00:00:00Z"},
  });
}

TEST(Cron, KnowsTheShortForms) {
  Check({{"@hourly", "", "2025-01-01T00:30:00Z", "2025-01-01T01:00:00Z 2025-01-01T02:00:00Z"},
         {"@daily", "", "2025-01-01T00:30:00Z", "2025-01-02T00:00:00Z"},
         {"@midnight", "", "2025-01-01T00:30:00Z", "2025-01-02T00:00:00Z"},
         {"@weekly", "", "2025-01-01T00:30:00Z", "2025-01-05T00:00:00Z"},
         {"@Monthly", "", "2025-01-01T00:30:00Z", "2025-02-01T00:00:00Z"},
         {"@yearly", "", "2025-01-01T00:30:00Z", "2026-01-01T00:00:00Z"},
         {" @annually ", "", "2025-01-01T00:30:00Z", "2026-01-01T00:00:00Z"}});
}

TEST(Cron, ReadsItsFieldsOnTheClocksOfTheZone) {
  Check({{"0 9 * * *", "Asia/Tokyo", "2025-01-01T00:00:00Z", "2025-01-02T00:00:00Z"},
         {"0 9 * * *", "Asia/Kathmandu", "2025-01-01T00:00:00Z", "2025-01-01T03:15:00Z"},
         // The day of the zone, not of UTC.
         {"0 20 1 * *", "America/New_York", "2025-01-01T00:00:00Z",
          "2025-01-02T01:00:00Z 2025-02-02T01:00:00Z"},
         // Summer and winter.
         {"0 9 * * *", "Europe/Berlin", "2025-03-29T00:00:00Z",
          "2025-03-29T08:00:00Z 2025-03-30T07:00:00Z 2025-03-31T07:00:00Z"}});
}

TEST(Cron, FiresAfterTheGapForATimeThatDoesNotExist) {
  Check({
      // Berlin, 30 March 2025: 02:00 becomes 03:00 at 01:00Z.
      {"30 2 * * *", "Europe/Berlin", "2025-03-29T00:00:00Z",
       "2025-03-29T01:30:00Z 2025-03-30T01:00:00Z 2025-03-31T00:30:00Z"},
      // Several in the gap, and one right behind it, are one.
      {"0,15,30 2,3 * * *", "Europe/Berlin", "2025-03-30T00:00:00Z",
       "2025-03-30T01:00:00Z 2025-03-30T01:15:00Z 2025-03-30T01:30:00Z 2025-03-31T00:00:00Z"},
      {"* * * * *", "Europe/Berlin", "2025-03-30T00:58:00Z",
       "2025-03-30T00:59:00Z 2025-03-30T01:00:00Z 2025-03-30T01:01:00Z"},
      {"30 2 9 3 *", "America/New_York", "2025-01-01T00:00:00Z",
       "2025-03-09T07:00:00Z 2026-03-09T06:30:00Z"},
      // Midnight itself is missing: Sao Paulo, 4 November 2018.
      {"@daily", "America/Sao_Paulo", "2018-11-03T12:00:00Z",
       "2018-11-04T03:00:00Z 2018-11-05T02:00:00Z"},
      // Half an hour: Lord Howe, 5 October 2025, 02:00 becomes 02:30.
      {"10,40 2 * * *", "Australia/Lord_Howe", "2025-10-04T12:00:00Z",
       "2025-10-04T15:30:00Z 2025-10-04T15:40:00Z 2025-10-05T15:10:00Z"},
      // A whole day: Samoa had no 30 December 2011.
      {"0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z",
       "2011-12-30T10:00:00Z 2012-12-29T22:00:00Z"},
  });
}

TEST(Cron, FiresOnceForATimeThatComesTwice) {
  Check({
      // Berlin, 26 October 2025: 03:00 becomes 02:00 at 01:00Z.
      {"30 2 * * *", "Europe/Berlin", "2025-10-25T12:00:00Z",
       "2025-10-26T00:30:00Z 2025-10-27T01:30:00Z"},
      // Asked from inside the second pass.
      {"30 2 * * *", "Europe/Berlin", "2025-10-26T01:10:00Z", "2025-10-27T01:30:00Z"},
      {"*/30 * * * *", "Europe/Berlin", "2025-10-25T23:30:00Z",
       "2025-10-26T00:00:00Z 2025-10-26T00:30:00Z 2025-10-26T02:00:00Z 2025-10-26T02:30:00Z"},
      {"0 1 2 11 *", "America/New_York", "2025-01-01T00:00:00Z",
       "2025-11-02T05:00:00Z 2026-11-02T06:00:00Z"},
      // The second pass crosses midnight: the Azores, 26 October 2025, 01:00 becomes 00:00.
      {"@daily", "Atlantic/Azores", "2025-10-25T12:00:00Z",
       "2025-10-26T00:00:00Z 2025-10-27T01:00:00Z"},
  });
}

// Every minute of some weeks around changes of the clocks, by the wall alone: an expression fires
// when the clock first shows a time of it, or jumps over one.
TEST(Cron, AgreesWithSomebodyWhoWatchesTheClock) {
  struct Window {
    const char* zone;
    const char* from;
    int days;
  };
  const std::vector<Window> windows = {{"Europe/Berlin", "2025-03-28T00:00:00Z", 4},
                                       {"Europe/Berlin", "2025-10-24T00:00:00Z", 4},
                                       {"America/New_York", "2025-03-08T00:00:00Z", 3},
                                       {"America/New_York", "2025-11-01T00:00:00Z", 3},
                                       {"Australia/Lord_Howe", "2025-04-04T00:00:00Z", 3},
                                       {"Australia/Lord_Howe", "2025-10-03T00:00:00Z", 3},
                                       {"America/Sao_Paulo", "2018-11-02T00:00:00Z", 4},
                                       {"Pacific/Apia", "2011-12-28T00:00:00Z", 5},
                                       {"Atlantic/Azores", "2025-10-24T00:00:00Z", 4},
                                       {"America/Caracas", "2016-04-30T00:00:00Z", 3},
                                       {"", "2024-02-27T00:00:00Z", 4}};
  std::mt19937_64 random(17);
  const auto field = [&random](int min, int max) {
    const auto value = [&] { return min + static_cast<int>(random() % (max - min + 1)); };
    switch (random() % 5) {
      case 0:
        return std::string(absl::StrCat(value()));
      case 1:
        return std::string(absl::StrCat("*/", 1 + random() % max));
      case 2: {
        const int a = value();
        const int b = value();
        return std::string(absl::StrCat(std::min(a, b), "-", std::max(a, b)));
      }
      case 3:
        return std::string(absl::StrCat(value(), ",", value(), ",", value()));
      default:
        return std::string("*");
    }
  };
  int fired = 0;
  for (int round = 0; round < 300; ++round) {
    const Window& window = windows[round % windows.size()];
    const absl::TimeZone zone = Zone(window.zone);
    const std::string expression =
        absl::StrCat(field(0, 59), " ", field(0, 23), " ", field(1, 31), " * ", field(0, 7));
    auto cron = Cron::Parse(expression);
    if (!cron.ok()) continue;  // no such day
    const int64_t begin = At(window.from);
    const int64_t end = begin + window.days * 1440 * kMinuteMs;
    std::vector<std::string> watched;
    absl::CivilMinute before(zone.At(absl::FromUnixMillis(begin)).cs);
    absl::CivilMinute furthest = before;  // shown so far
    for (int64_t at = begin + kMinuteMs; at <= end; at += kMinuteMs) {
      const absl::CivilMinute shown(zone.At(absl::FromUnixMillis(at)).cs);
      bool fires = false;
      for (absl::CivilMinute minute = std::max(before, furthest) + 1; minute <= shown; ++minute) {
        fires = fires || cron->Matches(minute);
      }
      if (fires) watched.push_back(Text(at));
      before = shown;
      furthest = std::max(furthest, shown);
    }
    std::vector<std::string> computed;
    for (auto next = cron->Next(begin, zone); next && *next <= end;
         next = cron->Next(*next, zone)) {
      computed.push_back(Text(next));
    }
    EXPECT_EQ(computed, watched) << "\"" << expression << "\" in " << window.zone;
    fired += static_cast<int>(computed.size());
  }
  EXPECT_GT(fired, 10'000);
}

TEST(Cron, EndsWithTheYear9999) {
  auto cron = Cron::Parse("0 0 1 1 *");
  ASSERT_TRUE(cron.ok());
  EXPECT_EQ(Text(cron->Next(At("9998-01-01T00:00:00Z"), absl::UTCTimeZone())),
            "9999-01-01T00:00:00Z");
  EXPECT_EQ(Text(cron->Next(At("9999-01-01T00:00:00Z"), absl::UTCTimeZone())), "never");
  EXPECT_EQ(Text(cron->Next(INT64_MAX, absl::UTCTimeZone())), "never");
  EXPECT_TRUE(cron->Next(INT64_MIN, absl::UTCTimeZone()).has_value());
}

TEST(Cron, SaysWhichFieldIsWrongAndWhatToWrite) {
  struct Bad {
    std::string expression;
    std::vector<std::string> parts;
  };
  const std::vector<Bad> cases = {
      {"", {"0 fields", "minute hour day-of-month month day-of-week"}},
      {"* * * *", {"4 fields", "five"}},
      {"0 0 12 * * *", {"6 fields", "seconds"}},
      {"60 * * * *", {"minute field \"60\"", "0 to 59"}},
      {"* 24 * * *", {"hour field", "0 to 23"}},
      {"* * 0 * *", {"day-of-month field", "1 to 31"}},
      {"* * * 13 *", {"month field", "1 to 12"}},
      {"* * * * 8", {"day-of-week field", "0 to 7"}},
      {"* * * FOO *", {"month field", "\"FOO\"", "names such as FEB"}},
      {"MON * * * *", {"minute field", "use 0 to 59"}},
      {"* 22-2 * * *", {"hour field", "backwards", "22-23,0-2"}},
      {"1,,2 * * * *", {"minute field", "empty item"}},
      {"*/0 * * * *", {"step \"0\"", "1 to 59"}},
      {"*/x * * * *", {"step \"x\""}},
      {"1/2/3 * * * *", {"two steps"}},
      {"1-2-3 * * * *", {"no range"}},
      {"-1 * * * *", {"minute field"}},
      {"* * ? * MON", {"day-of-month field", "write * instead of ?"}},
      {"* * L * *", {"day-of-month field", "L, W and # are not supported"}},
      {"* * * * 5#3", {"day-of-week field", "not supported"}},
      {"0 0 30 2 *", {"never comes true"}},
      {"0 0 31 4,6,9,11 *", {"never comes true"}},
      {"@reboot", {"not known", "@hourly"}},
      {"@every 5m", {"interval"}},
      {"CRON_TZ=Europe/Berlin 0 9 * * *", {"time_zone"}},
      {std::string(2000, '*'), {"2000 bytes", "1000"}},
  };
  for (const Bad& bad : cases) {
    auto cron = Cron::Parse(bad.expression);
    EXPECT_EQ(cron.status().code(), absl::StatusCode::kInvalidArgument) << bad.expression;
    for (const std::string& part : bad.parts) {
      EXPECT_THAT(std::string(Message(cron.status())), HasSubstr(part)) << bad.expression;
    }
  }
}

TEST(Cron, SurvivesWhateverIsTyped) {
  std::mt19937_64 random(5);
  const std::string alphabet = "0123456789*/-, @?#LWMONJAN\t\x01\xff";
  int parsed = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    // Half of them of the right shape, so that some are accepted.
    if (round % 2 == 0) {
      for (int i = 0; i < 5; ++i) {
        text += i ? " " : "";
        for (size_t n = 1 + random() % 3; n > 0; --n) text += alphabet[random() % 13];
      }
    } else {
      for (size_t n = random() % 30; n > 0; --n) text += alphabet[random() % alphabet.size()];
    }
    auto cron = Cron::Parse(text);
    if (!cron.ok()) continue;
    ++parsed;
    const int64_t after = At("2025-01-01T00:00:00Z");
    const auto next = cron->Next(after, absl::UTCTimeZone());
    ASSERT_TRUE(next && *next > after) << text;
    EXPECT_TRUE(
        cron->Matches(absl::CivilMinute(absl::UTCTimeZone().At(absl::FromUnixMillis(*next)).cs)))
        << text;
  }
  EXPECT_GT(parsed, 20);
}

}  // namespace
}  // namespace flux::engine::testing
