#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// Dynamic 8-bit quantization of blocks of 256 numbers, each scaled by its largest magnitude:
/// Dettmers et al. 2022, arXiv 2110.02861, as bitsandbytes' quantize_blockwise and
/// dequantize_blockwise do it. A number gets the nearest of 256 values of the map.
class Blockwise8Bit {
 public:
  static constexpr std::int64_t kBlock = 256;

  /// bitsandbytes' create_dynamic_map(signed): with a sign and 7 bits, or 8 bits for numbers that
  /// are never negative.
  Blockwise8Bit(bool is_signed, at::Device device);

  const Tensor& map() const { return map_; }  ///< [256] float32, ascending, from -1 or 0 to 1

  /// numbers [256 B] float32 -> codes [256 B] uint8 and absmax [B] float32.
  void encode(const Tensor& numbers, Tensor codes, Tensor absmax) const;
  /// codes [256 B], absmax [B] -> numbers [256 B] float32.
  Tensor decode(const Tensor& codes, const Tensor& absmax) const;

 private:
  Tensor map_;
  Tensor bounds_;  // [255]: half-way between neighbours
};

}  // namespace finetune
