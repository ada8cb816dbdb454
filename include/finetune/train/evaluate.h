#pragma once

#include "finetune/dataset/batch.h"
#include "finetune/model/causal_lm.h"

#include <cstdint>
#include <span>
#include <vector>

namespace finetune {

/// Teacher-forced results over a data set.
struct EvalResult {
  std::int64_t supervised_tokens = 0;
  double loss = 0;            ///< mean nats over all supervised tokens
  double token_accuracy = 0;  ///< fraction of supervised tokens with the largest logit
  std::vector<double> nll;    ///< summed nats of each example, in the data set's order
  double perplexity() const;
};

/// The sum of each example's token losses, in the order of `indices`. `token_nll` [M]: of a batch
/// of these examples, whose targets stand in their order.
std::vector<double> sum_by_example(const Dataset& dataset, std::span<const std::int64_t> indices,
                                   const Tensor& token_nll);

/// Scores every example, `batch_size` at a time; the result does not depend on it. Stops early,
/// with what was done so far, when interrupt_signal() is set.
EvalResult evaluate(const CausalLM& model, const Dataset& dataset, std::int64_t batch_size);

}  // namespace finetune
