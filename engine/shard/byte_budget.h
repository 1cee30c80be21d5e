// How many bytes of what others have brought lie in memory until they are dealt with.
#ifndef FLUX_ENGINE_SHARD_BYTE_BUDGET_H_
#define FLUX_ENGINE_SHARD_BYTE_BUDGET_H_

#include <atomic>
#include <cstddef>
#include <utility>

namespace flux::engine {

// Thread-safe. It must outlive what is held of it.
class ByteBudget {
 public:
  // Some bytes of a budget, until it is destroyed. Thread-compatible.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Hold() {
      if (budget_ != nullptr) budget_->held_.fetch_sub(bytes_, std::memory_order_relaxed);
    }

   private:
    friend class ByteBudget;
    Hold(ByteBudget* budget, size_t bytes) : budget_(budget), bytes_(bytes) {}
    ByteBudget* budget_ = nullptr;
    size_t bytes_ = 0;
  };

  explicit ByteBudget(size_t max) : max_(max) {}

  // Whatever is held already: the caller looks at full() before or after.
  Hold Take(size_t bytes) {
    held_.fetch_add(bytes, std::memory_order_relaxed);
    return {this, bytes};
  }
  bool full() const { return held() >= max_; }
  size_t held() const { return held_.load(std::memory_order_relaxed); }
  size_t max() const { return max_; }

 private:
  const size_t max_;
  std::atomic<size_t> held_{0};
};

}  // namespace flux::engine

#endif  // FLUX_ENGINE_SHARD_BYTE_BUDGET_H_
