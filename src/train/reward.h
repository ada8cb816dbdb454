#pragma once

#include "finetune/train/objective.h"

#include <vector>

namespace finetune {

/// Pairs of answers that a scalar head tells apart. `extras` have TRL's names: min_reward,
/// mean_reward, max_reward, accuracy, margin.
class RewardObjective : public Objective {
 public:
  /// `margins`: of each pair, by how much the chosen score is to be larger; empty: 0.
  RewardObjective(double center, std::vector<double> margins)
      : center_(center), margins_(std::move(margins)) {}

  /// Pairs.
  std::int64_t count(const Dataset& dataset, std::span<const std::int64_t> examples) const override;
  LossSum loss(const CausalLM& model, const Batch& batch,
               const ForwardContext& context) const override;
  EvalResult evaluate(const CausalLM& model, const Dataset& dataset, std::int64_t rows_per_batch,
                      bool share_prefixes) const override;

 private:
  Tensor loss_of(const Tensor& scores, std::span<const std::int64_t> examples) const;

  double center_;
  std::vector<double> margins_;
};

/// The score of each example of a batch, [S] float64 on the CPU, differentiable.
Tensor score_rows(const CausalLM& model, const Batch& batch, const ForwardContext& context);

}  // namespace finetune
