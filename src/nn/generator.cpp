#include "finetune/nn/generator.h"

#include <ATen/Context.h>

namespace finetune {

at::Generator seeded_generator(const at::Device& device, std::uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(seed);
  return generator;
}

}  // namespace finetune
