#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/example.h"
#include "finetune/generate/generate.h"
#include "finetune/rewards/rewards.h"
#include "finetune/train/evaluate.h"
#include "finetune/train/trainer.h"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace finetune {

/// Answers to some prompts, those to one prompt together, and what they are worth.
struct Sampled {
  std::vector<std::vector<std::int32_t>> prompts;  ///< tokens
  std::vector<std::vector<std::int32_t>> answers;  ///< tokens, with the one that ended the answer
  std::vector<bool> cut;                           ///< at max_completion_length
  RewardTable rewards;
};

/// Writes answers to the prompts of a data set, which has its texts, and rewards them.
class Sampler {
 public:
  Sampler(const Config& config, const SamplingTools& tools);

  /// num_generations answers to each row of `rows`, drawn with the configured temperature, top_k
  /// and top_p; what is drawn depends on (seed, round, row, number of the answer) and the model.
  /// Nothing when interrupt_signal() came. Throws as Rewards::of.
  std::optional<Sampled> draw(const CausalLM& model, const Dataset& data,
                              std::span<const std::int64_t> rows, std::int64_t round) const;
  /// The likeliest answer to every row.
  std::optional<Sampled> best(const CausalLM& model, const Dataset& data) const;

  /// Means for the log, under TRL's names.
  std::vector<NamedSum> measure(const Sampled& sampled) const;

 private:
  std::optional<Sampled> sample(const CausalLM& model, const Dataset& data,
                                std::span<const std::int64_t> rows, GenerateOptions options) const;

  const Config& config_;
  const SamplingTools& tools_;
};

}  // namespace finetune
