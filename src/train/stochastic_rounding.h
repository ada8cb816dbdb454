#pragma once

#include "finetune/base/tensor.h"

#include <cstdint>

namespace finetune {

/// Rounds float32 to one of the two nearest bfloat16, the nearer the likelier, so that the mean
/// over many roundings is the number itself and updates smaller than half a step are not lost
/// (Gupta et al. 2015, arXiv 1502.02551): 16 random bits are added below bfloat16's last and cut
/// off. numbers [N] float32 -> rounded [N] bfloat16, the same for the same seed.
void round_stochastically(const Tensor& numbers, Tensor rounded, std::uint64_t seed);

}  // namespace finetune
