#include "train/preference.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <numeric>

namespace finetune {

namespace {

/// Sums of a batch's pairs for the log.
std::vector<NamedSum> sums_of(const PreferenceTerms& terms, const PairScores& scores) {
  const auto sum = [](const Tensor& x) { return x.sum().item<double>(); };
  const Tensor &chosen = terms.chosen_rewards, &rejected = terms.rejected_rewards;
  std::vector<NamedSum> sums = {{"rewards/chosen", sum(chosen)},
                                {"rewards/rejected", sum(rejected)},
                                {"rewards/margins", sum(chosen - rejected)},
                                {"rewards/accuracies", sum(chosen.gt(rejected).to(at::kDouble))},
                                {"logps/chosen", sum(scores.chosen.detach())},
                                {"logps/rejected", sum(scores.rejected.detach())}};
  if (scores.reference_chosen.defined()) {
    const Tensor both = scores.chosen.detach() - scores.reference_chosen +
                        scores.rejected.detach() - scores.reference_rejected;
    sums.push_back({"kl", sum(both) / 2});
  }
  return sums;
}

/// x [2 P] -> every second, from the first or from the second.
Tensor every_second(const Tensor& x, std::int64_t first) { return x.slice(0, first, {}, 2); }

}  // namespace

PreferenceSettings preference_settings(const Config& config) {
  return {config.stage,           config.loss_type,   config.resolved_beta(),
          config.label_smoothing, config.simpo_gamma, config.use_weighting};
}

std::int64_t PreferenceObjective::count(const Dataset& dataset,
                                        std::span<const std::int64_t> examples) const {
  return static_cast<std::int64_t>(examples.size()) / dataset.examples_per_row;
}

PairScores PreferenceObjective::pair_scores(std::span<const std::int64_t> examples,
                                            const AnswerScores& scores) const {
  PairScores pairs;
  pairs.chosen = every_second(scores.log_probabilities, 0);
  pairs.rejected = every_second(scores.log_probabilities, 1);
  pairs.chosen_tokens = every_second(scores.tokens, 0);
  pairs.rejected_tokens = every_second(scores.tokens, 1);
  if (scores.alignment.defined())
    pairs.weights = (every_second(scores.alignment, 0) + every_second(scores.alignment, 1)).exp();
  if (reference_.empty()) return pairs;
  std::vector<double> reference;
  for (const std::int64_t index : examples)
    reference.push_back(reference_.at(static_cast<std::size_t>(index)));
  const Tensor known = at::tensor(reference, at::kDouble);
  pairs.reference_chosen = every_second(known, 0);
  pairs.reference_rejected = every_second(known, 1);
  return pairs;
}

LossSum PreferenceObjective::loss(const CausalLM& model, const Batch& batch,
                                  const ForwardContext& context) const {
  const PairScores scores =
      pair_scores(batch.examples, score_answers(model, batch, context, settings_.weighs_pairs()));
  const PreferenceTerms terms = preference_loss(settings_, scores);
  LossSum result;
  result.sum = terms.loss.sum();
  result.count = batch.sequences() / 2;
  result.extras = sums_of(terms, scores);
  return result;
}

EvalResult PreferenceObjective::evaluate(const CausalLM& model, const Dataset& dataset,
                                         std::int64_t rows_per_batch, bool share_prefixes) const {
  const AnswerScores answers =
      score_all_answers(model, dataset, rows_per_batch, share_prefixes, settings_.weighs_pairs());
  EvalResult result;
  std::vector<std::int64_t> all(static_cast<std::size_t>(answers.tokens.size(0)));
  if (all.size() != dataset.examples.size()) return result;
  std::iota(all.begin(), all.end(), std::int64_t{0});
  const PairScores scores = pair_scores(all, answers);
  const PreferenceTerms terms = preference_loss(settings_, scores);
  result.loss = terms.loss.mean().item<double>();
  result.supervised_tokens = answers.tokens.sum().item<std::int64_t>();
  result.extras = sums_of(terms, scores);
  result.extras.push_back(
      {"logps/accuracies", scores.chosen.gt(scores.rejected).sum().item<double>()});
  for (NamedSum& extra : result.extras) extra.value /= static_cast<double>(dataset.rows());
  result.nll = to_vector(-answers.log_probabilities);
  return result;
}

}  // namespace finetune
