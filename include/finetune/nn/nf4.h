#pragma once

#include "finetune/base/tensor.h"

#include <cstdint>

namespace finetune {

constexpr std::int64_t kNf4Block = 64;         ///< weights that share an absmax
constexpr std::int64_t kNf4NestedBlock = 256;  ///< absmax codes that share a nested absmax

/// A matrix in 4-bit NormalFloat: blocks of 64 over the flattened weight, each with its largest
/// magnitude (absmax); a code stands for one of 16 numbers in [-1, 1] times that. With double
/// quantization the absmax are 8-bit codes themselves. Parts, names and bits are those of
/// bitsandbytes. Source: Dettmers et al. 2023, arXiv 2305.14314.
struct Nf4Tensor {
  std::int64_t out = 0, in = 0;       ///< shape [O, I] of the weight
  at::ScalarType dtype = at::kFloat;  ///< of the weight before quantization
  Tensor codes;             ///< uint8 [(O I + 1) / 2], two a byte, the first in the high bits
  Tensor absmax;            ///< [blocks] float32, or with double quantization uint8 codes of
                            ///< absmax - offset
  Tensor nested_absmax;     ///< [ceil(blocks / 256)] float32; undefined without double quantization
  Tensor nested_quant_map;  ///< [256] float32: what an absmax code stands for
  float offset = 0;         ///< mean of the absmax, with double quantization

  bool double_quant() const { return nested_absmax.defined(); }
  std::int64_t blocks() const { return (out * in + kNf4Block - 1) / kNf4Block; }
  std::uint64_t bytes() const;
};

/// Quantizes weight [O, I] (a floating type, on the CPU) to the bits that bitsandbytes 0.50 gives
/// for the same tensor on the CPU.
Nf4Tensor nf4_quantize(const Tensor& weight, bool double_quant);

/// Writes the weight into `out`: contiguous [O, I] of float32, bfloat16 or float16 on the CPU. Each
/// value is code * absmax in float32, rounded to the type of `out` once.
void nf4_dequantize_into(const Nf4Tensor& weight, const Tensor& out);

/// The same as a new tensor [O, I].
Tensor nf4_dequantize(const Nf4Tensor& weight, at::ScalarType dtype);

/// The 16 numbers that codes stand for, ascending (float32).
Tensor nf4_quant_map();
/// The 256 numbers of the 8-bit dynamic type, ascending (float32), from -1 or, without a sign, 0
/// to 1: every exponent has twice the fractions of the one below. Signed ones are what codes of
/// absmax stand for. Source: Dettmers et al. 2021, arXiv 2110.02861; create_dynamic_map in
/// bitsandbytes, bit for bit.
Tensor dynamic_quant_map(bool is_signed = true);

}  // namespace finetune
