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
  double neftune_noise_alpha = 0;  ///< of the noise on the embeddings in training; 0: none
  std::vector<Tensor>* router_logits =
      nullptr;  ///< where sparse layers leave their router's logits [N, experts]
};

/// A trainable low-rank update: y += scaling * dropout(x) A^T B^T. Masters are float32 leaves of
/// autograd. Source: Hu et al. 2021, arXiv 2106.09685; names and orientation as in PEFT.
struct Lora {
  Tensor a;  ///< lora_A.weight [R, I]
  Tensor b;  ///< lora_B.weight [O, R]
  /// A constant update beside the trained one, with the same scaling: [R0, I] and [O, R0], or
  /// undefined. PiSSA and OLoRA take the start of the trained part off the base with it, and an
  /// adapter that lies under this one is in it. So the base's weights stay as they are stored.
  Tensor constant_a, constant_b;
  /// DoRA's lora_magnitude_vector [O], or undefined: the rows of the updated weight take these
  /// lengths. Source: Liu et al. 2024, arXiv 2402.09353.
  Tensor magnitude;
  double alpha = 1.0;
  bool use_rslora = false;
  double scaling = 1.0;  ///< alpha / rank, or alpha / sqrt(rank) with rsLoRA
  double dropout = 0.0;

  /// A and B with the constant part appended: [R + R0, I] and [O, R + R0]. Differentiable.
  Tensor whole_a() const;
  Tensor whole_b() const;
};

/// Learned factors of a linear's input or output. Source: Liu et al. 2022, arXiv 2205.05638
/// ((IA)3).
struct Ia3 {
  Tensor factors;         ///< ia3_l: [1, I] on the input, or [O, 1] on the output, as PEFT has it
  bool on_input = false;  ///< PEFT's feedforward_modules
};

/// y = x W^T + bias, with optional adapter slots. Nothing is ever replaced in the module tree: an
/// adapter is set into its slot, and the name stays the Hugging Face name.
struct Linear {
  std::string name;  ///< "model.layers.0.self_attn.q_proj"
  FrozenWeight weight;
  Tensor bias;     ///< [O] or undefined
  Tensor trained;  ///< [O, I] float32 leaf that takes the frozen weight's place where the weight
                   ///< itself is trained; else undefined
  std::optional<Lora> lora;
  std::optional<Ia3> ia3;
  std::uint64_t index = 0;  ///< position in the model, part of the dropout seed

  bool defined() const { return weight.defined(); }
  /// x [N, I] -> [N, O] in x's type.
  Tensor forward(const Tensor& x, const ForwardContext& context) const;
};

/// scaling * dropout(x) A^T, differentiable in x and A: the low-rank half that the output head of a
/// model, which makes its logits in tiles, adds to its own product. x [M, C] -> [M, R]
Tensor lora_inner(const Tensor& x, const Lora& lora, const ForwardContext& context,
                  std::uint64_t index);

/// scaling * B A [O, I] in float32, the constant part included.
Tensor delta_weight(const Lora& lora);

/// The weight [O, I] in float32 that alone does what `weight` and the adapters in these slots do:
/// what merging writes.
Tensor merged_weight(const Tensor& weight, const Linear& adapted);

}  // namespace finetune
