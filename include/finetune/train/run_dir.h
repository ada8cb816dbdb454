#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace finetune {

// The names of the files of a run.
constexpr const char* kConfigFile = "config.yaml";
constexpr const char* kMetricsFile = "metrics.jsonl";
constexpr const char* kModelWeightsFile = "model.safetensors";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kTrainerStateFile = "trainer_state.json";
constexpr const char* kLockFile = ".lock";
/// Folders of what is needed to repeat a step whose loss or gradient was not finite.
constexpr const char* kNonfinitePrefix = "nonfinite-step-";

/// How a run treats what is in its folder.
enum class RunStart { fresh, overwrite, resume };

/// The output folder of a run, locked against a second process for as long as this lives.
class RunDir {
 public:
  /// Makes the folder and locks it. `fresh`: a folder that holds a run is refused with
  /// Error(config); `overwrite` removes the files of the run in it and no others. Throws
  /// Error(resource) when the folder is locked or not writable.
  RunDir(const std::filesystem::path& path, RunStart start);
  ~RunDir();
  RunDir(const RunDir&) = delete;
  RunDir& operator=(const RunDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoint(std::int64_t step) const;
  /// Steps of the complete checkpoints (trainer_state.json is there), ascending.
  std::vector<std::int64_t> complete_checkpoints() const;
  /// Removes checkpoints that a killed process left half written.
  void remove_incomplete_checkpoints() const;
  /// Moves one out of the way, so that it is neither used nor counted; returns its new place.
  std::filesystem::path set_aside(std::int64_t step) const;
  /// Throws Error(resource) when the folder has vanished since it was locked. One that is there
  /// again under the same name is locked anew.
  void check_present();
  /// Removes one, so that it is never half there: its trainer_state.json goes first.
  void remove_checkpoint(std::int64_t step) const;

 private:
  void lock();
  bool holds_run() const;
  void remove_run() const;

  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace finetune
