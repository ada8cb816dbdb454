#include "finetune/base/random.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace finetune {
namespace {

TEST(Permutation, HoldsEveryIndexOnceAndFollowsTheSeed) {
  const auto order = permutation(1000, 7);
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t i = 0; i < 1000; ++i) EXPECT_EQ(sorted[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(order, permutation(1000, 7));
  EXPECT_NE(order, permutation(1000, 8));
  EXPECT_NE(order, sorted);
}

TEST(MixSeed, EveryWordAndItsPlaceCount) {
  EXPECT_NE(mix_seed({1, 2}), mix_seed({2, 1}));
  EXPECT_NE(mix_seed({1}), mix_seed({1, 0}));
}

}  // namespace
}  // namespace finetune
