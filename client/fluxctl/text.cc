#include "client/fluxctl/text.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

constexpr std::size_t kShownLineMax = 72;
constexpr char kHintUrl[] = "type.flux.dev/fluxctl.hint";

struct Rune {
  char32_t code = 0;
  std::size_t bytes = 1;
  bool valid = false;
};

// The character that `text` begins with. Overlong forms, surrogates and cut sequences are invalid
// and one byte long.
Rune FirstRune(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  std::size_t length = 0;
  char32_t code = 0;
  char32_t least = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2, code = lead & 0x1FU, least = 0x80;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3, code = lead & 0x0FU, least = 0x800;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4, code = lead & 0x07U, least = 0x10000;
  } else {
    return {lead, 1, false};
  }
  if (text.size() < length) return {lead, 1, false};
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return {lead, 1, false};
    code = (code << 6U) | (byte(i) & 0x3FU);
  }
  if (code < least || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
    return {lead, 1, false};
  return {code, length, true};
}

bool IsDangerous(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0x9F) || (c >= 0x202A && c <= 0x202E) ||
         (c >= 0x2066 && c <= 0x2069) || c == 0x2028 || c == 0x2029 || c == 0x200E || c == 0x200F;
}

std::size_t RuneWidth(char32_t c) {
  struct Range {
    char32_t first, last;
  };
  // The blocks that are in use; a few rare scripts are counted as narrow and only shift a column.
  static constexpr std::array<Range, 11> kNone{{{0x0300, 0x036F},
                                                {0x0483, 0x0489},
                                                {0x0591, 0x05BD},
                                                {0x0610, 0x061A},
                                                {0x064B, 0x065F},
                                                {0x1AB0, 0x1AFF},
                                                {0x1DC0, 0x1DFF},
                                                {0x200B, 0x200D},
                                                {0x20D0, 0x20FF},
                                                {0xFE00, 0xFE0F},
                                                {0xFE20, 0xFE2F}}};
  static constexpr std::array<Range, 10> kWide{{{0x1100, 0x115F},
                                                {0x2E80, 0x303E},
                                                {0x3041, 0xA4CF},
                                                {0xA960, 0xA97F},
                                                {0xAC00, 0xD7A3},
                                                {0xF900, 0xFAFF},
                                                {0xFE30, 0xFE6F},
                                                {0xFF00, 0xFF60},
                                                {0x1F300, 0x1FAFF},
                                                {0x20000, 0x3FFFD}}};
  const auto in = [c](const Range& r) { return c >= r.first && c <= r.last; };
  if (std::any_of(kNone.begin(), kNone.end(), in)) return 0;
  if (std::any_of(kWide.begin(), kWide.end(), in)) return 2;
  return 1;
}

const char* Code(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "1";
    case Style::kDim:
      return "2";
    case Style::kGood:
      return "32";
    case Style::kBad:
      return "31";
    case Style::kBusy:
      return "36";
    case Style::kWait:
      return "33";
  }
  return "";
}

bool IsDate(const std::string& text, absl::Time* midnight) {
  std::string error;
  return text.size() == 10 &&
         absl::ParseTime("%Y-%m-%d", text, absl::UTCTimeZone(), midnight, &error);
}

// An RFC 3339 time, a date (midnight UTC), or "now". The library's infinities are no times here.
bool IsTime(const std::string& text, absl::Time now, absl::Time* time) {
  if (text == "now") {
    *time = now;
    return true;
  }
  std::string error;
  if (absl::ParseTime(absl::RFC3339_full, text, time, &error)) {
    return *time != absl::InfiniteFuture() && *time != absl::InfinitePast();
  }
  return IsDate(text, time);
}

// Edits between two words, where two letters changed round are one.
std::size_t Distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string Paint(const Theme& theme, Style style, std::string_view text) {
  if (!theme.color || style == Style::kPlain || text.empty()) return std::string(text);
  return absl::StrCat("\x1b[", Code(style), "m", ToAbsl(text), "\x1b[0m");
}

std::string Escape(std::string_view text, Lines lines) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Rune rune = FirstRune(text);
    if (!rune.valid) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned>(rune.code));
    } else if (rune.code == '\n' || rune.code == '\t') {
      if (lines == Lines::kMany) {
        out.push_back(static_cast<char>(rune.code));
      } else {
        out.append(rune.code == '\n' ? "\\n" : "\\t");
      }
    } else if (rune.code == '\r') {
      out.append("\\r");
    } else if (IsDangerous(rune.code)) {
      if (rune.code < 0x80) {
        absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned>(rune.code));
      } else {
        absl::StrAppendFormat(&out, "\\u{%x}", static_cast<unsigned>(rune.code));
      }
    } else {
      out.append(text.substr(0, rune.bytes));
    }
    text.remove_prefix(rune.bytes);
  }
  return out;
}

