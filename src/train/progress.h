#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace finetune {

/// What a progress line tells.
struct ProgressState {
  std::int64_t step = 0;
  double epoch = 0;
  double loss = 0;  ///< of the last step
  double learning_rate = 0;
  std::int64_t tokens = 0;  ///< of the last step
  double step_seconds = 0;
  std::optional<double> reward = std::nullopt;  ///< of the last step; shown in place of the loss
};

/// Progress of a run on standard error: one line drawn over and over on a terminal; elsewhere a
/// plain line at the first step, every ten seconds, and at the last. Nothing with --quiet.
class Progress {
 public:
  Progress(std::int64_t total_steps, std::int64_t done_steps);
  void show(const ProgressState& state);
  /// Ends the drawn line, so that other messages begin on their own.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  void follow(const ProgressState& state);

  std::int64_t total_, first_;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point last_;
  bool any_ = false;
  double seconds_per_step_ = 0, tokens_per_second_ = 0;  // smoothed
  double goal_ = 0, earlier_goal_ = 0;  // loss or reward, smoothed over few and over many steps
};

}  // namespace finetune
