// Texts of a delivery for people and external systems.
#ifndef FLUX_WORKER_SRC_TASK_TEXT_H_
#define FLUX_WORKER_SRC_TASK_TEXT_H_

#include <string>
#include <string_view>

#include "flux/v1/worker.pb.h"

namespace flux::internal {

// Lower-case hex digits, two a byte.
std::string HexOf(std::string_view bytes);

// incarnation.run.frame.step.generation.delivery, e.g. "1.0190….4.2.0.7": equal for no two
// deliveries.
std::string FencingToken(const v1::TaskToken& token);

// Whether the wire's strings take it.
bool IsUtf8(std::string_view text);

// At most `bytes_max` bytes (cut with an ellipsis) of valid UTF-8: what does not decode becomes
// '?'. The wire's strings take nothing else.
std::string CleanText(std::string text, size_t bytes_max);

}  // namespace flux::internal

#endif  // FLUX_WORKER_SRC_TASK_TEXT_H_
