#pragma once

#include "finetune/model/causal_lm.h"
#include "finetune/nn/rope.h"

#include <span>
#include <vector>

namespace finetune {

/// What the layers of one forward pass share.
struct Pass {
  const ModelConfig& config;
  Segments segments;
  const ForwardContext& context;
  std::vector<RopeAngles> ropes;  ///< one for each of ModelConfig::ropes
  KvCache* cache;                 ///< nullptr in training
};

/// One transformer block, x [N, C] -> [N, C].
Tensor layer_forward(const DecoderLayer& layer, std::size_t index, const Tensor& x,
                     const Pass& pass);

/// x [N, C] -> [N, C]
Tensor mlp_forward(const MlpBlock& mlp, const Tensor& x, const Pass& pass);

/// Experts by the router's choice: each token's result is the weighted sum of its experts', plus
/// the shared expert's. Source: transformers' MixtralSparseMoeBlock and Qwen2MoeSparseMoeBlock.
Tensor moe_forward(const MoeBlock& moe, const Tensor& x, const Pass& pass);

/// Calls `visit` on every linear of a layer, in order; `Layer` is DecoderLayer, const or not.
template <typename Layer, typename Visit>
void visit_linears(Layer& layer, const Visit& visit) {
  const auto each = [&](auto&... linears) {
    (void(linears.defined() && (visit(linears), true)), ...);
  };
  const auto mlp = [&](auto& block) {
    each(block.gate_proj, block.up_proj, block.gate_up_proj, block.down_proj);
  };
  auto& attention = layer.attention;
  each(attention.q_proj, attention.k_proj, attention.v_proj, attention.qkv_proj, attention.o_proj);
  mlp(layer.mlp);
  if (!layer.moe) return;
  each(layer.moe->router);
  for (auto& expert : layer.moe->experts) mlp(expert);
  mlp(layer.moe->shared_expert);
  each(layer.moe->shared_expert_gate);
}

}  // namespace finetune
