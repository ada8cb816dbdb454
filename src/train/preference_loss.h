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
};

/// What is known of P pairs of answers, [P] each, float64: log-probabilities of the answers'
/// tokens, summed, those of the reference, and the numbers of tokens.
struct PairScores {
  Tensor chosen, rejected;                      ///< of the policy; with gradient
  Tensor reference_chosen, reference_rejected;  ///< undefined where the stage has no reference
  Tensor chosen_tokens, rejected_tokens;
};

/// Of each pair, [P]: the loss, and without gradient the rewards of both answers.
struct PreferenceTerms {
  Tensor loss;
  Tensor chosen_rewards, rejected_rewards;
};

/// Whether a stage compares with the state before training.
bool has_reference(Stage stage);

/// With c and r the log-probabilities of both answers less those of the reference, e the label
/// smoothing, s the logistic function, and means over an answer's tokens for ipo, orpo and simpo:
///   dpo, sigmoid  -(1 - e) log s(beta (c - r)) - e log s(-beta (c - r))
///                 Rafailov et al. 2023, arXiv 2305.18290; smoothing: Mitchell 2023 (cDPO)
///   dpo, hinge    max(0, 1 - beta (c - r)), Zhao et al. 2023, arXiv 2305.10425
///   dpo, robust   (-(1 - e) log s(beta (c - r)) + e log s(-beta (c - r))) / (1 - 2 e)
///                 Chowdhury et al. 2024, arXiv 2403.00409
///   ipo           (c - r - 1 / (2 beta))^2, Azar et al. 2023, arXiv 2310.12036; per token as TRL
///   orpo          -c - beta log s(log odds(c) - log odds(r)), no reference, odds(x) = e^x / (1 -
///                 e^x); Hong et al. 2024, arXiv 2403.07691
///   simpo         as dpo, sigmoid with beta (c - r) - gamma, no reference
///                 Meng et al. 2024, arXiv 2405.14734
/// Rewards are beta c and beta r.
PreferenceTerms preference_loss(const PreferenceSettings& settings, const PairScores& scores);

}  // namespace finetune
