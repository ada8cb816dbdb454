#include "finetune/train/objective.h"

#include "finetune/model/load_balancing.h"
#include "finetune/nn/loss.h"

#include <ATen/TensorOperators.h>

namespace finetune {

LossSum sft_objective(const CausalLM& model, const Batch& batch, const ForwardContext& context,
                      double label_smoothing) {
  const MoeConfig& moe = model.config.moe;
  std::vector<Tensor> router_logits;
  ForwardContext collecting = context;
  if (moe.aux_loss_coef > 0) collecting.router_logits = &router_logits;
  const Tensor hidden =
      model.hidden_states(batch.input_ids, Segments(batch.starts, batch.parents), collecting);
  LossSum loss;
  loss.count = batch.supervised_tokens();
  loss.sum = cross_entropy_sum(hidden.index_select(0, batch.target_rows), model.head(),
                               batch.targets, {context, label_smoothing, {}, &loss.token_nll});
  if (!router_logits.empty()) {  // as a mean over tokens: a micro-batch counts by its tokens, as
                                 // its cross-entropy does
    const double weight = moe.aux_loss_coef * static_cast<double>(loss.count);
    loss.sum = loss.sum + load_balancing_loss(router_logits, moe.num_experts_per_token) * weight;
  }
  return loss;
}

std::int64_t SftObjective::count(const Dataset& dataset,
                                 std::span<const std::int64_t> examples) const {
  std::int64_t tokens = 0;
  for (const std::int64_t index : examples)
    tokens += dataset.examples[static_cast<std::size_t>(index)].supervised_tokens;
  return tokens;
}

LossSum SftObjective::loss(const CausalLM& model, const Batch& batch,
                           const ForwardContext& context) const {
  return sft_objective(model, batch, context, label_smoothing_);
}

EvalResult SftObjective::evaluate(const CausalLM& model, const Dataset& dataset,
                                  std::int64_t rows_per_batch, bool share_prefixes) const {
  return finetune::evaluate(model, dataset, rows_per_batch, share_prefixes);
}

}  // namespace finetune
