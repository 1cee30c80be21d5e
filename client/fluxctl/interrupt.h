// Ctrl-C as a question that can be asked, instead of the process's end.
#ifndef FLUX_CLIENT_FLUXCTL_INTERRUPT_H_
#define FLUX_CLIENT_FLUXCTL_INTERRUPT_H_

#include <csignal>

namespace flux::ctl {

// While alive, SIGINT and SIGTERM only set a flag, so that a command can give the cursor back and
// say what goes on without it. One at a time; made and destroyed by the thread that asks.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // Whether one has come since the last guard was made.
  static bool Interrupted();

 private:
  struct sigaction old_interrupt_ {};
  struct sigaction old_terminate_ {};
};

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_INTERRUPT_H_
