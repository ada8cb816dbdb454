#pragma once

#include "train/example_source.h"
#include "train/flat_parameters.h"
#include "train/grpo_loss.h"
#include "train/sampler.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

namespace finetune {

/// Sampled answers that num_iterations optimizer steps train on.
struct Round {
  std::int64_t number = 0;  ///< counts from 0
  Dataset data;             ///< a prompt and an answer each, the answers to a prompt together
  std::vector<std::vector<std::int64_t>> micro_batches;
  std::vector<double> advantages;  ///< of each example
  /// Log-probabilities [supervised tokens] float64, example by example: of the policy that sampled
  /// them, undefined where it is the one that is trained; and of the reference, undefined without.
  Tensor old, reference;
  std::vector<std::int64_t> first_token;  ///< of each example among these
  std::vector<NamedSum> measured;
};

/// Stage grpo: answers sampled to the prompts of a data set by the model as it stands, anew for
/// each round of num_iterations steps.
class Rollouts : public ExampleSource {
 public:
  /// All outlive this. The reference is the model as it is now, kept as a copy of `parameters`
  /// where beta needs one.
  Rollouts(const Config& config, const CausalLM& model, const FlatParameters& parameters,
           const Dataset& prompts, const SamplingTools& tools, bool share_prefixes);

  std::int64_t total_steps() const override { return plan_.total_steps(); }
  double epoch(std::int64_t step) override { return plan_.step(step).epoch; }
  std::optional<StepExamples> step(std::int64_t step) override;
  std::unique_ptr<Objective> objective() const override;
  void save(const std::filesystem::path& checkpoint, std::int64_t step) const override;
  void restore(const std::filesystem::path& checkpoint) override;

  const Round& round() const { return *round_; }
  const Sampler& sampler() const { return sampler_; }

 private:
  std::optional<Round> sample(std::int64_t number, const PlannedStep& rows) const;
  std::optional<Tensor> log_probabilities(const Round& round) const;
  std::optional<Tensor> reference_log_probabilities(const Round& round) const;

  const Config& config_;
  const CausalLM& model_;
  const FlatParameters& parameters_;
  const Dataset& prompts_;
  GrpoSettings settings_;
  Sampler sampler_;
  StepPlan plan_;
  bool share_prefixes_;
  Tensor first_values_;  // of the parameters; undefined without a reference
  std::optional<Round> round_;
};

}  // namespace finetune
