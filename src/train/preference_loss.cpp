#include "train/preference_loss.h"

#include "finetune/base/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log1p.h>
#include <ATen/ops/log_sigmoid.h>

namespace finetune {

namespace {

/// -(1 - smoothing) log s(x) - smoothing log s(-x)
Tensor smoothed_logistic(const Tensor& x, double smoothing) {
  const Tensor loss = at::log_sigmoid(x) * -(1.0 - smoothing);
  return smoothing == 0 ? loss : loss - at::log_sigmoid(-x) * smoothing;
}

Tensor dpo_loss(const PreferenceSettings& settings, const Tensor& margin) {
  const double smoothing = settings.label_smoothing;
  switch (settings.loss_type) {
    case PreferenceLoss::hinge:
      return (1.0 - margin).relu();
    case PreferenceLoss::robust:
      return (at::log_sigmoid(margin) * -(1.0 - smoothing) + at::log_sigmoid(-margin) * smoothing) /
             (1.0 - 2.0 * smoothing);
    case PreferenceLoss::sigmoid:
      break;
  }
  return smoothed_logistic(margin, smoothing);
}

/// log(e^x / (1 - e^x)) for x < 0
Tensor log_odds(const Tensor& x) { return x - at::log1p(-x.exp()); }

}  // namespace

bool has_reference(Stage stage) {
  return stage == Stage::dpo || stage == Stage::ipo || stage == Stage::kto;
}

PreferenceTerms preference_loss(const PreferenceSettings& settings, const PairScores& scores) {
  const double beta = settings.beta;
  Tensor chosen = scores.chosen, rejected = scores.rejected;
  if (has_reference(settings.stage)) {
    chosen = chosen - scores.reference_chosen;
    rejected = rejected - scores.reference_rejected;
  }
  PreferenceTerms terms;
  const Tensor mean_chosen = chosen / scores.chosen_tokens,
               mean_rejected = rejected / scores.rejected_tokens;
  const bool by_token = settings.stage == Stage::orpo || settings.stage == Stage::simpo;
  terms.chosen_rewards = (by_token ? mean_chosen : chosen).detach() * beta;
  terms.rejected_rewards = (by_token ? mean_rejected : rejected).detach() * beta;
  switch (settings.stage) {
    case Stage::dpo:
      terms.loss = dpo_loss(settings, (chosen - rejected) * beta);
      if (scores.weights.defined()) terms.loss = terms.loss * scores.weights;
      return terms;
    case Stage::ipo:
      terms.loss = (mean_chosen - mean_rejected - 1.0 / (2.0 * beta)).square();
      return terms;
    case Stage::orpo:
      terms.loss =
          -mean_chosen - at::log_sigmoid(log_odds(mean_chosen) - log_odds(mean_rejected)) * beta;
      return terms;
    case Stage::simpo:
      terms.loss = smoothed_logistic((mean_chosen - mean_rejected) * beta - settings.gamma,
                                     settings.label_smoothing);
      return terms;
    default:
      break;
  }
  fail(ErrorKind::internal, "stage {} has no loss of pairs", to_string(settings.stage));
}

KtoTerms kto_loss(const KtoSettings& settings, const Tensor& log_ratios, const Tensor& labels,
                  double kl) {
  const Tensor desirable = labels.to(at::kDouble), sign = desirable * 2.0 - 1.0;
  const Tensor weight =
      desirable * settings.desirable_weight + (1.0 - desirable) * settings.undesirable_weight;
  return {weight * (1.0 - ((log_ratios - kl) * sign * settings.beta).sigmoid()),
          log_ratios.detach() * settings.beta};
}

Tensor reward_loss(const Tensor& chosen, const Tensor& rejected, const Tensor& margins,
                   double center) {
  const Tensor difference = chosen - rejected;
  const Tensor loss = -at::log_sigmoid(margins.defined() ? difference - margins : difference);
  return center == 0 ? loss : loss + (chosen + rejected).square() * center;
}

}  // namespace finetune
