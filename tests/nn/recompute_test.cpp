#include "finetune/nn/recompute.h"

#include "nn/reference.h"

namespace finetune {
namespace {

using reference::leaf;

TEST(Recomputed, GradientsAreThoseOfThePlainFunction) {
  const Tensor weight = leaf(reference::random({4, 4}, 1)), x = leaf(reference::random({3, 4}, 2));
  const Tensor dy = reference::random({3, 4}, 3);
  int calls = 0;
  const BlockFunction block = [&](const Tensor& input) {
    ++calls;
    return at::tanh(at::mm(input, weight)) + input;
  };
  const auto grads_of = [&](const Tensor& y) {
    weight.mutable_grad() = Tensor();
    x.mutable_grad() = Tensor();
    torch::autograd::backward({y}, {dy});
    return std::pair(weight.grad().clone(), x.grad().clone());
  };
  const auto plain = grads_of(block(block(x)));
  calls = 0;
  const Tensor y = recomputed(recomputed(x, block), block);
  EXPECT_EQ(calls, 2);
  const auto again = grads_of(y);
  EXPECT_EQ(calls, 4);
  EXPECT_TRUE(at::equal(plain.first, again.first));
  EXPECT_TRUE(at::equal(plain.second, again.second));
}

TEST(Recomputed, AnInputWithoutGradientStaysPlain) {
  const Tensor weight = leaf(reference::random({4, 4}, 1)), x = reference::random({3, 4}, 2);
  const Tensor y = recomputed(x, [&](const Tensor& input) { return at::mm(input, weight); });
  torch::autograd::backward({y}, {at::ones_like(y)});
  EXPECT_TRUE(weight.grad().defined());
}

}  // namespace
}  // namespace finetune
