#pragma once

#include "finetune/config/config.h"

#include <cstdint>

namespace finetune {

/// The learning rate of every step, as transformers' schedulers give it (optimization.py; the first
/// step of a warm-up has rate 0).
class Schedule {
 public:
  Schedule(const Config& config, std::int64_t total_steps);

  /// `step` counts from 1.
  double learning_rate(std::int64_t step) const;

 private:
  double factor(double done) const;
  double decay_factor(double done) const;

  Scheduler kind_;
  double peak_, min_ratio_;
  double total_, warmup_, decay_steps_;
};

}  // namespace finetune
