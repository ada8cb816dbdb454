#include "train/kto.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

namespace finetune {

namespace {

double estimate(const Tensor& mismatched_log_ratios) {
  return std::max(0.0, mismatched_log_ratios.mean().item<double>());
}

std::vector<NamedSum> sums_of(const KtoTerms& terms, const Tensor& labels, const Tensor& answers,
                              double kl) {
  const auto all = answers.size(0);
  const auto desirable = labels.sum().item<std::int64_t>();
  const Tensor good = labels.to(at::kDouble), bad = 1.0 - good;
  const auto sum = [](const Tensor& values, const Tensor& kind) {
    return values.mul(kind).sum().item<double>();
  };
  std::vector<NamedSum> sums = {{"kl", kl * static_cast<double>(all), all}};
  const auto add = [&](const char* name, double value, std::int64_t count) {
    if (count > 0) sums.push_back({name, value, count});
  };
  const double chosen = sum(terms.rewards, good), rejected = sum(terms.rewards, bad);
  add("rewards/chosen", chosen, desirable);
  add("rewards/rejected", rejected, all - desirable);
  if (desirable > 0 && desirable < all) {
    const double margin =
        chosen / static_cast<double>(desirable) - rejected / static_cast<double>(all - desirable);
    add("rewards/margins", margin, 1);
  }
  add("logps/chosen", sum(answers, good), desirable);
  add("logps/rejected", sum(answers, bad), all - desirable);
  return sums;
}

}  // namespace

KtoSettings kto_settings(const Config& config) {
  return {config.resolved_beta(), config.desirable_weight, config.undesirable_weight};
}

Dataset mismatched_answers(const Dataset& data, std::int64_t block, std::int64_t max_length) {
  const auto answer_begin = [](const Example& example) {
    return std::find(example.supervised.begin(), example.supervised.end(), 1) -
           example.supervised.begin();
  };
  Dataset other;
  other.files = data.files;
  const std::int64_t count = data.rows();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t first = i / block * block, last = std::min(first + block, count) - 1;
    Example example = data.examples[static_cast<std::size_t>(i)];
    const Example& from = data.examples[static_cast<std::size_t>(i == first ? last : i - 1)];
    const auto put = [&](auto& to, const auto& values) {
      to.resize(static_cast<std::size_t>(answer_begin(example)));
      to.insert(to.end(), values.begin() + answer_begin(from), values.end());
      to.resize(std::min(to.size(), static_cast<std::size_t>(max_length)));
    };
    put(example.input_ids, from.input_ids);  // before the marks, which say where the answer begins
    put(example.supervised, from.supervised);
    example.supervised_tokens =
        std::accumulate(example.supervised.begin(), example.supervised.end(), std::int64_t{0});
    other.examples.push_back(std::move(example));
  }
  return other;
}

Dataset mismatched_answers(const Config& config, const CausalLM& model, const Dataset& data) {
  const std::int64_t longest = model.config.longest_sequence();
  return mismatched_answers(data, config.per_device_train_batch_size,
                            longest > 0 ? std::min(longest, config.max_length) : config.max_length);
}

KtoObjective::KtoObjective(const KtoSettings& settings, std::vector<std::uint8_t> labels,
                           Dataset mismatched, std::vector<double> reference, bool share_prefixes)
    : settings_(settings),
      labels_(std::move(labels)),
      mismatched_(std::move(mismatched)),
      reference_(std::move(reference)),
      share_prefixes_(share_prefixes) {}

std::int64_t KtoObjective::count(const Dataset& /*dataset*/,
                                 std::span<const std::int64_t> examples) const {
  return static_cast<std::int64_t>(examples.size());
}

Tensor KtoObjective::log_ratios(const AnswerScores& scores, std::span<const std::int64_t> examples,
                                bool mismatched) const {
  std::vector<double> reference;
  const std::size_t shift = mismatched ? labels_.size() : 0;
  for (const std::int64_t index : examples)
    reference.push_back(reference_.at(shift + static_cast<std::size_t>(index)));
  return scores.log_probabilities - at::tensor(reference, at::kDouble);
}

Tensor KtoObjective::labels_of(std::span<const std::int64_t> examples) const {
  std::vector<std::int64_t> labels;
  for (const std::int64_t index : examples)
    labels.push_back(labels_.at(static_cast<std::size_t>(index)));
  return at::tensor(labels, at::kLong);
}

LossSum KtoObjective::loss(const CausalLM& model, const Batch& batch,
                           const ForwardContext& context) const {
  double kl = 0;
  {
    const at::NoGradGuard no_grad;
    const Batch other =
        make_batch(mismatched_, batch.examples, share_prefixes_).to(batch.input_ids.device());
    kl = estimate(log_ratios(score_answers(model, other, ForwardContext{}), batch.examples, true));
  }
  const AnswerScores scores = score_answers(model, batch, context);
  const Tensor labels = labels_of(batch.examples);
  const KtoTerms terms = kto_loss(settings_, log_ratios(scores, batch.examples, false), labels, kl);
  LossSum result;
  result.sum = terms.loss.sum();
  result.count = batch.sequences();
  result.extras = sums_of(terms, labels, scores.log_probabilities.detach(), kl);
  return result;
}

EvalResult KtoObjective::evaluate(const CausalLM& model, const Dataset& dataset,
                                  std::int64_t rows_per_batch, bool share_prefixes) const {
  const AnswerScores scores = score_all_answers(model, dataset, rows_per_batch, share_prefixes);
  const AnswerScores others = score_all_answers(model, mismatched_, rows_per_batch, share_prefixes);
  EvalResult result;
  std::vector<std::int64_t> all(dataset.examples.size());
  if (others.tokens.size(0) != static_cast<std::int64_t>(all.size())) return result;
  std::iota(all.begin(), all.end(), std::int64_t{0});
  const double kl = estimate(log_ratios(others, all, true));
  const Tensor labels = labels_of(all);
  const KtoTerms terms = kto_loss(settings_, log_ratios(scores, all, false), labels, kl);
  result.loss = terms.loss.mean().item<double>();
  result.supervised_tokens = scores.tokens.sum().item<std::int64_t>();
  result.nll = to_vector(-scores.log_probabilities);
  result.extras = sums_of(terms, labels, scores.log_probabilities, kl);
  for (NamedSum& extra : result.extras) {
    extra.value /= static_cast<double>(extra.count);
    extra.count = 0;
  }
  return result;
}

}  // namespace finetune
