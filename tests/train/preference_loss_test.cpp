#include "train/preference_loss.h"

#include "nn/reference.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace finetune {
namespace {

struct Case {
  const char* name;
  PreferenceSettings settings;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class PreferenceLosses : public ::testing::TestWithParam<Case> {
 protected:
  /// Three pairs whose margins have different signs.
  static PairScores scores() {
    const auto numbers = [](std::initializer_list<double> values) {
      return at::tensor(std::vector<double>(values), at::kDouble);
    };
    return {numbers({-8, -20, -3}),   numbers({-11, -6, -9}), numbers({-9, -18, -4}),
            numbers({-10, -9, -9.5}), numbers({5, 8, 2}),     numbers({7, 3, 4})};
  }
};

TEST_P(PreferenceLosses, DerivativesAreFiniteDifferences) {
  PairScores at = scores();
  at.chosen.requires_grad_();
  at.rejected.requires_grad_();
  preference_loss(GetParam().settings, at).loss.sum().backward();
  const double step = 1e-5;
  for (const bool chosen : {true, false}) {
    for (std::int64_t i = 0; i < 3; ++i) {
      const auto moved = [&](double by) {
        PairScores there = scores();
        (chosen ? there.chosen : there.rejected)[i].add_(by);
        return preference_loss(GetParam().settings, there).loss.sum().item<double>();
      };
      const double expected = (moved(step) - moved(-step)) / (2 * step);
      const Tensor& gradient = (chosen ? at.chosen : at.rejected).grad();
      EXPECT_NEAR(gradient[i].item<double>(), expected, 1e-7 * (1 + std::abs(expected)))
          << (chosen ? "chosen " : "rejected ") << i;
    }
  }
}

TEST_P(PreferenceLosses, RewardsPullTheAnswersApart) {
  PairScores at = scores();
  at.chosen.requires_grad_();
  at.rejected.requires_grad_();
  const PreferenceTerms terms = preference_loss(GetParam().settings, at);
  EXPECT_FALSE(terms.chosen_rewards.requires_grad());
  terms.loss.sum().backward();
  // Pair 1 is the wrong way round in every loss: descent makes the chosen likelier.
  EXPECT_LT(at.chosen.grad()[1].item<double>(), 0);
  EXPECT_GT(at.rejected.grad()[1].item<double>(), 0);
}

INSTANTIATE_TEST_SUITE_P(
    All, PreferenceLosses,
    ::testing::Values(Case{"dpo", {Stage::dpo}},
                      Case{"cdpo", {Stage::dpo, PreferenceLoss::sigmoid, 0.3, 0.1}},
                      Case{"hinge", {Stage::dpo, PreferenceLoss::hinge, 0.2}},
                      Case{"robust", {Stage::dpo, PreferenceLoss::robust, 0.3, 0.2}},
                      Case{"ipo", {Stage::ipo}}, Case{"orpo", {Stage::orpo}},
                      Case{"simpo", {Stage::simpo, PreferenceLoss::sigmoid, 2.0, 0.05, 0.7}}),
    [](const auto& info) { return std::string(info.param.name); });

/// -log s(0.1 ((-8 + 9) - (-11 + 10))) and so on, by hand.
TEST(PreferenceLoss, OfKnownNumbers) {
  PairScores one{at::tensor({-8.0}, at::kDouble), at::tensor({-11.0}, at::kDouble),
                 at::tensor({-9.0}, at::kDouble), at::tensor({-10.0}, at::kDouble),
                 at::tensor({4.0}, at::kDouble),  at::tensor({2.0}, at::kDouble)};
  const auto loss = [&](const PreferenceSettings& settings) {
    return preference_loss(settings, one).loss.item<double>();
  };
  const double s = 1 / (1 + std::exp(-0.2));
  EXPECT_NEAR(loss({Stage::dpo}), -std::log(s), 1e-12);
  EXPECT_NEAR(loss({Stage::dpo, PreferenceLoss::sigmoid, 0.1, 0.25}),
              -0.75 * std::log(s) - 0.25 * std::log(1 - s), 1e-12);
  EXPECT_NEAR(loss({Stage::dpo, PreferenceLoss::robust, 0.1, 0.25}),
              (-0.75 * std::log(s) + 0.25 * std::log(1 - s)) / 0.5, 1e-12);
  EXPECT_NEAR(loss({Stage::dpo, PreferenceLoss::hinge}), 0.8, 1e-12);
  EXPECT_NEAR(loss({Stage::ipo}), std::pow(1.0 / 4 + 1.0 / 2 - 5, 2), 1e-12);
  const double margin = 0.1 * (-8.0 / 4 + 11.0 / 2) - 0.5;
  EXPECT_NEAR(loss({Stage::simpo}), std::log1p(std::exp(-margin)), 1e-12);
  const auto log_odds = [](double x) { return x - std::log(1 - std::exp(x)); };
  EXPECT_NEAR(loss({Stage::orpo}),
              2.0 + 0.1 * std::log1p(std::exp(-(log_odds(-2.0) - log_odds(-5.5)))), 1e-12);
  const PreferenceTerms terms = preference_loss({Stage::dpo}, one);
  EXPECT_NEAR(terms.chosen_rewards.item<double>(), 0.1, 1e-12);
  EXPECT_NEAR(terms.rejected_rewards.item<double>(), -0.1, 1e-12);
}

TEST(PreferenceLoss, StartsWithoutRewards) {
  PairScores same;
  same.chosen = same.reference_chosen = at::tensor({-8.0, -1.0}, at::kDouble);
  same.rejected = same.reference_rejected = at::tensor({-2.0, -3.0}, at::kDouble);
  same.chosen_tokens = same.rejected_tokens = at::tensor({2.0, 1.0}, at::kDouble);
  const PreferenceTerms terms = preference_loss({Stage::dpo}, same);
  EXPECT_EQ(terms.chosen_rewards.abs().sum().item<double>(), 0);
  EXPECT_EQ(terms.rejected_rewards.abs().sum().item<double>(), 0);
}

TEST(PreferenceLoss, WeightsOfPairsScaleTheLoss) {
  PairScores plain{at::tensor({-8.0, -1.0}, at::kDouble), at::tensor({-11.0, -2.0}, at::kDouble),
                   at::tensor({-9.0, -1.5}, at::kDouble), at::tensor({-10.0, -1.0}, at::kDouble),
                   at::tensor({4.0, 1.0}, at::kDouble),   at::tensor({2.0, 1.0}, at::kDouble)};
  PairScores weighted = plain;
  weighted.weights = at::tensor({0.25, 3.0}, at::kDouble);
  const Tensor expected = preference_loss({Stage::dpo}, plain).loss * weighted.weights;
  EXPECT_TRUE(at::allclose(preference_loss({Stage::dpo}, weighted).loss, expected, 1e-12, 1e-12));
}

/// d loss / d input by central differences, for each element of `at`.
template <typename Loss>
void expect_differences(const Tensor& at, const Loss& loss) {
  const Tensor leaf = at.clone().requires_grad_();
  loss(leaf).sum().backward();
  const double step = 1e-5;
  for (std::int64_t i = 0; i < at.numel(); ++i) {
    const auto moved = [&](double by) {
      const Tensor there = at.clone();
      there[i].add_(by);
      return loss(there).sum().template item<double>();
    };
    const double expected = (moved(step) - moved(-step)) / (2 * step);
    EXPECT_NEAR(leaf.grad()[i].template item<double>(), expected, 1e-7 * (1 + std::abs(expected)))
        << i;
  }
}

TEST(KtoLoss, DerivativesAreFiniteDifferences) {
  const Tensor labels = at::tensor({1, 0, 1, 0}, at::kLong);
  for (const KtoSettings& settings : {KtoSettings{}, KtoSettings{0.4, 2.0, 0.5}}) {
    expect_differences(at::tensor({1.5, -2.0, -0.7, 3.0}, at::kDouble), [&](const Tensor& ratios) {
      return kto_loss(settings, ratios, labels, 0.3).loss;
    });
  }
}

TEST(KtoLoss, OfKnownNumbers) {
  const auto logistic = [](double x) { return 1 / (1 + std::exp(-x)); };
  const KtoTerms terms = kto_loss({0.2, 1.5, 0.75}, at::tensor({2.0, -1.0}, at::kDouble),
                                  at::tensor({1, 0}, at::kLong), 0.5);
  EXPECT_NEAR(terms.loss[0].item<double>(), 1.5 * (1 - logistic(0.2 * 1.5)), 1e-12);
  EXPECT_NEAR(terms.loss[1].item<double>(), 0.75 * (1 - logistic(0.2 * 1.5)), 1e-12);
  EXPECT_NEAR(terms.rewards[0].item<double>(), 0.4, 1e-12);
  EXPECT_NEAR(terms.rewards[1].item<double>(), -0.2, 1e-12);
  EXPECT_FALSE(terms.rewards.requires_grad());
}

TEST(RewardLoss, DerivativesAreFiniteDifferences) {
  const Tensor other = at::tensor({0.5, -1.0, 2.0}, at::kDouble),
               margins = at::tensor({0.0, 1.0, 0.25}, at::kDouble);
  for (const double center : {0.0, 0.05}) {
    for (const Tensor& margin : {Tensor(), margins}) {
      const Tensor at = at::tensor({1.0, 0.3, -0.4}, at::kDouble);
      expect_differences(
          at, [&](const Tensor& chosen) { return reward_loss(chosen, other, margin, center); });
      expect_differences(
          at, [&](const Tensor& rejected) { return reward_loss(other, rejected, margin, center); });
    }
  }
}

TEST(RewardLoss, OfKnownNumbers) {
  const Tensor loss = reward_loss(at::tensor({1.0}, at::kDouble), at::tensor({-0.5}, at::kDouble),
                                  at::tensor({0.5}, at::kDouble), 0.1);
  EXPECT_NEAR(loss.item<double>(), std::log1p(std::exp(-1.0)) + 0.1 * 0.25, 1e-12);
}

}  // namespace
}  // namespace finetune
