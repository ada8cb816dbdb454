#include "finetune/generate/sampling.h"

#include <gtest/gtest.h>

#include <cmath>

namespace finetune {
namespace {

const std::vector<float> kLogits = {1.0F, 3.0F, 2.0F, 3.0F, -1.0F};

std::vector<std::size_t> support(const SamplingOptions& options) {
  std::vector<std::size_t> ids;
  const auto probabilities = token_probabilities(kLogits, {}, options);
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] > 0) ids.push_back(i);
  }
  return ids;
}

using Ids = std::vector<std::size_t>;

TEST(Sampling, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(support({}), Ids({1}));
  EXPECT_EQ(choose_token(kLogits, {}, {}, 0, 0), 1);
}

TEST(Sampling, TemperatureIsSoftmax) {
  const auto p = token_probabilities(kLogits, {}, {.temperature = 2.0});
  EXPECT_NEAR(p[1] / p[2], std::exp(0.5), 1e-12);
  EXPECT_NEAR(p[0] + p[1] + p[2] + p[3] + p[4], 1.0, 1e-12);
}

TEST(Sampling, TopKKeepsEquals) {
  EXPECT_EQ(support({.temperature = 1, .top_k = 1}), Ids({1, 3}));
  EXPECT_EQ(support({.temperature = 1, .top_k = 3}), Ids({1, 2, 3}));
  EXPECT_EQ(support({.temperature = 1, .top_k = 99}).size(), 5U);
}

TEST(Sampling, TopPAndMinP) {
  EXPECT_EQ(support({.temperature = 1, .top_p = 0.0}), Ids({3}));
  EXPECT_EQ(support({.temperature = 1, .top_p = 0.9}), Ids({1, 2, 3}));
  EXPECT_EQ(support({.temperature = 1, .min_p = 0.2}), Ids({1, 2, 3}));
}

TEST(Sampling, PenaltyMakesSeenTokensLessLikely) {
  const std::vector<std::int32_t> seen = {1, 4, 1};
  const auto p = token_probabilities(kLogits, seen, {.temperature = 1, .repetition_penalty = 2});
  EXPECT_NEAR(std::log(p[3] / p[1]), 1.5, 1e-9);
  EXPECT_NEAR(std::log(p[3] / p[4]), 5.0, 1e-9);
}

TEST(Sampling, ADrawIsFixedByItsPlace) {
  const SamplingOptions options{.temperature = 1};
  std::vector<int> counts(5, 0);
  for (std::uint64_t position = 0; position < 4000; ++position) {
    const std::int32_t id = choose_token(kLogits, {}, options, 3, position);
    EXPECT_EQ(id, choose_token(kLogits, {}, options, 3, position));
    ++counts[static_cast<std::size_t>(id)];
  }
  const auto p = token_probabilities(kLogits, {}, options);
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_NEAR(counts[i] / 4000.0, p[i], 5 * std::sqrt(p[i] * (1 - p[i]) / 4000));
}

}  // namespace
}  // namespace finetune
