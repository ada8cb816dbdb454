#include "finetune/model/causal_lm.h"

#include "finetune/nn/functions.h"
#include "model/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>

#include <array>
#include <cmath>

namespace finetune {

namespace {

using LinearField = Linear DecoderLayer::*;
constexpr std::array<LinearField, 7> kLinearFields = {
    &DecoderLayer::q_proj,    &DecoderLayer::k_proj,  &DecoderLayer::v_proj,   &DecoderLayer::o_proj,
    &DecoderLayer::gate_proj, &DecoderLayer::up_proj, &DecoderLayer::down_proj};

struct Pass {
  const ModelConfig& config;
  std::span<const std::int64_t> starts;
  const ForwardContext& context;
  RopeAngles rope;
  KvCache* cache;
};

Tensor attention_block(const DecoderLayer& layer, std::size_t index, const Tensor& x,
                       const Pass& pass) {
  const ModelConfig& config = pass.config;
  const auto heads = [&](const Tensor& y, std::int64_t count) {
    return y.view({-1, count, config.head_dim});
  };
  const Tensor q = apply_rope(heads(layer.q_proj.forward(x, pass.context), config.num_attention_heads),
                              pass.rope.cos, pass.rope.sin);
  const Tensor k = apply_rope(heads(layer.k_proj.forward(x, pass.context), config.num_key_value_heads),
                              pass.rope.cos, pass.rope.sin);
  const Tensor v = heads(layer.v_proj.forward(x, pass.context), config.num_key_value_heads);
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim));
  const Tensor out = pass.cache == nullptr
                         ? attention(q, k, v, pass.starts, scale)
                         : cached_attention(q, k, v, pass.starts, scale,
                                            pass.cache->layers[index], pass.cache->lengths);
  return layer.o_proj.forward(out.flatten(1, 2), pass.context);
}

Tensor mlp_block(const DecoderLayer& layer, const Tensor& x, const Pass& pass) {
  const Tensor gate = layer.gate_proj.forward(x, pass.context);
  const Tensor up = layer.up_proj.forward(x, pass.context);
  return layer.down_proj.forward(swiglu(gate, up), pass.context);
}

}  // namespace

Tensor CausalLM::forward(const Tensor& input_ids, std::span<const std::int64_t> starts,
                         const ForwardContext& context, KvCache* cache) const {
  const std::span<const std::int64_t> first_positions =
      cache == nullptr ? std::span<const std::int64_t>() : cache->lengths;
  const Pass pass{config, starts, context, rope_angles(config, starts, first_positions, device),
                  cache};
  Tensor x = at::embedding(embed_tokens, input_ids).to(compute_dtype);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const DecoderLayer& layer = layers[i];
    x = x + attention_block(layer, i, rms_norm(x, layer.input_layernorm, config.rms_norm_eps), pass);
    x = x + mlp_block(layer, rms_norm(x, layer.post_attention_layernorm, config.rms_norm_eps), pass);
  }
  return rms_norm(x, norm, config.rms_norm_eps);
}

Tensor CausalLM::hidden_states(const Tensor& input_ids, std::span<const std::int64_t> starts,
                               const ForwardContext& context) const {
  return forward(input_ids, starts, context, nullptr);
}

Tensor CausalLM::hidden_states(const Tensor& input_ids, std::span<const std::int64_t> starts,
                               KvCache& cache) const {
  Tensor hidden = forward(input_ids, starts, {}, &cache);
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    cache.lengths[s] += starts[s + 1] - starts[s];
  }
  return hidden;
}

std::vector<Linear*> CausalLM::linears() {
  std::vector<Linear*> all;
  for (DecoderLayer& layer : layers) {
    for (const LinearField field : kLinearFields) all.push_back(&(layer.*field));
  }
  return all;
}

std::vector<const Linear*> CausalLM::linears() const {
  std::vector<const Linear*> all;
  for (const DecoderLayer& layer : layers) {
    for (const LinearField field : kLinearFields) all.push_back(&(layer.*field));
  }
  return all;
}

}  // namespace finetune
