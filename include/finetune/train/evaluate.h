#pragma once

#include "finetune/dataset/batch.h"
#include "finetune/model/causal_lm.h"
#include "finetune/nn/loss.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace finetune {

/// A sum, or a mean, and what the log calls it.
struct NamedSum {
  std::string name;
  double value = 0;
  std::int64_t count = 0;  ///< what the sum is over, where that is not what the loss is over
};

/// Teacher-forced results over a data set.
struct EvalResult {
  std::int64_t supervised_tokens = 0;
  double loss = 0;               ///< mean nats over all supervised tokens
  double token_accuracy = 0;     ///< fraction of supervised tokens with the largest logit
  std::vector<double> nll;       ///< summed nats of each example, in the data set's order
  std::vector<double> scores;    ///< of a reward model: of each example
  std::vector<NamedSum> extras;  ///< what else the stage measures, means
  double perplexity() const;
};

/// Every supervised token of a batch, without training and without a gradient.
TokenScores score_batch(const CausalLM& model, const Batch& batch);

/// The sum of each example's token losses, in the order of `indices`. `token_nll` [M]: of a batch
/// of these examples, whose targets stand in their order.
std::vector<double> sum_by_example(const Dataset& dataset, std::span<const std::int64_t> indices,
                                   const Tensor& token_nll);

/// Scores every example, so many rows at a time; the result does not depend on that, nor on
/// `share_prefixes`, with which what rows of a batch begin with alike is computed once. Stops
/// early, with what was done so far, when interrupt_signal() is set.
EvalResult evaluate(const CausalLM& model, const Dataset& dataset, std::int64_t rows_per_batch,
                    bool share_prefixes = false);

}  // namespace finetune
