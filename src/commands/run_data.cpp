#include "commands/run_data.h"

#include "finetune/base/error.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/dataset/overlap.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace finetune {

namespace {

void tell(const char* name, const Dataset& dataset) {
  const Dataset::Summary& s = dataset.summary;
  std::string note;
  if (s.dropped > 0) note += fmt::format("; {} too long, dropped", format_count(s.dropped));
  if (s.truncated > 0) note += fmt::format("; {} too long, truncated", format_count(s.truncated));
  log_info("data", "{}: {} rows, {} tokens ({} supervised), longest {}{}", name,
           format_count(s.rows), format_count(s.tokens), format_count(s.supervised_tokens),
           format_count(s.longest), note);
}

/// Not wrong, and rarely meant.
void tell_overlap(const RunData& data) {
  const RowOverlap overlap = find_overlap(data.train, data.eval ? &*data.eval : nullptr);
  if (overlap.repeated > 0)
    log_info("data", "{} training rows say what an earlier one says, the first is {}",
             format_count(overlap.repeated), overlap.first_repeated);
  if (overlap.shared > 0)
    log_warning("data",
                "{} of the {} evaluation rows are training rows too, the first is {}; their loss "
                "tells nothing of new text",
                format_count(overlap.shared),
                format_count(static_cast<std::int64_t>(data.eval->examples.size())),
                overlap.first_shared);
}

RunData open_data(const Config& config, const TextTools& text, const DatasetOptions& options) {
  RunData data;
  data.train = open_dataset(config.datasets, *text.tokenizer, *text.chat_template, options);
  if (config.eval_split > 0) {
    auto [train, eval] = split_dataset(std::move(data.train), config.eval_split, options.seed);
    data.train = std::move(train);
    data.eval = std::move(eval);
  } else if (!config.eval_datasets.empty()) {
    data.eval = open_dataset(config.eval_datasets, *text.tokenizer, *text.chat_template, options);
  }
  return data;
}

/// Cuts an example to `length` tokens.
void cut(Example& example, std::size_t length) {
  example.input_ids.resize(length);
  example.supervised.resize(length);
  example.supervised_tokens =
      std::accumulate(example.supervised.begin(), example.supervised.end(), std::int64_t{0});
}

/// Applies the length limit to rows that were read without one.
void limit(Dataset& data, Overlength overlength, Overlong& overlong) {
  std::vector<Example> kept;
  std::vector<std::uint8_t> labels;
  std::vector<double> margins;
  const auto each = static_cast<std::size_t>(data.examples_per_row);
  for (std::size_t row = 0; row < data.examples.size(); row += each) {
    std::int64_t longest = 0;
    for (std::size_t i = row; i < row + each; ++i)
      longest = std::max(longest, static_cast<std::int64_t>(data.examples[i].input_ids.size()));
    overlong.longest = std::max(overlong.longest, longest);
    if (longest > overlong.max_length) {
      ++overlong.rows;
      if (overlength == Overlength::drop) continue;
    }
    for (std::size_t i = row; i < row + each; ++i) kept.push_back(std::move(data.examples[i]));
    if (!data.labels.empty()) labels.push_back(data.labels[row / each]);
    if (!data.margins.empty()) margins.push_back(data.margins[row / each]);
  }
  data.examples = std::move(kept);
  data.labels = std::move(labels);
  data.margins = std::move(margins);
  data.summary.tokens = data.summary.supervised_tokens = data.summary.longest = 0;
  for (Example& example : data.examples) {
    if (static_cast<std::int64_t>(example.input_ids.size()) > overlong.max_length)
      cut(example, static_cast<std::size_t>(overlong.max_length));
    const auto length = static_cast<std::int64_t>(example.input_ids.size());
    data.summary.tokens += length;
    data.summary.supervised_tokens += example.supervised_tokens;
    data.summary.longest = std::max(data.summary.longest, length);
  }
}

}  // namespace

void require_embeddings(const Dataset& data, const TextTools& text, const ModelConfig& model) {
  for (const Example& example : data.examples) {
    const auto beyond = std::find_if(example.input_ids.begin(), example.input_ids.end(),
                                     [&](std::int32_t id) { return id >= model.vocab_size; });
    if (beyond == example.input_ids.end()) continue;
    const std::int32_t ids[] = {*beyond};
    fail(ErrorKind::model,
         "{}: holds the token '{}' with the id {}, but the model has embeddings for {} tokens "
         "(vocab_size). Is it the tokenizer of this model? finetune resize-vocab gives the model "
         "embeddings for added tokens",
         data.where(example), text.tokenizer->decode(ids, false), *beyond, model.vocab_size);
  }
}

RunData open_run_data(const Config& config, const TextTools& text, const ModelConfig& model) {
  DatasetOptions options = dataset_options(config, model.longest_sequence());
  options.keep_texts = config.stage == Stage::grpo;
  RunData data = open_data(config, text, options);
  require_embeddings(data.train, text, model);
  if (data.eval) require_embeddings(*data.eval, text, model);
  tell("train", data.train);
  if (data.eval) tell("eval", *data.eval);
  tell_overlap(data);
  return data;
}

RunData open_planned_data(const Config& config, const TextTools& text, const ModelConfig& model,
                          Overlong& overlong) {
  DatasetOptions options = dataset_options(config, model.longest_sequence());
  overlong.max_length = std::exchange(options.max_length, std::numeric_limits<std::int64_t>::max());
  RunData data = open_data(config, text, options);
  require_embeddings(data.train, text, model);
  if (data.eval) require_embeddings(*data.eval, text, model);
  limit(data.train, config.overlength, overlong);
  Overlong ignored{0, 0, overlong.max_length};
  if (data.eval) limit(*data.eval, config.overlength, ignored);
  return data;
}

}  // namespace finetune
