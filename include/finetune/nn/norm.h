#pragma once

#include "finetune/base/tensor.h"

#include <string>

namespace finetune {

/// How a norm scales what it has normalized.
enum class NormKind {
  rms,       ///< RMSNorm, rounded to x's type before the weight is applied (Llama and most others)
  rms_wide,  ///< RMSNorm, the weight applied in float32 (OLMo 2)
  rms_plus_one,  ///< RMSNorm times (1 + weight), in float32 (Gemma)
  layer,         ///< LayerNorm with weight and bias (Phi, GPT-2, GPT-NeoX)
};

/// RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32,
/// returned in x's type. x [..., C], weight [C]. Differentiable in x, and in weight when it asks
/// for a gradient. `kind` is not `layer`. Source: Zhang and Sennrich 2019, arXiv 1910.07467;
/// rounding as in transformers' modules of each family.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, NormKind kind = NormKind::rms);

/// A norm of the model under its Hugging Face name; one that a family does not have is undefined
/// and does nothing.
struct Norm {
  std::string name;  ///< "model.layers.0.input_layernorm"
  NormKind kind = NormKind::rms;
  double eps = 1e-6;
  Tensor weight;  ///< [C]
  Tensor bias;    ///< [C], kind `layer` only

  bool defined() const { return weight.defined(); }
  /// x [..., C]; x itself where the norm is undefined.
  Tensor forward(const Tensor& x) const;
};

}  // namespace finetune
