#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/batch.h"

#include <cstdint>
#include <vector>

namespace finetune {

/// The micro-batches of one optimizer step.
struct PlannedStep {
  std::vector<std::vector<std::int64_t>> micro_batches;  ///< example indices
  double epoch = 0;  ///< how many times the data have been seen after this step
  bool ends_epoch = false;
};

/// Of all rows of a step.
std::int64_t supervised_tokens(const Dataset& dataset, const PlannedStep& step);

/// Which rows every optimizer step reads: a pure function of configuration and data, so that a
/// resumed run needs the number of its step only. The last step of an epoch may have fewer
/// micro-batches. With num_iterations of stage grpo, so many steps read the same rows.
class StepPlan {
 public:
  StepPlan(const Config& config, const Dataset& dataset);

  std::int64_t total_steps() const { return total_steps_; }
  /// `step` counts from 1. Cheap when called in ascending order.
  PlannedStep step(std::int64_t step);

 private:
  std::int64_t steps_of(std::int64_t epoch);
  void load_epoch(std::int64_t epoch);

  const Dataset& dataset_;
  BatchPlanOptions options_;
  std::int64_t accumulation_;
  std::int64_t repeats_;
  std::int64_t total_steps_ = 0;
  std::int64_t epoch_ = -1;  // the one in micro_batches_
  std::vector<std::vector<std::int64_t>> micro_batches_;
  std::vector<std::int64_t> first_step_;  // of each epoch met so far, counted from 0
};

/// What a run reads, from its first step to its last.
struct RunRows {
  std::int64_t steps = 0;
  std::int64_t tokens = 0;                                  ///< of all of them
  std::vector<std::int64_t> largest;                        ///< the micro-batch with most tokens
  std::int64_t largest_tokens = 0, largest_supervised = 0;  ///< of that
};
RunRows run_rows(StepPlan& plan, const Dataset& dataset);

}  // namespace finetune
