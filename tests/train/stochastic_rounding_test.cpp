#include "train/stochastic_rounding.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace finetune {
namespace {

Tensor rounded(const Tensor& numbers, std::uint64_t seed) {
  Tensor result = at::empty_like(numbers, at::kBFloat16);
  round_stochastically(numbers, result, seed);
  return result.to(at::kFloat);
}

TEST(StochasticRounding, IsUnbiased) {
  constexpr std::int64_t kCount = 1 << 18;
  const float step = std::ldexp(1.0F, -7);  // between neighbours of bfloat16 in [1, 2)
  for (const double fraction : {0.1, 0.5, 0.9}) {
    for (const double sign : {1.0, -1.0}) {
      const double value = sign * (1.0 + fraction * step);
      const Tensor many = rounded(at::full({kCount}, value, at::kFloat), 3);
      // One rounding has the variance p (1 - p) step^2; five standard deviations of the mean.
      const double deviation = step * std::sqrt(fraction * (1 - fraction) / kCount);
      EXPECT_NEAR(many.mean(at::kDouble).item<double>(), value, 5 * deviation) << value;
      EXPECT_EQ(std::get<0>(at::_unique(many)).numel(), 2) << value;
    }
  }
}

TEST(StochasticRounding, KeepsWhatBfloat16Has) {
  const Tensor numbers = at::randn({1000}).to(at::kBFloat16).to(at::kFloat);
  EXPECT_TRUE(at::equal(rounded(numbers, 1), numbers));
  EXPECT_TRUE(at::equal(rounded(at::zeros({1000}), 1), at::zeros({1000})));
}

TEST(StochasticRounding, FollowsTheSeed) {
  const Tensor numbers = at::randn({1000});
  EXPECT_TRUE(at::equal(rounded(numbers, 1), rounded(numbers, 1)));
  EXPECT_FALSE(at::equal(rounded(numbers, 1), rounded(numbers, 2)));
}

}  // namespace
}  // namespace finetune
