#pragma once

#include "finetune/nn/frozen_weight.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// What differs from one forward pass to the next.
struct ForwardContext {
  bool training = false;
  std::uint64_t seed =
      0;  ///< of this micro-batch; dropout masks are derived from it, so nothing is stored
  std::vector<Tensor>* router_logits =
      nullptr;  ///< where sparse layers leave their router's logits [N, experts]
};

/// A trainable low-rank update: y += scaling * dropout(x) A^T B^T. Masters are float32 leaves of
/// autograd. Source: Hu et al. 2021, arXiv 2106.09685; names and orientation as in PEFT.
struct Lora {
  Tensor a;  ///< lora_A.weight [R, I]
  Tensor b;  ///< lora_B.weight [O, R]
  double alpha = 1.0;
  bool use_rslora = false;
  double scaling = 1.0;  ///< alpha / rank, or alpha / sqrt(rank) with rsLoRA
  double dropout = 0.0;
};

/// y = x W^T + bias, with an optional adapter slot. Nothing is ever replaced in the module tree: an
/// adapter is set into the slot, and the name stays the Hugging Face name.
struct Linear {
  std::string name;  ///< "model.layers.0.self_attn.q_proj"
  FrozenWeight weight;
  Tensor bias;     ///< [O] or undefined
  Tensor trained;  ///< [O, I] float32 leaf that takes the frozen weight's place in full
                   ///< fine-tuning; else undefined
  std::optional<Lora> lora;
  std::uint64_t index = 0;  ///< position in the model, part of the dropout seed

  bool defined() const { return weight.defined(); }
  /// x [N, I] -> [N, O] in x's type.
  Tensor forward(const Tensor& x, const ForwardContext& context) const;
};

/// scaling * B A [O, I] in float32: what merging adds to the base weight.
Tensor delta_weight(const Lora& lora);

}  // namespace finetune
