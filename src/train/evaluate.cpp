#include "finetune/train/evaluate.h"

#include "finetune/base/interrupt.h"
#include "finetune/nn/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace finetune {

double EvalResult::perplexity() const { return std::exp(loss); }

std::vector<double> sum_by_example(const Dataset& dataset, std::span<const std::int64_t> indices,
                                   const Tensor& token_nll) {
  const Tensor nll = token_nll.to(at::kDouble).cpu();
  std::vector<double> sums;
  std::int64_t row = 0;
  for (const std::int64_t index : indices) {
    const std::int64_t tokens = dataset.examples[static_cast<std::size_t>(index)].supervised_tokens;
    sums.push_back(nll.narrow(0, row, tokens).sum().item<double>());
    row += tokens;
  }
  return sums;
}

TokenScores score_batch(const CausalLM& model, const Batch& batch) {
  const at::NoGradGuard no_grad;
  const Tensor hidden =
      model.hidden_states(batch.input_ids, Segments(batch.starts, batch.parents), ForwardContext{});
  return score_tokens(hidden.index_select(0, batch.target_rows), model.head(), batch.targets);
}

EvalResult evaluate(const CausalLM& model, const Dataset& dataset, std::int64_t rows_per_batch,
                    bool share_prefixes) {
  const at::NoGradGuard no_grad;
  EvalResult result;
  std::int64_t correct = 0;
  const auto count = static_cast<std::int64_t>(dataset.examples.size());
  const std::int64_t batch_size = rows_per_batch * dataset.examples_per_row;
  for (std::int64_t begin = 0; begin < count && interrupt_signal() == 0; begin += batch_size) {
    std::vector<std::int64_t> indices(
        static_cast<std::size_t>(std::min(batch_size, count - begin)));
    std::iota(indices.begin(), indices.end(), begin);
    const Batch batch = make_batch(dataset, indices, share_prefixes).to(model.device);
    const TokenScores scores = score_batch(model, batch);
    correct += scores.correct.sum().item<std::int64_t>();
    const std::vector<double> sums = sum_by_example(dataset, indices, scores.nll);
    result.nll.insert(result.nll.end(), sums.begin(), sums.end());
    result.supervised_tokens += batch.supervised_tokens();
  }
  const double total = std::accumulate(result.nll.begin(), result.nll.end(), 0.0);
  const auto tokens = static_cast<double>(std::max<std::int64_t>(result.supervised_tokens, 1));
  result.loss = total / tokens;
  result.token_accuracy = static_cast<double>(correct) / tokens;
  return result;
}

}  // namespace finetune
