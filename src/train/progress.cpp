#include "train/progress.h"

#include "finetune/base/log.h"
#include "finetune/base/text.h"

#include <cstdio>

namespace finetune {

namespace {

constexpr double kPlainSeconds = 10.0;  // between plain lines
constexpr double kRedrawSeconds = 0.1;
constexpr double kSmoothing = 0.1;  // weight of the newest step in speed and time left
constexpr int kBarWidth = 20;

std::string bar(std::int64_t step, std::int64_t total) {
  const auto filled = static_cast<int>(kBarWidth * step / total);
  return std::string(static_cast<std::size_t>(filled), '#') +
         std::string(static_cast<std::size_t>(kBarWidth - filled), '.');
}

}  // namespace

Progress::Progress(std::int64_t total_steps, std::int64_t done_steps)
    : total_(total_steps), first_(done_steps + 1), terminal_(stderr_is_terminal()) {}

void Progress::show(const ProgressState& state) {
  const double speed = static_cast<double>(state.tokens) / state.step_seconds;
  const double weight = any_ ? kSmoothing : 1.0;
  seconds_per_step_ += weight * (state.step_seconds - seconds_per_step_);
  tokens_per_second_ += weight * (speed - tokens_per_second_);
  any_ = true;
  if (log_level() == LogLevel::quiet) return;

  const auto now = Clock::now();
  const bool edge = state.step == first_ || state.step == total_;
  const double since = std::chrono::duration<double>(now - last_).count();
  if (!edge && since < (terminal_ ? kRedrawSeconds : kPlainSeconds)) return;
  last_ = now;
  const std::string left =
      format_seconds(seconds_per_step_ * static_cast<double>(total_ - state.step));
  const std::string text =
      fmt::format("step {}/{}  epoch {:.2f}  loss {:.4f}  lr {:.2e}  {} tokens/s  {} left",
                  state.step, total_, state.epoch, state.loss, state.learning_rate,
                  format_count(static_cast<std::int64_t>(tokens_per_second_)), left);
  if (!terminal_) {
    log_info("train", "{}", text);
    return;
  }
  std::fprintf(stderr, "\r\x1b[2K[%s] %s", bar(state.step, total_).c_str(), text.c_str());
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
