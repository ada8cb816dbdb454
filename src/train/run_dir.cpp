#include "finetune/train/run_dir.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/formats/adapter_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kCheckpointPrefix = "checkpoint-";
constexpr std::string_view kAsidePrefix = "damaged-checkpoint-";
constexpr const char* kResultFiles[] = {
    kConfigFile,         kMetricsFile,           kModelWeightsFile,
    kAdapterWeightsFile, kBottleneckWeightsFile, kAdapterConfigFile};

/// The step in "checkpoint-120".
std::optional<std::int64_t> checkpoint_step(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kCheckpointPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kCheckpointPrefix.size(), end, step);
  if (error != std::errc() || stop != end) return std::nullopt;
  return step;
}

std::vector<std::int64_t> checkpoints(const fs::path& folder) {
  std::vector<std::int64_t> steps;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const auto step = checkpoint_step(entry.path());
    if (step && entry.is_directory()) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

RunDir::RunDir(const fs::path& path, RunStart start) : path_(path) {
  if (start == RunStart::fresh && holds_run()) {
    fail(ErrorKind::config,
         "{}: holds a run already; continue it with --resume, start anew with "
         "overwrite_output_dir=true, or choose "
         "another output_dir",
         path_.string());
  }
  make_folder(path_);
  lock();
  if (start == RunStart::overwrite) remove_run();
}

RunDir::~RunDir() {
  if (lock_ >= 0) ::close(lock_);
}

void RunDir::lock() {
  const std::string file = (path_ / kLockFile).string();
  const int fd = ::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (fd < 0) fail(ErrorKind::resource, "{}: cannot be written: {}", file, std::strerror(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) {
    lock_ = fd;
    return;
  }
  const int reason = errno;
  ::close(fd);
  if (reason == EWOULDBLOCK) {
    fail(ErrorKind::resource,
         "{}: another process is training into this folder; wait for it, or choose another "
         "output_dir",
         path_.string());
  }
  fail(ErrorKind::resource, "{}: cannot be locked: {}", file, std::strerror(reason));
}

bool RunDir::holds_run() const {
  if (!checkpoints(path_).empty()) return true;
  return std::any_of(std::begin(kResultFiles), std::end(kResultFiles),
                     [&](const char* name) { return fs::exists(path_ / name); });
}

void RunDir::remove_run() const {
  for (const std::int64_t step : checkpoints(path_)) remove_checkpoint(step);
  for (const char* name : kResultFiles) remove_path(path_ / name);
  // What tells of the run.
  for (const char* name : {"samples.jsonl", "report.json", "report.html", "tensorboard"})
    remove_path(path_ / name);
  std::vector<fs::path> remains;
  for (const auto& entry : fs::directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kAsidePrefix) || name.starts_with(kNonfinitePrefix))
      remains.push_back(entry.path());
  }
  for (const fs::path& path : remains) remove_path(path);
}

fs::path RunDir::checkpoint(std::int64_t step) const {
  return path_ / fmt::format("{}{}", kCheckpointPrefix, step);
}

std::vector<std::int64_t> RunDir::complete_checkpoints() const {
  std::vector<std::int64_t> complete;
  for (const std::int64_t step : checkpoints(path_)) {
    if (fs::exists(checkpoint(step) / kTrainerStateFile)) complete.push_back(step);
  }
  return complete;
}

void RunDir::remove_incomplete_checkpoints() const {
  for (const std::int64_t step : checkpoints(path_)) {
    if (!fs::exists(checkpoint(step) / kTrainerStateFile)) remove_checkpoint(step);
  }
}

void RunDir::remove_checkpoint(std::int64_t step) const {
  remove_path(checkpoint(step) / kTrainerStateFile);
  remove_path(checkpoint(step));
}

fs::path RunDir::set_aside(std::int64_t step) const {
  const fs::path place = path_ / fmt::format("{}{}", kAsidePrefix, step);
  remove_path(place);
  std::error_code error;
  fs::rename(checkpoint(step), place, error);
  if (error)
    fail(ErrorKind::resource, "{}: cannot be moved to {}: {}", checkpoint(step).string(),
         place.string(), error.message());
  return place;
}

void RunDir::check_present() {
  struct stat held {};
  struct stat named {};
  const bool same = ::fstat(lock_, &held) == 0 &&
                    ::stat((path_ / kLockFile).c_str(), &named) == 0 &&
                    held.st_ino == named.st_ino && held.st_dev == named.st_dev;
  if (same) return;
  std::error_code error;
  if (!fs::is_directory(path_, error))
    fail(ErrorKind::resource, "{}: the output folder has vanished", path_.string());
  const int old = lock_;
  lock();
  ::close(old);
}

}  // namespace finetune
