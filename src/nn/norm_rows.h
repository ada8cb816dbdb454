#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// RMSNorm of contiguous rows for which has_rows is true: rstd = 1 / sqrt(mean(x^2) + eps),
/// y = x rstd w. x and y [..., C], factors [C] float32, rstd one float32 a row. `rounds_first`: x
/// rstd is rounded to x's type before the product.
void rms_rows(const Tensor& x, const Tensor& factors, double eps, bool rounds_first, Tensor& y,
              Tensor& rstd);

/// Its gradient: with g = dy w, dx = rstd (g - x rstd^2 mean(g x)).
void rms_rows_backward(const Tensor& dy, const Tensor& x, const Tensor& factors, const Tensor& rstd,
                       Tensor& dx);

}  // namespace finetune
