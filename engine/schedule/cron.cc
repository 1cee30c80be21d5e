#include "engine/schedule/cron.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr size_t kTextBytesMax = 1000;
// 29 February may be eight years away, over a year like 2100.
constexpr int kYearsAhead = 9;
constexpr int64_t kTimeMinMs = -62'135'596'800'000;  // the year 1

struct Field {
  const char* name;
  int min;
  int max;
  std::array<const char*, 13> names;  // of min, min + 1, …; the rest null
};

constexpr std::array<Field, 5> kFields = {
    {{"minute", 0, 59, {}},
     {"hour", 0, 23, {}},
     {"day-of-month", 1, 31, {}},
     {"month",
      1,
      12,
      {"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}},
     {"day-of-week", 0, 7, {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}}}};
constexpr size_t kWeekdayField = 4;

struct Macro {
  const char* name;
  const char* expression;
};
constexpr std::array<Macro, 7> kMacros = {{{"@hourly", "0 * * * *"},
                                           {"@daily", "0 0 * * *"},
                                           {"@midnight", "0 0 * * *"},
                                           {"@weekly", "0 0 * * 0"},
                                           {"@monthly", "0 0 1 * *"},
                                           {"@yearly", "0 0 1 1 *"},
                                           {"@annually", "0 0 1 1 *"}}};

bool Bit(uint64_t bits, int64_t at) { return (bits >> at & 1) != 0; }

// The parser of one field; errors say which field of which expression.
class FieldParser {
 public:
  FieldParser(absl::string_view expression, size_t index, absl::string_view text)
      : expression_(expression), field_(kFields[index]), index_(index), text_(text) {}

  absl::StatusOr<uint64_t> Parse() const {
    uint64_t bits = 0;
    for (absl::string_view item : absl::StrSplit(text_, ',')) {
      FLUX_ASSIGN_OR_RETURN(const uint64_t more, ParseItem(item));
      bits |= more;
    }
    if (index_ == kWeekdayField && Bit(bits, 7)) bits = (bits | 1) & 0x7f;
    return bits;
  }

 private:
  absl::Status Bad(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("cron expression \"", expression_, "\": the ",
                                                   field_.name, " field \"", text_, "\" ", what));
  }

  absl::StatusOr<int> Value(absl::string_view text) const {
    for (int i = 0; field_.names[i] != nullptr; ++i) {
      if (absl::EqualsIgnoreCase(text, field_.names[i])) return field_.min + i;
    }
    const auto digit = [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); };
    int value = 0;
    if (text.empty() || !std::all_of(text.begin(), text.end(), digit) ||
        !absl::SimpleAtoi(text, &value)) {
      const std::string hint =
          text == "?" ? "write * instead of ?"
          : text.find_first_of("LW#") != absl::string_view::npos
              ? "L, W and # are not supported"
              : absl::StrCat("use ", field_.min, " to ", field_.max,
                             field_.names[0] == nullptr
                                 ? ""
                                 : absl::StrCat(" or names such as ", field_.names[1]));
      return Bad(absl::StrCat("has \"", text, "\", which is no value of it: ", hint));
    }
    if (value < field_.min || value > field_.max) {
      return Bad(
          absl::StrCat("has ", value, ", which is not from ", field_.min, " to ", field_.max));
    }
    return value;
  }

  absl::StatusOr<uint64_t> ParseItem(absl::string_view item) const {
    if (item.empty()) return Bad("has an empty item: remove the comma");
    const std::vector<absl::string_view> parts = absl::StrSplit(item, '/');
    if (parts.size() > 2) return Bad(absl::StrCat("has two steps in \"", item, "\": give one"));
    int first = field_.min;
    int last = field_.max;
    if (parts[0] == "*") {
      // Sunday once.
      if (index_ == kWeekdayField) last = 6;
    } else {
      const std::vector<absl::string_view> ends = absl::StrSplit(parts[0], '-');
      if (ends.size() > 2) {
        return Bad(absl::StrCat("has \"", item, "\", which is no range: write first-last"));
      }
      FLUX_ASSIGN_OR_RETURN(first, Value(ends[0]));
      if (ends.size() == 2) {
        FLUX_ASSIGN_OR_RETURN(last, Value(ends[1]));
        if (index_ == kWeekdayField && last == 0 && first > 0) last = 7;  // FRI-SUN
      } else if (parts.size() == 1) {
        last = first;
      } else if (index_ == kWeekdayField) {
        last = 6;
      }
      if (first > last) {
        return Bad(absl::StrCat("has \"", item, "\", which runs backwards: write ", first, "-",
                                field_.max, ",", field_.min, "-", last));
      }
    }
    int step = 1;
    if (parts.size() == 2 &&
        (!absl::SimpleAtoi(parts[1], &step) || step < 1 || step > field_.max)) {
      return Bad(absl::StrCat("has the step \"", parts[1], "\": use 1 to ", field_.max));
    }
    uint64_t bits = 0;
    for (int value = first; value <= last; value += step) bits |= uint64_t{1} << value;
    return bits;
  }

  const absl::string_view expression_;
  const Field& field_;
  const size_t index_;
  const absl::string_view text_;
};

