#include "finetune/nn/linear.h"

#include "nn/reference.h"

#include <cmath>

namespace finetune {
namespace {

using reference::expect_close;
using reference::gradients;
using reference::leaf;

constexpr std::int64_t kN = 7, kI = 6, kO = 5, kR = 3;

Lora make_lora(double scaling, double dropout) {
  Lora lora;
  lora.a = leaf(reference::random({kR, kI}, 11));
  lora.b = leaf(reference::random({kO, kR}, 12));
  lora.scaling = scaling;
  lora.dropout = dropout;
  return lora;
}

Linear make_linear(bool bias, at::ScalarType dtype = at::kDouble) {
  Linear linear;
  linear.weight = FrozenWeight(reference::random({kO, kI}, 1, dtype));
  if (bias) linear.bias = reference::random({kO}, 2, dtype);
  linear.index = 4;
  return linear;
}

class LinearWithBias : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Both, LinearWithBias, ::testing::Bool());

TEST_P(LinearWithBias, FrozenMatchesTheReference) {
  Linear linear = make_linear(GetParam());
  std::vector<Tensor> inputs = {leaf(reference::random({kN, kI}, 3))};
  if (GetParam()) inputs.push_back(linear.bias = leaf(linear.bias));
  const Tensor dy = reference::random({kN, kO}, 4);
  Tensor expected = at::matmul(inputs[0], linear.weight.dense().t());
  if (GetParam()) expected = expected + inputs[1];
  const Tensor y = linear.forward(inputs[0], {});
  expect_close(y, expected, reference::kDoubleTolerance, "y");
  const auto grads = gradients(y, dy, inputs), expected_grads = gradients(expected, dy, inputs);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, i == 0 ? "dx" : "dbias");
  }
}

TEST_P(LinearWithBias, LoraMatchesTheReference) {
  Linear linear = make_linear(GetParam());
  linear.lora = make_lora(0.7, 0.0);
  const Tensor x = leaf(reference::random({kN, kI}, 3)), dy = reference::random({kN, kO}, 4);
  const Tensor &a = linear.lora->a, &b = linear.lora->b;
  Tensor expected = at::matmul(x, linear.weight.dense().t()) + 0.7 * x.matmul(a.t()).matmul(b.t());
  if (GetParam()) expected = expected + linear.bias;
  const Tensor y = linear.forward(x, {.training = true, .seed = 1});
  expect_close(y, expected, reference::kDoubleTolerance, "y");
  const auto grads = gradients(y, dy, {x, a, b}),
             expected_grads = gradients(expected, dy, {x, a, b});
  const char* names[] = {"dx", "dA", "dB"};
  for (int i = 0; i < 3; ++i)
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, names[i]);
}

TEST(Linear, GradientArrivesInAnyLayout) {
  Linear linear = make_linear(true);
  linear.lora = make_lora(0.7, 0.0);
  const Tensor x = leaf(reference::random({kI, kN}, 3)).t();
  const std::vector<Tensor> inputs = {x, linear.lora->a, linear.lora->b};
  const Tensor y = linear.forward(x, {});
  const Tensor expanded = at::ones({}, at::kDouble).expand({kN, kO});  // the gradient of a sum
  const Tensor transposed = reference::random({kO, kN}, 4).t();
  for (const Tensor& dy : {expanded, transposed}) {
    const auto grads = torch::autograd::grad({y}, inputs, {dy}, true);
    const auto expected =
        torch::autograd::grad({y}, inputs, {dy.clone(at::MemoryFormat::Contiguous)}, true);
    for (std::size_t i = 0; i < 3; ++i)
      expect_close(grads[i], expected[i], reference::kDoubleTolerance, "gradient");
  }
}

TEST(Linear, AdapterLearnsWhereTheInputIsFrozen) {
  Linear linear = make_linear(false);
  linear.lora = make_lora(2.0, 0.0);
  const Tensor x = reference::random({kN, kI}, 3), dy = reference::random({kN, kO}, 4);
  const std::vector<Tensor> adapter = {linear.lora->a, linear.lora->b};
  const Tensor expected = 2.0 * x.matmul(adapter[0].t()).matmul(adapter[1].t());
  const auto grads = gradients(linear.forward(x, {}), dy, adapter);
  const auto expected_grads = gradients(expected, dy, adapter);
  expect_close(grads[0], expected_grads[0], reference::kDoubleTolerance, "dA");
  expect_close(grads[1], expected_grads[1], reference::kDoubleTolerance, "dB");
}

