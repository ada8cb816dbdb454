#pragma once

#include "finetune/base/tensor.h"

#include <ATen/core/Generator.h>

#include <cstdint>

namespace finetune {

/// A generator of its own for `device` that begins at `seed`: what is drawn follows from the seed
/// alone, and the global generator is left as it is.
at::Generator seeded_generator(const at::Device& device, std::uint64_t seed);

/// Of the shape and type of `like`: zero with probability `p`, else 1 / (1 - p). The same for the
/// same seed, so a backward pass can make it again.
Tensor dropout_mask(const Tensor& like, double p, std::uint64_t seed);

}  // namespace finetune
