#include "model/rope.h"

#include "finetune/base/error.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace finetune {
namespace {

/// The program computes in float32 as transformers does; the formulas below are in double.
constexpr double kRelative = 2e-6;

RopeConfig make_config(RopeScaling::Type type) {
  RopeConfig config;
  config.rotary_dim = 16;
  config.theta = 10000.0;
  config.max_position_embeddings = 128;
  config.scaling.type = type;
  config.scaling.factor = 4.0;
  config.scaling.original_max_position_embeddings = 32;
  return config;
}

double plain_frequency(double theta, int pair) { return std::pow(theta, -2.0 * pair / 16.0); }

void expect_frequencies(const Tensor& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.scalar_type(), at::kFloat);
  ASSERT_EQ(actual.numel(), static_cast<std::int64_t>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double value = actual[static_cast<std::int64_t>(i)].item<double>();
    EXPECT_NEAR(value / expected[i], 1.0, kRelative) << "pair " << i;
  }
}

TEST(InverseFrequencies, Default) {
  std::vector<double> expected;
  for (int i = 0; i < 8; ++i) expected.push_back(plain_frequency(10000.0, i));
  expect_frequencies(inverse_frequencies(make_config(RopeScaling::Type::none), 10), expected);
}

TEST(InverseFrequencies, Linear) {
  std::vector<double> expected;
  for (int i = 0; i < 8; ++i) expected.push_back(plain_frequency(10000.0, i) / 4.0);
  expect_frequencies(inverse_frequencies(make_config(RopeScaling::Type::linear), 10), expected);
}

TEST(InverseFrequencies, DynamicGrowsWithTheLengthBeyondTheModels) {
  const RopeConfig config = make_config(RopeScaling::Type::dynamic);
  for (const double length : {1.0, 128.0, 300.0}) {
    const double reach = std::max(length, 128.0);
    const double theta = 10000.0 * std::pow(4.0 * reach / 128.0 - 3.0, 16.0 / 14.0);
    std::vector<double> expected;
    for (int i = 0; i < 8; ++i) expected.push_back(plain_frequency(theta, i));
    expect_frequencies(inverse_frequencies(config, static_cast<std::int64_t>(length)), expected);
  }
}

TEST(InverseFrequencies, Llama3KeepsShortDividesLongAndBlendsBetween) {
  RopeConfig config = make_config(RopeScaling::Type::llama3);
  config.scaling.low_freq_factor = 1.0;
  config.scaling.high_freq_factor = 4.0;
  config.scaling.original_max_position_embeddings = 256;
  std::vector<double> expected;
  int kept = 0, divided = 0, blended = 0;
  for (int i = 0; i < 8; ++i) {
    const double frequency = plain_frequency(10000.0, i),
                 turns = 256.0 * frequency / (2.0 * std::numbers::pi);
    if (turns > 4.0) {
      ++kept;
      expected.push_back(frequency);
    } else if (turns < 1.0) {
      ++divided;
      expected.push_back(frequency / 4.0);
    } else {
      ++blended;
      const double smooth = (turns - 1.0) / 3.0;
      expected.push_back((1.0 - smooth) * frequency / 4.0 + smooth * frequency);
    }
  }
  ASSERT_TRUE(kept > 0 && divided > 0 && blended > 0);
  expect_frequencies(inverse_frequencies(config, 10), expected);
}

/// YaRN, section 3.2: a ramp over the pairs between beta_fast and beta_slow turns in the original
/// length.
std::vector<double> yarn_reference(double theta, double original, double factor, bool truncate) {
  const auto pair_with_turns = [&](double turns) {
    return 16.0 * std::log(original / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(theta));
  };
  double low = pair_with_turns(32.0), high = pair_with_turns(1.0);
  if (truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, 15.0);
  std::vector<double> expected;
  for (int i = 0; i < 8; ++i) {
    const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0),
                 frequency = plain_frequency(theta, i);
    expected.push_back(frequency / factor * ramp + frequency * (1.0 - ramp));
  }
  return expected;
}

