#include "model/blocks.h"

#include <ATen/TensorOperators.h>

#include <array>

namespace finetune {

namespace {

/// Queries, keys and values of all tokens, [N, heads, D] each.
std::array<Tensor, 3> project(const AttentionBlock& attention, const Tensor& x, const Pass& pass) {
  const ModelConfig& config = pass.config;
  const std::int64_t queries = config.num_attention_heads, keys = config.num_key_value_heads,
                     dim = config.head_dim;
  if (!attention.qkv_proj.defined()) {
    const Tensor q = attention.q_proj.forward(x, pass.context),
                 k = attention.k_proj.forward(x, pass.context);
    const Tensor v = attention.v_proj.forward(x, pass.context).view({-1, keys, dim});
    // Norms over all heads together come before the heads are told apart (OLMo 2).
    const bool all_heads = config.qk_norm == ModelConfig::QkNorm::all_heads;
    return {(all_heads ? attention.q_norm.forward(q) : q).view({-1, queries, dim}),
            (all_heads ? attention.k_norm.forward(k) : k).view({-1, keys, dim}), v};
  }
  const Tensor qkv = attention.qkv_proj.forward(x, pass.context);
  if (config.qkv_layout == ModelConfig::QkvLayout::per_head) {
    const Tensor heads = qkv.view({-1, queries, 3, dim});
    return {heads.select(2, 0), heads.select(2, 1), heads.select(2, 2)};
  }
  const Tensor heads = qkv.view({-1, queries + 2 * keys, dim});
  return {heads.narrow(1, 0, queries), heads.narrow(1, queries, keys),
          heads.narrow(1, queries + keys, keys)};
}

Tensor attention_forward(const AttentionBlock& block, std::size_t index, const Tensor& x,
                         const Pass& pass) {
  const ModelConfig& config = pass.config;
  const LayerConfig& layer = config.layers[index];
  auto [q, k, v] = project(block, x, pass);
  if (config.qk_norm == ModelConfig::QkNorm::per_head) {
    q = block.q_norm.forward(q);
    k = block.k_norm.forward(k);
  }
  if (layer.rope >= 0) {
    const RopeAngles& rope = pass.ropes[static_cast<std::size_t>(layer.rope)];
    q = apply_rope(q, rope.cos, rope.sin);
    k = apply_rope(k, rope.cos, rope.sin);
  }
  const AttentionOptions options{layer.attention_scale, layer.window, config.attention_softcap};
  const Tensor out = pass.cache == nullptr
                         ? attention(q, k, v, pass.segments, options)
                         : cached_attention(q, k, v, pass.segments.starts, options,
                                            pass.cache->layers[index], pass.cache->lengths);
  return block.o_proj.forward(out.flatten(1, 2), pass.context);
}

/// The residual stream after a sublayer, and its bottleneck adapter where it has one.
Tensor joined(const std::optional<Bottleneck>& adapter, const Tensor& x, const Tensor& out,
              const Pass& pass) {
  return adapter ? adapter->join(x, out, pass.context) : x + out;
}

Tensor scaled(const Tensor& x, double scale) { return scale == 1.0 ? x : x * scale; }

}  // namespace

Tensor mlp_forward(const MlpBlock& mlp, const Tensor& x, const Pass& pass) {
  const Activation activation = pass.config.activation;
  const auto inner = [&] {
    if (mlp.gate_up_proj.defined()) {
      const auto halves = mlp.gate_up_proj.forward(x, pass.context).chunk(2, -1);
      return gated(halves[0], halves[1], activation);
    }
    const Tensor up = mlp.up_proj.forward(x, pass.context);
    return mlp.gate_proj.defined() ? gated(mlp.gate_proj.forward(x, pass.context), up, activation)
                                   : activate(up, activation);
  };
  return mlp.down_proj.forward(inner(), pass.context);
}

Tensor layer_forward(const DecoderLayer& layer, std::size_t index, const Tensor& x,
                     const Pass& pass) {
  const double scale = pass.config.residual_scale;
  const auto feed_forward = [&](const Tensor& input) {
    const Tensor out =
        layer.moe ? moe_forward(*layer.moe, input, pass) : mlp_forward(layer.mlp, input, pass);
    return scaled(layer.mlp_out_norm.forward(out), scale);
  };
  const Tensor normalized = layer.attention_norm.forward(x);
  const Tensor attended = scaled(
      layer.attention_out_norm.forward(attention_forward(layer.attention, index, normalized, pass)),
      scale);
  if (pass.config.parallel_blocks) {
    return x + attended +
           feed_forward(layer.mlp_norm.defined() ? layer.mlp_norm.forward(x) : normalized);
  }
  const Tensor middle = joined(layer.attention_adapter, x, attended, pass);
  return joined(layer.output_adapter, middle, feed_forward(layer.mlp_norm.forward(middle)), pass);
}

}  // namespace finetune
