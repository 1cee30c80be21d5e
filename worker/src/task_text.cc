#include "worker/src/task_text.h"

#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::internal {
namespace {

constexpr std::string_view kEllipsis = "...";

// Length of the well-formed UTF-8 sequence at `text[at]`, 0 if there is none (Unicode 15, table
// 3-7).
size_t SequenceLength(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto tail = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    const bool second = lead == 0xe0   ? byte(1) >= 0xa0 && byte(1) <= 0xbf
                        : lead == 0xed ? byte(1) >= 0x80 && byte(1) <= 0x9f
                                       : tail(1);
    return second && tail(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const bool second = lead == 0xf0   ? byte(1) >= 0x90 && byte(1) <= 0xbf
                        : lead == 0xf4 ? byte(1) >= 0x80 && byte(1) <= 0x8f
                                       : tail(1);
    return second && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string HexOf(std::string_view bytes) { return absl::BytesToHexString(ToAbsl(bytes)); }

std::string FencingToken(const v1::TaskToken& token) {
  return absl::StrCat(token.incarnation(), ".", HexOf(token.run_id()), ".", token.frame(), ".",
                      token.step(), ".", token.generation(), ".", token.delivery());
}

bool IsUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = SequenceLength(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

std::string CleanText(std::string text, size_t bytes_max) {
  const bool cut = text.size() > bytes_max;
  const size_t end_max = cut ? bytes_max - kEllipsis.size() : text.size();
  size_t at = 0;
  while (at < end_max) {
    const size_t length = SequenceLength(text, at);
    if (length == 0) text[at] = '?';
    if (at + length > end_max) break;
    at += length == 0 ? 1 : length;
  }
  text.resize(at);
  if (cut) text += kEllipsis;
  return text;
}

}  // namespace flux::internal
