#include "commands/eval_samples.h"

#include "finetune/base/file.h"
#include "finetune/generate/generate.h"
#include "finetune/report/report.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <sstream>

namespace finetune {

using nlohmann::ordered_json;

namespace {

constexpr std::int64_t kAnswerTokens = 64;

}  // namespace

EvalSamples::EvalSamples(const Config& config, const TextTools& text, const Dataset& eval_data,
                         std::filesystem::path run)
    : text_(text), file_(std::move(run) / kSamplesFile) {
  const auto each = static_cast<std::size_t>(eval_data.examples_per_row);
  for (std::size_t i = 0; i < eval_data.examples.size(); i += each) {  // of a pair the chosen one
    const Example& example = eval_data.examples[i];
    if (static_cast<std::int64_t>(rows_.size()) >= config.eval_samples) break;
    // What stands before the last answer is the prompt.
    std::size_t end = example.input_ids.size();
    while (end > 0 && example.supervised[end - 1] == 0) --end;
    std::size_t begin = end;
    while (begin > 0 && example.supervised[begin - 1] != 0) --begin;
    if (begin < 2) continue;
    Row row;
    row.where = eval_data.where(example);
    row.ids.assign(example.input_ids.begin(),
                   example.input_ids.begin() + static_cast<std::ptrdiff_t>(begin));
    const std::span<const std::int32_t> ids(example.input_ids);
    row.prompt = text.tokenizer->decode(ids.first(begin), true);
    const std::string whole = text.tokenizer->decode(ids.first(end), true);
    row.reference = whole.substr(std::min(row.prompt.size(), whole.size()));
    rows_.push_back(std::move(row));
  }
}

void EvalSamples::answer(const CausalLM& model, std::int64_t step) const {
  // A prompt that fills the model's whole length leaves nothing to answer.
  const auto longest = static_cast<std::size_t>(model.config.longest_sequence());
  std::vector<const Row*> rows;
  std::vector<std::vector<std::int32_t>> prompts;
  for (const Row& row : rows_) {
    if (row.ids.size() >= longest) continue;
    rows.push_back(&row);
    prompts.push_back(row.ids);
  }
  if (rows.empty()) return;
  const at::NoGradGuard no_grad;
  GenerateOptions options;
  options.max_new_tokens = kAnswerTokens;
  options.stop_ids = text_.stop_ids;
  const std::vector<Generation> answers = generate(model, prompts, options);
  std::string text;
  if (step > 0 && std::filesystem::exists(file_)) {
    std::istringstream before(read_file(file_, ErrorKind::resource));
    for (std::string line; std::getline(before, line);) {
      const ordered_json object = ordered_json::parse(line, nullptr, false);
      if (object.is_object() && object.value("step", std::int64_t{0}) < step) text += line + "\n";
    }
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::vector<std::int32_t> ids = rows[i]->ids;
    ids.insert(ids.end(), answers[i].ids.begin(), answers[i].ids.end());
    const std::string whole = text_.tokenizer->decode(ids, true);
    const ordered_json line = {
        {"step", step},
        {"where", rows[i]->where},
        {"prompt", rows[i]->prompt},
        {"reference", rows[i]->reference},
        {"answer", whole.substr(std::min(rows[i]->prompt.size(), whole.size()))},
        {"finish_reason", answers[i].finish_reason}};
    text += line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  }
  write_file_atomically(file_, text);
}

}  // namespace finetune
