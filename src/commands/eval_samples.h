#pragma once

#include "commands/session.h"
#include "finetune/dataset/dataset.h"

#include <filesystem>

namespace finetune {

/// Answers a few fixed rows of the evaluation data at each evaluation, into samples.jsonl.
class EvalSamples {
 public:
  /// The first rows of the data whose answer is apart from its prompt; none of plain text.
  EvalSamples(const Config& config, const TextTools& text, const Dataset& eval_data,
              std::filesystem::path run);

  /// Appends an object a row: step, where, prompt, reference, answer. Lines of this step and later
  /// ones, which a resumed run does again, are replaced.
  void answer(const CausalLM& model, std::int64_t step) const;

 private:
  struct Row {
    std::string where, prompt, reference;
    std::vector<std::int32_t> ids;
  };
  const TextTools& text_;
  std::filesystem::path file_;
  std::vector<Row> rows_;
};

}  // namespace finetune
