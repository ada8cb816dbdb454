#include "train/stochastic_rounding.h"

#include "finetune/nn/generator.h"

#include <ATen/ops/empty_like.h>

namespace finetune {

void round_stochastically(const Tensor& numbers, Tensor rounded, std::uint64_t seed) {
  Tensor bits = at::empty_like(numbers, numbers.options().dtype(at::kInt));
  bits.random_(0, 1 << 16, seeded_generator(numbers.device(), seed));
  bits.add_(numbers.view(at::kInt)).bitwise_and_(-(1 << 16));
  rounded.copy_(bits.view(at::kFloat));
}

}  // namespace finetune
