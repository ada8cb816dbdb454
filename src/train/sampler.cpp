#include "train/sampler.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/random.h"
#include "finetune/text/chat_template.h"
#include "finetune/text/tokenizer.h"
#include "train/grpo_loss.h"

#include <algorithm>
#include <numeric>

namespace finetune {

namespace {

constexpr std::uint64_t kAnswerStream = 0x616e7377;

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

Sampler::Sampler(const Config& config, const SamplingTools& tools)
    : config_(config), tools_(tools) {}

std::optional<Sampled> Sampler::draw(const CausalLM& model, const Dataset& data,
                                     std::span<const std::int64_t> rows, std::int64_t round) const {
  GenerateOptions options;
  options.copies = config_.num_generations;
  options.streams.assign(rows.begin(), rows.end());
  options.sampling.temperature = config_.temperature;
  options.sampling.top_k = config_.top_k;
  options.sampling.top_p = config_.top_p;
  options.sampling.seed = mix_seed(
      {static_cast<std::uint64_t>(config_.seed), kAnswerStream, static_cast<std::uint64_t>(round)});
  return sample(model, data, rows, std::move(options));
}

std::optional<Sampled> Sampler::best(const CausalLM& model, const Dataset& data) const {
  std::vector<std::int64_t> rows(data.examples.size());
  std::iota(rows.begin(), rows.end(), std::int64_t{0});
  return sample(model, data, rows, {});
}

std::optional<Sampled> Sampler::sample(const CausalLM& model, const Dataset& data,
                                       std::span<const std::int64_t> rows,
                                       GenerateOptions options) const {
  FT_CHECK(data.texts.size() == data.examples.size(), "{} texts of {} rows", data.texts.size(),
           data.examples.size());
  options.max_new_tokens = config_.max_completion_length;
  options.stop_ids = tools_.stop_ids;
  Sampled sampled;
  for (const std::int64_t row : rows)
    sampled.prompts.push_back(
        encode_prompt(tools_.tokenizer, data.texts[static_cast<std::size_t>(row)].prompt).ids);
  const std::vector<Generation> answers = generate(model, sampled.prompts, options);
  if (interrupt_signal() != 0) return std::nullopt;
  std::vector<Completion> completions;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto row = static_cast<std::size_t>(rows[i / static_cast<std::size_t>(options.copies)]);
    std::vector<std::int32_t> ids = answers[i].ids;
    if (answers[i].stop_id >= 0) ids.push_back(answers[i].stop_id);
    completions.push_back({data.texts[row].prompt, tools_.tokenizer.decode(answers[i].ids, true),
                           data.texts[row].reference, ids,
                           sampled.prompts[i / static_cast<std::size_t>(options.copies)]});
    sampled.answers.push_back(std::move(ids));
    sampled.cut.push_back(answers[i].stop_id < 0);
  }
  std::optional<RewardTable> rewards = tools_.rewards.of(completions);
  if (!rewards) return std::nullopt;
  sampled.rewards = std::move(*rewards);
  return sampled;
}

std::vector<NamedSum> Sampler::measure(const Sampled& sampled) const {
  const std::vector<double>& total = sampled.rewards.total;
  std::vector<NamedSum> means;
  const auto add = [&](std::string name, double value) {
    means.emplace_back();
    means.back().name = std::move(name);
    means.back().value = value;
  };
  add("reward", mean_of(total));
  add("reward_std", deviation_of(total));
  const std::vector<std::string>& names = tools_.rewards.names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::vector<double>& rewards = sampled.rewards.by_function[i];
    add("rewards/" + names[i] + "/mean", mean_of(rewards));
    add("rewards/" + names[i] + "/std", deviation_of(rewards));
  }
  const std::size_t group = sampled.answers.size() / sampled.prompts.size();
  if (group > 1) {
    double alike = 0;
    for (auto first = total.begin(); first != total.end();
         first += static_cast<std::ptrdiff_t>(group)) {
      const auto [low, high] =
          std::minmax_element(first, first + static_cast<std::ptrdiff_t>(group));
      alike += *low == *high ? 1 : 0;
    }
    add("frac_reward_zero_std", alike / static_cast<double>(sampled.prompts.size()));
  }
  std::vector<double> lengths, cut;
  for (std::size_t i = 0; i < sampled.answers.size(); ++i) {
    lengths.push_back(static_cast<double>(sampled.answers[i].size()));
    cut.push_back(sampled.cut[i] ? 1 : 0);
  }
  const auto [shortest, longest] = std::minmax_element(lengths.begin(), lengths.end());
  add("completions/mean_length", mean_of(lengths));
  add("completions/min_length", *shortest);
  add("completions/max_length", *longest);
  add("completions/clipped_ratio", mean_of(cut));
  return means;
}

}  // namespace finetune