TEST(Linear, HalfTypesKeepFloatMasters) {
  Linear linear = make_linear(true, at::kBFloat16);
  linear.lora = make_lora(0.5, 0.0);
  linear.lora->a = leaf(linear.lora->a.to(at::kFloat));
  linear.lora->b = leaf(linear.lora->b.to(at::kFloat));
  const Tensor x = leaf(reference::random({kN, kI}, 3, at::kBFloat16));
  const Tensor dy = reference::random({kN, kO}, 4, at::kBFloat16);
  const Tensor y = linear.forward(x, {});
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  const std::vector<Tensor> inputs = {x, linear.lora->a, linear.lora->b};
  const auto grads = gradients(y, dy, inputs);
  EXPECT_EQ(grads[0].scalar_type(), at::kBFloat16);
  EXPECT_EQ(grads[1].scalar_type(), at::kFloat);
  EXPECT_EQ(grads[2].scalar_type(), at::kFloat);
  std::vector<Tensor> wide;
  for (const Tensor& input : inputs) wide.push_back(leaf(input.to(at::kDouble)));
  const Tensor expected =
      at::linear(wide[0], linear.weight.dense().to(at::kDouble), linear.bias.to(at::kDouble)) +
      0.5 * wide[0].matmul(wide[1].t()).matmul(wide[2].t());
  expect_close(y, expected, reference::kBfloat16Tolerance, "y");
  const auto expected_grads = gradients(expected, dy.to(at::kDouble), wide);
  for (std::size_t i = 0; i < 3; ++i) {
    expect_close(grads[i], expected_grads[i], reference::kBfloat16Tolerance, "gradient");
  }
}

TEST(Linear, TrainedWeightTakesThePlaceOfTheFrozenOne) {
  Linear linear = make_linear(true, at::kFloat);
  linear.trained = leaf(reference::random({kO, kI}, 20, at::kFloat));
  const Tensor x = leaf(reference::random({kN, kI}, 3, at::kFloat)),
               dy = reference::random({kN, kO}, 4, at::kFloat);
  const Tensor y = linear.forward(x, {});
  expect_close(y, at::linear(x, linear.trained, linear.bias), reference::kFloatTolerance, "y");
  const auto grads = gradients(y, dy, {x, linear.trained});
  expect_close(grads[0], dy.mm(linear.trained), reference::kFloatTolerance, "dx");
  expect_close(grads[1], dy.t().mm(x), reference::kFloatTolerance, "dW");
}

/// The mask that a linear with this index uses in `context`: the output of a probe that passes it
/// through.
Tensor mask_of(std::uint64_t index, double dropout, const ForwardContext& context,
               std::int64_t rows = kN) {
  Linear probe;
  probe.weight = FrozenWeight(at::zeros({kI, kI}, at::kDouble));
  probe.index = index;
  probe.lora.emplace();
  probe.lora->a = at::eye(kI, at::kDouble);
  probe.lora->b = at::eye(kI, at::kDouble);
  probe.lora->dropout = dropout;
  return probe.forward(at::ones({rows, kI}, at::kDouble), context);
}

TEST(LoraDropout, MaskFollowsSeedAndIndex) {
  const ForwardContext context{.training = true, .seed = 9};
  const Tensor mask = mask_of(4, 0.25, context, 4000);
  EXPECT_TRUE(at::equal(mask, mask_of(4, 0.25, context, 4000)));
  EXPECT_FALSE(at::equal(mask, mask_of(5, 0.25, context, 4000)));
  EXPECT_FALSE(at::equal(mask, mask_of(4, 0.25, {.training = true, .seed = 10}, 4000)));
  EXPECT_TRUE(
      at::logical_or(mask.eq(0.0), mask.sub(1.0 / 0.75).abs().lt(1e-12)).all().item<bool>());
  // 24,000 draws: five standard deviations of the mean are 0.014.
  EXPECT_NEAR(mask.eq(0.0).to(at::kDouble).mean().item<double>(), 0.25, 0.014);
}

TEST(LoraDropout, IsOffOutsideTraining) {
  EXPECT_TRUE(
      at::equal(mask_of(4, 0.25, {.training = false, .seed = 9}), at::ones({kN, kI}, at::kDouble)));
}

TEST(LoraDropout, DoesNotTouchTheGlobalGenerator) {
  at::manual_seed(5);
  const Tensor expected = at::rand({8});
  at::manual_seed(5);
  mask_of(4, 0.25, {.training = true, .seed = 9});
  EXPECT_TRUE(at::equal(at::rand({8}), expected));
}

TEST(LoraDropout, BackwardUsesTheMaskOfForward) {
  const ForwardContext context{.training = true, .seed = 9};
  const Tensor mask = mask_of(4, 0.4, context);
  ASSERT_TRUE(mask.eq(0.0).any().item<bool>() && mask.ne(0.0).any().item<bool>());
  Linear linear = make_linear(true);
  linear.lora = make_lora(0.7, 0.4);
  const Tensor x = leaf(reference::random({kN, kI}, 3)), dy = reference::random({kN, kO}, 4);
  const Tensor &a = linear.lora->a, &b = linear.lora->b;
  const Tensor expected = at::linear(x, linear.weight.dense(), linear.bias) +
                          0.7 * (x * mask).matmul(a.t()).matmul(b.t());
  const Tensor y = linear.forward(x, context);
  expect_close(y, expected, reference::kDoubleTolerance, "y");
  const auto grads = gradients(y, dy, {x, a, b}),
             expected_grads = gradients(expected, dy, {x, a, b});
  const char* names[] = {"dx", "dA", "dB"};
  for (int i = 0; i < 3; ++i)
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, names[i]);
}

