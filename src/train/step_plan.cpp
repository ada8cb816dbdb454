#include "finetune/train/step_plan.h"

#include "finetune/base/error.h"

#include <algorithm>
#include <cmath>

namespace finetune {

std::int64_t supervised_tokens(const Dataset& dataset, const PlannedStep& step) {
  std::int64_t count = 0;
  for (const auto& micro_batch : step.micro_batches) {
    for (const std::int64_t index : micro_batch)
      count += dataset.examples[static_cast<std::size_t>(index)].supervised_tokens;
  }
  return count;
}

StepPlan::StepPlan(const Config& config, const Dataset& dataset)
    : dataset_(dataset),
      options_{config.shuffle, static_cast<std::uint64_t>(config.seed),
               config.per_device_train_batch_size, config.tokens_per_batch.value_or(0)},
      accumulation_(config.gradient_accumulation_steps),
      repeats_(config.stage == Stage::grpo ? config.num_iterations : 1) {
  FT_CHECK(!dataset.examples.empty(), "no rows to train on");
  if (config.max_steps > 0) {
    total_steps_ = config.max_steps;
    return;
  }
  const auto whole = static_cast<std::int64_t>(std::floor(config.num_train_epochs));
  for (std::int64_t epoch = 0; epoch < whole; ++epoch) total_steps_ += steps_of(epoch);
  const double part = config.num_train_epochs - static_cast<double>(whole);
  if (part > 0)
    total_steps_ +=
        static_cast<std::int64_t>(std::ceil(part * static_cast<double>(steps_of(whole)) - 1e-9));
  total_steps_ *= repeats_;
}

void StepPlan::load_epoch(std::int64_t epoch) {
  if (epoch == epoch_) return;
  micro_batches_ = plan_epoch(dataset_, options_, epoch);
  epoch_ = epoch;
}

std::int64_t StepPlan::steps_of(std::int64_t epoch) {
  if (options_.tokens_per_batch == 0) {  // the same number in every epoch, without planning it
    const std::int64_t rows = dataset_.rows();
    const std::int64_t per_step = options_.examples_per_batch * accumulation_;
    return (rows + per_step - 1) / per_step;
  }
  load_epoch(epoch);
  return (static_cast<std::int64_t>(micro_batches_.size()) + accumulation_ - 1) / accumulation_;
}

PlannedStep StepPlan::step(std::int64_t step) {
  const std::int64_t wanted = (step - 1) / repeats_;
  if (first_step_.empty()) first_step_.push_back(0);
  while (first_step_.back() <= wanted) {
    first_step_.push_back(first_step_.back() +
                          steps_of(static_cast<std::int64_t>(first_step_.size()) - 1));
  }
  const auto after = std::upper_bound(first_step_.begin(), first_step_.end(), wanted);
  const std::int64_t epoch = after - first_step_.begin() - 1;
  load_epoch(epoch);
  const std::int64_t within = wanted - first_step_[static_cast<std::size_t>(epoch)];
  const auto count = static_cast<std::int64_t>(micro_batches_.size());
  const std::int64_t begin = within * accumulation_, end = std::min(begin + accumulation_, count);
  PlannedStep result;
  result.micro_batches.assign(micro_batches_.begin() + begin, micro_batches_.begin() + end);
  result.epoch = static_cast<double>(epoch) + static_cast<double>(end) / static_cast<double>(count);
  result.ends_epoch = end == count && step % repeats_ == 0;
  return result;
}

RunRows run_rows(StepPlan& plan, const Dataset& dataset) {
  RunRows rows;
  rows.steps = plan.total_steps();
  for (std::int64_t step = 1; step <= rows.steps; ++step) {
    for (const std::vector<std::int64_t>& batch : plan.step(step).micro_batches) {
      std::int64_t tokens = 0, supervised = 0;
      for (const std::int64_t index : batch) {
        const Example& example = dataset.examples[static_cast<std::size_t>(index)];
        tokens += static_cast<std::int64_t>(example.input_ids.size());
        supervised += example.supervised_tokens;
      }
      rows.tokens += tokens;
      if (tokens <= rows.largest_tokens) continue;
      rows.largest_tokens = tokens;
      rows.largest_supervised = supervised;
      rows.largest = batch;
    }
  }
  return rows;
}

}  // namespace finetune
