#include "finetune/nn/functions.h"

#include "nn/reference.h"

#include <cmath>
#include <numbers>

namespace finetune {
namespace {

using reference::expect_close;
using reference::gradients;
using reference::leaf;

TEST(SwiGlu, MatchesTheReference) {
  const Tensor gate = leaf(reference::random({5, 8}, 1).mul(4.0)),
               up = leaf(reference::random({5, 8}, 2));
  const Tensor dy = reference::random({5, 8}, 3);
  const Tensor y = gated(gate, up, Activation::silu), expected = gate / (1.0 + (-gate).exp()) * up;
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
  const Tensor y = gated(gate, up, Activation::silu);
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

TEST(Gated, EveryActivationMatchesItsFormula) {
  const Tensor gate = leaf(reference::random({6, 8}, 1).mul(3.0)),
               up = leaf(reference::random({6, 8}, 2));
  const Tensor dy = reference::random({6, 8}, 3);
  const Tensor cubic = (gate + 0.044715 * gate.pow(3)) * std::sqrt(2.0 / std::numbers::pi);
  const std::vector<std::pair<Activation, Tensor>> cases = {
      {Activation::gelu, 0.5 * gate * (1.0 + at::erf(gate / std::sqrt(2.0)))},
      {Activation::gelu_tanh, 0.5 * gate * (1.0 + at::tanh(cubic))},
      {Activation::relu, gate.clamp_min(0.0)}};
  for (const auto& [activation, formula] : cases) {
    const Tensor y = gated(gate, up, activation), expected = formula * up;
    expect_close(y, expected, reference::kDoubleTolerance, "y");
    expect_close(activate(gate, activation), formula, reference::kDoubleTolerance, "activate");
    const auto grads = gradients(y, dy, {gate, up}),
               expected_grads = gradients(expected, dy, {gate, up});
    expect_close(grads[0], expected_grads[0], reference::kDoubleTolerance, "dgate");
    expect_close(grads[1], expected_grads[1], reference::kDoubleTolerance, "dup");
  }
}

TEST(Rope, OnlyTheFirstValuesOfAHeadTurn) {
  const Tensor x = leaf(reference::random({3, 2, 10}, 1)), dy = reference::random({3, 2, 10}, 2);
  const Tensor angle = reference::random({3, 2}, 3), cos = angle.cos(), sin = angle.sin();  // R = 4
  const Tensor y = apply_rope(x, cos, sin);
  EXPECT_TRUE(at::equal(y.narrow(-1, 4, 6), x.narrow(-1, 4, 6)));
  expect_close(y.narrow(-1, 0, 4), apply_rope(x.narrow(-1, 0, 4), cos, sin), 0.0,
               "the turned part");
  const Tensor dx = gradients(y, dy, {x})[0];
  EXPECT_TRUE(at::equal(dx.narrow(-1, 4, 6), dy.narrow(-1, 4, 6)));
}

}  // namespace
}  // namespace finetune
