// What a payload counts as where it is held against a limit, and what is said of one that is over
// it.
#ifndef FLUX_ENGINE_CORE_PAYLOAD_LIMIT_H_
#define FLUX_ENGINE_CORE_PAYLOAD_LIMIT_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "flux/v1/payload.pb.h"
#include "proto/bridge.h"

namespace flux::engine {

// The type of the failure that takes the place of what is too large.
inline constexpr char kPayloadTooLarge[] = "flux.payload_too_large";

// All that it carries, not its data alone: content type and metadata lie and travel with it.
inline size_t PayloadBytes(const v1::Payload& payload) {
  size_t bytes = payload.data().size() + payload.content_type().size();
  for (const auto& [key, value] : payload.metadata()) bytes += key.size() + value.size();
  return bytes;
}

// Of a payload that has more than `bytes_max`. `act`: "pass" or "return".
inline std::string OverPayloadLimit(std::string_view what, size_t bytes, size_t bytes_max,
                                    std::string_view act) {
  return absl::StrCat(ToAbsl(what), " has ", bytes, " bytes; the limit is ", bytes_max,
                      ", fluxd's payload-bytes-max: ", ToAbsl(act),
                      " a reference to the data instead, or raise it");
}

// How much room an answer has for payloads, and how many bytes of them it has none for.
class PayloadBudget {
 public:
  explicit PayloadBudget(size_t bytes) : left_(bytes) {}

  // False: there is no room for so many.
  bool Take(size_t bytes) {
    if (bytes > left_) {
      left_out_ += bytes;
      return false;
    }
    left_ -= bytes;
    return true;
  }
  size_t left_out() const { return left_out_; }

 private:
  size_t left_;
  size_t left_out_ = 0;
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_PAYLOAD_LIMIT_H_
