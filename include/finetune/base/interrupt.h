#pragma once

namespace finetune {

/// From now on SIGINT and SIGTERM only set a mark that long work looks at between steps; a second
/// one ends the process at once.
void catch_interrupts();

/// The signal that came (SIGINT, SIGTERM), or 0.
int interrupt_signal();

}  // namespace finetune
