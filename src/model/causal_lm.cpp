#include "finetune/model/causal_lm.h"

#include "finetune/base/error.h"
#include "finetune/base/random.h"
#include "finetune/formats/peft.h"
#include "finetune/nn/generator.h"
#include "finetune/nn/recompute.h"
#include "model/blocks.h"
#include "model/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <memory>

namespace finetune {

namespace {

constexpr std::uint64_t kNoiseStream = 0x6e656674;  // apart from dropout's

/// NEFTune: uniform noise of +-alpha / sqrt(tokens * C) on the embeddings of every sequence.
/// Source: Jain et al. 2023, arXiv 2310.05914.
Tensor with_noise(const Tensor& x, const Segments& segments, const ForwardContext& context) {
  FT_CHECK(!segments.shared(), "noise of its own for every sequence, and a shared segment");
  Tensor noise = at::empty_like(x, x.options().requires_grad(false));
  noise.uniform_(-1.0, 1.0, seeded_generator(x.device(), mix_seed({context.seed, kNoiseStream})));
  for (std::int64_t s = 0; s < segments.count(); ++s) {
    const std::int64_t tokens = segments.length(s);
    if (tokens == 0) continue;
    const double size = static_cast<double>(tokens * x.size(1));
    noise.narrow(0, segments.starts[static_cast<std::size_t>(s)], tokens)
        .mul_(context.neftune_noise_alpha / std::sqrt(size));
  }
  return x + noise;
}

std::vector<std::int64_t> first_positions_of(const Segments& segments) {
  std::vector<std::int64_t> positions;
  for (std::int64_t s = 0; s < segments.count(); ++s) positions.push_back(segments.before(s));
  return positions;
}

}  // namespace

Tensor CausalLM::embed(const Tensor& input_ids, const Segments& segments,
                       std::span<const std::int64_t> first_positions,
                       const ForwardContext& context) const {
  Tensor x = at::embedding(embed_tokens, input_ids).to(compute_dtype);
  if (embed_lora) {
    const Tensor inner = at::embedding(embed_lora->whole_a().t(), input_ids);  // [N, R]
    x = x + (at::matmul(inner, embed_lora->whole_b().t()) * embed_lora->scaling).to(compute_dtype);
  }
  if (context.training && context.neftune_noise_alpha > 0) x = with_noise(x, segments, context);
  if (config.embedding_scale !=
      1.0) {  // rounded to the compute type first, as transformers does for Gemma
    x = x * at::scalar_tensor(config.embedding_scale, x.options().requires_grad(false));
  }
  if (!embed_positions.defined()) return x;
  std::vector<std::int64_t> positions;
  for (std::int64_t s = 0; s < segments.count(); ++s) {
    const std::int64_t first = first_positions[static_cast<std::size_t>(s)];
    for (std::int64_t i = 0; i < segments.length(s); ++i) positions.push_back(first + i);
  }
  return x + at::embedding(embed_positions, at::tensor(positions, at::kLong).to(device))
                 .to(compute_dtype);
}

Tensor CausalLM::forward(const Tensor& input_ids, const Segments& segments,
                         const ForwardContext& context, KvCache* cache) const {
  const std::vector<std::int64_t> first_positions =
      cache == nullptr ? first_positions_of(segments) : cache->lengths;
  Pass pass{config, segments, context, {}, cache};
  for (const RopeConfig& rope : config.ropes) {
    pass.ropes.push_back(rope_angles(rope, segments.starts, first_positions, device));
  }
  Tensor x = embed(input_ids, segments, first_positions, context);
  // The router's logits of a pass must have one gradient, so sparse layers that hand them out stay.
  if (recompute_blocks && context.training && context.router_logits == nullptr)
    return norm.forward(recompute_layers(x, pass));
  for (std::size_t i = 0; i < layers.size(); ++i) x = layer_forward(layers[i], i, x, pass);
  return norm.forward(x);
}

Tensor CausalLM::recompute_layers(Tensor x, const Pass& pass) const {
  // The backward pass comes when the caller's batch and context may be gone.
  using Numbers = std::vector<std::int64_t>;
  const auto starts =
      std::make_shared<Numbers>(pass.segments.starts.begin(), pass.segments.starts.end());
  const auto parents =
      std::make_shared<Numbers>(pass.segments.parents.begin(), pass.segments.parents.end());
  const auto context = std::make_shared<ForwardContext>(pass.context);
  const auto kept = std::make_shared<Pass>(
      Pass{config, Segments(*starts, *parents), *context, pass.ropes, nullptr});
  for (std::size_t i = 0; i < layers.size(); ++i) {
    x = recomputed(x, [this, i, starts, parents, context, kept](const Tensor& input) {
      return layer_forward(layers[i], i, input, *kept);
    });
  }
  return x;
}

Tensor CausalLM::hidden_states(const Tensor& input_ids, const Segments& segments,
                               const ForwardContext& context) const {
  return forward(input_ids, segments, context, nullptr);
}

std::string CausalLM::sharing_obstacle() const {
  const bool by_length = std::any_of(config.ropes.begin(), config.ropes.end(),
                                     [](const RopeConfig& rope) { return rope.by_length(); });
  if (by_length) return "its rotary angles depend on the length of each row";
  if (config.moe.aux_loss_coef > 0) return "its router's loss counts the tokens of every row";
  return "";
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
    visit_linears(layer, [&](Linear& linear) { all.push_back(&linear); });
  }
  return all;
}

