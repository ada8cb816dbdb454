#pragma once

#include "finetune/base/tensor.h"
#include "finetune/config/choices.h"

namespace finetune {

/// Which loss a preference stage minimises.
struct PreferenceSettings {
  Stage stage = Stage::dpo;
  PreferenceLoss loss_type = PreferenceLoss::sigmoid;  ///< of dpo
  double beta = 0.1;
  double label_smoothing = 0.0;  ///< the share of pairs taken to be the wrong way round
  double gamma = 0.5;            ///< of simpo: the margin aimed at, times beta
  bool use_weighting = false;    ///< of dpo: pairs count by PairScores::weights

  bool weighs_pairs() const { return stage == Stage::dpo && use_weighting; }
};

/// What is known of P pairs of answers, [P] each, float64: log-probabilities of the answers'
/// tokens, summed, those of the reference, and the numbers of tokens.
struct PairScores {
  Tensor chosen, rejected;                      ///< of the policy; with gradient
  Tensor reference_chosen, reference_rejected;  ///< undefined where the stage has no reference
  Tensor chosen_tokens, rejected_tokens;
  Tensor weights;  ///< what each pair's loss counts; without gradient; undefined: 1
};

/// Of each pair, [P]: the loss, and without gradient the rewards of both answers.
struct PreferenceTerms {
  Tensor loss;
  Tensor chosen_rewards, rejected_rewards;
};

/// Whether a stage compares with a reference.
bool has_reference(Stage stage);

/// With c and r the log-probabilities of both answers less those of the reference, e the label
/// smoothing, s the logistic function, and means over an answer's tokens for ipo, orpo and simpo:
///   dpo, sigmoid  -(1 - e) log s(beta (c - r)) - e log s(-beta (c - r))
///                 Rafailov et al. 2023, arXiv 2305.18290; smoothing: Mitchell 2023 (cDPO)
///   dpo, hinge    max(0, 1 - beta (c - r)), Zhao et al. 2023, arXiv 2305.10425
///   dpo, robust   (-(1 - e) log s(beta (c - r)) + e log s(-beta (c - r))) / (1 - 2 e)
///                 Chowdhury et al. 2024, arXiv 2403.00409
///   dpo, weighted any of these times how likely the policy itself is to write both answers:
///                 exp of both answers' means over tokens of log p(token) - log sum_v p(v)^2
///                 Zhou et al. 2024, arXiv 2406.11827 (WPO)
///   ipo           (c - r - 1 / (2 beta))^2, Azar et al. 2023, arXiv 2310.12036; per token as TRL
///   orpo          -c - beta log s(log odds(c) - log odds(r)), no reference, odds(x) = e^x / (1 -
///                 e^x); Hong et al. 2024, arXiv 2403.07691
///   simpo         as dpo, sigmoid with beta (c - r) - gamma, no reference
///                 Meng et al. 2024, arXiv 2405.14734
/// Rewards are beta c and beta r.
PreferenceTerms preference_loss(const PreferenceSettings& settings, const PairScores& scores);

/// What stage kto weighs answers with.
struct KtoSettings {
  double beta = 0.1;
  double desirable_weight = 1.0, undesirable_weight = 1.0;
};

/// Of each row, [N]: the loss, and without gradient the reward.
struct KtoTerms {
  Tensor loss, rewards;
};

/// With r the answers' log-probabilities less those of the reference, [N] float64:
///   desirable    w (1 - s(beta (r - kl)))
///   undesirable  w (1 - s(beta (kl - r)))
/// Ethayarajh et al. 2024, arXiv 2402.01306, equation 7. labels [N]: 1 is desirable; `kl`: how far
/// the policy is from the reference, at least 0. Rewards are beta r.
KtoTerms kto_loss(const KtoSettings& settings, const Tensor& log_ratios, const Tensor& labels,
                  double kl);

/// -log s(c - r - margin) + center (c + r)^2 of each pair of scores, [P]: Bradley and Terry 1952;
/// margins: Touvron et al. 2023, arXiv 2307.09288; centring: Eisenstein et al. 2023, arXiv
/// 2312.09244. `margins` may be undefined.
Tensor reward_loss(const Tensor& chosen, const Tensor& rejected, const Tensor& margins,
                   double center);

}  // namespace finetune
