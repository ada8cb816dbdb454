#include "train/grpo_loss.h"

#include "finetune/base/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <numeric>
#include <span>

namespace finetune {

namespace {

constexpr double kDeviationFloor = 1e-4;

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

double deviation_of(std::span<const double> values) {
  if (values.size() < 2) return 0;
  const double mean = mean_of(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

GrpoSettings grpo_settings(const Config& config) {
  return {config.grpo_loss_type,  config.scale_rewards,
          config.epsilon,         config.epsilon_high.value_or(config.epsilon),
          config.resolved_beta(), config.temperature,
          config.num_generations, config.max_completion_length};
}

std::vector<double> group_advantages(const GrpoSettings& settings,
                                     const std::vector<double>& rewards) {
  const auto size = static_cast<std::size_t>(settings.num_generations);
  FT_CHECK(rewards.size() % size == 0, "{} rewards in groups of {}", rewards.size(), size);
  std::vector<double> advantages;
  const double of_all = deviation_of(rewards);
  for (std::size_t begin = 0; begin < rewards.size(); begin += size) {
    const std::span<const double> group(rewards.data() + begin, size);
    const double mean = mean_of(group);
    double scale = 1;
    if (settings.scale_rewards == ScaleRewards::group)
      scale = deviation_of(group) + kDeviationFloor;
    if (settings.scale_rewards == ScaleRewards::batch) scale = of_all + kDeviationFloor;
    for (const double reward : group) advantages.push_back((reward - mean) / scale);
  }
  return advantages;
}

GrpoTerms grpo_loss(const GrpoSettings& settings, const GrpoTokens& tokens) {
  const Tensor& p = tokens.log_probabilities;
  const Tensor ratio = (p - (tokens.old.defined() ? tokens.old : p.detach())).exp();
  const double low = 1 - settings.epsilon, high = 1 + settings.epsilon_high;
  GrpoTerms terms;
  terms.loss =
      -at::minimum(ratio * tokens.advantages, at::clamp(ratio, low, high) * tokens.advantages);
  const Tensor plain = ratio.detach();
  terms.clipped_low = plain.lt(low).logical_and(tokens.advantages.lt(0));
  terms.clipped_high = plain.gt(high).logical_and(tokens.advantages.gt(0));
  if (!tokens.reference.defined()) return terms;
  const Tensor away = tokens.reference - p;
  const Tensor kl = (away.exp() - away - 1.0) * ratio;
  terms.loss = terms.loss + kl * settings.beta;
  terms.kl = kl.detach();
  return terms;
}

Tensor token_shares(const GrpoSettings& settings, const std::vector<std::int64_t>& answer_tokens) {
  std::vector<double> shares;
  const auto all = static_cast<double>(
      std::accumulate(answer_tokens.begin(), answer_tokens.end(), std::int64_t{0}));
  for (const std::int64_t tokens : answer_tokens) {
    double share = 1;
    if (settings.loss_type == GrpoLoss::grpo) share = 1 / static_cast<double>(tokens);
    if (settings.loss_type == GrpoLoss::bnpo) share = 1 / all;
    if (settings.loss_type == GrpoLoss::dr_grpo)
      share = 1 / static_cast<double>(settings.max_completion_length);
    shares.insert(shares.end(), static_cast<std::size_t>(tokens), share);
  }
  return at::tensor(shares, at::kDouble);
}

std::int64_t loss_count(const GrpoSettings& settings,
                        const std::vector<std::int64_t>& answer_tokens) {
  switch (settings.loss_type) {
    case GrpoLoss::grpo:
    case GrpoLoss::dr_grpo:
      return static_cast<std::int64_t>(answer_tokens.size());
    case GrpoLoss::bnpo:
      return 1;
    case GrpoLoss::dapo:
      break;
  }
  return std::accumulate(answer_tokens.begin(), answer_tokens.end(), std::int64_t{0});
}

}  // namespace finetune