std::string EscapeJson(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  while (!json.empty()) {
    const Rune rune = FirstRune(json);
    const bool space = rune.code == '\n' || rune.code == '\t' || rune.code == '\r';
    if (!rune.valid) {
      out.append("\\ufffd");
    } else if (IsDangerous(rune.code) && !space) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(rune.code));
    } else {
      out.append(json.substr(0, rune.bytes));
    }
    json.remove_prefix(rune.bytes);
  }
  return out;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const Rune rune = FirstRune(text);
    if (!rune.valid) return false;
    text.remove_prefix(rune.bytes);
  }
  return true;
}

std::size_t Width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    const Rune rune = FirstRune(text);
    width += RuneWidth(rune.code);
    text.remove_prefix(rune.bytes);
  }
  return width;
}

std::string Fit(std::string_view text, std::size_t columns, bool unicode) {
  if (Width(text) <= columns) return std::string(text);
  const std::string_view ellipsis = unicode ? "…" : "...";
  const std::size_t ellipsis_width = unicode ? 1 : 3;
  if (columns <= ellipsis_width) return std::string(columns, '.');
  std::string out;
  std::size_t width = 0;
  while (!text.empty()) {
    const Rune rune = FirstRune(text);
    width += RuneWidth(rune.code);
    if (width > columns - ellipsis_width) break;
    out.append(text.substr(0, rune.bytes));
    text.remove_prefix(rune.bytes);
  }
  out.append(ellipsis);
  return out;
}

std::string PadRight(std::string_view text, std::size_t columns) {
  std::string out(text);
  const std::size_t width = Width(text);
  if (width < columns) out.append(columns - width, ' ');
  return out;
}

std::string PadLeft(std::string_view text, std::size_t columns) {
  const std::size_t width = Width(text);
  std::string out(width < columns ? columns - width : 0, ' ');
  out.append(text);
  return out;
}

std::string DurationText(absl::Duration duration) {
  if (duration < absl::ZeroDuration()) duration = absl::ZeroDuration();
  if (duration == absl::InfiniteDuration()) return "forever";
  const int64_t ms = absl::ToInt64Milliseconds(duration);
  const int64_t s = ms / 1000;
  if (ms < 1000) return absl::StrFormat("%dms", ms);
  if (s < 10) return absl::StrFormat("%d.%ds", s, ms % 1000 / 100);
  if (s < 60) return absl::StrFormat("%ds", s);
  if (s < 3600) return absl::StrFormat("%dm%02ds", s / 60, s % 60);
  if (s < 86400) return absl::StrFormat("%dh%02dm", s / 3600, s / 60 % 60);
  if (s < 100 * 86400) return absl::StrFormat("%dd%02dh", s / 86400, s / 3600 % 24);
  return absl::StrFormat("%dd", s / 86400);
}

std::string AgeText(int64_t time_ms, absl::Time now) {
  if (time_ms == 0) return "-";
  const absl::Duration age = now - absl::FromUnixMillis(time_ms);
  const absl::Duration seconds = absl::Trunc(std::max(age, -age), absl::Seconds(1));
  // Ages are watched by people, not measured: no tenths.
  if (seconds < absl::Seconds(10)) return absl::StrCat(absl::ToInt64Seconds(seconds), "s");
  return DurationText(seconds);
}

std::string TimeText(int64_t time_ms) {
  if (time_ms == 0) return "-";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixMillis(time_ms),
                          absl::UTCTimeZone());
}

