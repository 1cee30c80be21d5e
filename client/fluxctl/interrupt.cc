#include "client/fluxctl/interrupt.h"

namespace flux::ctl {
namespace {

// A signal handler has no other place to leave its word.
volatile std::sig_atomic_t g_interrupted = 0;

}  // namespace

InterruptGuard::InterruptGuard() {
  g_interrupted = 0;
  struct sigaction action {};
  action.sa_handler = [](int signal) { g_interrupted = signal; };
  sigaction(SIGINT, &action, &old_interrupt_);
  sigaction(SIGTERM, &action, &old_terminate_);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &old_interrupt_, nullptr);
  sigaction(SIGTERM, &old_terminate_, nullptr);
}

bool InterruptGuard::Interrupted() { return g_interrupted != 0; }

}  // namespace flux::ctl
