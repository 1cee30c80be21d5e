// Text as people read it: escaping, widths, durations, ages, times, colours. Pure functions;
// nothing here knows a server, a file descriptor or the clock.
#ifndef FLUX_CLIENT_FLUXCTL_TEXT_H_
#define FLUX_CLIENT_FLUXCTL_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace flux::ctl {

// How a piece of text is meant. The theme decides what that looks like.
enum class Style { kPlain, kBold, kDim, kGood, kBad, kBusy, kWait };

// What the place we write to can show. A value object.
struct Theme {
  bool color = false;
  bool unicode = false;     // glyphs beyond ASCII
  bool terminal = false;    // a person sees it as it comes: control characters are dangerous
  std::size_t columns = 0;  // 0: unlimited
};

// `text` in the style's colour, or as it is where the theme has none. Empty text stays empty.
std::string Paint(const Theme& theme, Style style, std::string_view text);

enum class Lines {
  kOne,   // newlines and tabs are escaped too: for cells of a table
  kMany,  // newlines and tabs pass
};
// Makes bytes from elsewhere harmless to a terminal: C0 and C1 controls, DEL, bidirectional
// overrides and invalid UTF-8 become \n, \t, \xNN or \u{N}. Everything else passes unchanged.
std::string Escape(std::string_view text, Lines lines);

// Valid JSON in, equal JSON out, with the characters that Escape() fears as \uXXXX. In JSON these
// stand only in strings.
std::string EscapeJson(std::string_view json);

// Columns that `text` takes on a terminal: wide characters are two, combining ones none. Escape
// sequences are not understood.
std::size_t Width(std::string_view text);

// The longest prefix of `text` that fits in `columns`, ended by an ellipsis if something was cut.
std::string Fit(std::string_view text, std::size_t columns, bool unicode);

// `text` and spaces up to `columns`.
std::string PadRight(std::string_view text, std::size_t columns);
std::string PadLeft(std::string_view text, std::size_t columns);

// Three figures at most, in the units that fit: 0ms, 350ms, 1.2s, 42s, 2m05s, 3h12m, 4d02h, 400d.
std::string DurationText(absl::Duration duration);
// How long ago (or until, alike) as DurationText, in whole seconds; "-" for time 0 (unset).
std::string AgeText(int64_t time_ms, absl::Time now);
// RFC 3339 in UTC with milliseconds: 2024-05-01T12:00:00.250Z. "-" for time 0 (unset).
std::string TimeText(int64_t time_ms);
// 512 B, 1.5 KiB, 20 MiB.
std::string BytesText(uint64_t bytes);
// 0.4/s, 96/s, 1200/s.
std::string RateText(double per_second);

// Whether every byte belongs to a character: no overlong forms, no surrogates, nothing cut.
bool IsUtf8(std::string_view text);

// "1h30m", "90s", "2d", "1w", "250ms", "0". InvalidArgument for anything else, also for a negative
// one.
absl::StatusOr<absl::Duration> ParseDuration(const std::string& text);
// A time of the past. A duration means that long before `now`; else RFC 3339, a date (midnight
// UTC), or "now". InvalidArgument otherwise.
absl::StatusOr<absl::Time> ParseWhen(const std::string& text, absl::Time now);
// The same as the end of a range that includes it: a date is the last millisecond of that day, or
// `now` while the day lasts.
absl::StatusOr<absl::Time> ParseUntil(const std::string& text, absl::Time now);
// A time to come: RFC 3339, a date (midnight UTC), or "now". InvalidArgument otherwise, and for a
// duration, which elsewhere counts back from now; `wait_option` (may be empty) is the option that
// takes one.
absl::StatusOr<absl::Time> ParseTimeToCome(const std::string& text, absl::Time now,
                                           const std::string& wait_option);

// `value`, or its error with the option's name in front.
template <typename T>
absl::StatusOr<T> ForOption(const std::string& option, absl::StatusOr<T> value) {
  if (value.ok()) return value;
  return absl::Status(value.status().code(), option + ": " + std::string(value.status().message()));
}

// The word in `words` nearest to `word`, if it is near enough to have been meant; else empty.
std::string NearestWord(const std::string& word, const std::vector<std::string>& words);

// The line of `text` around byte `at` and a caret below that place, both indented by two: what an
// error about someone's text shows as its hint. Of a long line the part around the place.
std::string PointAt(std::string_view text, std::size_t at);

// Sets, and reads, the "what to do now" line that goes with an error.
absl::Status WithHint(absl::Status status, const std::string& hint);
std::string HintOf(const absl::Status& status);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_TEXT_H_