absl::Status WrongFieldCount(absl::string_view text, size_t count) {
  return absl::InvalidArgumentError(absl::StrCat(
      "cron expression \"", text, "\" has ", count, count == 1 ? " field" : " fields",
      "; it needs five: minute hour day-of-month month day-of-week",
      count == 6 || count == 7 ? " (seconds and years are not supported; use an interval, or "
                                 "bounds)"
                               : ""));
}

}  // namespace

absl::StatusOr<Cron> Cron::Parse(std::string_view text) {
  const absl::string_view given = absl::StripAsciiWhitespace(ToAbsl(text));
  if (given.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a cron expression has ", given.size(),
                                                   " bytes; at most ", kTextBytesMax,
                                                   " are allowed: use several"));
  }
  if (absl::StrContains(given, "TZ=")) {
    return absl::InvalidArgumentError(absl::StrCat("cron expression \"", given,
                                                   "\" sets a time zone: give the schedule "
                                                   "time_zone instead"));
  }
  absl::string_view expression = given;
  if (!given.empty() && given.front() == '@') {
    const auto macro = std::find_if(kMacros.begin(), kMacros.end(), [&](const Macro& m) {
      return absl::EqualsIgnoreCase(given, m.name);
    });
    if (macro == kMacros.end()) {
      return absl::InvalidArgumentError(absl::StrCat("cron expression \"", given,
                                                     "\" is not known: use @hourly, @daily, "
                                                     "@weekly, @monthly, @yearly",
                                                     absl::StartsWithIgnoreCase(given, "@every")
                                                         ? "; \"every\" is an interval"
                                                         : ", or five fields"));
    }
    expression = macro->expression;
  }
  const std::vector<absl::string_view> fields =
      absl::StrSplit(expression, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (fields.size() != kFields.size()) return WrongFieldCount(given, fields.size());
  Cron cron;
  const std::array<uint64_t*, 5> bits = {&cron.minutes_, &cron.hours_, &cron.days_, &cron.months_,
                                         &cron.weekdays_};
  for (size_t i = 0; i < kFields.size(); ++i) {
    FLUX_ASSIGN_OR_RETURN(*bits[i], FieldParser(given, i, fields[i]).Parse());
  }
  cron.any_day_ = fields[2].front() == '*';
  cron.any_weekday_ = fields[4].front() == '*';
  if (!cron.Satisfiable()) {
    return absl::InvalidArgumentError(absl::StrCat("cron expression \"", given,
                                                   "\" never comes true: none of its months has "
                                                   "such a day"));
  }
  return cron;
}

bool Cron::Satisfiable() const {
  if (!any_day_ && !any_weekday_) return true;  // either suffices, and each month has each weekday
  constexpr std::array<int, 12> kLongest = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  for (int month = 1; month <= 12; ++month) {
    if (!Bit(months_, month)) continue;
    for (int day = 1; day <= kLongest[month - 1]; ++day) {
      if (Bit(days_, day)) return true;
    }
  }
  return false;
}

bool Cron::MatchesDay(absl::CivilDay day) const {
  if (!Bit(months_, day.month())) return false;
  const bool by_day = Bit(days_, day.day());
  // absl::Weekday begins with Monday.
  const bool by_weekday = Bit(weekdays_, (static_cast<int>(absl::GetWeekday(day)) + 1) % 7);
  return any_day_ || any_weekday_ ? by_day && by_weekday : by_day || by_weekday;
}

bool Cron::Matches(absl::CivilMinute minute) const {
  return Bit(minutes_, minute.minute()) && Bit(hours_, minute.hour()) &&
         MatchesDay(absl::CivilDay(minute));
}

std::optional<int64_t> Cron::Next(int64_t after_ms, const absl::TimeZone& zone) const {
  if (after_ms >= kScheduleTimeMaxMs) return std::nullopt;
  const absl::Time after = absl::FromUnixMillis(std::max(after_ms, kTimeMinMs));
  // As local times go up their instants never go down, gaps and overlaps included: so the first
  // match that lies behind `after` is the one.
  const absl::CivilMinute from(zone.At(after).cs);
  const absl::CivilDay first(from);
  absl::CivilDay day = first;
  while (day.year() <= first.year() + kYearsAhead) {
    if (!Bit(months_, day.month())) {
      day = absl::CivilDay(absl::CivilMonth(day) + 1);
      continue;
    }
    if (!MatchesDay(day)) {
      ++day;
      continue;
    }
    for (int hour = day == first ? from.hour() : 0; hour < 24; ++hour) {
      if (!Bit(hours_, hour)) continue;
      const bool first_hour = day == first && hour == from.hour();
      for (int minute = first_hour ? from.minute() : 0; minute < 60; ++minute) {
        if (!Bit(minutes_, minute)) continue;
        const absl::TimeZone::TimeInfo info =
            zone.At(absl::CivilSecond(day.year(), day.month(), day.day(), hour, minute, 0));
        const absl::Time at =
            info.kind == absl::TimeZone::TimeInfo::SKIPPED ? info.trans : info.pre;
        if (at <= after) continue;
        const int64_t at_ms = absl::ToUnixMillis(at);
        if (at_ms > kScheduleTimeMaxMs) return std::nullopt;
        return at_ms;
      }
    }
    ++day;
  }
  return std::nullopt;
}

}  // namespace flux::engine
