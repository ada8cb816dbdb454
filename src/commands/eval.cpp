#include "commands/scores.h"
#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/dataset/dataset.h"
#include "finetune/generate/generate.h"
#include "finetune/model/adapters.h"
#include "finetune/train/evaluate.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace finetune {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr std::int64_t kGenerateBatch = 32;  // rows decoded together

struct EvalOptions {
  ConfigOptions config;
  std::string model, data, json, predictions;
  std::vector<std::string> adapters;
  bool generate = false;
  std::int64_t max_new_tokens = 0;  // 0: from the longest reference
};

/// One line of the result: a data set scored with one variant of the model.
struct ScoredData {
  std::string data, variant;
  std::int64_t examples = 0;
  EvalResult result;
  std::optional<GenerationScores> scores;
};

/// What is evaluated: the base, and adapters or the fully tuned model where there are any.
struct Variants {
  std::string base;
  std::vector<std::string> adapters;
  bool full = false;  ///< the one in `adapters` is a model folder

  /// "adapter" where there is one, else the end of its path that tells it from the others.
  std::string name(std::size_t index) const {
    if (adapters.size() == 1) return "adapter";
    const auto last = [](const std::string& path) {
      const fs::path clean = fs::path(path).lexically_normal();
      return clean.has_filename() ? clean.filename().string()
                                  : clean.parent_path().filename().string();
    };
    const auto same = std::count_if(adapters.begin(), adapters.end(), [&](const std::string& path) {
      return last(path) == last(adapters[index]);
    });
    return same == 1 ? last(adapters[index]) : adapters[index];
  }
};

Config config_of(const EvalOptions& options) {
  Config config = read_config(options.config);
  if (!options.model.empty()) config.model_name_or_path = options.model;
  if (!options.data.empty()) {
    config.eval_datasets = {DatasetSpec{}};
    config.eval_datasets.front().path = options.data;
  }
  if (config.eval_datasets.empty()) {
    fail(ErrorKind::config,
         "nothing to evaluate on; give --data FILE, or eval_datasets in the configuration");
  }
  return config;
}

Variants variants_of(const EvalOptions& options, const Config& config) {
  Variants variants{config.model_name_or_path, options.adapters, false};
  if (!options.adapters.empty() || options.config.file.empty()) return variants;
  const fs::path output = config.output_dir;
  variants.full = config.method == Method::full;
  if (fs::exists(output / (variants.full ? "config.json" : kAdapterConfigFile))) {
    variants.adapters = {config.output_dir};
  } else {
    log_info("eval", "{} holds no trained {} yet; evaluating the base alone", config.output_dir,
             variants.full ? "model" : "adapter");
  }
  return variants;
}

std::int64_t answer_limit(const Dataset& dataset, const EvalOptions& options) {
  if (options.max_new_tokens > 0) return options.max_new_tokens;
  std::int64_t longest = 0;
  for (const Example& example : dataset.examples)
    longest = std::max(longest, example.supervised_tokens);
  return longest + longest / 4 + 16;  // a longer answer is wrong anyway
}

/// The answers to all rows; rows of plain text have none.
std::vector<std::string> generate_answers(const CausalLM& model, const TextTools& text,
                                          const Dataset& dataset, std::int64_t limit) {
  GenerateOptions options;
  options.max_new_tokens = limit;
  options.stop_ids = text.stop_ids;
  std::vector<std::string> answers(dataset.texts.size());
  std::vector<std::size_t> rows;
  for (std::size_t i = 0; i < dataset.texts.size(); ++i) {
    if (!dataset.texts[i].prompt.empty()) rows.push_back(i);
  }
  for (std::size_t begin = 0; begin < rows.size() && interrupt_signal() == 0;
       begin += kGenerateBatch) {
    const std::size_t end = std::min(begin + kGenerateBatch, rows.size());
    std::vector<std::vector<std::int32_t>> prompts;
    for (std::size_t i = begin; i < end; ++i) {
      prompts.push_back(encode_prompt(*text.tokenizer, dataset.texts[rows[i]].prompt).ids);
    }
    const std::vector<Generation> generations = generate(model, prompts, options);
    for (std::size_t i = begin; i < end; ++i) {
      answers[rows[i]] =
          text.tokenizer->decode(generations[i - begin].ids, /*skip_special_tokens=*/true);
    }
  }
  return answers;
}

