#include "finetune/nn/functions.h"

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

TEST(SwiGlu, MatchesTheReference) {
  const Tensor gate = leaf(reference::random({5, 8}, 1).mul(4.0)),
               up = leaf(reference::random({5, 8}, 2));
  const Tensor dy = reference::random({5, 8}, 3);
  const Tensor y = swiglu(gate, up), expected = gate / (1.0 + (-gate).exp()) * up;
  expect_close(y, expected, reference::kDoubleTolerance, "y");
  const auto grads = gradients(y, dy, {gate, up}),
             expected_grads = gradients(expected, dy, {gate, up});
  expect_close(grads[0], expected_grads[0], reference::kDoubleTolerance, "dgate");
  expect_close(grads[1], expected_grads[1], reference::kDoubleTolerance, "dup");
}

TEST(SwiGlu, LargeGatesStayFinite) {
  const Tensor gate =
      leaf(at::tensor({-1000.0, -50.0, 0.0, 50.0, 1000.0}, at::kFloat).unsqueeze(0));
  const Tensor up = leaf(at::full({1, 5}, 2.0, at::kFloat));
  const Tensor y = swiglu(gate, up);
  expect_close(y, at::tensor({0.0, 0.0, 0.0, 100.0, 2000.0}, at::kDouble).unsqueeze(0), 1e-6, "y");
  const auto grads = gradients(y, at::ones_like(y), {gate, up});
  expect_close(grads[0], at::tensor({0.0, 0.0, 1.0, 2.0, 2.0}, at::kDouble).unsqueeze(0), 1e-6,
               "dgate");
}

/// transformers' rotate_half with the angles written twice.
Tensor plain_rope(const Tensor& x, const Tensor& angles) {
  const Tensor twice = at::cat({angles, angles}, -1).unsqueeze(1);
  const auto halves = x.chunk(2, -1);
  return x * twice.cos() + at::cat({-halves[1], halves[0]}, -1) * twice.sin();
}

TEST(Rope, MatchesTheReference) {
  const Tensor x = leaf(reference::random({6, 3, 8}, 1)),
               angles = reference::random({6, 4}, 2).mul(10.0);
  const Tensor dy = reference::random({6, 3, 8}, 3);
  const Tensor y = apply_rope(x, angles.cos(), angles.sin()), expected = plain_rope(x, angles);
  expect_close(y, expected, reference::kDoubleTolerance, "y");
  expect_close(gradients(y, dy, {x})[0], gradients(expected, dy, {x})[0],
               reference::kDoubleTolerance, "dx");
}

TEST(Rope, BackwardUndoesForward) {
  // A rotation's transpose is its inverse: the gradient of <rope(x), rope(z)> in x is z.
  const Tensor x = leaf(reference::random({6, 3, 8}, 1)), z = reference::random({6, 3, 8}, 2);
  const Tensor angles = reference::random({6, 4}, 3);
  const auto rotated = [&](const Tensor& t) { return apply_rope(t, angles.cos(), angles.sin()); };
  expect_close(gradients(rotated(x), rotated(z), {x})[0], z, reference::kDoubleTolerance, "dx");
}

TEST(Rope, ReadsStridedHeadsAndGradients) {
  const Tensor fused = leaf(reference::random({6, 5, 8}, 1)), angles = reference::random({6, 4}, 2);
  const Tensor x = fused.narrow(1, 1, 3), dy = reference::random({3, 6, 8}, 3).transpose(0, 1);
  const Tensor y = apply_rope(x, angles.cos(), angles.sin());
  expect_close(y, plain_rope(x, angles), reference::kDoubleTolerance, "y");
  expect_close(gradients(y, dy, {fused})[0], gradients(plain_rope(x, angles), dy, {fused})[0],
               reference::kDoubleTolerance, "dx");
}

TEST(Rope, KeepsTheTypeOfItsInput) {
  const Tensor x = reference::random({6, 3, 8}, 1, at::kBFloat16),
               angles = reference::random({6, 4}, 2, at::kFloat);
  const Tensor y = apply_rope(x, angles.cos(), angles.sin());
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  expect_close(y, plain_rope(x.to(at::kDouble), angles.to(at::kDouble)),
               reference::kBfloat16Tolerance, "y");
}

}  // namespace
}  // namespace finetune