std::vector<const Linear*> CausalLM::linears() const {
  std::vector<const Linear*> all;
  for (const DecoderLayer& layer : layers) {
    visit_linears(layer, [&](const Linear& linear) { all.push_back(&linear); });
  }
  return all;
}

void CausalLM::visit_other_tensors(
    const std::function<void(const std::string& name, Tensor& tensor, bool decays)>& visit) {
  const auto tensor = [&](const std::string& name, Tensor& value, bool decays) {
    if (value.defined()) visit(name, value, decays);
  };
  const auto norm_tensors = [&](Norm& part) {
    tensor(part.name + ".weight", part.weight, false);
    tensor(part.name + ".bias", part.bias, false);
  };
  tensor(embeddings_name() + ".weight", embed_tokens, true);
  tensor(config.names.prefix + config.names.positions + ".weight", embed_positions, true);
  for (DecoderLayer& layer : layers) {
    for (Norm* part : {&layer.attention_norm, &layer.attention_out_norm, &layer.attention.q_norm,
                       &layer.attention.k_norm, &layer.mlp_norm, &layer.mlp_out_norm}) {
      norm_tensors(*part);
    }
  }
  norm_tensors(norm);
  tensor(head_name + ".weight", lm_head, true);
  tensor(head_name + ".bias", lm_head_bias, false);
  tensor(std::string(kScoreHead) + ".weight", score, true);
}

std::int64_t CausalLM::parameter_count() const {
  std::int64_t count = 0;
  for (const Linear* linear : linears()) {
    count += linear->weight.out_features() * linear->weight.in_features() +
             (linear->bias.defined() ? linear->bias.numel() : 0);
  }
  // Visiting hands out references to what training may replace; counting changes nothing.
  const_cast<CausalLM*>(this)->visit_other_tensors(
      [&](const std::string&, const Tensor& tensor, bool) { count += tensor.numel(); });
  return count;
}

CausalLM::LinearBytes CausalLM::linear_bytes() const {
  LinearBytes bytes;
  for (const Linear* linear : linears()) {
    const FrozenWeight& weight = linear->weight;
    bytes.stored += weight.bytes();
    bytes.dense += static_cast<std::uint64_t>(weight.out_features() * weight.in_features()) *
                   c10::elementSize(compute_dtype);
  }
  return bytes;
}

bool CausalLM::quantized() const {
  const auto all = linears();
  return std::any_of(all.begin(), all.end(),
                     [](const Linear* linear) { return linear->weight.quantized(); });
}

}  // namespace finetune
