#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace finetune {

namespace {

/// 1 at 0, 0 at 1
double half_cosine(double progress) {
  return 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
}

}  // namespace

Schedule::Schedule(const Config& config, std::int64_t total_steps)
    : kind_(config.lr_scheduler_type),
      peak_(config.resolved_learning_rate()),
      min_ratio_(config.min_lr_ratio),
      total_(static_cast<double>(total_steps)),
      warmup_(config.warmup_steps > 0 ? static_cast<double>(config.warmup_steps)
                                      : std::ceil(total_ * config.warmup_ratio)),
      decay_steps_(std::ceil(total_ * config.wsd_decay_ratio)) {}

double Schedule::learning_rate(std::int64_t step) const {
  return peak_ * factor(static_cast<double>(step - 1));
}

double Schedule::factor(double done) const {
  if (kind_ == Scheduler::constant) return 1.0;
  if (done < warmup_) return done / std::max(1.0, warmup_);
  return decay_factor(done);
}

double Schedule::decay_factor(double done) const {
  const double progress = (done - warmup_) / std::max(1.0, total_ - warmup_);
  switch (kind_) {
    case Scheduler::linear:
      return std::max(0.0, 1.0 - progress);
    case Scheduler::cosine:
      return half_cosine(progress);
    case Scheduler::cosine_with_min_lr:
      return half_cosine(progress) * (1.0 - min_ratio_) + min_ratio_;
    case Scheduler::inverse_sqrt: {
      const double timescale = warmup_ > 0 ? warmup_ : 10000.0;
      return 1.0 / std::sqrt((done + timescale - warmup_) / timescale);
    }
    case Scheduler::wsd: {
      const double stable_end = total_ - decay_steps_;
      return done < stable_end ? 1.0
                               : half_cosine((done - stable_end) / std::max(1.0, decay_steps_));
    }
    case Scheduler::constant:
    case Scheduler::constant_with_warmup:
      return 1.0;
  }
  return 1.0;
}

}  // namespace finetune
