#pragma once

#include "finetune/config/config.h"
#include "finetune/train/objective.h"
#include "train/answer_scores.h"
#include "train/preference_loss.h"

#include <vector>

namespace finetune {

/// Rows of one answer and whether it is desirable. How far the model has gone from the reference is
/// estimated on each prompt followed by another row's answer. `extras` have TRL's names: kl,
/// rewards/chosen, rewards/rejected, rewards/margins, logps/chosen, logps/rejected; those of rows
/// that a batch has none of are absent.
class KtoObjective : public Objective {
 public:
  /// `reference`: the log-probability of each example's answer in the reference, then those of
  /// `mismatched`, which has as many examples as the data set.
  KtoObjective(const KtoSettings& settings, std::vector<std::uint8_t> labels, Dataset mismatched,
               std::vector<double> reference, bool share_prefixes);

  /// Rows.
  std::int64_t count(const Dataset& dataset, std::span<const std::int64_t> examples) const override;
  /// The estimate is that of the batch, as TRL has it.
  LossSum loss(const CausalLM& model, const Batch& batch,
               const ForwardContext& context) const override;
  /// The estimate is that of the whole data set, so that the result does not depend on the batches.
  EvalResult evaluate(const CausalLM& model, const Dataset& dataset, std::int64_t rows_per_batch,
                      bool share_prefixes) const override;

 private:
  Tensor log_ratios(const AnswerScores& scores, std::span<const std::int64_t> examples,
                    bool mismatched) const;
  Tensor labels_of(std::span<const std::int64_t> examples) const;

  KtoSettings settings_;
  std::vector<std::uint8_t> labels_;
  Dataset mismatched_;
  std::vector<double> reference_;
  bool share_prefixes_;
};

KtoSettings kto_settings(const Config& config);

/// Each prompt with the answer of the row before it in its block of `block` rows, the first with
/// the last one's, as TRL pairs them; cut to `max_length` tokens.
Dataset mismatched_answers(const Dataset& data, std::int64_t block, std::int64_t max_length);

/// The same with the blocks and lengths of a run.
Dataset mismatched_answers(const Config& config, const CausalLM& model, const Dataset& data);

}  // namespace finetune
