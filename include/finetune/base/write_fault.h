#pragma once

namespace finetune {

/// For tests of what a kill or a refusing disk leaves behind; asked before every change of the
/// disk (making, writing, flushing, renaming, removing). The environment variable
/// FINETUNE_WRITE_FAULT says what happens: "kill@7" ends the process as SIGKILL does before the
/// 7th, "28@7" refuses the 7th with errno 28 (ENOSPC), "28@7x3" the 7th to the 9th. True: refuse,
/// errno is set.
bool write_fault();

}  // namespace finetune
