#include "train/reward.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "train/answer_scores.h"
#include "train/preference_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

namespace finetune {

namespace {

/// Where each example ends in the stream. The segment that a target is in is the example's last:
/// what examples share ends before the first of them.
std::vector<std::int64_t> last_rows(const Batch& batch) {
  if (batch.parents.empty()) {
    std::vector<std::int64_t> ends(batch.starts.begin() + 1, batch.starts.end());
    for (std::int64_t& end : ends) --end;
    return ends;
  }
  const Tensor rows = batch.target_rows.cpu();
  std::vector<std::int64_t> ends;
  std::int64_t target = 0;
  for (const std::int64_t count : batch.supervised_by_example) {
    const auto row = rows[target].item<std::int64_t>();
    ends.push_back(*std::upper_bound(batch.starts.begin(), batch.starts.end(), row) - 1);
    target += count;
  }
  return ends;
}

/// Sums of the scores of pairs for the log.
std::vector<NamedSum> sums_of(const Tensor& scores) {
  const Tensor chosen = scores.slice(0, 0, {}, 2), rejected = scores.slice(0, 1, {}, 2);
  return {{"min_reward", scores.min().item<double>(), 1},
          {"mean_reward", scores.sum().item<double>(), scores.size(0)},
          {"max_reward", scores.max().item<double>(), 1},
          {"accuracy", chosen.gt(rejected).to(at::kDouble).sum().item<double>()},
          {"margin", (chosen - rejected).sum().item<double>()}};
}

}  // namespace

Tensor score_rows(const CausalLM& model, const Batch& batch, const ForwardContext& context) {
  FT_CHECK(model.score.defined(), "the model has no head for scores");
  const Tensor last = at::tensor(last_rows(batch), at::kLong).to(model.device);
  return model.hidden_states(batch.input_ids, Segments(batch.starts, batch.parents), context)
      .index_select(0, last)
      .to(at::kFloat)
      .matmul(model.score.t())
      .squeeze(1)
      .cpu()
      .to(at::kDouble);
}

std::int64_t RewardObjective::count(const Dataset& dataset,
                                    std::span<const std::int64_t> examples) const {
  return static_cast<std::int64_t>(examples.size()) / dataset.examples_per_row;
}

Tensor RewardObjective::loss_of(const Tensor& scores,
                                std::span<const std::int64_t> examples) const {
  std::vector<double> margins;
  for (std::size_t i = 0; i < examples.size() && !margins_.empty(); i += 2)
    margins.push_back(margins_.at(static_cast<std::size_t>(examples[i] / 2)));
  return reward_loss(scores.slice(0, 0, {}, 2), scores.slice(0, 1, {}, 2),
                     margins.empty() ? Tensor() : at::tensor(margins, at::kDouble), center_);
}

LossSum RewardObjective::loss(const CausalLM& model, const Batch& batch,
                              const ForwardContext& context) const {
  const Tensor scores = score_rows(model, batch, context);
  LossSum result;
  result.sum = loss_of(scores, batch.examples).sum();
  result.count = batch.sequences() / 2;
  result.extras = sums_of(scores.detach());
  return result;
}

EvalResult RewardObjective::evaluate(const CausalLM& model, const Dataset& dataset,
                                     std::int64_t rows_per_batch, bool share_prefixes) const {
  const at::NoGradGuard no_grad;
  std::vector<Tensor> parts;
  std::vector<std::int64_t> seen;
  EvalResult result;
  for (std::int64_t row = 0; row < dataset.rows() && interrupt_signal() == 0;
       row += rows_per_batch) {
    const std::vector<std::int64_t> indices = rows_from(dataset, row, rows_per_batch);
    const Batch batch = make_batch(dataset, indices, share_prefixes).to(model.device);
    parts.push_back(score_rows(model, batch, ForwardContext{}));
    seen.insert(seen.end(), indices.begin(), indices.end());
    result.supervised_tokens += batch.supervised_tokens();
  }
  if (seen.size() != dataset.examples.size()) return {};
  const Tensor scores = at::cat(parts);
  result.loss = loss_of(scores, seen).mean().item<double>();
  result.scores = to_vector(scores);
  result.extras = sums_of(scores);
  for (NamedSum& extra : result.extras) {
    extra.value /= static_cast<double>(extra.count > 0 ? extra.count : dataset.rows());
    extra.count = 0;
  }
  return result;
}

}  // namespace finetune
