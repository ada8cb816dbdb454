#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace finetune {

/// Cores this process may use: its affinity mask, and no more than a container's quota.
int usable_cores();

/// What the machine and the control groups of this process grant.
struct MemoryLimits {
  std::uint64_t total_bytes = 0;             ///< of the machine
  std::uint64_t available_bytes = 0;         ///< what the kernel could give without swapping
  std::optional<std::uint64_t> group_bytes;  ///< the lowest limit of the control groups (v1, v2)
  std::uint64_t swap_bytes = 0;              ///< free

  /// What a process that starts now can have.
  std::uint64_t usable_bytes() const;
  /// The control groups grant less than the machine has.
  bool group_bounds() const;
};
MemoryLimits memory_limits();

/// This process's resident set now.
std::uint64_t resident_bytes();
/// The largest it has been, since reset_peak_memory() where that was called.
std::uint64_t peak_memory_bytes();
/// Lets peak_memory_bytes() begin anew with the present resident set, where the kernel allows it.
void reset_peak_memory();

/// Free bytes of the file system that holds `path`, or that would: its nearest folder that exists.
std::uint64_t free_disk_bytes(const std::filesystem::path& path);

}  // namespace finetune
