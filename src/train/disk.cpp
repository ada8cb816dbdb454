#include "train/disk.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/base/stopwatch.h"
#include "finetune/base/text.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr double kMostSecondsBetween = 5;
constexpr std::uint64_t kMetricsLineBytes = 512;

/// Of all files in the folder.
std::uint64_t folder_bytes(const fs::path& folder) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(folder, error)) {
    if (entry.is_regular_file(error)) bytes += entry.file_size(error);
  }
  return bytes;
}

/// What the disk said, or "" when it took everything.
std::string refusal(const std::function<void()>& write) {
  try {
    write();
    return "";
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::resource) throw;
    return error.what();
  } catch (const fs::filesystem_error& error) {
    return error.what();
  }
}

void wait(double seconds) {
  const Stopwatch watch;
  while (watch.seconds() < seconds && interrupt_signal() == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

}  // namespace

void save_patiently(const std::string& what, std::int64_t retry_seconds,
                    const std::function<void()>& write) {
  const Stopwatch watch;
  const auto limit = static_cast<double>(retry_seconds);
  std::string problem = refusal(write);
  if (problem.empty()) return;
  const bool interrupted_before = interrupt_signal() != 0;
  if (retry_seconds > 0 && !interrupted_before) {
    log_warning("disk",
                "{}: {}. The run waits with its state in memory and tries again for {} "
                "(disk_retry_seconds); free space there or make the folder writable again",
                what, problem, format_seconds(limit));
  }
  while (watch.seconds() < limit && interrupt_signal() == 0) {
    wait(std::clamp(limit / 20, 0.05, kMostSecondsBetween));
    problem = refusal(write);
    if (problem.empty()) {
      log_info("disk", "{}: written after {}", what, format_seconds(watch.seconds()));
      return;
    }
  }
  fail(ErrorKind::resource,
       "{} could not be saved{}: {}. Earlier checkpoints are whole; free space or make the folder "
       "writable, then --resume continues from the last one",
       what,
       interrupt_signal() != 0
           ? " before the interrupt"
           : fmt::format(" within {} (disk_retry_seconds)", format_seconds(limit)),
       problem);
}

void check_free_space(const fs::path& folder, std::uint64_t needed, const std::string& purpose) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (error || space.available >= needed) return;  // a disk that does not tell is not full
  fail(
      ErrorKind::resource,
      "{}: the disk has {} free, and the run writes {}: {}. Free space, choose another output_dir, "
      "or lower save_total_limit",
      folder.string(), format_bytes(space.available), format_bytes(needed), purpose);
}

void check_run_space(const fs::path& folder, const Config& config, std::uint64_t values_bytes,
                     std::uint64_t state_bytes, std::int64_t total_steps) {
  const std::uint64_t checkpoint = values_bytes + state_bytes;
  const auto steps = static_cast<std::uint64_t>(total_steps);
  // The oldest one is removed when the newest is whole.
  const std::uint64_t count =
      std::min<std::uint64_t>(static_cast<std::uint64_t>(config.save_total_limit) + 1, steps);
  const std::uint64_t lines =
      steps / static_cast<std::uint64_t>(config.logging_steps) * kMetricsLineBytes;
  const std::uint64_t total = count * checkpoint + values_bytes + lines,
                      present = folder_bytes(folder);
  check_free_space(
      folder, total > present ? total - present : 0,
      fmt::format("{} checkpoints of {}, the result and metrics", count, format_bytes(checkpoint)));
}

}  // namespace finetune
