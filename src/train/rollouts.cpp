#include "train/rollouts.h"

#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/formats/safetensors.h"
#include "train/grpo.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kRoundFile = "rollout.safetensors";

/// Puts other values into the parameters for as long as this lives.
class ValuesInPlace {
 public:
  ValuesInPlace(const Tensor& values, const Tensor& others)
      : values_(values), kept_(values.clone()) {
    values_.copy_(others);
  }
  ~ValuesInPlace() { values_.copy_(kept_); }
  ValuesInPlace(const ValuesInPlace&) = delete;
  ValuesInPlace& operator=(const ValuesInPlace&) = delete;

 private:
  Tensor values_, kept_;
};

Example example_of(const std::vector<std::int32_t>& prompt, const std::vector<std::int32_t>& answer,
                   const RowOrigin& origin) {
  Example example;
  example.input_ids = prompt;
  example.input_ids.insert(example.input_ids.end(), answer.begin(), answer.end());
  example.supervised.assign(prompt.size(), 0);
  example.supervised.resize(example.input_ids.size(), 1);
  example.supervised_tokens = static_cast<std::int64_t>(answer.size());
  example.origin = origin;
  return example;
}

void count_tokens(Round& round) {
  std::int64_t tokens = 0;
  for (const Example& example : round.data.examples) {
    round.first_token.push_back(tokens);
    tokens += example.supervised_tokens;
  }
  round.data.summary.supervised_tokens = tokens;
}

template <typename T>
Tensor to_longs(const std::vector<T>& values) {
  return at::tensor(std::vector<std::int64_t>(values.begin(), values.end()), at::kLong);
}

std::vector<std::int64_t> longs_of(const Tensor& tensor) {
  const auto* first = tensor.const_data_ptr<std::int64_t>();
  return {first, first + tensor.numel()};
}

}  // namespace

Rollouts::Rollouts(const Config& config, const CausalLM& model, const FlatParameters& parameters,
                   const Dataset& prompts, const SamplingTools& tools, bool share_prefixes)
    : config_(config),
      model_(model),
      parameters_(parameters),
      prompts_(prompts),
      settings_(grpo_settings(config)),
      sampler_(config, tools),
      plan_(config, prompts),
      share_prefixes_(share_prefixes) {
  if (settings_.beta > 0) first_values_ = parameters.values().detach().clone();
}

std::unique_ptr<Objective> Rollouts::objective() const {
  return std::make_unique<GrpoObjective>(settings_, *this);
}

std::optional<StepExamples> Rollouts::step(std::int64_t step) {
  const PlannedStep rows = plan_.step(step);
  const std::int64_t number = (step - 1) / config_.num_iterations;
  if (!round_ || round_->number != number) {
    round_ = sample(number, rows);
    if (!round_) return std::nullopt;
  }
  return StepExamples{
      round_->data, {round_->micro_batches, rows.epoch, rows.ends_epoch}, round_->measured};
}

std::optional<Round> Rollouts::sample(std::int64_t number, const PlannedStep& rows) const {
  std::vector<std::int64_t> all;
  Round round;
  round.number = number;
  for (const std::vector<std::int64_t>& micro_batch : rows.micro_batches) {
    const auto first = static_cast<std::int64_t>(all.size()) * settings_.num_generations;
    round.micro_batches.emplace_back(micro_batch.size() *
                                     static_cast<std::size_t>(settings_.num_generations));
    std::iota(round.micro_batches.back().begin(), round.micro_batches.back().end(), first);
    all.insert(all.end(), micro_batch.begin(), micro_batch.end());
  }
  const std::optional<Sampled> sampled = sampler_.draw(model_, prompts_, all, number);
  if (!sampled) return std::nullopt;
  round.data.files = prompts_.files;
  for (std::size_t i = 0; i < sampled->answers.size(); ++i) {
    const std::size_t prompt = i / static_cast<std::size_t>(settings_.num_generations);
    const auto row = static_cast<std::size_t>(all[prompt]);
    round.data.examples.push_back(
        example_of(sampled->prompts[prompt], sampled->answers[i], prompts_.examples[row].origin));
  }
  count_tokens(round);
  round.advantages = group_advantages(settings_, sampled->rewards.total);
  round.measured = sampler_.measure(*sampled);
  if (config_.num_iterations > 1) {
    const std::optional<Tensor> old = log_probabilities(round);
    if (!old) return std::nullopt;
    round.old = *old;
  }
  if (first_values_.defined()) {
    const std::optional<Tensor> reference = reference_log_probabilities(round);
    if (!reference) return std::nullopt;
    round.reference = *reference;
  }
  return round;
}

