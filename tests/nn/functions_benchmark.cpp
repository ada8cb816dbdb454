#include "finetune/nn/functions.h"

#include "nn/benchmark.h"

namespace finetune {
namespace {

using namespace benchmarks;

const bool mlp = add({
    "gated_silu",
    [](at::ScalarType dtype) {
      return std::vector{input({kTokens, kMlp}, 1, dtype), input({kTokens, kMlp}, 2, dtype)};
    },
    [](const std::vector<Tensor>& in) { return gated(in[0], in[1], Activation::silu); },
    [](const std::vector<Tensor>& in) { return at::silu(in[0]) * in[1]; },
});

Tensor rotate_half(const Tensor& x) {
  const auto halves = x.chunk(2, -1);
  return at::cat({-halves[1], halves[0]}, -1);
}

const bool rope = add({
    "rope",
    [](at::ScalarType dtype) {
      const Tensor angles = reference::random({kTokens, kHeadDim / 2}, 2, at::kFloat);
      return std::vector{input({kTokens, kHeads, kHeadDim}, 1, dtype), angles.cos(), angles.sin()};
    },
    [](const std::vector<Tensor>& in) { return apply_rope(in[0], in[1], in[2]); },
    [](const std::vector<Tensor>& in) {
      const auto whole = [&](const Tensor& half) {
        return at::cat({half, half}, -1).unsqueeze(1).to(in[0].scalar_type());
      };
      return in[0] * whole(in[1]) + rotate_half(in[0]) * whole(in[2]);
    },
});

}  // namespace
}  // namespace finetune
