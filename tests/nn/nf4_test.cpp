#include "finetune/nn/nf4.h"

#include "finetune/nn/frozen_weight.h"

#include "nn/reference.h"

namespace finetune {
namespace {

using reference::expect_close;
using reference::random;

/// The code of element i.
int code_of(const Nf4Tensor& weight, std::int64_t i) {
  const std::uint8_t byte = weight.codes.const_data_ptr<std::uint8_t>()[i / 2];
  return i % 2 == 0 ? byte >> 4 : byte & 15;
}

TEST(Nf4, TheMapIsItsOwnFixedPoint) {
  const Tensor map = nf4_quant_map();
  ASSERT_EQ(map.numel(), 16);
  EXPECT_TRUE(at::equal(map, std::get<0>(map.sort())));
  const Tensor weight = map.mul(0.5).repeat({2, 4});  // two blocks with absmax 0.5
  const Nf4Tensor quantized = nf4_quantize(weight, false);
  for (int i = 0; i < 128; ++i) EXPECT_EQ(code_of(quantized, i), i % 16);
  EXPECT_TRUE(at::equal(quantized.absmax, at::full({2}, 0.5, at::kFloat)));
  EXPECT_TRUE(at::equal(nf4_dequantize(quantized, at::kFloat), weight));
}

TEST(Nf4, TheMapOfAbsmaxIsSymmetricButForItsEnds) {
  const Tensor map = dynamic_quant_map();
  ASSERT_EQ(map.numel(), 256);
  EXPECT_EQ(map[127].item<float>(), 0.0F);
  EXPECT_EQ(map[255].item<float>(), 1.0F);
  EXPECT_TRUE(at::equal(map.slice(0, 0, 127), map.slice(0, 128, 255).neg().flip(0)));
}

struct Case {
  std::int64_t out, in;
  bool double_quant;
  at::ScalarType dtype;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.out << 'x' << c.in << (c.double_quant ? " double " : " ")
             << c10::toString(c.dtype);
}

class Nf4RoundTrip : public ::testing::TestWithParam<Case> {};

/// Every value is the nearest of the 16 times the block's scale: half the widest gap, and with
/// double quantization what the scale is off by (measured: at most a hundredth of the largest).
TEST_P(Nf4RoundTrip, GivesTheNearestValues) {
  const Case& c = GetParam();
  const Tensor weight = random({c.out, c.in}, 3, c.dtype);
  const Nf4Tensor quantized = nf4_quantize(weight, c.double_quant);
  EXPECT_EQ(quantized.codes.numel(), (c.out * c.in + 1) / 2);
  EXPECT_EQ(quantized.absmax.numel(), quantized.blocks());
  EXPECT_EQ(quantized.absmax.scalar_type(), c.double_quant ? at::kByte : at::kFloat);
  const Tensor flat = weight.to(at::kFloat).flatten();
  const Tensor back = nf4_dequantize(quantized, at::kFloat).flatten();
  const float slack = c.double_quant ? 0.01F * flat.abs().max().item<float>() : 1e-6F;
  for (std::int64_t begin = 0; begin < flat.numel(); begin += kNf4Block) {
    const Tensor block = flat.slice(0, begin, begin + kNf4Block);
    const float absmax = block.abs().max().item<float>();
    const float error = (block - back.slice(0, begin, begin + kNf4Block)).abs().max().item<float>();
    EXPECT_LE(error, absmax * (1.0F - 0.6961928F) / 2 + slack);
  }
}

/// Looked up sixteen at a time or one by one, each is the float32 product rounded once.
TEST_P(Nf4RoundTrip, TypesAreRoundedFromFloat) {
  const Case& c = GetParam();
  const Nf4Tensor quantized = nf4_quantize(random({c.out, c.in}, 3, c.dtype), c.double_quant);
  const Tensor wide = nf4_dequantize(quantized, at::kFloat);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf})
    EXPECT_TRUE(at::equal(nf4_dequantize(quantized, dtype), wide.to(dtype)));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Nf4RoundTrip,
    ::testing::Values(Case{8, 64, false, at::kFloat}, Case{8, 64, true, at::kBFloat16},
                      Case{7, 33, false, at::kFloat}, Case{7, 33, true, at::kHalf},
                      Case{1, 1, true, at::kFloat}, Case{3, 21, false, at::kBFloat16},
                      Case{300, 130, true, at::kFloat}, Case{5, 64 * 256, true, at::kFloat}));

TEST(Nf4, ZerosStayZeros) {
  for (const bool double_quant : {false, true}) {
    const Nf4Tensor quantized = nf4_quantize(at::zeros({3, 64}, at::kFloat), double_quant);
    EXPECT_TRUE(nf4_dequantize(quantized, at::kFloat).eq(0).all().item<bool>());
  }
}

TEST(Nf4, TakesHalfAByteAndALittle) {
  const Tensor weight = random({512, 512}, 3, at::kFloat);
  EXPECT_EQ(nf4_quantize(weight, false).bytes(), 512U * 512 / 2 + 4096 * 4);
  EXPECT_EQ(nf4_quantize(weight, true).bytes(), 512U * 512 / 2 + 4096 + 16 * 4 + 1024);
}

TEST(Int8, RowsAreRoundedToAHalfStep) {
  Tensor weight = random({5, 33}, 3, at::kFloat);
  weight[2].zero_();
  const Int8Tensor quantized = int8_quantize(weight);
  Tensor back = at::empty({5, 33}, at::kFloat);
  int8_dequantize_into(quantized, back);
  const Tensor step = std::get<0>(weight.abs().max(1, true)) / 127.0;
  EXPECT_TRUE((back - weight).abs().le(step * 0.5001).all().item<bool>());
  EXPECT_EQ(quantized.values.abs().max().item<int>(), 127);
}

class QuantizedFrozenWeight : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, QuantizedFrozenWeight,
                         ::testing::Values(at::kFloat, at::kBFloat16));

TEST_P(QuantizedFrozenWeight, MultipliesAsItsDenseWeight) {
  const at::ScalarType dtype = GetParam();
  const auto large = random({40, 96}, 1, dtype), small = random({5, 7}, 2, dtype);
  const FrozenWeight weights[] = {
      FrozenWeight(nf4_quantize(small, true)), FrozenWeight(nf4_quantize(large, true)),
      FrozenWeight(int8_quantize(small)), FrozenWeight(int8_quantize(large))};
  for (const FrozenWeight& weight : weights) {  // one after another in the same buffer
    EXPECT_TRUE(weight.defined() && weight.quantized());
    const std::int64_t out = weight.out_features(), in = weight.in_features();
    const Tensor x = random({6, in}, 4, dtype), dy = random({6, out}, 5, dtype);
    const Tensor bias = random({out}, 6, dtype), dense = weight.dense();
    EXPECT_EQ(dense.scalar_type(), at::kFloat);
    const FrozenWeight reference(dense.to(dtype));
    EXPECT_TRUE(at::equal(weight.multiply(x, bias), reference.multiply(x, bias)));
    EXPECT_TRUE(at::equal(weight.multiply(x, {}), reference.multiply(x, {})));
    EXPECT_TRUE(at::equal(weight.multiply_backward(dy), reference.multiply_backward(dy)));
  }
}

}  // namespace
}  // namespace finetune
