#include "train/preference.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

namespace finetune {

namespace {

/// Sums of a batch's pairs for the log.
std::vector<NamedSum> sums_of(const PreferenceTerms& terms, const PairScores& scores) {
  const auto sum = [](const Tensor& x) { return x.sum().item<double>(); };
  const Tensor &chosen = terms.chosen_rewards, &rejected = terms.rejected_rewards;
  return {{"rewards/chosen", sum(chosen)},
          {"rewards/rejected", sum(rejected)},
          {"rewards/margins", sum(chosen - rejected)},
          {"rewards/accuracies", sum(chosen.gt(rejected).to(at::kDouble))},
          {"logps/chosen", sum(scores.chosen.detach())},
          {"logps/rejected", sum(scores.rejected.detach())}};
}

/// x [2 P] -> every second, from the first or from the second.
Tensor every_second(const Tensor& x, std::int64_t first) { return x.slice(0, first, {}, 2); }

/// The place in the batch of the example that each supervised token belongs to, [M].
Tensor owners(const Batch& batch, const Tensor& tokens) {
  return at::arange(batch.sequences(), at::kLong).repeat_interleave(tokens);
}

}  // namespace

PreferenceSettings preference_settings(const Config& config) {
  return {config.stage, config.loss_type, config.resolved_beta(), config.label_smoothing, config.simpo_gamma};
}

std::int64_t PreferenceObjective::count(const Dataset& dataset,
                                        std::span<const std::int64_t> examples) const {
  return static_cast<std::int64_t>(examples.size()) / dataset.examples_per_row;
}

PairScores PreferenceObjective::pair_scores(std::span<const std::int64_t> examples,
                                            const Tensor& log_probabilities,
                                            const Tensor& tokens) const {
  PairScores scores{every_second(log_probabilities, 0),
                    every_second(log_probabilities, 1),
                    {},
                    {},
                    every_second(tokens, 0),
                    every_second(tokens, 1)};
  if (reference_.empty()) return scores;
  std::vector<double> reference;
  for (const std::int64_t index : examples)
    reference.push_back(reference_.at(static_cast<std::size_t>(index)));
  const Tensor known = at::tensor(reference, at::kDouble);
  scores.reference_chosen = every_second(known, 0);
  scores.reference_rejected = every_second(known, 1);
  return scores;
}

/// With l the loss of all pairs and p_s the log-probability of answer s, the sum over tokens
///   sum_t -(dl / dp_s(t)) nll_t
/// has l's gradient, so the loss of tokens, weighted, does the whole backward pass.
LossSum PreferenceObjective::loss(const CausalLM& model, const Batch& batch,
                                  const ForwardContext& context) const {
  const Tensor hidden =
      model.hidden_states(batch.input_ids, Segments(batch.starts, batch.parents), context)
          .index_select(0, batch.target_rows);
  Tensor nll;
  {
    const at::NoGradGuard no_grad;
    nll = score_tokens(hidden, model.head(), batch.targets).nll.cpu();
  }
  const Tensor tokens = at::tensor(batch.supervised_by_example, at::kLong);
  const Tensor owner = owners(batch, tokens);
  Tensor log_probabilities = at::zeros({batch.sequences()}, at::kDouble)
                                 .index_add_(0, owner, nll.to(at::kDouble), -1.0)
                                 .requires_grad_();
  const PairScores scores = pair_scores(batch.examples, log_probabilities, tokens);
  const PreferenceTerms terms = preference_loss(settings_, scores);
  const Tensor value = terms.loss.sum();
  value.backward();
  LossOptions options;  // without dropout of the head's adapter, as the scores above
  options.token_weights =
      log_probabilities.grad().neg().index_select(0, owner).to(nll.options()).to(hidden.device());
  const Tensor surrogate = cross_entropy_sum(hidden, model.head(), batch.targets, options);
  LossSum result;
  result.sum = surrogate - surrogate.detach() + value.item<double>();
  result.count = batch.sequences() / 2;
  result.extras = sums_of(terms, scores);
  return result;
}

EvalResult PreferenceObjective::evaluate(const CausalLM& model, const Dataset& dataset,
                                         std::int64_t rows_per_batch, bool share_prefixes) const {
  const std::vector<double> known =
      answer_log_probabilities(model, dataset, rows_per_batch, share_prefixes);
  return known.size() == dataset.examples.size() ? judge(dataset, known) : EvalResult{};
}

EvalResult PreferenceObjective::judge(const Dataset& dataset,
                                      const std::vector<double>& log_probabilities) const {
  std::vector<std::int64_t> tokens, all;
  EvalResult result;
  for (const Example& example : dataset.examples) {
    all.push_back(static_cast<std::int64_t>(all.size()));
    tokens.push_back(example.supervised_tokens);
    result.supervised_tokens += example.supervised_tokens;
  }
  const PairScores scores =
      pair_scores(all, at::tensor(log_probabilities, at::kDouble), at::tensor(tokens, at::kLong));
  const PreferenceTerms terms = preference_loss(settings_, scores);
  result.loss = terms.loss.mean().item<double>();
  result.extras = sums_of(terms, scores);
  for (NamedSum& extra : result.extras) extra.value /= static_cast<double>(dataset.rows());
  return result;
}

}  // namespace finetune
