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
  const Tensor hidden = model.hidden_states(batch.input_ids, batch.starts, collecting);
  LossSum loss;
  loss.count = batch.supervised_tokens();
  loss.sum = cross_entropy_sum(hidden.index_select(0, batch.target_rows), model.head(),
                               batch.targets, {context, label_smoothing, &loss.token_nll});
  if (!router_logits.empty()) {  // as a mean over tokens: a micro-batch counts by its tokens, as
                                 // its cross-entropy does
    const double weight = moe.aux_loss_coef * static_cast<double>(loss.count);
    loss.sum = loss.sum + load_balancing_loss(router_logits, moe.num_experts_per_token) * weight;
  }
  return loss;
}

}  // namespace finetune
