#include "commands/online.h"

#include "finetune/base/error.h"
#include "finetune/train/reward_model.h"

namespace finetune {

namespace {

/// Scores a prompt with its answer, as stage reward was trained on them.
AnswerJudge open_judge(const Config& config, const std::string& folder) {
  const auto model = std::make_shared<const CausalLM>(
      open_reward_model(config.model_name_or_path, folder, load_options(config, ModelUse::eval)));
  return [model, batch = config.eval_batch_size()](const std::vector<Completion>& answers) {
    std::vector<std::vector<std::int32_t>> texts;
    for (const Completion& answer : answers) {
      texts.push_back(answer.prompt_ids);
      texts.back().insert(texts.back().end(), answer.ids.begin(), answer.ids.end());
    }
    return reward_scores(*model, texts, batch);
  };
}

}  // namespace

Online::Online(const Config& config) {
  if (config.stage != Stage::grpo) return;
  rewards_ = std::make_unique<Rewards>(
      config, [&](const std::string& folder) { return open_judge(config, folder); });
}

const SamplingTools* Online::tools(const TextTools& text, const RunData& data) {
  if (!rewards_) return nullptr;
  std::vector<std::string> problems;
  const auto check = [&](const Dataset& dataset) {
    for (std::size_t i = 0; i < dataset.examples.size(); ++i) {
      const std::string problem = rewards_->reference_problem(dataset.texts[i].reference);
      if (!problem.empty()) problems.push_back(dataset.where(dataset.examples[i]) + ": " + problem);
    }
  };
  check(data.train);
  if (data.eval) check(*data.eval);
  if (!problems.empty()) throw Error(ErrorKind::data, join_problems(problems));
  tools_.emplace(SamplingTools{*text.tokenizer, text.stop_ids, *rewards_});
  return &*tools_;
}

}  // namespace finetune
