#include "model/blocks.h"

#include "finetune/model/load_balancing.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace finetune {

Tensor moe_forward(const MoeBlock& moe, const Tensor& x, const Pass& pass) {
  const std::int64_t chosen = pass.config.moe.num_experts_per_token;
  const Tensor logits = moe.router.forward(x, pass.context);  // [N, experts]
  if (pass.context.router_logits != nullptr) pass.context.router_logits->push_back(logits);
  auto [weights, experts] =
      at::topk(at::softmax(logits, -1, at::kFloat), chosen, -1);  // [N, chosen]
  if (pass.config.moe.normalize_weights) weights = weights / weights.sum(-1, true);
  weights = weights.to(x.scalar_type()).flatten();

  // All (token, choice) pairs sorted by expert: each expert's are one stretch, in the order of the
  // tokens.
  const Tensor order = experts.flatten().argsort(/*stable=*/true, -1, false);
  const Tensor counts =
      at::bincount(experts.flatten(), {}, static_cast<std::int64_t>(moe.experts.size())).cpu();
  Tensor out = at::zeros_like(x);
  std::int64_t begin = 0;
  for (std::size_t e = 0; e < moe.experts.size(); ++e) {
    const std::int64_t count = counts.const_data_ptr<std::int64_t>()[e];
    if (count == 0) continue;
    const Tensor pairs = order.narrow(0, begin, count);
    const Tensor tokens = pairs.div(chosen, "floor");
    const Tensor result = mlp_forward(moe.experts[e], x.index_select(0, tokens), pass);
    out = out.index_add(0, tokens, result * weights.index_select(0, pairs).unsqueeze(1));
    begin += count;
  }
  if (!moe.shared_expert.down_proj.defined()) return out;
  const Tensor gate = at::sigmoid(moe.shared_expert_gate.forward(x, pass.context));  // [N, 1]
  return out + gate * mlp_forward(moe.shared_expert, x, pass);
}

Tensor load_balancing_loss(const std::vector<Tensor>& router_logits,
                           std::int64_t num_experts_per_token) {
  const std::int64_t experts = router_logits.front().size(1);
  Tensor chosen_count = at::zeros({experts}, router_logits.front().options().dtype(at::kFloat));
  Tensor probability_sum = chosen_count;
  double rows = 0;
  for (const Tensor& logits : router_logits) {
    const Tensor probabilities = at::softmax(logits, -1, at::kFloat);
    const Tensor chosen = std::get<1>(at::topk(probabilities, num_experts_per_token, -1));
    chosen_count = chosen_count + at::bincount(chosen.flatten(), {}, experts);
    probability_sum = probability_sum + probabilities.sum(0);
    rows += static_cast<double>(logits.size(0));
  }
  return (chosen_count / rows * (probability_sum / rows)).sum() * experts;
}

}  // namespace finetune
