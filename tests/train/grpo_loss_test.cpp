#include "train/grpo_loss.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace finetune {
namespace {

Tensor numbers(std::initializer_list<double> values) {
  return at::tensor(std::vector<double>(values), at::kDouble);
}

/// Tokens whose ratios lie below, within and above the bounds, with advantages of both signs.
GrpoTokens tokens(bool reference) {
  GrpoTokens result;
  result.log_probabilities = numbers({-2.0, -2.0, -1.0, -1.0, -0.5, -0.5, -3.0, -0.1});
  result.old = numbers({-1.5, -1.5, -1.05, -1.05, -1.2, -1.2, -3.05, -0.2});
  if (reference) result.reference = numbers({-2.5, -1.0, -1.3, -0.4, -0.5, -2.0, -3.1, -0.15});
  result.advantages = numbers({1.2, -0.7, 0.5, -0.5, 0.9, -1.1, 0.3, -0.2});
  return result;
}

TEST(GrpoLoss, DerivativesAreFiniteDifferences) {
  for (const bool reference : {false, true}) {
    GrpoSettings settings;
    settings.epsilon = 0.15;
    settings.epsilon_high = 0.3;
    settings.beta = reference ? 0.07 : 0;
    GrpoTokens at = tokens(reference);
    at.log_probabilities.requires_grad_();
    grpo_loss(settings, at).loss.sum().backward();
    const double step = 1e-5;
    for (std::int64_t i = 0; i < 8; ++i) {
      const auto moved = [&](double by) {
        GrpoTokens there = tokens(reference);
        there.log_probabilities[i].add_(by);
        return grpo_loss(settings, there).loss.sum().item<double>();
      };
      const double expected = (moved(step) - moved(-step)) / (2 * step);
      EXPECT_NEAR(at.log_probabilities.grad()[i].item<double>(), expected, 1e-8) << i;
    }
  }
}

TEST(GrpoLoss, OfKnownNumbers) {
  GrpoSettings settings;
  settings.epsilon = 0.2;
  settings.epsilon_high = 0.28;
  // Ratio 0.5: cut from below only where the advantage is negative. Ratio 2: from above where it is
  // positive.
  const double half = std::log(0.5), two = std::log(2.0);
  GrpoTokens known{
      numbers({half, half, two, two}), numbers({0, 0, 0, 0}), {}, numbers({1, -1, 1, -1})};
  const GrpoTerms terms = grpo_loss(settings, known);
  EXPECT_TRUE(at::allclose(terms.loss, numbers({-0.5, 0.8, -1.28, 2.0})));
  EXPECT_TRUE(at::equal(terms.clipped_low, at::tensor({0, 1, 0, 0}).to(at::kBool)));
  EXPECT_TRUE(at::equal(terms.clipped_high, at::tensor({0, 0, 1, 0}).to(at::kBool)));
  EXPECT_FALSE(terms.kl.defined());
  // k3 of a reference twice as likely: 2 - log 2 - 1.
  settings.beta = 0.5;
  known.reference = known.log_probabilities + std::log(2.0);
  const Tensor kl = numbers({0.5, 0.5, 2, 2}) * (1 - two);
  EXPECT_TRUE(at::allclose(grpo_loss(settings, known).kl, kl));
  EXPECT_TRUE(at::allclose(grpo_loss(settings, known).loss - terms.loss, kl * 0.5));
}

/// Where the policy is the one that sampled, minus the advantage is the derivative, whatever the
/// probabilities are.
TEST(GrpoLoss, OfThePolicyThatSampled) {
  GrpoTokens at = tokens(false);
  at.old = Tensor();
  at.log_probabilities.requires_grad_();
  const GrpoTerms terms = grpo_loss({}, at);
  EXPECT_TRUE(at::allclose(terms.loss.detach(), -at.advantages));
  terms.loss.sum().backward();
  EXPECT_TRUE(at::allclose(at.log_probabilities.grad(), -at.advantages));
}

/// Two groups of three by hand: 0 0 3 has mean 1 and deviation sqrt(3); 1 1 1 has no difference.
TEST(GroupAdvantages, ByHand) {
  GrpoSettings settings;
  settings.num_generations = 3;
  const std::vector<double> rewards = {0, 0, 3, 1, 1, 1};
  const auto expect = [&](ScaleRewards scale, const std::vector<double>& expected) {
    settings.scale_rewards = scale;
    const std::vector<double> found = group_advantages(settings, rewards);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(found[i], expected[i], 1e-12) << i;
  };
  expect(ScaleRewards::none, {-1, -1, 2, 0, 0, 0});
  const double group = std::sqrt(3.0) + 1e-4;
  expect(ScaleRewards::group, {-1 / group, -1 / group, 2 / group, 0, 0, 0});
  const double all = std::sqrt(6.0 / 5.0) + 1e-4;  // mean 1, squares 1 1 4 0 0 0
  expect(ScaleRewards::batch, {-1 / all, -1 / all, 2 / all, 0, 0, 0});
}

TEST(TokenShares, OfEveryAverage) {
  GrpoSettings settings;
  settings.max_completion_length = 10;
  const std::vector<std::int64_t> answers = {1, 4};
  const auto expect = [&](GrpoLoss type, const Tensor& shares, std::int64_t count) {
    settings.loss_type = type;
    EXPECT_TRUE(at::allclose(token_shares(settings, answers), shares));
    EXPECT_EQ(loss_count(settings, answers), count);
  };
  expect(GrpoLoss::grpo, numbers({1, 0.25, 0.25, 0.25, 0.25}), 2);
  expect(GrpoLoss::bnpo, at::full({5}, 0.2, at::kDouble), 1);
  expect(GrpoLoss::dapo, at::ones({5}, at::kDouble), 5);
  expect(GrpoLoss::dr_grpo, at::full({5}, 0.1, at::kDouble), 2);
}

}  // namespace
}  // namespace finetune
