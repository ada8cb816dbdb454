// The kernels that work row by row, in float32 and bfloat16, beside the same formulas in float64.
#include "nn/rows.h"

#include "finetune/nn/functions.h"
#include "finetune/nn/norm.h"
#include "nn/fast_exp.h"
#include "nn/product.h"
#include "nn/reference.h"
#include "nn/rope_rows.h"
#include "nn/softmax_rows.h"

#include <cmath>
#include <limits>

namespace finetune {
namespace {

using reference::expect_close;
using reference::gradients;
using reference::leaf;

// Widths below, at and beside the lanes of the sums.
class RowKernels : public testing::TestWithParam<std::tuple<at::ScalarType, std::int64_t>> {
 protected:
  at::ScalarType dtype() const { return std::get<0>(GetParam()); }
  std::int64_t width() const { return std::get<1>(GetParam()); }
  double tolerance() const { return dtype() == at::kFloat ? 2e-6 : 1e-2; }
  /// A leaf of this type, and the same numbers in float64.
  std::pair<Tensor, Tensor> input(std::uint64_t seed, double size = 1.0) const {
    const Tensor x = reference::random({7, width()}, seed).mul(size).to(dtype());
    return {leaf(x), leaf(x.to(at::kDouble))};
  }
};

INSTANTIATE_TEST_SUITE_P(Types, RowKernels,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16),
                                          testing::Values(1, 31, 32, 200)));

TEST_P(RowKernels, RmsNormIsItsFormula) {
  for (const NormKind kind : {NormKind::rms, NormKind::rms_wide, NormKind::rms_plus_one}) {
    const auto [x, wide] = input(1, 3.0);
    const Tensor weight = reference::random({width()}, 2).to(dtype()),
                 dy = reference::random({7, width()}, 3).to(dtype());
    const Tensor factor = weight.to(at::kDouble) + (kind == NormKind::rms_plus_one ? 1.0 : 0.0);
    const Tensor y = rms_norm(x, weight, 1e-5, kind);
    const Tensor expected = wide / (wide * wide).mean(-1, true).add(1e-5).sqrt() * factor;
    expect_close(y, expected, tolerance(), "y");
    expect_close(gradients(y, dy, {x})[0], gradients(expected, dy.to(at::kDouble), {wide})[0],
                 tolerance(), "dx");
  }
}

TEST_P(RowKernels, GatedIsItsFormula) {
  for (const Activation activation : {Activation::silu, Activation::gelu_tanh}) {
    const auto [gate, wide_gate] = input(1, 4.0);
    const auto [up, wide_up] = input(2);
    const Tensor dy = reference::random({7, width()}, 3).to(dtype());
    const Tensor y = gated(gate, up, activation),
                 expected = activate(wide_gate, activation) * wide_up;
    expect_close(y, expected, tolerance(), "y");
    const auto actual = gradients(y, dy, {gate, up}),
               wanted = gradients(expected, dy.to(at::kDouble), {wide_gate, wide_up});
    expect_close(actual[0], wanted[0], tolerance(), "dgate");
    expect_close(actual[1], wanted[1], tolerance(), "dup");
  }
}

TEST_P(RowKernels, GatedReadsHalvesOfAFusedProjection) {
  const auto [x, wide] = input(1, 2.0);
  const Tensor both = leaf(at::cat({x, x.neg()}, 1));
  const Tensor y =
      gated(both.narrow(1, 0, width()), both.narrow(1, width(), width()), Activation::silu);
  expect_close(y, wide / (1.0 + (-wide).exp()) * -wide, tolerance(), "y");
}

TEST_P(RowKernels, SoftmaxIsItsFormula) {
  for (const double smoothing : {0.0, 0.1}) {
    const Tensor logits = reference::random({7, width()}, 1).mul(5.0).to(at::kFloat);
    const Tensor targets = at::arange(7, at::kLong).remainder(width());
    const Tensor wide = logits.to(at::kDouble), lse = wide.logsumexp({-1});
    Tensor expected = wide.softmax(-1) - smoothing / static_cast<double>(width());
    expected.scatter_add_(1, targets.unsqueeze(1), at::full({7, 1}, smoothing - 1.0, at::kDouble));
    const SoftmaxRows rows = softmax_rows(logits.clone(), targets, smoothing, dtype());
    EXPECT_EQ(rows.gradient.scalar_type(), dtype());
    expect_close(rows.gradient, expected, tolerance(), "gradient");
    expect_close(rows.nll, lse - wide.gather(1, targets.unsqueeze(1)).squeeze(1), 1e-6, "nll");
    if (smoothing > 0) expect_close(rows.uniform_nll, lse - wide.mean(1), 1e-6, "uniform");
  }
}

