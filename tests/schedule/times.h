// Instants written as people write them.
#ifndef FLUX_TESTS_SCHEDULE_TIMES_H_
#define FLUX_TESTS_SCHEDULE_TIMES_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"

namespace flux::engine::testing {

// Milliseconds of an RFC 3339 time; a test failure if it is none.
inline int64_t At(const std::string& text) {
  absl::Time time;
  std::string error;
  EXPECT_TRUE(absl::ParseTime(absl::RFC3339_full, text, &time, &error)) << text << ": " << error;
  return absl::ToUnixMillis(time);
}

inline std::string Text(std::optional<int64_t> time_ms) {
  if (!time_ms) return "never";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E*SZ", absl::FromUnixMillis(*time_ms),
                          absl::UTCTimeZone());
}

}  // namespace flux::engine::testing

#endif  // FLUX_TESTS_SCHEDULE_TIMES_H_
