// SIGTERM and SIGINT as a call on an ordinary thread.
#ifndef FLUX_WORKER_SRC_SIGNALS_H_
#define FLUX_WORKER_SRC_SIGNALS_H_

#include <functional>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"

namespace flux::internal {

// While any lives, SIGTERM and SIGINT call every one's `on_stop`, once, on its thread; from then on
// a second signal does what it did before, so that an impatient operator can end the process. The
// former handlers return when the last is destroyed. Thread-safe.
class StopSignals {
 public:
  // Internal: the process is out of file descriptors.
  static absl::StatusOr<std::unique_ptr<StopSignals>> Install(std::function<void()> on_stop);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  StopSignals(std::function<void()> on_stop, int signal_fd, int close_fd);
  void Main();

  const std::function<void()> on_stop_;
  const int signal_fd_;  // readable once a signal came; never read from, so that all see it
  const int close_fd_;   // readable once this one is destroyed
  std::thread thread_;
};

}  // namespace flux::internal

#endif  // FLUX_WORKER_SRC_SIGNALS_H_