class Evaluation {
 public:
  Evaluation(const EvalOptions& options, const Config& config)
      : options_(options),
        config_(config),
        variants_(variants_of(options, config)),
        text_(load_text_tools(config)) {}

  void run() {
    DatasetOptions data_options =
        dataset_options(config_, read_model_config(config_.model_name_or_path).longest_sequence());
    data_options.keep_texts = options_.generate || !options_.predictions.empty();
    std::vector<Dataset> data;
    for (const DatasetSpec& spec : config_.eval_datasets) {
      data.push_back(open_dataset({spec}, *text_.tokenizer, *text_.chat_template, data_options));
    }
    std::vector<SavedAdapter> adapters;  // read first: a wrong path is told before the work
    if (!variants_.full) {
      for (const std::string& path : variants_.adapters) adapters.push_back(read_adapter(path));
    }
    CausalLM model = load_base(config_, ModelUse::eval);
    score(model, data, "base");
    if (variants_.full && !variants_.adapters.empty()) {
      Config tuned = config_;
      tuned.model_name_or_path = variants_.adapters.front();
      model = load_base(tuned, ModelUse::eval);
      score(model, data, "adapter");
    }
    for (std::size_t i = 0; i < adapters.size(); ++i) {
      attach_adapter(model, adapters[i]);
      score(model, data, variants_.name(i));
      detach_adapters(model);
    }
  }

  ordered_json json() const;
  std::string table() const;
  const std::string& predictions() const { return predictions_; }

 private:
  void score(const CausalLM& model, const std::vector<Dataset>& data, const std::string& variant) {
    for (std::size_t i = 0; i < data.size() && interrupt_signal() == 0; ++i) {
      const Dataset& dataset = data[i];
      ScoredData scored{config_.eval_datasets[i].path, variant,
                        static_cast<std::int64_t>(dataset.examples.size()),
                        evaluate(model, dataset, config_.eval_batch_size()), std::nullopt};
      std::vector<std::string> answers;
      if (options_.generate) {
        answers = generate_answers(model, text_, dataset, answer_limit(dataset, options_));
        std::vector<ScoredAnswer> scored_answers;
        for (std::size_t row = 0; row < answers.size(); ++row) {
          if (!dataset.texts[row].prompt.empty())
            scored_answers.push_back({answers[row], dataset.texts[row].reference});
        }
        scored.scores = score_answers(scored_answers);
      }
      if (interrupt_signal() != 0) return;
      if (!options_.predictions.empty()) add_predictions(dataset, scored, answers);
      log_info("eval", "{} on {}: done", variant, scored.data);
      results_.push_back(std::move(scored));
    }
  }

  void add_predictions(const Dataset& dataset, const ScoredData& scored,
                       const std::vector<std::string>& answers) {
    for (std::size_t row = 0; row < dataset.examples.size(); ++row) {
      const Example& example = dataset.examples[row];
      ordered_json line = {{"file", scored.data},
                           {"line", example.origin.line},
                           {"variant", scored.variant},
                           {"nll", scored.result.nll[row]},
                           {"supervised_tokens", example.supervised_tokens},
                           {"prompt", dataset.texts[row].prompt},
                           {"reference", dataset.texts[row].reference}};
      line["prediction"] = answers.empty() ? ordered_json() : ordered_json(answers[row]);
      predictions_ += line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
    }
  }

  const EvalOptions& options_;
  const Config& config_;
  Variants variants_;
  TextTools text_;
  std::vector<ScoredData> results_;
  std::string predictions_;
};

ordered_json Evaluation::json() const {
  ordered_json out = {{"model", variants_.base}};
  const std::vector<std::string>& adapters = variants_.adapters;
  out["adapter"] = adapters.empty()       ? ordered_json()
                   : adapters.size() == 1 ? ordered_json(adapters.front())
                                          : ordered_json(adapters);
  out["results"] = ordered_json::array();
  for (const ScoredData& scored : results_) {
    ordered_json entry = {{"data", scored.data},
                          {"variant", scored.variant},
                          {"examples", scored.examples},
                          {"supervised_tokens", scored.result.supervised_tokens},
                          {"loss", scored.result.loss},
                          {"perplexity", scored.result.perplexity()},
                          {"token_accuracy", scored.result.token_accuracy}};
    if (scored.scores) {
      entry["exact_match"] = scored.scores->exact_match;
      entry["valid_json"] = scored.scores->valid_json;
    }
    out["results"].push_back(entry);
  }
  return out;
}

