#include "commands/online.h"

#include "finetune/base/error.h"

namespace finetune {

Online::Online(const Config& config) {
  if (config.stage == Stage::grpo) rewards_ = std::make_unique<Rewards>(config);
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
