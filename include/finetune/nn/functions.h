#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight, computed in float32, returned in x's type.
/// x [N, C], weight [C]. Differentiable in x, and in weight when it asks for a gradient.
/// Source: Zhang and Sennrich 2019, arXiv 1910.07467; rounding as in transformers' LlamaRMSNorm.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);

/// silu(gate) * up, element by element; saves its two inputs only.
/// Source: Shazeer 2020, arXiv 2002.05202.
Tensor swiglu(const Tensor& gate, const Tensor& up);

/// Rotates pairs (i, i + D/2) of every head by its token's angle ("rotate half", as Hugging Face stores heads).
/// x [N, H, D]; cos, sin [N, D/2] in float32, cast to x's type as transformers does.
/// Source: Su et al. 2021, arXiv 2104.09864.
Tensor apply_rope(const Tensor& x, const Tensor& cos, const Tensor& sin);

}  // namespace finetune
