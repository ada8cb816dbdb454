#pragma once

#include "finetune/dataset/batch.h"
#include "finetune/model/causal_lm.h"

#include <cstdint>
#include <vector>

namespace finetune {

/// What a model says of S answers.
struct AnswerScores {
  Tensor log_probabilities;  ///< [S] float64 on the CPU: of an answer's tokens, summed
  Tensor tokens;             ///< [S] int64: how many these are
  /// [S] float64 without gradient, where asked for: the mean over an answer's tokens of
  /// log p(token) - log sum_v p(v)^2.
  Tensor alignment;
};

/// Of a batch's examples, in its order; differentiable.
AnswerScores score_answers(const CausalLM& model, const Batch& batch, const ForwardContext& context,
                           bool with_alignment = false);

/// Of every example of a data set, so many rows at a time, without gradient. Fewer when
/// interrupt_signal() is set.
AnswerScores score_all_answers(const CausalLM& model, const Dataset& dataset,
                               std::int64_t rows_per_batch, bool share_prefixes,
                               bool with_alignment = false);

/// The numbers of a float64 tensor [S].
std::vector<double> to_vector(const Tensor& values);

/// The examples of rows [begin, begin + rows_per_batch), as score_all_answers takes them.
std::vector<std::int64_t> rows_from(const Dataset& dataset, std::int64_t begin,
                                    std::int64_t rows_per_batch);

}  // namespace finetune
