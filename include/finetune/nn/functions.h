#pragma once

#include "finetune/base/tensor.h"
#include "finetune/nn/activation.h"

namespace finetune {

/// The activation, element by element, differentiable.
Tensor activate(const Tensor& x, Activation activation);

/// activation(gate) * up, element by element; saves its two inputs only.
/// Source: Shazeer 2020, arXiv 2002.05202.
Tensor gated(const Tensor& gate, const Tensor& up, Activation activation);

/// Rotates pairs (i, i + R/2) of the first R values of every head by its token's angle ("rotate
/// half", as Hugging Face stores heads); the other values pass through. x [N, H, D]; cos, sin [N,
/// R/2] in float32, cast to x's type as transformers does. Source: Su et al. 2021, arXiv
/// 2104.09864.
Tensor apply_rope(const Tensor& x, const Tensor& cos, const Tensor& sin);

}  // namespace finetune
