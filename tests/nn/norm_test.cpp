#include "finetune/nn/norm.h"

#include "nn/reference.h"

#include <cmath>

namespace finetune {
namespace {

using reference::expect_close;
using reference::gradients;
using reference::leaf;

constexpr double kEps = 1e-5;

Tensor plain_rms_norm(const Tensor& x, const Tensor& weight) {
  return x / (x * x).mean(-1, true).add(kEps).sqrt() * weight;
}

TEST(RmsNorm, MatchesTheReference) {
  const Tensor x = leaf(reference::random({5, 8}, 1)), weight = leaf(reference::random({8}, 2));
  const Tensor dy = reference::random({5, 8}, 3);
  const Tensor y = rms_norm(x, weight, kEps), expected = plain_rms_norm(x, weight);
  expect_close(y, expected, reference::kDoubleTolerance, "y");
  const auto grads = gradients(y, dy, {x, weight}),
             expected_grads = gradients(expected, dy, {x, weight});
  expect_close(grads[0], expected_grads[0], reference::kDoubleTolerance, "dx");
  expect_close(grads[1], expected_grads[1], reference::kDoubleTolerance, "dweight");
}

TEST(RmsNorm, EpsilonDecidesForARowOfZeros) {
  const Tensor x = leaf(at::zeros({2, 4}, at::kDouble)), weight = at::ones({4}, at::kDouble);
  const Tensor y = rms_norm(x, weight, kEps);
  expect_close(y, at::zeros({2, 4}, at::kDouble), 0.0, "y");
  // d y / d x at 0 is 1 / sqrt(eps).
  expect_close(gradients(y, at::ones_like(y), {x})[0],
               at::full({2, 4}, 1.0 / std::sqrt(kEps), at::kDouble), reference::kDoubleTolerance,
               "dx");
}

TEST(RmsNorm, RoundsAsTransformersDoes) {
  // LlamaRMSNorm: normalize in float32, round to the input's type, then multiply by the weight in
  // that type.
  const Tensor x = reference::random({64, 32}, 1, at::kBFloat16),
               weight = reference::random({32}, 2, at::kBFloat16);
  const Tensor wide = x.to(at::kFloat);
  const Tensor normalized = wide * at::rsqrt(wide.pow(2).mean(-1, true) + kEps);
  EXPECT_TRUE(at::equal(rms_norm(x, weight, kEps), weight * normalized.to(at::kBFloat16)));
}

TEST(RmsNorm, BackwardInHalfTypesIsComputedInFloat) {
  const Tensor x = leaf(reference::random({5, 64}, 1, at::kBFloat16)),
               dy = reference::random({5, 64}, 3, at::kBFloat16);
  const Tensor weight = leaf(reference::random({64}, 2, at::kFloat));  // trained: a float32 master
  const auto grads = gradients(rms_norm(x, weight, kEps), dy, {x, weight});
  const Tensor wide = leaf(x.to(at::kDouble)), wide_weight = leaf(weight.to(at::kDouble));
  const auto expected =
      gradients(plain_rms_norm(wide, wide_weight), dy.to(at::kDouble), {wide, wide_weight});
  EXPECT_EQ(grads[1].scalar_type(), at::kFloat);
  expect_close(grads[0], expected[0], 4e-3, "dx");  // one rounding to 8 bits
  expect_close(grads[1], expected[1], reference::kFloatTolerance, "dweight");
}

TEST(RmsNorm, OnePlusTheWeight) {
  const Tensor x = leaf(reference::random({3, 2, 8}, 1)), weight = leaf(reference::random({8}, 2));
  const Tensor dy = reference::random({3, 2, 8}, 3);
  const Tensor y = rms_norm(x, weight, kEps, NormKind::rms_plus_one),
               expected = plain_rms_norm(x, 1.0 + weight);
  expect_close(y, expected, reference::kDoubleTolerance, "y");
  const auto grads = gradients(y, dy, {x, weight}),
             expected_grads = gradients(expected, dy, {x, weight});
  expect_close(grads[0], expected_grads[0], reference::kDoubleTolerance, "dx");
  expect_close(grads[1], expected_grads[1], reference::kDoubleTolerance, "dweight");
}

TEST(RmsNorm, TheWideKindsRoundOnce) {
  const Tensor x = reference::random({64, 32}, 1, at::kBFloat16),
               weight = reference::random({32}, 2, at::kBFloat16);
  const Tensor wide = x.to(at::kFloat),
               normalized = wide * at::rsqrt(wide.pow(2).mean(-1, true) + kEps);
  const Tensor scale = weight.to(at::kFloat);
  EXPECT_TRUE(at::equal(rms_norm(x, weight, kEps, NormKind::rms_wide),
                        (normalized * scale).to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(rms_norm(x, weight, kEps, NormKind::rms_plus_one),
                        (normalized * (1.0 + scale)).to(at::kBFloat16)));
}

TEST(Norm, LayerNormAndNone) {
  Norm norm{"n", NormKind::layer, kEps, leaf(reference::random({8}, 2)),
            leaf(reference::random({8}, 4))};
  const Tensor x = leaf(reference::random({5, 8}, 1)), dy = reference::random({5, 8}, 3);
  const Tensor centred = x - x.mean(-1, true);
  const Tensor expected =
      centred / (centred.square().mean(-1, true) + kEps).sqrt() * norm.weight + norm.bias;
  expect_close(norm.forward(x), expected, reference::kDoubleTolerance, "y");
  const std::vector<Tensor> inputs = {x, norm.weight, norm.bias};
  const auto grads = gradients(norm.forward(x), dy, inputs),
             expected_grads = gradients(expected, dy, inputs);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, "gradient");
  }
  EXPECT_TRUE(Norm().forward(x).is_same(x));
}

}  // namespace
}  // namespace finetune
