#include "finetune/nn/bottleneck.h"

#include "nn/reference.h"

namespace finetune {
namespace {

using reference::expect_close;
using reference::leaf;

constexpr std::int64_t kN = 7, kC = 6, kR = 3;

Bottleneck make(AdapterPlacement placement) {
  Bottleneck bottleneck;
  bottleneck.down_weight = reference::random({kR, kC}, 1);
  bottleneck.down_bias = reference::random({kR}, 2);
  bottleneck.up_weight = reference::random({kC, kR}, 3);
  bottleneck.up_bias = reference::random({kC}, 4);
  bottleneck.placement = placement;
  bottleneck.activation = Activation::tanh;
  bottleneck.scaling = 0.7;
  return bottleneck;
}

TEST(Bottleneck, EachPlacementReadsItsInput) {
  const Tensor x = reference::random({kN, kC}, 5), h = reference::random({kN, kC}, 6);
  const std::pair<AdapterPlacement, Tensor> cases[] = {{AdapterPlacement::houlsby, h},
                                                       {AdapterPlacement::pfeiffer, x + h},
                                                       {AdapterPlacement::parallel, x}};
  for (const auto& [placement, input] : cases) {
    const Bottleneck bottleneck = make(placement);
    const Tensor inner =
        at::tanh(at::matmul(input, bottleneck.down_weight.t()) + bottleneck.down_bias);
    const Tensor update = at::matmul(inner, bottleneck.up_weight.t()) + bottleneck.up_bias;
    expect_close(bottleneck.join(x, h, {}), x + h + 0.7 * update, reference::kDoubleTolerance,
                 to_string(placement));
  }
}

TEST(Bottleneck, GradientsAgreeWithFiniteDifferences) {
  const Bottleneck bottleneck = make(AdapterPlacement::pfeiffer);
  const Tensor x = leaf(reference::random({kN, kC}, 5)), h = leaf(reference::random({kN, kC}, 6));
  const Tensor dy = reference::random({kN, kC}, 7);
  const auto grads = reference::gradients(bottleneck.join(x, h, {}), dy, {x, h});
  const Tensor direction = reference::random({kN, kC}, 8) * 1e-6;
  const auto along = [&](const Tensor& dx, const Tensor& dh) {
    const at::NoGradGuard no_grad;
    const Tensor up = bottleneck.join(x + dx, h + dh, {}),
                 down = bottleneck.join(x - dx, h - dh, {});
    return ((up - down) * dy).sum() / 2.0;
  };
  const Tensor none = at::zeros_like(direction);
  // Central differences of step 1e-6 have an error of about 1e-10 of the gradient.
  expect_close(along(direction, none) * 1e6, (grads[0] * direction).sum() * 1e6, 1e-7, "dx");
  expect_close(along(none, direction) * 1e6, (grads[1] * direction).sum() * 1e6, 1e-7, "dh");
}

TEST(Bottleneck, DropoutFollowsTheSeedAndStopsOutsideTraining) {
  Bottleneck bottleneck = make(AdapterPlacement::houlsby);
  const Tensor x = reference::random({kN, kC}, 5), h = reference::random({kN, kC}, 6);
  const Tensor whole = bottleneck.join(x, h, {}) - x - h;
  bottleneck.dropout = 0.5;
  const auto update = [&](const ForwardContext& context) {
    return bottleneck.join(x, h, context) - x - h;
  };
  const Tensor once = update({.training = true, .seed = 1});
  EXPECT_TRUE(once.equal(update({.training = true, .seed = 1})));
  EXPECT_FALSE(once.equal(update({.training = true, .seed = 2})));
  expect_close(update({}), whole, reference::kDoubleTolerance, "outside training");
  const Tensor kept = once.abs().gt(1e-9);
  EXPECT_GT(kept.sum().item<std::int64_t>(), 0);
  EXPECT_LT(kept.sum().item<std::int64_t>(), kept.numel());
  expect_close(once.masked_select(kept), 2.0 * whole.masked_select(kept), 1e-9, "kept values");
}

}  // namespace
}  // namespace finetune
