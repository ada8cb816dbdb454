#include "train/progress.h"

#include "finetune/base/log.h"
#include "finetune/base/machine.h"
#include "finetune/base/text.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <cstdio>

namespace finetune {

namespace {

constexpr double kPlainSeconds = 10.0;  // between plain lines
constexpr double kRedrawSeconds = 0.1;
constexpr double kSmoothing = 0.1;  // weight of the newest step in speed and time left
constexpr double kLongSmoothing = 0.02;
constexpr double kLevel = 0.005;  // a relative change below this is none
constexpr int kBarWidth = 12;

/// Where loss or reward go: the average of a few steps beside that of many.
const char* trend(double recent, double earlier) {
  if (std::abs(recent - earlier) <= kLevel * std::abs(earlier)) return "→";
  return recent < earlier ? "↓" : "↑";
}

/// Columns of the terminal.
std::size_t columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/// The line without its last parts where the terminal is too narrow for them: a line that wraps
/// cannot be drawn over.
std::string fitted(std::string text, std::size_t width) {
  const auto length = [&] {  // characters, not bytes
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  };
  while (length() >= width) {
    const std::size_t part = text.rfind("  ");
    if (part == std::string::npos || part == 0) return "";
    text.resize(part);
  }
  return text;
}

std::string bar(std::int64_t step, std::int64_t total) {
  const auto filled = static_cast<int>(kBarWidth * step / total);
  return std::string(static_cast<std::size_t>(filled), '#') +
         std::string(static_cast<std::size_t>(kBarWidth - filled), '.');
}

}  // namespace

Progress::Progress(std::int64_t total_steps, std::int64_t done_steps)
    : total_(total_steps), first_(done_steps + 1), terminal_(stderr_is_terminal()) {}

void Progress::follow(const ProgressState& state) {
  const double speed = static_cast<double>(state.tokens) / state.step_seconds;
  const double weight = any_ ? kSmoothing : 1.0, slow = any_ ? kLongSmoothing : 1.0;
  seconds_per_step_ += weight * (state.step_seconds - seconds_per_step_);
  tokens_per_second_ += weight * (speed - tokens_per_second_);
  const double goal = state.reward.value_or(state.loss);
  goal_ += weight * (goal - goal_);
  earlier_goal_ += slow * (goal - earlier_goal_);
  any_ = true;
}

void Progress::show(const ProgressState& state) {
  follow(state);
  if (log_level() == LogLevel::quiet) return;

  const auto now = Clock::now();
  const bool edge = state.step == first_ || state.step == total_;
  const double since = std::chrono::duration<double>(now - last_).count();
  if (!edge && since < (terminal_ ? kRedrawSeconds : kPlainSeconds)) return;
  last_ = now;
  const std::string left =
      format_seconds(seconds_per_step_ * static_cast<double>(total_ - state.step));
  const std::string text =
      fmt::format("step {}/{}  {} {:.4f} {}  {} left  epoch {:.2f}  {} tokens/s  {}  lr {:.2e}",
                  state.step, total_, state.reward ? "reward" : "loss",
                  state.reward.value_or(state.loss), trend(goal_, earlier_goal_), left, state.epoch,
                  format_count(static_cast<std::int64_t>(tokens_per_second_)),
                  format_bytes(resident_bytes()), state.learning_rate);
  if (!terminal_) {
    log_info("train", "{}", text);
    return;
  }
  std::fprintf(stderr, "\r\x1b[2K%s",
               fitted("[" + bar(state.step, total_) + "] " + text, columns()).c_str());
  std::fflush(stderr);
  drawn_ = true;
  if (state.step == total_) clear();
}

void Progress::clear() {
  if (!drawn_) return;
  std::fputc('\n', stderr);
  drawn_ = false;
}

}  // namespace finetune
