#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// Whether rope_rows can work on x [N, H, D]: elements of a head side by side.
bool has_rope_rows(const Tensor& x);

/// [x1, x2, rest] -> [x1 cos - x2 sin, x2 cos + x1 sin, rest] of every head, in one pass.
/// x [N, H, D], cos and sin [N, R/2] in x's type; returns a contiguous tensor.
Tensor rope_rows(const Tensor& x, const Tensor& cos, const Tensor& sin);

}  // namespace finetune
