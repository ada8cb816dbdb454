#pragma once

#include "finetune/nn/functions.h"

#include <utility>

namespace finetune {

/// Whether gated_rows and its backward can work on these: 2-dimensional, rows side by side (both
/// may be halves of one fused projection), silu or the tanh form of gelu.
bool has_gated_rows(const Tensor& gate, const Tensor& up, Activation activation);

/// gate sigmoid(z) up in one pass, with z = gate for silu and
/// z = 2 sqrt(2 / pi) (gate + 0.044715 gate^3) for gelu_tanh, of which it is another spelling.
Tensor gated_rows(const Tensor& gate, const Tensor& up, Activation activation);

/// (dgate, dup) in one pass, from gate and up; with s = sigmoid(z):
///   dup = dy gate s,  dgate = dy up (s + gate s (1 - s) dz/dgate)
std::pair<Tensor, Tensor> gated_rows_backward(const Tensor& dy, const Tensor& gate,
                                              const Tensor& up, Activation activation);

}  // namespace finetune
