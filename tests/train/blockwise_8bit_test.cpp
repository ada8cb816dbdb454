#include "train/blockwise_8bit.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace finetune {
namespace {

Tensor round_trip(const Blockwise8Bit& format, const Tensor& numbers) {
  Tensor codes = at::empty_like(numbers, at::kByte);
  Tensor absmax = at::empty({numbers.numel() / Blockwise8Bit::kBlock});
  format.encode(numbers, codes, absmax);
  return format.decode(codes, absmax);
}

/// Values of bitsandbytes 0.50's create_dynamic_map, printed by Python. The whole maps are compared
/// in tests/peers/test_optimizers.py by what they store.
TEST(Blockwise8Bit, MapIsTheirs) {
  const Tensor with_sign = Blockwise8Bit(true, at::kCPU).map();
  const Tensor without = Blockwise8Bit(false, at::kCPU).map();
  for (const Tensor& map : {with_sign, without}) {
    ASSERT_EQ(map.numel(), 256);
    EXPECT_TRUE(map.narrow(0, 1, 255).gt(map.narrow(0, 0, 255)).all().item<bool>());
    EXPECT_EQ(map[255].item<float>(), 1.0F);
  }
  EXPECT_FLOAT_EQ(with_sign[0].item<float>(), -0.99296874F);
  EXPECT_FLOAT_EQ(with_sign[128].item<float>(), 5.5e-7F);
  EXPECT_EQ(with_sign[127].item<float>(), 0.0F);
  EXPECT_EQ(without[0].item<float>(), 0.0F);
  EXPECT_FLOAT_EQ(without[1].item<float>(), 3.25e-7F);
  EXPECT_FLOAT_EQ(without[254].item<float>(), 0.996484399F);
}

TEST(Blockwise8Bit, NumbersComeBackNearly) {
  at::manual_seed(1);
  const Tensor numbers = at::randn({2048});
  // The widest steps are those of the top exponent: 0.9/64 with a sign, 0.9/128 without.
  const Tensor scale = numbers.abs().view({-1, 256}).amax(1, true);
  const auto error = [&](bool is_signed, const Tensor& values) {
    const Tensor back = round_trip(Blockwise8Bit(is_signed, at::kCPU), values);
    return ((back - values).view({-1, 256}).abs() / scale).max().item<double>();
  };
  EXPECT_LT(error(true, numbers), 0.9 / 64 / 2 + 1e-6);
  EXPECT_LT(error(false, numbers.abs()), 0.9 / 128 / 2 + 1e-6);
}

TEST(Blockwise8Bit, EveryValueOfTheMapIsKept) {
  for (const bool is_signed : {true, false}) {
    const Blockwise8Bit format(is_signed, at::kCPU);
    const Tensor numbers = format.map() * 8;
    EXPECT_TRUE(at::equal(round_trip(format, numbers), numbers));
  }
}

TEST(Blockwise8Bit, HalfwayIsTheLowerCode) {
  const Blockwise8Bit format(true, at::kCPU);
  const Tensor map = format.map();
  const Tensor halfway = (map.narrow(0, 0, 255) + map.narrow(0, 1, 255)) / 2;
  // With a 1 in it, the block's scale is 1.
  EXPECT_TRUE(at::equal(round_trip(format, at::cat({halfway, at::ones({1})})).narrow(0, 0, 255),
                        map.narrow(0, 0, 255)));
}

TEST(Blockwise8Bit, BlocksAreScaledApart) {
  const Blockwise8Bit format(true, at::kCPU);
  const Tensor numbers = at::cat({at::full({256}, 1e-20), at::full({256}, 1e10), at::zeros({256})});
  EXPECT_TRUE(at::equal(round_trip(format, numbers), numbers));
}

}  // namespace
}  // namespace finetune
