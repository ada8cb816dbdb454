#pragma once

#include "finetune/config/config.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace finetune {

/// Runs `write`, which saves part of the run, until the disk takes it: a full, read-only or
/// vanished one makes the run wait with its state in memory, and say so. Throws Error(resource)
/// after `retry_seconds`, or when an interrupt comes meanwhile. `what` is for the messages: "the
/// checkpoint of step 20".
void save_patiently(const std::string& what, std::int64_t retry_seconds,
                    const std::function<void()>& write);

/// Throws Error(resource) when fewer than `needed` bytes are free where `folder` is. `purpose` says
/// what they are for.
void check_free_space(const std::filesystem::path& folder, std::uint64_t needed,
                      const std::string& purpose);

/// The same for a whole run's checkpoints, result and metrics, less what is there already.
/// `values_bytes`: of the trained values in float32; `state_bytes`: of the optimizer.
void check_run_space(const std::filesystem::path& folder, const Config& config,
                     std::uint64_t values_bytes, std::uint64_t state_bytes,
                     std::int64_t total_steps);

}  // namespace finetune