/// Base and adapter side by side, a block for each data set.
std::string Evaluation::table() const {
  std::string out;
  for (const DatasetSpec& spec : config_.eval_datasets) {
    std::vector<const ScoredData*> columns;
    for (const ScoredData& scored : results_) {
      if (scored.data == spec.path) columns.push_back(&scored);
    }
    if (columns.empty()) continue;
    const ScoredData& first = *columns.front();
    out +=
        fmt::format("\n{} ({} rows, {} supervised tokens)\n{:18}", spec.path,
                    format_count(first.examples), format_count(first.result.supervised_tokens), "");
    const auto width = [](const ScoredData* column) {
      return std::max<std::size_t>(12, column->variant.size() + 2);
    };
    for (const ScoredData* column : columns)
      out += fmt::format("{:>{}}", column->variant, width(column));
    const auto row = [&](const std::string& label, const auto& cell) {
      out += fmt::format("\n  {:16}", label);
      for (const ScoredData* column : columns)
        out += fmt::format("{:>{}}", cell(*column), width(column));
    };
    row("loss", [](const ScoredData& s) { return fmt::format("{:.4f}", s.result.loss); });
    row("perplexity",
        [](const ScoredData& s) { return fmt::format("{:.3f}", s.result.perplexity()); });
    row("token accuracy",
        [](const ScoredData& s) { return fmt::format("{:.1f} %", 100 * s.result.token_accuracy); });
    if (first.scores) {
      row("exact match",
          [](const ScoredData& s) { return fmt::format("{:.1f} %", 100 * s.scores->exact_match); });
    }
    if (first.scores && first.scores->expects_json) {
      row("valid JSON",
          [](const ScoredData& s) { return fmt::format("{:.1f} %", 100 * s.scores->valid_json); });
      out += fmt::format("   of {} rows", format_count(first.scores->json_rows));
    }
    out += "\n";
  }
  return out;
}

void run_eval(const EvalOptions& options) {
  const Config config = config_of(options);
  if (options.config.show_config) return write_output("-", show_config(config));
  validate(config, ConfigUse::eval);
  prepare_process(config);
  catch_interrupts(config.interrupt_grace_seconds);
  Evaluation evaluation(options, config);
  evaluation.run();
  if (interrupt_signal() != 0) {
    log_warning("eval", "interrupted; nothing was written");
    return;
  }
  if (!options.predictions.empty()) write_output(options.predictions, evaluation.predictions());
  if (!options.json.empty()) write_output(options.json, evaluation.json().dump(2) + "\n");
  if (options.json != "-" && options.predictions != "-") write_output("-", evaluation.table());
}

}  // namespace

void add_eval(CLI::App& program) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = add_verb(
      program, "eval", "Score base and adapter side by side on data with known answers",
      "finetune eval --config configs/lora.yaml --generate", std::make_shared<CommonOptions>());
  add_config_options(*verb, options->config);
  verb->add_option("--model", options->model, "Base model; instead of a configuration")
      ->type_name("DIR");
  verb->add_option("--adapter", options->adapters,
                   "Adapter; default: output_dir of the configuration. Given again: one more, all "
                   "over one loaded base")
      ->type_name("DIR")
      ->take_all()
      ->allow_extra_args(false);
  verb->add_option("--data", options->data, "Data file; instead of eval_datasets")
      ->type_name("FILE");
  verb->add_option("--json", options->json, "Write the scores as JSON; - is standard output")
      ->type_name("FILE");
  verb->add_option("--predictions", options->predictions,
                   "Write a JSON line for every row; - is standard output")
      ->type_name("FILE");
  verb->add_flag("--generate", options->generate,
                 "Also answer every row, greedily, and score the answers");
  verb->add_option("--max-new-tokens", options->max_new_tokens,
                   "Longest answer; default: a little above the longest reference")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  verb->final_callback([options] { run_eval(*options); });
}

}  // namespace finetune
