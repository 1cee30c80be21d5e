// What a benchmark's processes tell each other: counters in shared memory.
#ifndef FLUX_BENCH_SHARED_H_
#define FLUX_BENCH_SHARED_H_

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <string_view>

namespace flux::bench {

inline int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Counts of latencies in buckets of about 3 % width: 32 a power of two. Lock-free.
class Histogram {
 public:
  static constexpr size_t kBuckets = 32 * 60;

  void Add(int64_t ns) {
    buckets_[BucketOf(ns < 1 ? 1 : static_cast<uint64_t>(ns))].fetch_add(1,
                                                                         std::memory_order_relaxed);
  }
  std::array<uint64_t, kBuckets> Read() const {
    std::array<uint64_t, kBuckets> out;
    for (size_t i = 0; i < kBuckets; ++i) out[i] = buckets_[i].load(std::memory_order_relaxed);
    return out;
  }
  // The value below which `share` of `counts` lie, in milliseconds (the middle of its bucket).
  static double QuantileMs(const std::array<uint64_t, kBuckets>& counts, double share) {
    uint64_t total = 0;
    for (uint64_t count : counts) total += count;
    if (total == 0) return 0;
    const auto target = static_cast<uint64_t>(static_cast<double>(total) * share);
    uint64_t seen = 0;
    for (size_t i = 0; i < kBuckets; ++i) {
      seen += counts[i];
      if (seen > target) return (LowOf(i) + LowOf(i + 1)) / 2 / 1e6;
    }
    return LowOf(kBuckets) / 1e6;
  }

 private:
  static size_t BucketOf(uint64_t v) {
    const int power = std::bit_width(v) - 1;
    const uint64_t part = power >= 5 ? (v >> (power - 5)) & 31 : (v << (5 - power)) & 31;
    return std::min<size_t>(static_cast<size_t>(power) * 32 + part, kBuckets - 1);
  }
  static double LowOf(size_t bucket) {
    const double base = static_cast<double>(uint64_t{1} << (bucket / 32));
    return base * (1 + static_cast<double>(bucket % 32) / 32);
  }
  std::array<std::atomic<uint64_t>, kBuckets> buckets_;
};

inline constexpr size_t kSlotsMax = 65'536;  // executions in flight

struct Shared {
  std::atomic<uint64_t> steps;  // tasks run
  std::atomic<uint64_t> ready;  // processes that are set up
  Histogram latency;            // from one step of an execution to its next
  // By execution slot: which execution (its number) ran its last step, and when.
  struct Last {
    std::atomic<uint64_t> number;
    std::atomic<int64_t> at_ns;
  };
  std::array<Last, kSlotsMax> last;

  // A step of execution `number` of `slot` begins.
  void Step(size_t slot, uint64_t number) {
    const int64_t now = NowNs();
    Last& entry = last[slot % kSlotsMax];
    const int64_t before = entry.at_ns.exchange(now, std::memory_order_relaxed);
    if (entry.number.exchange(number + 1, std::memory_order_relaxed) == number + 1) {
      latency.Add(now - before);
    }
    steps.fetch_add(1, std::memory_order_relaxed);
  }

  // Zero-filled, and shared with processes that inherit `fd`.
  static Shared* Map(int fd) {
    void* at = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? nullptr : static_cast<Shared*>(at);
  }
};

}  // namespace flux::bench

#endif  // FLUX_BENCH_SHARED_H_
