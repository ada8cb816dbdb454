#pragma once

#include "finetune/dataset/batch.h"
#include "finetune/model/causal_lm.h"
#include "finetune/train/evaluate.h"

#include <span>
#include <vector>

namespace finetune {

/// A sum that training minimises and what it is to be divided by. Only the optimizer step divides,
/// by the count of all its micro-batches.
struct LossSum {
  Tensor sum;              ///< scalar, nats
  std::int64_t count = 0;  ///< supervised tokens, or pairs
  Tensor token_nll;  ///< [tokens] the plain cross-entropy of each, without gradient, or undefined
  std::vector<NamedSum> extras = {};  ///< more for the log, sums over `count` too
};

/// What a stage trains for.
class Objective {
 public:
  virtual ~Objective() = default;
  /// What the loss of these examples is divided by.
  virtual std::int64_t count(const Dataset& dataset,
                             std::span<const std::int64_t> examples) const = 0;
  virtual LossSum loss(const CausalLM& model, const Batch& batch,
                       const ForwardContext& context) const = 0;
  /// The same over a data set without training: `loss` and `extras` of the result are means. Stops
  /// early, with what was done so far, when interrupt_signal() is set.
  virtual EvalResult evaluate(const CausalLM& model, const Dataset& dataset,
                              std::int64_t rows_per_batch, bool share_prefixes) const = 0;
};

/// Supervised fine-tuning: cross-entropy of the supervised tokens.
LossSum sft_objective(const CausalLM& model, const Batch& batch, const ForwardContext& context,
                      double label_smoothing = 0.0);

class SftObjective : public Objective {
 public:
  explicit SftObjective(double label_smoothing) : label_smoothing_(label_smoothing) {}

  std::int64_t count(const Dataset& dataset, std::span<const std::int64_t> examples) const override;
  LossSum loss(const CausalLM& model, const Batch& batch,
               const ForwardContext& context) const override;
  EvalResult evaluate(const CausalLM& model, const Dataset& dataset, std::int64_t rows_per_batch,
                      bool share_prefixes) const override;

 private:
  double label_smoothing_;
};

}  // namespace finetune
