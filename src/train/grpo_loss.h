#pragma once

#include "finetune/base/tensor.h"
#include "finetune/config/config.h"

#include <cstdint>
#include <span>
#include <vector>

namespace finetune {

/// Which loss stage grpo minimises.
struct GrpoSettings {
  GrpoLoss loss_type = GrpoLoss::dapo;
  ScaleRewards scale_rewards = ScaleRewards::group;
  double epsilon = 0.2, epsilon_high = 0.2;
  double beta = 0;         ///< weight of the KL term
  double temperature = 1;  ///< of the policy: log-probabilities are of logits divided by it
  std::int64_t num_generations = 8;
  std::int64_t max_completion_length = 256;
};

GrpoSettings grpo_settings(const Config& config);

/// The deviation of a sample (divided by n - 1); 0 for one value.
double deviation_of(std::span<const double> values);

/// The advantage of each answer, of rewards in groups of num_generations: the reward less the mean
/// of its group, divided by 1e-4 and the deviation (of n - 1) of the group, or of all rewards, or
/// not divided. Source: Shao et al. 2024, arXiv 2402.03300; without division: Liu et al. 2025,
/// arXiv 2503.20783.
std::vector<double> group_advantages(const GrpoSettings& settings,
                                     const std::vector<double>& rewards);

/// What is known of M sampled tokens, [M] each, float64.
struct GrpoTokens {
  Tensor log_probabilities;  ///< of the policy; with gradient
  Tensor old;                ///< of the policy that sampled them; undefined: of this one
  Tensor reference;          ///< undefined: there is no KL term
  Tensor advantages;         ///< of the answer that a token belongs to
};

/// Of each token, [M]: the loss, and without gradient the KL term (or undefined) and whether its
/// ratio was cut.
struct GrpoTerms {
  Tensor loss, kl;
  Tensor clipped_low, clipped_high;
};

/// With p the log-probability, p' that at sampling, q the reference's, A the advantage, r = e^(p -
/// p'), and e, e' the two bounds:
///   -min(r A, clip(r, 1 - e, 1 + e') A) + beta r (e^(q - p) - (q - p) - 1)
/// The r before the KL term is 1 where the policy is the one that sampled, and makes its derivative
/// that of the divergence. Sources: Schulman et al. 2017, arXiv 1707.06347 (clipping); Schulman
/// 2020, "Approximating KL divergence" (k3); DeepSeek-AI 2025, arXiv 2512.02556 (its r); Yu et al.
/// 2025, arXiv 2503.14476 (two bounds, dapo).
GrpoTerms grpo_loss(const GrpoSettings& settings, const GrpoTokens& tokens);

/// What each token's loss counts in the sum, [M], for answers of so many tokens in one micro-batch:
/// grpo 1 / tokens of its answer, bnpo 1 / tokens of the micro-batch, dapo 1, dr_grpo 1 /
/// max_completion_length.
Tensor token_shares(const GrpoSettings& settings, const std::vector<std::int64_t>& answer_tokens);

/// What the sum over that micro-batch is divided by, added up over the step: answers for grpo and
/// dr_grpo, 1 for bnpo, tokens for dapo.
std::int64_t loss_count(const GrpoSettings& settings,
                        const std::vector<std::int64_t>& answer_tokens);

}  // namespace finetune
