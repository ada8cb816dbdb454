#include "finetune/base/interrupt.h"

#include <csignal>

namespace finetune {

namespace {

volatile std::sig_atomic_t signal_seen = 0;

void remember(int signal) { signal_seen = signal; }

}  // namespace

void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = remember;
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int interrupt_signal() { return signal_seen; }

}  // namespace finetune