TEST(RowFunctions, RopeOfStridedHeads) {
  const Tensor fused = reference::random({6, 5, 11}, 1, at::kFloat),
               angles = reference::random({6, 4}, 2, at::kFloat);
  const Tensor x = fused.narrow(1, 1, 3);  // 8 values turn, 3 pass
  const Tensor y = rope_rows(x, angles.cos(), angles.sin());
  const Tensor wide = x.to(at::kDouble), c = angles.to(at::kDouble).cos().unsqueeze(1),
               s = angles.to(at::kDouble).sin().unsqueeze(1);
  const Tensor a = wide.narrow(2, 0, 4), b = wide.narrow(2, 4, 4);
  expect_close(y, at::cat({a * c - b * s, b * c + a * s, wide.narrow(2, 8, 3)}, 2), 1e-6, "y");
}

TEST(RowFunctions, ExponentialIsTheLibrarys) {
  for (float x = -87.0F; x < 88.0F; x += 0.01F) {
    EXPECT_NEAR(fast_exp(x) / std::exp(static_cast<double>(x)), 1.0, 2.5e-7) << x;
  }
  EXPECT_EQ(fast_exp(0.0F), 1.0F);
  EXPECT_LT(fast_exp(-200.0F), 2e-38F);
  EXPECT_TRUE(std::isinf(fast_exp(200.0F)));
}

TEST(RowFunctions, NotANumberIsNotLost) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = at::ones({3, 40}, at::kFloat);
  x[1][7] = nan;
  const auto spoiled = [](const Tensor& y) { return y.isnan().any(-1); };
  const Tensor expected = at::tensor({0, 1, 0}, at::kLong).to(at::kBool);
  EXPECT_TRUE(at::equal(spoiled(rms_norm(x, at::ones({40}, at::kFloat), 1e-5)), expected));
  EXPECT_TRUE(at::equal(spoiled(gated(x, x, Activation::silu)), expected));
  EXPECT_TRUE(at::equal(
      softmax_rows(x.clone(), at::zeros({3}, at::kLong), 0, at::kFloat).nll.isnan(), expected));
  EXPECT_TRUE(at::equal(spoiled(gated(x.to(at::kBFloat16), x.to(at::kBFloat16), Activation::silu)),
                        expected));
}

TEST(RowFunctions, BFloat16RoundsAsLibTorchDoes) {
  const Tensor x = reference::random({1, 4096}, 1, at::kFloat);
  const Tensor theirs = x.to(at::kBFloat16);
  Tensor ours = at::empty_like(theirs);
  narrow(x.const_data_ptr<float>(), 4096, ours.mutable_data_ptr<at::BFloat16>());
  EXPECT_TRUE(at::equal(ours, theirs));
}

TEST(LinearProduct, OnednnGivesTheSame) {
  const Tensor x = reference::random({50, 24}, 1, at::kFloat),
               weight = reference::random({12, 24}, 2, at::kFloat);
  const Tensor bias = reference::random({12}, 3, at::kFloat),
               dy = reference::random({50, 12}, 4, at::kFloat);
  const Tensor wide = weight.to(at::kDouble);
  const Tensor expected = at::linear(x.to(at::kDouble), wide, bias.to(at::kDouble));
  expect_close(onednn_product(x, weight, bias), expected, reference::kFloatTolerance, "y");
  expect_close(linear_product(x, weight, bias), expected, reference::kFloatTolerance, "y");
  const Tensor expected_back = dy.to(at::kDouble).mm(wide);
  expect_close(onednn_product(dy, weight.t(), {}), expected_back, reference::kFloatTolerance, "dx");
  expect_close(linear_product_backward(dy, weight), expected_back, reference::kFloatTolerance,
               "dx");
}

}  // namespace
}  // namespace finetune
