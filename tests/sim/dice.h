// All randomness of the simulation: a stream of numbers that the seed alone decides, on every
// machine.
#ifndef FLUX_TESTS_SIM_DICE_H_
#define FLUX_TESTS_SIM_DICE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace flux::sim {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
inline uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// FNV-1a (Fowler, Noll, Vo), mixed.
inline uint64_t Hash(std::string_view text, uint64_t from = 0xcbf29ce484222325) {
  uint64_t hash = from;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return Mix(hash);
}

// Copyable; each copy goes on by itself. Not thread-safe.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}

  uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15); }
  // In [0, n); n > 0.
  uint64_t Below(uint64_t n) { return Next() % n; }
  // In [from, to], both included.
  int64_t Between(int64_t from, int64_t to) {
    return from + static_cast<int64_t>(Below(static_cast<uint64_t>(to - from) + 1));
  }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  bool Chance(uint32_t permille) { return permille > 0 && Below(1000) < permille; }
  template <typename T>
  T Pick(std::initializer_list<T> from) {
    return *(from.begin() + Below(from.size()));
  }

 private:
  uint64_t state_;
};

}  // namespace flux::sim

#endif  // FLUX_TESTS_SIM_DICE_H_
