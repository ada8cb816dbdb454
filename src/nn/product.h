#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// x [N, I], weight [O, I], bias [O] or undefined -> x weight^T + bias [N, O]. No gradient.
/// In float32 on the CPU by the library that is faster there: LibTorch's own choice (MKL), which
/// takes an old path on some processors, or oneDNN. The processor decides, so that the same machine
/// gives the same bytes.
Tensor linear_product(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

/// The same without a bias, in `memory` [N, O] of x's type, by LibTorch's own choice always: oneDNN
/// gives memory of its own, and large results that come and go leave holes in the heap.
Tensor linear_product_in(const Tensor& memory, const Tensor& x, const Tensor& weight);

/// dy [N, O], weight [O, I] -> dy weight [N, I]. The same.
Tensor linear_product_backward(const Tensor& dy, const Tensor& weight);

/// The oneDNN way, for the tests: x weight^T + bias, weight of any strides.
Tensor onednn_product(const Tensor& x, const Tensor& weight, const Tensor& bias);

}  // namespace finetune