std::optional<Tensor> Rollouts::log_probabilities(const Round& round) const {
  const at::NoGradGuard no_grad;
  const Head head = tempered(model_.head(), settings_.temperature);
  std::vector<Tensor> parts;
  for (const std::vector<std::int64_t>& micro_batch : round.micro_batches) {
    if (interrupt_signal() != 0) return std::nullopt;
    const Batch batch = make_batch(round.data, micro_batch, share_prefixes_).to(model_.device);
    const Tensor hidden =
        model_.hidden_states(batch.input_ids, Segments(batch.starts, batch.parents), {});
    parts.push_back(score_tokens(hidden.index_select(0, batch.target_rows), head, batch.targets)
                        .nll.cpu()
                        .to(at::kDouble)
                        .neg());
  }
  return at::cat(parts);
}

std::optional<Tensor> Rollouts::reference_log_probabilities(const Round& round) const {
  const at::NoGradGuard no_grad;
  const ValuesInPlace reference(parameters_.values(), first_values_);
  return log_probabilities(round);
}

void Rollouts::save(const fs::path& checkpoint, std::int64_t step) const {
  // At the end of a round the next one begins with the weights of the checkpoint.
  if (!round_ || step % config_.num_iterations == 0 ||
      round_->number != step / config_.num_iterations)
    return;
  std::vector<std::int64_t> ids, lengths, answers, files, lines, sizes;
  for (const Example& example : round_->data.examples) {
    ids.insert(ids.end(), example.input_ids.begin(), example.input_ids.end());
    lengths.push_back(static_cast<std::int64_t>(example.input_ids.size()));
    answers.push_back(example.supervised_tokens);
    files.push_back(example.origin.file);
    lines.push_back(example.origin.line);
  }
  for (const auto& micro_batch : round_->micro_batches)
    sizes.push_back(static_cast<std::int64_t>(micro_batch.size()));
  std::map<std::string, Tensor> tensors = {
      {"input_ids", to_longs(ids)},
      {"lengths", to_longs(lengths)},
      {"answers", to_longs(answers)},
      {"files", to_longs(files)},
      {"lines", to_longs(lines)},
      {"micro_batches", to_longs(sizes)},
      {"advantages", at::tensor(round_->advantages, at::kDouble)},
      {"old", round_->old}};
  if (round_->reference.defined()) tensors["reference"] = round_->reference;
  nlohmann::ordered_json measured;
  for (const NamedSum& mean : round_->measured) measured[mean.name] = mean.value;
  write_safetensors(checkpoint / kRoundFile, tensors,
                    {{"round", std::to_string(round_->number)}, {"measured", measured.dump()}});
}

void Rollouts::restore(const fs::path& checkpoint) {
  round_.reset();
  if (!fs::exists(checkpoint / kRoundFile)) return;
  const SafetensorsFile file(checkpoint / kRoundFile);
  Round round;
  round.number = std::stoll(file.metadata().at("round"));
  round.data.files = prompts_.files;
  const auto read = [&](const char* name) { return longs_of(file.tensor(name)); };
  const std::vector<std::int64_t> ids = read("input_ids"), lengths = read("lengths"),
                                  answers = read("answers"), files = read("files"),
                                  lines = read("lines");
  auto next = ids.begin();
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const auto middle = next + (lengths[i] - answers[i]), end = next + lengths[i];
    round.data.examples.push_back(
        example_of({next, middle}, {middle, end}, {static_cast<std::int32_t>(files[i]), lines[i]}));
    next = end;
  }
  count_tokens(round);
  std::int64_t first = 0;
  for (const std::int64_t size : read("micro_batches")) {
    round.micro_batches.emplace_back(static_cast<std::size_t>(size));
    std::iota(round.micro_batches.back().begin(), round.micro_batches.back().end(), first);
    first += size;
  }
  const Tensor advantages = file.tensor("advantages");
  const auto* values = advantages.const_data_ptr<double>();
  round.advantages.assign(values, values + advantages.numel());
  round.old = file.tensor("old").clone();
  if (file.tensors().contains("reference")) round.reference = file.tensor("reference").clone();
  const auto measured = nlohmann::ordered_json::parse(file.metadata().at("measured"));
  for (const auto& [name, value] : measured.items())
    round.measured.push_back({name, value.get<double>()});
  round_ = std::move(round);
}

}  // namespace finetune
