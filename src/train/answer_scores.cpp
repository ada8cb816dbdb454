#include "train/answer_scores.h"

#include "finetune/base/interrupt.h"
#include "finetune/nn/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

namespace finetune {

AnswerScores score_answers(const CausalLM& model, const Batch& batch, const ForwardContext& context,
                           bool with_alignment) {
  const Tensor hidden =
      model.hidden_states(batch.input_ids, Segments(batch.starts, batch.parents), context)
          .index_select(0, batch.target_rows);
  Tensor log_sum_squares;
  const Tensor nll =
      token_nll(hidden, model.head(), batch.targets, with_alignment ? &log_sum_squares : nullptr)
          .cpu()
          .to(at::kDouble);
  AnswerScores scores;
  scores.tokens = at::tensor(batch.supervised_by_example, at::kLong);
  const Tensor owner = at::arange(batch.sequences(), at::kLong).repeat_interleave(scores.tokens);
  const auto sum_by_answer = [&](const Tensor& values) {
    return at::zeros({batch.sequences()}, at::kDouble).index_add(0, owner, values);
  };
  scores.log_probabilities = sum_by_answer(-nll);
  if (with_alignment) {
    const Tensor aligned = -nll.detach() - log_sum_squares.cpu().to(at::kDouble);
    scores.alignment = sum_by_answer(aligned) / scores.tokens.clamp_min(1);
  }
  return scores;
}

std::vector<double> to_vector(const Tensor& values) {
  const Tensor plain = values.contiguous();
  const auto* begin = plain.const_data_ptr<double>();
  return {begin, begin + plain.numel()};
}

std::vector<std::int64_t> rows_from(const Dataset& dataset, std::int64_t begin,
                                    std::int64_t rows_per_batch) {
  const std::int64_t each = dataset.examples_per_row,
                     end = std::min(begin + rows_per_batch, dataset.rows());
  std::vector<std::int64_t> indices(static_cast<std::size_t>((end - begin) * each));
  std::iota(indices.begin(), indices.end(), begin * each);
  return indices;
}

AnswerScores score_all_answers(const CausalLM& model, const Dataset& dataset,
                               std::int64_t rows_per_batch, bool share_prefixes,
                               bool with_alignment) {
  const at::NoGradGuard no_grad;
  std::vector<Tensor> log_probabilities = {at::zeros({0}, at::kDouble)},
                      tokens = {at::zeros({0}, at::kLong)},
                      alignment = {at::zeros({0}, at::kDouble)};
  for (std::int64_t row = 0; row < dataset.rows() && interrupt_signal() == 0;
       row += rows_per_batch) {
    const Batch batch = make_batch(dataset, rows_from(dataset, row, rows_per_batch), share_prefixes)
                            .to(model.device);
    const AnswerScores scores = score_answers(model, batch, ForwardContext{}, with_alignment);
    log_probabilities.push_back(scores.log_probabilities);
    tokens.push_back(scores.tokens);
    if (with_alignment) alignment.push_back(scores.alignment);
  }
  return {at::cat(log_probabilities), at::cat(tokens),
          with_alignment ? at::cat(alignment) : Tensor()};
}

}  // namespace finetune
