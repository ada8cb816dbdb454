#include "finetune/nn/generator.h"

#include <ATen/Context.h>
#include <ATen/ops/empty_like.h>

namespace finetune {

at::Generator seeded_generator(const at::Device& device, std::uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(seed);
  return generator;
}

Tensor dropout_mask(const Tensor& like, double p, std::uint64_t seed) {
  Tensor mask = at::empty_like(like, like.options().requires_grad(false));
  mask.bernoulli_(1.0 - p, seeded_generator(like.device(), seed));
  return mask.div_(1.0 - p);
}

}  // namespace finetune
