#include "train/grpo.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <numeric>

namespace finetune {

Head tempered(Head head, double temperature) {
  head.scale /= temperature;
  head.softcap /= temperature;
  return head;
}

std::int64_t GrpoObjective::count(const Dataset& dataset,
                                  std::span<const std::int64_t> examples) const {
  std::vector<std::int64_t> tokens;
  for (const std::int64_t index : examples)
    tokens.push_back(dataset.examples[static_cast<std::size_t>(index)].supervised_tokens);
  return loss_count(settings_, tokens);
}

/// What the round knows of the batch's tokens, in the order of its targets.
GrpoTokens GrpoObjective::tokens_of(const Batch& batch) const {
  const Round& round = rollouts_.round();
  std::vector<double> advantages;
  std::vector<std::int64_t> places;
  for (std::size_t i = 0; i < batch.examples.size(); ++i) {
    const auto example = static_cast<std::size_t>(batch.examples[i]);
    for (std::int64_t t = 0; t < batch.supervised_by_example[i]; ++t) {
      advantages.push_back(round.advantages[example]);
      places.push_back(round.first_token[example] + t);
    }
  }
  GrpoTokens tokens;
  tokens.advantages = at::tensor(advantages, at::kDouble);
  const Tensor index = at::tensor(places, at::kLong);
  if (round.old.defined()) tokens.old = round.old.index_select(0, index);
  if (round.reference.defined()) tokens.reference = round.reference.index_select(0, index);
  return tokens;
}

/// The step's count over its tokens: what makes a sum over tokens a mean of them where the step
/// divides by the former.
double GrpoObjective::counts_per_token() const {
  const Round& round = rollouts_.round();
  std::int64_t counts = 0;
  for (const auto& micro_batch : round.micro_batches) counts += count(round.data, micro_batch);
  return static_cast<double>(counts) / static_cast<double>(round.data.summary.supervised_tokens);
}

/// As PreferenceObjective: the loss of tokens, weighted by minus the derivative of the whole by
/// their log-probabilities, has its gradient and does the backward pass.
LossSum GrpoObjective::loss(const CausalLM& model, const Batch& batch,
                            const ForwardContext& context) const {
  const Tensor hidden =
      model.hidden_states(batch.input_ids, Segments(batch.starts, batch.parents), context)
          .index_select(0, batch.target_rows);
  const Head head = tempered(model.head(), settings_.temperature);
  GrpoTokens tokens = tokens_of(batch);
  // Without a policy to compare with, the derivative does not depend on the probabilities.
  tokens.log_probabilities = at::zeros({batch.supervised_tokens()}, at::kDouble);
  if (tokens.old.defined() || tokens.reference.defined()) {
    const at::NoGradGuard no_grad;
    tokens.log_probabilities =
        score_tokens(hidden, head, batch.targets).nll.cpu().to(at::kDouble).neg();
  }
  tokens.log_probabilities.requires_grad_();
  const GrpoTerms terms = grpo_loss(settings_, tokens);
  const Tensor value = (terms.loss * token_shares(settings_, batch.supervised_by_example)).sum();
  value.backward();
  Tensor nll;
  LossOptions options;  // without dropout of the head's adapter, as the scores above
  options.token_weights = tokens.log_probabilities.grad().neg().to(hidden.device(), at::kFloat);
  options.token_nll = &nll;
  const Tensor surrogate = cross_entropy_sum(hidden, head, batch.targets, options);
  LossSum result;
  result.sum = surrogate - surrogate.detach() + value.item<double>();
  result.count = loss_count(settings_, batch.supervised_by_example);
  const double scale = counts_per_token();
  const auto add = [&](const char* name, const Tensor& values) {
    result.extras.push_back({name, values.sum().item<double>() * scale});
  };
  if (terms.kl.defined()) add("kl", terms.kl);
  add("entropy", nll);
  add("clip_ratio/low_mean", terms.clipped_low);
  add("clip_ratio/high_mean", terms.clipped_high);
  add("clip_ratio/region_mean", terms.clipped_low.logical_or(terms.clipped_high));
  return result;
}

EvalResult GrpoObjective::evaluate(const CausalLM& model, const Dataset& dataset,
                                   std::int64_t /*rows_per_batch*/, bool /*share_prefixes*/) const {
  EvalResult result;
  const std::optional<Sampled> sampled = rollouts_.sampler().best(model, dataset);
  if (!sampled) return result;
  for (const auto& answer : sampled->answers)
    result.supervised_tokens += static_cast<std::int64_t>(answer.size());
  result.extras = rollouts_.sampler().measure(*sampled);
  result.loss = -result.extras.front().value;
  return result;
}

}  // namespace finetune
