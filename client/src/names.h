// Rules for the names that users give to workflows, tasks, steps, events, queues and error types.
#ifndef FLUX_CLIENT_SRC_NAMES_H_
#define FLUX_CLIENT_SRC_NAMES_H_

#include <cstddef>
#include <string_view>

#include "absl/status/status.h"

namespace flux::internal {

// The server's limit (GraphLimits::name_bytes_max).
inline constexpr size_t kNameBytesMax = 256;

// InvalidArgument unless `name` is 1 to kNameBytesMax bytes of UTF-8 without control characters.
// `what` names the thing in the message, e.g. "task name".
absl::Status CheckName(std::string_view what, std::string_view name);

}  // namespace flux::internal

#endif  // FLUX_CLIENT_SRC_NAMES_H_
