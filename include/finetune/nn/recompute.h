#pragma once

#include "finetune/base/tensor.h"

#include <functional>

namespace finetune {

/// A differentiable function that gives the same bits whenever it is called with the same input.
using BlockFunction = std::function<Tensor(const Tensor&)>;

/// block(x), keeping nothing but x: the backward pass calls `block` once more and goes back through
/// that. Gradients of parameters inside are added where autograd adds them. Where x asks for no
/// gradient nothing would be known of them, so then it is plain block(x). `block` owns or outlives
/// the backward pass with everything it refers to. Source: Chen et al. 2016, arXiv 1604.06174.
Tensor recomputed(const Tensor& x, const BlockFunction& block);

}  // namespace finetune