std::string BytesText(uint64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  constexpr std::array<const char*, 5> kUnits{"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat(value < 10 ? "%.1f %s" : "%.0f %s", value, kUnits[unit]);
}

std::string RateText(double per_second) {
  return absl::StrFormat(per_second < 10 ? "%.1f/s" : "%.0f/s", per_second);
}

absl::StatusOr<absl::Duration> ParseDuration(const std::string& text) {
  const auto bad = [&text] {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", Escape(text, Lines::kOne),
        "\" is not a duration; give a number with a unit, as in 250ms, 90s, 30m, 1h30m, 2d or 1w"));
  };
  if (text == "0") return absl::ZeroDuration();
  if (text.empty()) return bad();
  absl::Duration total;
  std::size_t at = 0;
  const auto digit = [&] { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  constexpr std::size_t kDigitsMax = 12;  // keeps every product inside int64 milliseconds
  while (at < text.size()) {
    const std::size_t from = at;
    double number = 0;
    while (digit()) number = number * 10 + (text[at++] - '0');
    if (at == from || at - from > kDigitsMax) return bad();
    if (at < text.size() && text[at] == '.') {
      double place = 0.1;
      if (++at; !digit()) return bad();
      for (; digit(); place /= 10) number += place * (text[at++] - '0');
    }
    const std::string_view rest = std::string_view(text).substr(at);
    if (rest.starts_with("ms")) {
      total += number * absl::Milliseconds(1);
      at += 2;
      continue;
    }
    switch (rest.empty() ? '\0' : rest.front()) {
      case 's':
        total += number * absl::Seconds(1);
        break;
      case 'm':
        total += number * absl::Minutes(1);
        break;
      case 'h':
        total += number * absl::Hours(1);
        break;
      case 'd':
        total += number * absl::Hours(24);
        break;
      case 'w':
        total += number * absl::Hours(24 * 7);
        break;
      default:
        return bad();
    }
    ++at;
  }
  return total;
}

absl::StatusOr<absl::Time> ParseWhen(const std::string& text, absl::Time now) {
  if (absl::StatusOr<absl::Duration> ago = ParseDuration(text); ago.ok()) return now - *ago;
  absl::Time time;
  if (IsTime(text, now, &time)) return time;
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", Escape(text, Lines::kOne),
      "\" is not a time; give how long ago (2h, 1d12h), a date (2024-05-01) or an RFC 3339 time "
      "(2024-05-01T12:00:00Z)"));
}

absl::StatusOr<absl::Time> ParseUntil(const std::string& text, absl::Time now) {
  absl::Time midnight;
  if (!IsDate(text, &midnight)) return ParseWhen(text, now);
  const absl::Time last = midnight + absl::Hours(24) - absl::Milliseconds(1);
  return midnight <= now ? std::min(last, now) : last;
}

absl::StatusOr<absl::Time> ParseTimeToCome(const std::string& text, absl::Time now,
                                           const std::string& wait_option) {
  absl::Time time;
  if (IsTime(text, now, &time)) return time;
  const std::string forms = "a date (2030-05-01) or an RFC 3339 time (2030-05-01T12:00:00Z)";
  const std::string quoted = absl::StrCat("\"", Escape(text, Lines::kOne), "\"");
  if (!ParseDuration(text).ok()) {
    return absl::InvalidArgumentError(absl::StrCat(quoted, " is not a time; give ", forms));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(quoted, " is a duration, not a time; ",
                   wait_option.empty() ? absl::StrCat("give ", forms)
                                       : absl::StrCat("use ", wait_option, " ", text)));
}

std::string NearestWord(const std::string& word, const std::vector<std::string>& words) {
  constexpr std::size_t kWordMax = 64;  // nothing that long was meant to be a word of ours
  if (word.size() > kWordMax) return "";
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(word.size() / 3, 1) + 1;
  for (const std::string& candidate : words) {
    std::size_t distance = Distance(word, candidate);
    if (word.size() >= 2 && candidate.starts_with(word))
      distance = std::min<std::size_t>(distance, 1);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string PointAt(std::string_view text, std::size_t at) {
  at = std::min(at, text.size());
  const std::size_t newline = text.substr(0, at).rfind('\n');
  const std::size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
  const std::string_view line = text.substr(line_start, text.find('\n', line_start) - line_start);
  std::size_t skip = 0;
  if (at - line_start > kShownLineMax / 2) skip = at - line_start - kShownLineMax / 2;
  while (skip > 0 && (static_cast<unsigned char>(line[skip]) & 0xC0U) == 0x80) --skip;
  const std::string cut = skip == 0 ? "" : "...";
  const std::string lead =
      absl::StrCat(cut, Escape(line.substr(skip, at - line_start - skip), Lines::kOne));
  const std::string shown = Fit(absl::StrCat(cut, Escape(line.substr(skip), Lines::kOne)),
                                kShownLineMax, /*unicode=*/false);
  return absl::StrCat("  ", shown, "\n  ", std::string(Width(lead), ' '), "^");
}

absl::Status WithHint(absl::Status status, const std::string& hint) {
  status.SetPayload(kHintUrl, absl::Cord(hint));
  return status;
}

std::string HintOf(const absl::Status& status) {
  const auto hint = status.GetPayload(kHintUrl);
  return hint.has_value() ? std::string(*hint) : std::string();
}

}  // namespace flux::ctl
