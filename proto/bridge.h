// The one bridge between std and this toolchain's abseil, whose string_view is a type of its own.
#ifndef FLUX_PROTO_BRIDGE_H_
#define FLUX_PROTO_BRIDGE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace flux {

inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view ToStd(absl::string_view s) { return {s.data(), s.size()}; }

// A status's message as fmt and the standard library can take it.
inline std::string_view Message(const absl::Status& status) { return ToStd(status.message()); }

}  // namespace flux

// Returns the status of `expression` from the enclosing function unless it is OK.
#define FLUX_RETURN_IF_ERROR(expression)                                                   \
  do {                                                                                     \
    if (absl::Status flux_status_ = (expression); !flux_status_.ok()) return flux_status_; \
  } while (false)

#define FLUX_CONCAT_INNER_(a, b) a##b
#define FLUX_CONCAT_(a, b) FLUX_CONCAT_INNER_(a, b)
// FLUX_ASSIGN_OR_RETURN(auto value, MayFail());
#define FLUX_ASSIGN_OR_RETURN(declaration, expression) \
  FLUX_ASSIGN_OR_RETURN_(FLUX_CONCAT_(flux_statusor_, __LINE__), declaration, expression)
#define FLUX_ASSIGN_OR_RETURN_(temporary, declaration, expression) \
  auto temporary = (expression);                                   \
  if (!temporary.ok()) return std::move(temporary).status();       \
  declaration = *std::move(temporary)

#endif  // FLUX_PROTO_BRIDGE_H_
