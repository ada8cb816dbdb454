#pragma once

#include <cstdint>

namespace finetune {

/// From now on SIGINT and SIGTERM only set a mark that long work looks at between steps. A second
/// one ends the process at once, and so does the end of `grace_seconds` after the first; the exit
/// code is 128 + the signal.
void catch_interrupts(std::int64_t grace_seconds);

/// The signal that came (SIGINT, SIGTERM), or 0.
int interrupt_signal();

}  // namespace finetune
