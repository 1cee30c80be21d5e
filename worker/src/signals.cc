#include "worker/src/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"

namespace flux::internal {
namespace {

// A signal handler reaches nothing but globals: these are the ones of this process's stop signals.
std::atomic<int> g_signal_fd = -1;
static_assert(std::atomic<int>::is_always_lock_free);

struct Hub {
  std::mutex mutex;
  int users = 0;
  struct sigaction former_term;
  struct sigaction former_int;
};
Hub& GetHub() {
  static Hub* hub = new Hub;  // never destroyed: a signal may come at exit
  return *hub;
}

extern "C" void OnStopSignal(int) {
  const int saved = errno;
  const uint64_t one = 1;
  // Nothing can be done here if it fails; the counter cannot overflow.
  if (write(g_signal_fd.load(std::memory_order_relaxed), &one, sizeof one) < 0) {
  }
  errno = saved;
}

absl::Status ErrnoStatus(const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<StopSignals>> StopSignals::Install(std::function<void()> on_stop) {
  Hub& hub = GetHub();
  std::lock_guard lock(hub.mutex);
  const int close_fd = eventfd(0, EFD_CLOEXEC);
  if (close_fd < 0) return ErrnoStatus("no eventfd to wait for SIGTERM with");
  if (hub.users == 0) {
    const int signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (signal_fd < 0) {
      close(close_fd);
      return ErrnoStatus("no eventfd to wait for SIGTERM with");
    }
    g_signal_fd.store(signal_fd);
    struct sigaction action = {};
    action.sa_handler = OnStopSignal;
    action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, &hub.former_term);
    sigaction(SIGINT, &action, &hub.former_int);
  }
  ++hub.users;
  return std::unique_ptr<StopSignals>(
      new StopSignals(std::move(on_stop), g_signal_fd.load(), close_fd));
}

StopSignals::StopSignals(std::function<void()> on_stop, int signal_fd, int close_fd)
    : on_stop_(std::move(on_stop)), signal_fd_(signal_fd), close_fd_(close_fd) {
  thread_ = std::thread([this] { Main(); });
}

void StopSignals::Main() {
  pollfd fds[2] = {{.fd = signal_fd_, .events = POLLIN, .revents = 0},
                   {.fd = close_fd_, .events = POLLIN, .revents = 0}};
  while (poll(fds, 2, -1) < 0) {
    if (errno != EINTR) return;
  }
  if ((fds[0].revents & POLLIN) != 0) on_stop_();
}

StopSignals::~StopSignals() {
  const uint64_t one = 1;
  while (write(close_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
  close(close_fd_);
  Hub& hub = GetHub();
  std::lock_guard lock(hub.mutex);
  if (--hub.users > 0) return;
  sigaction(SIGTERM, &hub.former_term, nullptr);
  sigaction(SIGINT, &hub.former_int, nullptr);
  close(g_signal_fd.exchange(-1));
}

}  // namespace flux::internal
