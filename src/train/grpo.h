#pragma once

#include "finetune/train/objective.h"
#include "train/grpo_loss.h"
#include "train/rollouts.h"

namespace finetune {

/// A head whose logits are divided by the temperature.
Head tempered(Head head, double temperature);

/// Group-relative policy optimisation over the answers of the current round. `extras` have TRL's
/// names, means over tokens: kl, clip_ratio/..., and entropy, which is estimated as the mean of
/// -log p over the sampled tokens. An evaluation answers every row with the likeliest tokens; its
/// loss is minus the mean reward.
class GrpoObjective : public Objective {
 public:
  /// `rollouts` outlives this.
  GrpoObjective(const GrpoSettings& settings, const Rollouts& rollouts)
      : settings_(settings), rollouts_(rollouts) {}

  std::int64_t count(const Dataset& dataset, std::span<const std::int64_t> examples) const override;
  LossSum loss(const CausalLM& model, const Batch& batch,
               const ForwardContext& context) const override;
  EvalResult evaluate(const CausalLM& model, const Dataset& dataset, std::int64_t rows_per_batch,
                      bool share_prefixes) const override;

 private:
  GrpoTokens tokens_of(const Batch& batch) const;
  double counts_per_token() const;

  GrpoSettings settings_;
  const Rollouts& rollouts_;
};

}  // namespace finetune