TEST(DeltaWeight, IsWhatMergingAdds) {
  Linear linear = make_linear(true, at::kFloat);
  linear.lora = make_lora(0.7, 0.3);
  const Tensor x = reference::random({kN, kI}, 3, at::kFloat);
  const Tensor delta = delta_weight(*linear.lora);
  EXPECT_EQ(delta.scalar_type(), at::kFloat);
  EXPECT_FALSE(delta.requires_grad());
  Linear merged = linear;
  merged.lora.reset();
  merged.weight = FrozenWeight(linear.weight.dense() + delta);
  expect_close(merged.forward(x, {}), linear.forward(x, {}), reference::kFloatTolerance, "merged");
}

TEST(Lora, AConstantPartIsAddedAndNotTrained) {
  Linear linear = make_linear(true);
  linear.lora = make_lora(0.7, 0.0);
  const Tensor x = leaf(reference::random({kN, kI}, 3)), dy = reference::random({kN, kO}, 4);
  linear.lora->constant_a = reference::random({3, kI}, 5);
  linear.lora->constant_b = reference::random({kO, 3}, 6);
  const Tensor &a = linear.lora->a, &b = linear.lora->b;
  const Tensor expected =
      at::linear(x, linear.weight.dense(), linear.bias) + 0.7 * x.matmul(a.t()).matmul(b.t()) +
      0.7 * x.matmul(linear.lora->constant_a.t()).matmul(linear.lora->constant_b.t());
  const Tensor y = linear.forward(x, {});
  expect_close(y, expected, reference::kDoubleTolerance, "y");
  const auto grads = gradients(y, dy, {x, a, b}),
             expected_grads = gradients(expected, dy, {x, a, b});
  for (std::size_t i = 0; i < 3; ++i)
    expect_close(grads[i], expected_grads[i], reference::kDoubleTolerance, "gradient");
}

/// A linear with DoRA in float32, its leaves, and the same product written out; the norm is
/// constant.
TEST(Dora, MatchesTheReference) {
  for (const double dropout : {0.0, 0.3}) {
    Linear linear = make_linear(true, at::kFloat);
    linear.lora = make_lora(0.7, dropout);
    Lora& lora = *linear.lora;
    lora.a = leaf(lora.a.to(at::kFloat));
    lora.b = leaf(lora.b.to(at::kFloat));
    lora.magnitude = leaf(reference::random({kO}, 8, at::kFloat).abs());
    const Tensor x = leaf(reference::random({kN, kI}, 3, at::kFloat));
    const Tensor dy = reference::random({kN, kO}, 4, at::kFloat);
    const ForwardContext context{.training = true, .seed = 9};
    Linear probe = linear;  // W = 0, A = B = I: shows the mask
    probe.weight = FrozenWeight(at::zeros({kI, kI}));
    probe.bias = Tensor();
    probe.lora = Lora{at::eye(kI), at::eye(kI)};
    probe.lora->dropout = dropout;
    const Tensor mask = probe.forward(at::ones({kN, kI}), context);

    const Tensor weight = linear.weight.dense(), dropped = x * mask;
    const Tensor gain = lora.magnitude / (weight + delta_weight(lora)).norm(2, {1});
    const Tensor expected = at::linear(x, weight, linear.bias) +
                            (gain - 1) * dropped.matmul(weight.t()) +
                            gain * 0.7 * dropped.matmul(lora.a.t()).matmul(lora.b.t());
    const Tensor y = linear.forward(x, context);
    expect_close(y, expected, reference::kFloatTolerance, "y");
    const std::vector<Tensor> leaves = {x, lora.a, lora.b, lora.magnitude};
    const auto grads = gradients(y, dy, leaves), expected_grads = gradients(expected, dy, leaves);
    for (std::size_t i = 0; i < leaves.size(); ++i)
      expect_close(grads[i], expected_grads[i], reference::kFloatTolerance, "gradient");
  }
}

TEST(MergedWeight, DoesWhatTheAdaptersDo) {
  for (const bool on_input : {false, true}) {
    Linear linear = make_linear(false, at::kFloat);
    linear.lora = make_lora(0.7, 0.0);
    linear.lora->a = linear.lora->a.detach().to(at::kFloat);
    linear.lora->b = linear.lora->b.detach().to(at::kFloat);
    linear.lora->magnitude = reference::random({kO}, 8, at::kFloat).abs();
    linear.ia3 = Ia3{reference::random(on_input ? std::vector<std::int64_t>{1, kI}
                                                : std::vector<std::int64_t>{kO, 1},
                                       9, at::kFloat),
                     on_input};
    const Tensor x = reference::random({kN, kI}, 3, at::kFloat);
    const Tensor merged = merged_weight(linear.weight.dense(), linear);
    expect_close(at::linear(x, merged), linear.forward(x, {}), reference::kFloatTolerance, "y");
  }
}

}  // namespace
}  // namespace finetune
