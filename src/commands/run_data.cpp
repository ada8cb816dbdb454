#include "commands/run_data.h"

#include "finetune/base/log.h"
#include "finetune/base/text.h"

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

/// Applies the length limit to rows that were read without one.
void limit(Dataset& data, Overlength overlength, Overlong& overlong) {
  const auto is_long = [&](const Example& example) {
    return static_cast<std::int64_t>(example.input_ids.size()) > overlong.max_length;
  };
  for (const Example& example : data.examples) {
    overlong.rows += is_long(example) ? 1 : 0;
    overlong.longest =
        std::max(overlong.longest, static_cast<std::int64_t>(example.input_ids.size()));
  }
  if (overlength == Overlength::drop) std::erase_if(data.examples, is_long);
  data.summary.tokens = data.summary.supervised_tokens = data.summary.longest = 0;
  for (Example& example : data.examples) {
    if (is_long(example)) {
      const auto length = static_cast<std::size_t>(overlong.max_length);
      example.input_ids.resize(length);
      example.supervised.resize(length);
      example.supervised_tokens =
          std::accumulate(example.supervised.begin(), example.supervised.end(), std::int64_t{0});
    }
    const auto length = static_cast<std::int64_t>(example.input_ids.size());
    data.summary.tokens += length;
    data.summary.supervised_tokens += example.supervised_tokens;
    data.summary.longest = std::max(data.summary.longest, length);
  }
}

}  // namespace

RunData open_run_data(const Config& config, const TextTools& text, const ModelConfig& model) {
  RunData data = open_data(config, text, dataset_options(config, model.longest_sequence()));
  tell("train", data.train);
  if (data.eval) tell("eval", *data.eval);
  return data;
}

RunData open_planned_data(const Config& config, const TextTools& text, const ModelConfig& model,
                          Overlong& overlong) {
  DatasetOptions options = dataset_options(config, model.longest_sequence());
  overlong.max_length = std::exchange(options.max_length, std::numeric_limits<std::int64_t>::max());
  RunData data = open_data(config, text, options);
  limit(data.train, config.overlength, overlong);
  Overlong ignored{0, 0, overlong.max_length};
  if (data.eval) limit(*data.eval, config.overlength, ignored);
  return data;
}

}  // namespace finetune
