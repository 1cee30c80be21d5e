#include "engine/schedule/spec.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::engine {
namespace {

constexpr size_t kZoneBytesMax = 64;

// The greatest multiple of `every` plus `offset` that is at most `at`, for any sign.
int64_t FloorTo(int64_t at, int64_t every, int64_t offset) {
  const int64_t from_offset = at - offset;
  int64_t rest = from_offset % every;
  if (rest < 0) rest += every;
  return at - rest;
}

// splitmix64 (Steele, Lea, Flood 2014)
uint64_t Mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

absl::Status CheckTime(const char* what, int64_t ms) {
  if (ms >= 0 && ms <= kScheduleTimeMaxMs) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " is ", ms, ", which is no time from 1970 to 9999 in milliseconds"));
}

}  // namespace

absl::StatusOr<absl::TimeZone> LoadScheduleZone(std::string_view name) {
  if (name.empty()) return absl::UTCTimeZone();
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '/' || c == '_' || c == '-' ||
           c == '+';
  };
  // The library would also read any file by its path, and what this machine calls its local time.
  const bool plain = name.size() <= kZoneBytesMax && name.front() != '/' && name != "localtime" &&
                     std::all_of(name.begin(), name.end(), allowed);
  absl::TimeZone zone;
  if (!plain || !absl::LoadTimeZone(ToAbsl(name), &zone)) {
    // A longer one is not shown: a cut through a character would be no text any more.
    const std::string shown = name.size() <= kZoneBytesMax
                                  ? absl::StrCat("\"", ToAbsl(name), "\"")
                                  : absl::StrCat("of ", name.size(), " bytes");
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown time zone ", shown,
        ": use an IANA name such as Europe/Berlin or America/New_York, or UTC (the coordinator's "
        "machine needs the package tzdata)"));
  }
  return zone;
}

absl::StatusOr<Spec> Spec::Compile(const v1::ScheduleSpec& spec, uint64_t seed) {
  Spec out;
  out.seed_ = seed;
  const int parts = spec.crons_size() + spec.intervals_size();
  if (parts == 0) {
    return absl::InvalidArgumentError(
        "the schedule has no times: give a cron expression or an interval");
  }
  if (parts > kScheduleTimesMax) {
    return absl::InvalidArgumentError(absl::StrCat("the schedule has ", parts,
                                                   " cron expressions and intervals; at most ",
                                                   kScheduleTimesMax, " are allowed: split it"));
  }
  FLUX_ASSIGN_OR_RETURN(out.zone_, LoadScheduleZone(spec.time_zone()));
  for (const std::string& text : spec.crons()) {
    FLUX_ASSIGN_OR_RETURN(Cron cron, Cron::Parse(text));
    out.crons_.push_back(cron);
  }
  for (const v1::ScheduleInterval& interval : spec.intervals()) {
    if (interval.every_ms() < kScheduleEveryMinMs || interval.every_ms() > kScheduleEveryMaxMs) {
      return absl::InvalidArgumentError(absl::StrCat(
          "an interval of ", interval.every_ms(), " ms is not allowed: use 1 s to ", "10 years"));
    }
    if (interval.offset_ms() < 0 || interval.offset_ms() >= interval.every_ms()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the offset ", interval.offset_ms(), " ms of an interval of ",
                       interval.every_ms(), " ms must be at least 0 and less than the interval"));
    }
    out.intervals_.push_back({interval.every_ms(), interval.offset_ms()});
  }
  FLUX_RETURN_IF_ERROR(CheckTime("start_time_ms", spec.start_time_ms()));
  FLUX_RETURN_IF_ERROR(CheckTime("end_time_ms", spec.end_time_ms()));
  out.start_ms_ = spec.start_time_ms();
  if (spec.end_time_ms() != 0) out.end_ms_ = spec.end_time_ms();
  if (out.end_ms_ < out.start_ms_) {
    return absl::InvalidArgumentError("the schedule ends before it starts: exchange the bounds");
  }
  if (spec.jitter_ms() < 0 || spec.jitter_ms() > kScheduleJitterMaxMs) {
    return absl::InvalidArgumentError(
        absl::StrCat("a jitter of ", spec.jitter_ms(), " ms is not allowed: use 0 to 7 days"));
  }
  out.jitter_ms_ = spec.jitter_ms();
  return out;
}

Spec Spec::Never() { return Spec(); }

std::optional<int64_t> Spec::Next(int64_t after_ms) const {
  const int64_t after = std::max(after_ms, start_ms_ - 1);
  if (after >= end_ms_) return std::nullopt;
  int64_t best = INT64_MAX;
  for (const Interval& interval : intervals_) {
    best =
        std::min(best, FloorTo(after, interval.every_ms, interval.offset_ms) + interval.every_ms);
  }
  for (const Cron& cron : crons_) {
    best = std::min(best, cron.Next(after, zone_).value_or(INT64_MAX));
  }
  if (best > end_ms_) return std::nullopt;
  return best;
}

int64_t Spec::FireTime(int64_t nominal_ms) const {
  if (jitter_ms_ == 0) return nominal_ms;
  int64_t span = jitter_ms_;
  if (const auto next = Next(nominal_ms)) span = std::min(span, *next - nominal_ms);
  return nominal_ms + static_cast<int64_t>(Mix(seed_ ^ Mix(static_cast<uint64_t>(nominal_ms))) %
                                           static_cast<uint64_t>(span));
}

uint64_t Spec::Count(int64_t after_ms, int64_t through_ms, uint64_t limit) const {
  const int64_t through = std::min(through_ms, end_ms_);
  const int64_t after = std::max(after_ms, start_ms_ - 1);
  if (through <= after) return 0;
  if (crons_.empty() && intervals_.size() == 1) {
    const Interval& interval = intervals_.front();
    const int64_t times = (FloorTo(through, interval.every_ms, interval.offset_ms) -
                           FloorTo(after, interval.every_ms, interval.offset_ms)) /
                          interval.every_ms;
    return std::min(static_cast<uint64_t>(times), limit);
  }
  uint64_t count = 0;
  for (int64_t at = after; count < limit; ++count) {
    const auto next = Next(at);
    if (!next || *next > through) break;
    at = *next;
  }
  return count;
}

}  // namespace flux::engine
