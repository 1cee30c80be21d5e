#include "engine/server/runtime.h"

#include <pthread.h>

#include <chrono>
#include <utility>

namespace flux::server {
namespace {

template <typename Clock>
int64_t Milliseconds() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now().time_since_epoch())
      .count();
}

}  // namespace

int64_t SystemClock::WallMs() const { return Milliseconds<std::chrono::system_clock>(); }
int64_t SystemClock::MonotonicMs() const { return Milliseconds<std::chrono::steady_clock>(); }

ThreadPool::ThreadPool(int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Work(); });
    pthread_setname_np(threads_.back().native_handle(), "flux-reads");
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Run(absl::AnyInvocable<void()> job) {
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
}

void ThreadPool::Work() {
  for (;;) {
    absl::AnyInvocable<void()> job;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

EngineThread::EngineThread(engine::Engine* engine) : engine_(engine), thread_([this] { Loop(); }) {
  pthread_setname_np(thread_.native_handle(), "flux-loop");
}

EngineThread::~EngineThread() {
  if (thread_.joinable()) Drain(absl::ZeroDuration());
}

void EngineThread::Loop() {
  const SystemClock clock;
  while (!stop_.load(std::memory_order_relaxed)) {
    engine_->Turn();
    if (draining_.load(std::memory_order_relaxed) && engine_->Quiet()) {
      quiet_.store(true, std::memory_order_relaxed);
      return;
    }
    const int64_t wait_ms = engine_->NextDeadlineMs() - clock.MonotonicMs();
    if (wait_ms > 0) engine_->inbox().Wait(absl::Milliseconds(wait_ms), engine_->held_up());
  }
}

bool EngineThread::Drain(absl::Duration timeout) {
  draining_.store(true, std::memory_order_relaxed);
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  while (!quiet_.load(std::memory_order_relaxed) && std::chrono::steady_clock::now() < deadline) {
    engine_->inbox().Push([] {});
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  stop_.store(true, std::memory_order_relaxed);
  engine_->inbox().Push([] {});
  thread_.join();
  return quiet_.load(std::memory_order_relaxed);
}

}  // namespace flux::server
