#include "finetune/base/machine.h"

#include <sched.h>
#include <sys/resource.h>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

namespace finetune {

namespace fs = std::filesystem;

namespace {

/// Cores that a container's quota allows (cgroup v2, "200000 100000" is two); more threads would
/// only be throttled.
int quota_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0)
    return std::numeric_limits<int>::max();
  return std::max(1, static_cast<int>(std::ceil(std::strtod(quota.c_str(), nullptr) / period)));
}

/// The bytes after "MemTotal:" in a file of such lines, which are in kB; 0 where there is none.
std::uint64_t line_bytes(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name)) return std::stoull(line.substr(name.size())) * 1024;
  }
  return 0;
}

/// The limit in one file of a control group; "max", and the huge number of v1, are none.
void take_limit(const fs::path& path, std::optional<std::uint64_t>& lowest) {
  std::ifstream file(path);
  std::uint64_t bytes = 0;
  constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 60;
  if (!(file >> bytes) || bytes >= kNoLimit) return;
  lowest = std::min(lowest.value_or(bytes), bytes);
}

/// Limits of this process's groups and of their parents.
std::optional<std::uint64_t> group_limit() {
  const fs::path root = "/sys/fs/cgroup";
  std::optional<std::uint64_t> lowest;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t names = line.find(':'), path = line.find(':', names + 1);
    if (path == std::string::npos) continue;
    const bool second_version = path == names + 1;
    const bool memory = line.substr(names, path - names).find("memory") != std::string::npos;
    if (!second_version && !memory) continue;
    const fs::path base = second_version ? root : root / "memory";
    const char* name = second_version ? "memory.max" : "memory.limit_in_bytes";
    fs::path group = fs::path(line.substr(path + 1)).relative_path();
    for (;; group = group.parent_path()) {
      take_limit(base / group / name, lowest);
      if (group.empty()) break;
    }
  }
  return lowest;
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int allowed = sched_getaffinity(0, sizeof(set), &set) == 0
                          ? CPU_COUNT(&set)
                          : static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(allowed, quota_cores()));
}

bool MemoryLimits::group_bounds() const { return group_bytes && *group_bytes < available_bytes; }

std::uint64_t MemoryLimits::usable_bytes() const {
  return group_bounds() ? *group_bytes : available_bytes;
}

MemoryLimits memory_limits() {
  return {line_bytes("/proc/meminfo", "MemTotal:"), line_bytes("/proc/meminfo", "MemAvailable:"),
          group_limit(), line_bytes("/proc/meminfo", "SwapFree:")};
}

std::uint64_t resident_bytes() { return line_bytes("/proc/self/status", "VmRSS:"); }

std::uint64_t peak_memory_bytes() {
  // Not getrusage first: its peak begins with that of the process that started this one.
  if (const std::uint64_t peak = line_bytes("/proc/self/status", "VmHWM:"); peak > 0) return peak;
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;  // Linux counts KiB
}

void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

std::uint64_t free_disk_bytes(const fs::path& path) {
  std::error_code error;
  fs::path place = fs::absolute(path, error);
  while (!fs::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  const fs::space_info space = fs::space(place, error);
  return error ? 0 : space.available;
}

}  // namespace finetune
