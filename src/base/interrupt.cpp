#include "finetune/base/interrupt.h"

#include <unistd.h>
#include <csignal>
#include <string_view>

namespace finetune {

namespace {

volatile std::sig_atomic_t signal_seen = 0;
volatile std::sig_atomic_t grace = 0;

/// Nothing but what POSIX allows in a signal handler.
[[noreturn]] void end_now(std::string_view message) {
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, message.data(), message.size());
  ::_exit(128 + signal_seen);
}

void on_interrupt(int signal) {
  if (signal_seen != 0)
    end_now(
        "error: interrupted again; ended without saving more, --resume continues from the last "
        "checkpoint\n");
  signal_seen = signal;
  ::alarm(static_cast<unsigned>(grace));
}

void on_alarm(int) {
  end_now(
      "error: still at work after interrupt_grace_seconds; ended without saving more, --resume "
      "continues from the last checkpoint\n");
}

}  // namespace

void catch_interrupts(std::int64_t grace_seconds) {
  grace = static_cast<std::sig_atomic_t>(grace_seconds);
  struct sigaction action = {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = on_alarm;
  sigaction(SIGALRM, &action, nullptr);
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int interrupt_signal() { return signal_seen; }

}  // namespace finetune
