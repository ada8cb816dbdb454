#pragma once

#include "finetune/base/tensor.h"

#include <array>
#include <cstdint>

namespace finetune {

/// Cross-entropy of every row of some logits, and its gradient.
struct SoftmaxRows {
  Tensor nll;          ///< [m] logsumexp(row) - row[target]
  Tensor uniform_nll;  ///< [m] logsumexp(row) - mean(row); undefined without smoothing
  Tensor gradient;     ///< [m, V] softmax(row) - (1 - smoothing) [v is the target] - smoothing / V
};

/// In two passes over a row, which stays in the processor's cache between them. logits [m, V]
/// float32 on the CPU, overwritten; targets [m]. The gradient is in `dtype`: the logits' own memory
/// for float32, else bfloat16.
SoftmaxRows softmax_rows(const Tensor& logits, const Tensor& targets, double smoothing,
                         at::ScalarType dtype);

/// Leaves exp(x - max) in the row; returns {logsumexp, 1 / sum}.
std::array<float, 2> exponentiate(float* row, std::int64_t width);

}  // namespace finetune
