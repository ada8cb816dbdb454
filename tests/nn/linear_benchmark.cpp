#include "finetune/nn/linear.h"

#include "nn/benchmark.h"

namespace finetune {
namespace {

using namespace benchmarks;

constexpr std::int64_t kRank = 16;

/// Kept, since the backward pass goes back to the weight.
Linear& low_rank(const std::vector<Tensor>& in) {
  static Linear linear;
  linear.weight = FrozenWeight(in[1]);
  linear.lora = Lora{in[2], in[3]};
  return linear;
}

const bool lora = add({
    "lora_linear",
    [](at::ScalarType dtype) {
      return std::vector{
          input({kTokens, kHidden}, 1, dtype), reference::random({kMlp, kHidden}, 2, dtype),
          input({kRank, kHidden}, 3, at::kFloat), input({kMlp, kRank}, 4, at::kFloat)};
    },
    [](const std::vector<Tensor>& in) { return low_rank(in).forward(in[0], {}); },
    [](const std::vector<Tensor>& in) {
      const auto dtype = in[0].scalar_type();
      return at::linear(in[0], in[1]) +
             at::linear(at::linear(in[0], in[2].to(dtype)), in[3].to(dtype));
    },
    4.0 * kTokens* kHidden* kMlp + 6.0 * kTokens* kRank*(kHidden + kMlp),
});

}  // namespace
}  // namespace finetune
