#pragma once

#include "finetune/dataset/batch.h"
#include "finetune/model/causal_lm.h"

namespace finetune {

/// A sum that training minimises and what it is to be divided by. Only the optimizer step divides,
/// by the count of all its micro-batches.
struct LossSum {
  Tensor sum;              ///< scalar, nats
  std::int64_t count = 0;  ///< supervised tokens
  Tensor token_nll;        ///< [count] the plain cross-entropy of each, without gradient
};

/// Supervised fine-tuning: cross-entropy of the supervised tokens.
LossSum sft_objective(const CausalLM& model, const Batch& batch, const ForwardContext& context,
                      double label_smoothing = 0.0);

}  // namespace finetune
