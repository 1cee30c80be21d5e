// Identity of one run of an execution: 16 bytes, time-ordered (UUID version 7 layout, RFC 9562), so
// that rows of later runs lie behind those of earlier ones. As text: 32 lower-case hex digits.
#ifndef FLUX_ENGINE_CORE_RUN_ID_H_
#define FLUX_ENGINE_CORE_RUN_ID_H_

#include <bit>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace flux::engine {

struct RunId {
  uint64_t high = 0;  // 48 bits of milliseconds, version, 12 random bits
  uint64_t low = 0;   // variant, 62 random bits

  auto operator<=>(const RunId&) const = default;
  bool empty() const { return high == 0 && low == 0; }

  // `random_a` and `random_b` are any random bits.
  static RunId Make(int64_t now_ms, uint64_t random_a, uint64_t random_b) {
    return {(static_cast<uint64_t>(now_ms) << 16) | 0x7000 | (random_a & 0xfff),
            (uint64_t{2} << 62) | (random_b & 0x3fff'ffff'ffff'ffff)};
  }

  std::string Bytes() const {
    std::string out(16, '\0');
    for (int i = 0; i < 8; ++i) {
      out[i] = static_cast<char>(high >> (56 - 8 * i));
      out[8 + i] = static_cast<char>(low >> (56 - 8 * i));
    }
    return out;
  }

  static std::optional<RunId> FromBytes(std::string_view bytes) {
    if (bytes.size() != 16) return std::nullopt;
    RunId id;
    for (int i = 0; i < 8; ++i) {
      id.high = id.high << 8 | static_cast<uint8_t>(bytes[i]);
      id.low = id.low << 8 | static_cast<uint8_t>(bytes[8 + i]);
    }
    return id;
  }

  std::string Text() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    out.reserve(32);
    for (unsigned char c : Bytes()) {
      out += kDigits[c >> 4];
      out += kDigits[c & 15];
    }
    return out;
  }

  static std::optional<RunId> FromText(std::string_view text) {
    if (text.size() != 32) return std::nullopt;
    RunId id;
    for (int i = 0; i < 32; ++i) {
      const char c = text[i];
      uint64_t digit = 0;
      if (c >= '0' && c <= '9')
        digit = c - '0';
      else if (c >= 'a' && c <= 'f')
        digit = c - 'a' + 10;
      else
        return std::nullopt;
      uint64_t& half = i < 16 ? id.high : id.low;
      half = half << 4 | digit;
    }
    return id;
  }

  template <typename H>
  friend H AbslHashValue(H h, const RunId& id) {
    return H::combine(std::move(h), id.high, id.low);
  }
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_CORE_RUN_ID_H_
