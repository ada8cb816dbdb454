#pragma once

#include "finetune/base/tensor.h"

#include <cstdint>

namespace finetune {

/// A matrix of 8-bit integers with one scale an output channel: weight = values * scale. Products
/// are computed with the dequantized weight, so only the rounding of the weights is approximate.
struct Int8Tensor {
  Tensor values;  ///< int8 [O, I], in [-127, 127]
  Tensor scale;   ///< float32 [O]: largest magnitude of the row / 127

  std::uint64_t bytes() const { return values.nbytes() + scale.nbytes(); }
};

/// Quantizes weight [O, I] (a floating type, on the CPU), rounding to the nearest, ties to even.
Int8Tensor int8_quantize(const Tensor& weight);

/// Writes the weight into `out`: contiguous [O, I] of float32, bfloat16 or float16 on the CPU.
void int8_dequantize_into(const Int8Tensor& weight, const Tensor& out);

}  // namespace finetune
