#include "finetune/nn/frozen_weight.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

namespace finetune {

Tensor FrozenWeight::multiply(const Tensor& x, const Tensor& bias) const {
  return bias.defined() ? at::linear(x, dense_, bias) : at::linear(x, dense_);
}

Tensor FrozenWeight::multiply_backward(const Tensor& dy) const { return at::mm(dy, dense_); }

}  // namespace finetune
