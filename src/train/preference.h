#pragma once

#include "finetune/config/config.h"
#include "finetune/train/objective.h"
#include "train/answer_scores.h"
#include "train/preference_loss.h"

#include <vector>

namespace finetune {

/// Pairs of answers: the chosen one is to become likelier than the rejected one. Batches hold whole
/// pairs, as plan_epoch makes them. `extras` have TRL's names: rewards/chosen, rewards/rejected,
/// rewards/margins, rewards/accuracies, logps/chosen, logps/rejected; and where there is a
/// reference, kl: the mean of both answers' log-probabilities less those of the reference.
class PreferenceObjective : public Objective {
 public:
  /// `reference`: the log-probability of each example's answer in the reference, in the order of
  /// the data set; empty where the stage has none.
  PreferenceObjective(const PreferenceSettings& settings, std::vector<double> reference)
      : settings_(settings), reference_(std::move(reference)) {}

  /// Pairs.
  std::int64_t count(const Dataset& dataset, std::span<const std::int64_t> examples) const override;
  LossSum loss(const CausalLM& model, const Batch& batch,
               const ForwardContext& context) const override;
  /// `extras` also have logps/accuracies: the share of pairs whose chosen answer is the likelier.
  EvalResult evaluate(const CausalLM& model, const Dataset& dataset, std::int64_t rows_per_batch,
                      bool share_prefixes) const override;

 private:
  PairScores pair_scores(std::span<const std::int64_t> examples, const AnswerScores& scores) const;

  PreferenceSettings settings_;
  std::vector<double> reference_;
};

PreferenceSettings preference_settings(const Config& config);

}  // namespace finetune
