#include "engine/core/retry.h"

#include <algorithm>

namespace flux::engine {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
uint64_t Mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t JitterBits(uint64_t seed, const StepKey& key, uint32_t attempt) {
  return Mix(Mix(Mix(Mix(seed) ^ key.frame) ^ key.step) ^ attempt);
}

int64_t BackoffMs(const v1::RetryPolicy& policy, uint32_t attempt) {
  const int64_t cap = std::max<int64_t>(policy.max_backoff_ms(), 0);
  int64_t gap = std::min(policy.initial_backoff_ms(), cap);
  const int64_t factor = policy.factor_permille();
  if (factor <= 1000) return gap;
  for (uint32_t i = 1; i < attempt && gap < cap; ++i) {
    // Both are bounded (a hundred years, a factor of a thousand), so that the product fits.
    const int64_t grown = std::min(gap * factor / 1000, cap);
    // A gap too small to grow by whole milliseconds grows by one.
    gap = std::max(grown, std::min(gap + 1, cap));
  }
  return gap;
}

int64_t JitteredBackoffMs(const v1::RetryPolicy& policy, uint32_t attempt, uint64_t bits) {
  const int64_t gap = BackoffMs(policy, attempt);
  const int64_t share = gap * static_cast<int64_t>(policy.jitter_permille()) / 1000;
  if (share <= 0) return gap;
  return gap - share + static_cast<int64_t>(bits % (static_cast<uint64_t>(share) + 1));
}

bool IsRetriable(const v1::TaskStep& task, const v1::Failure& failure) {
  if (failure.non_retriable()) return false;
  const auto& types = task.non_retriable();
  return std::find(types.begin(), types.end(), failure.type()) == types.end();
}

}  // namespace flux::engine