TEST(InverseFrequencies, Yarn) {
  RopeConfig config = make_config(RopeScaling::Type::yarn);
  config.scaling.original_max_position_embeddings = 4096;
  const auto expected = yarn_reference(10000.0, 4096.0, 4.0, true);
  EXPECT_EQ(expected.front(), 1.0);                                        // kept
  EXPECT_NEAR(expected.back() * 4.0, plain_frequency(10000.0, 7), 1e-12);  // divided
  expect_frequencies(inverse_frequencies(config, 10), expected);
  config.scaling.truncate = false;
  expect_frequencies(inverse_frequencies(config, 10), yarn_reference(10000.0, 4096.0, 4.0, false));
}

TEST(RopeAngles, PositionsStartAnewWithEverySequence) {
  const RopeConfig config = make_config(RopeScaling::Type::none);
  const std::vector<std::int64_t> starts = {0, 3, 4, 8};
  const RopeAngles angles = rope_angles(config, starts, {}, at::kCPU);
  const double positions[] = {0, 1, 2, 0, 0, 1, 2, 3};
  ASSERT_EQ(angles.cos.sizes(), (std::vector<std::int64_t>{8, 8}));
  for (int n = 0; n < 8; ++n) {
    for (int i = 0; i < 8; ++i) {
      const double angle = positions[n] * plain_frequency(10000.0, i);
      EXPECT_NEAR(angles.cos[n][i].item<double>(), std::cos(angle), 1e-6) << n << " " << i;
      EXPECT_NEAR(angles.sin[n][i].item<double>(), std::sin(angle), 1e-6) << n << " " << i;
    }
  }
}

TEST(RopeAngles, GenerationContinuesAtItsPosition) {
  const RopeConfig config = make_config(RopeScaling::Type::llama3);
  const std::vector<std::int64_t> whole = {0, 30}, starts = {0, 1, 3}, first = {29, 7};
  const RopeAngles all = rope_angles(config, whole, {}, at::kCPU),
                   some = rope_angles(config, starts, first, at::kCPU);
  EXPECT_TRUE(at::equal(some.cos[0], all.cos[29]));
  EXPECT_TRUE(at::equal(some.sin.slice(0, 1, 3), all.sin.slice(0, 7, 9)));
}

TEST(RopeAngles, DynamicUsesEachSequencesOwnLength) {
  const RopeConfig config = make_config(RopeScaling::Type::dynamic);
  const std::vector<std::int64_t> starts = {0, 200, 205};
  const RopeAngles together = rope_angles(config, starts, {}, at::kCPU);
  const std::vector<std::int64_t> first = {0, 200}, second = {0, 5};
  EXPECT_TRUE(
      at::equal(together.cos.slice(0, 0, 200), rope_angles(config, first, {}, at::kCPU).cos));
  EXPECT_TRUE(
      at::equal(together.cos.slice(0, 200, 205), rope_angles(config, second, {}, at::kCPU).cos));
  EXPECT_FALSE(at::equal(together.cos.slice(0, 0, 5), together.cos.slice(0, 200, 205)));
}

/// cos at position 0 is the factor itself.
double factor_of(const RopeConfig& config) {
  const std::vector<std::int64_t> starts = {0, 1};
  return rope_angles(config, starts, {}, at::kCPU).cos[0][0].item<double>();
}

TEST(RopeAngles, YarnScalesAttention) {
  RopeConfig config = make_config(RopeScaling::Type::yarn);
  EXPECT_NEAR(factor_of(config), 0.1 * std::log(4.0) + 1.0, 1e-6);
  config.scaling.mscale = 0.7;
  EXPECT_NEAR(factor_of(config), 0.1 * std::log(4.0) + 1.0,
              1e-6);  // one of the two alone says nothing
  config.scaling.mscale_all_dim = 0.4;
  EXPECT_NEAR(factor_of(config), (0.07 * std::log(4.0) + 1.0) / (0.04 * std::log(4.0) + 1.0), 1e-6);
  config.scaling.attention_factor = 1.5;
  EXPECT_NEAR(factor_of(config), 1.5, 1e-6);
  config = make_config(RopeScaling::Type::yarn);
  config.scaling.factor = 0.5;
  EXPECT_NEAR(factor_of(config), 1.0, 1e-6);
  EXPECT_NEAR(factor_of(make_config(RopeScaling::Type::llama3)), 1.0, 1e-6);
}

}  // namespace
}  // namespace finetune
