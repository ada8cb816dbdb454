#pragma once

#include "finetune/config/config.h"
#include "finetune/train/objective.h"
#include "finetune/train/step_plan.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

namespace finetune {

/// What an optimizer step reads.
struct StepExamples {
  const Dataset& data;
  PlannedStep planned;             ///< micro-batches of examples of `data`
  std::vector<NamedSum> measured;  ///< what the log says of them, means; the reward first
};

/// What the loss of a step is divided by.
inline std::int64_t loss_count(const Objective& objective, const StepExamples& examples) {
  std::int64_t count = 0;
  for (const auto& micro_batch : examples.planned.micro_batches)
    count += objective.count(examples.data, micro_batch);
  return count;
}

/// Where the examples of a step come from: the rows of a data set, or what a stage makes of them.
class ExampleSource {
 public:
  virtual ~ExampleSource() = default;
  virtual std::int64_t total_steps() const = 0;
  /// How many times the data have been seen after a step.
  virtual double epoch(std::int64_t step) = 0;
  /// The examples of a step, which counts from 1; they live until the next call. Nothing when
  /// interrupt_signal() came while they were made.
  virtual std::optional<StepExamples> step(std::int64_t step) = 0;
  /// The largest micro-batch of the run as a step of its own, where it is known and small beside
  /// the run.
  virtual std::optional<StepExamples> largest() { return std::nullopt; }
  /// What the stage trains for where that depends on how the examples were made; nullptr elsewhere.
  virtual std::unique_ptr<Objective> objective() const { return nullptr; }
  /// Adds to the checkpoint of a step what the next one needs beside weights and settings, and
  /// takes it from there.
  virtual void save(const std::filesystem::path& /*checkpoint*/, std::int64_t /*step*/) const {}
  virtual void restore(const std::filesystem::path& /*checkpoint*/) {}
};

/// The rows of a data set as they are.
class RowSource : public ExampleSource {
 public:
  RowSource(const Config& config, const Dataset& data) : data_(data), plan_(config, data) {}

  std::int64_t total_steps() const override { return plan_.total_steps(); }
  double epoch(std::int64_t step) override { return plan_.step(step).epoch; }
  std::optional<StepExamples> step(std::int64_t step) override {
    return StepExamples{data_, plan_.step(step), {}};
  }
  std::optional<StepExamples> largest() override {
    constexpr std::int64_t kSmall = 50;  // times what is small
    const RunRows rows = run_rows(plan_, data_);
    if (kSmall * rows.largest_tokens > rows.tokens) return std::nullopt;
    return StepExamples{data_, {{rows.largest}}, {}};
  }

 private:
  const Dataset& data_;
  StepPlan plan_;
};

}  // namespace finetune
