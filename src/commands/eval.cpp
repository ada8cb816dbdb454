#include "commands/answer_scoring.h"
#include "commands/eval_preferences.h"
#include "commands/eval_report.h"
#include "commands/run_data.h"
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

struct EvalOptions {
  ConfigOptions config;
  std::string model, data, json, predictions, answers;
  std::vector<std::string> adapters;
  bool generate = false;
  std::int64_t max_new_tokens = 0;  // 0: from the longest reference
  std::int64_t shown_rows = 3;
};

/// What is evaluated: the base, and adapters or the fully tuned model where there are any.
struct Variants {
  std::string base;
  std::vector<std::string> adapters;
  bool full = false;  ///< the one in `adapters` is a model folder

  std::string name(std::size_t index) const {
    return adapters.size() == 1 ? "adapter" : adapter_name(adapters, index);
  }
};

Config config_of(const EvalOptions& options) {
  Config config = read_config(options.config);
  if (!options.model.empty()) config.model_name_or_path = options.model;
  if (!options.data.empty()) {
    config.eval_datasets = {DatasetSpec{}};
    config.eval_datasets.front().path = options.data;
  }
  const bool held_out = config.eval_split > 0 && !config.datasets.empty();
  if (config.eval_datasets.empty() && !held_out && options.answers.empty()) {
    fail(ErrorKind::config,
         "nothing to evaluate on; give --data FILE, or eval_datasets or eval_split in the "
         "configuration");
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

/// The answers to all rows that have a prompt; rows of plain text have none.
std::vector<std::optional<std::string>> generate_answers(const CausalLM& model,
                                                         const TextTools& text,
                                                         const Dataset& dataset,
                                                         std::int64_t limit) {
  GenerateOptions options;
  options.max_new_tokens = limit;
  options.stop_ids = text.stop_ids;
  std::vector<std::optional<std::string>> answers(dataset.texts.size());
  std::vector<std::size_t> rows;
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::size_t i = 0; i < dataset.texts.size(); ++i) {
    if (dataset.texts[i].prompt.empty()) continue;
    rows.push_back(i);
    prompts.push_back(encode_prompt(*text.tokenizer, dataset.texts[i].prompt).ids);
  }
  const std::vector<Generation> generations = generate(model, prompts, options);
  for (std::size_t i = 0; i < rows.size(); ++i)
    answers[rows[i]] = text.tokenizer->decode(generations[i].ids, /*skip_special_tokens=*/true);
  return answers;
}

/// True for stages of preference rows; those of grpo have one answer, as those of sft.
bool compares_answers(const Config& config) {
  return config.stage != Stage::sft && config.stage != Stage::grpo;
}

class Evaluation {
 public:
  Evaluation(const EvalOptions& options, const Config& config)
      : options_(options),
        config_(config),
        variants_(variants_of(options, config)),
        text_(load_text_tools(config)) {
    report_.model = variants_.base;
    report_.adapters = variants_.adapters;
    report_.seed = static_cast<std::uint64_t>(config.seed);
    report_.shown_rows = options.shown_rows;
    if (compares_answers(config)) preferences_.emplace(config, variants_.adapters);
    if (config.stage == Stage::reward && variants_.adapters.empty()) {
      fail(ErrorKind::config,
           "stage: reward, and no adapter: the base has no head that makes scores; give --adapter "
           "one that stage: reward trained");
    }
  }

  void run() {
    const ModelConfig model_config = read_model_config(config_.model_name_or_path);
    DatasetOptions data_options = dataset_options(config_, model_config.longest_sequence());
    data_options.keep_texts = true;
    data_options.sampled_tokens = 0;  // rows are scored by their answers
    if (config_.eval_datasets.empty()) open_held_out(data_options);
    for (std::size_t i = data_.size(); i < config_.eval_datasets.size(); ++i)
      data_.push_back(open_dataset({config_.eval_datasets[i]}, *text_.tokenizer,
                                   *text_.chat_template, data_options));
    for (const Dataset& data : data_) require_embeddings(data, text_, model_config);
    if (options_.generate) {
      scoring_.emplace(config_);
      if (config_.format_check) scoring_->need(*config_.format_check, "format_check");
      for (std::size_t i = 0; i < data_.size(); ++i)
        need_checks(data_[i], config_.eval_datasets[i]);
    }
    std::vector<SavedAdapter> adapters;  // read first: a wrong path is told before the work
    if (!variants_.full) {
      for (const std::string& path : variants_.adapters)
        adapters.push_back(config_.stage == Stage::reward ? read_adapter(path)
                                                          : read_text_adapter(path));
    }
    CausalLM model = load_base(config_, ModelUse::eval);
    if (preferences_) set_reference(model);
    score(model, "base");
    if (variants_.full && !variants_.adapters.empty()) {
      Config tuned = config_;
      tuned.model_name_or_path = variants_.adapters.front();
      model = load_base(tuned, ModelUse::eval);
      score(model, "adapter");
    }
    for (std::size_t i = 0; i < adapters.size(); ++i) {
      attach_adapter(model, adapters[i]);
      score(model, variants_.name(i));
      detach_adapters(model);
    }
  }

  const EvalReport& report() const { return report_; }
  /// Of a preference stage, else nothing.
  const std::optional<PreferenceEvaluation>& preferences() const { return preferences_; }

 private:
  /// The rows that eval_split keeps out of training, as one data set.
  void open_held_out(const DatasetOptions& options) {
    Dataset all = open_dataset(config_.datasets, *text_.tokenizer, *text_.chat_template, options);
    data_.push_back(split_dataset(std::move(all), config_.eval_split, options.seed).second);
    DatasetSpec& spec = config_.eval_datasets.emplace_back(config_.datasets.front());
    spec.path = join(data_[0].files, ", ");
    log_info("eval", "the {} rows of {} that eval_split holds out", format_count(data_[0].rows()),
             spec.path);
  }

  void need_checks(const Dataset& dataset, const DatasetSpec& spec) {
    scoring_->need(spec.format_check, spec.path);
    for (std::size_t i = 0; i < dataset.texts.size(); ++i)
      scoring_->need(dataset.texts[i].format_check, dataset.where(dataset.examples[i]));
  }

  /// The row's own format check, else its file's, else the run's.
  std::string check_of(const RowText& text, const DatasetSpec& spec) const {
    if (!text.format_check.empty()) return text.format_check;
    return spec.format_check.empty() ? config_.format_check.value_or("") : spec.format_check;
  }

  /// The base, or reference_adapter over it.
  void set_reference(CausalLM& model) {
    if (config_.reference_adapter)
      attach_adapter(model, read_text_adapter(*config_.reference_adapter));
    for (const Dataset& dataset : data_) preferences_->set_reference(model, dataset);
    detach_adapters(model);
  }

  void score(const CausalLM& model, const std::string& variant) {
    for (std::size_t i = 0; i < data_.size() && interrupt_signal() == 0; ++i) {
      const Dataset& dataset = data_[i];
      if (preferences_) {
        preferences_->add(model, dataset, variant);
        continue;
      }
      VariantResult result{config_.eval_datasets[i].path,
                           variant,
                           evaluate(model, dataset, config_.eval_batch_size()),
                           {}};
      if (interrupt_signal() != 0) return;
      result.rows = rows_of(dataset, result, config_.eval_datasets[i]);
      if (options_.generate) {
        const auto answers =
            generate_answers(model, text_, dataset, answer_limit(dataset, options_));
        if (interrupt_signal() != 0) return;
        for (std::size_t row = 0; row < answers.size(); ++row) {
          result.rows[row].prediction = answers[row];
          report_.expects_json |= is_json_container(result.rows[row].reference);
        }
        scoring_->score(result);
      }
      log_info("eval", "{} on {}: done", variant, result.data);
      report_.results.push_back(std::move(result));
    }
  }

  std::vector<EvalRow> rows_of(const Dataset& dataset, const VariantResult& result,
                               const DatasetSpec& spec) const {
    std::vector<EvalRow> rows;
    for (std::size_t i = 0; i < dataset.examples.size(); ++i) {
      const Example& example = dataset.examples[i];
      const RowText& text = dataset.texts[i];
      rows.push_back({example.origin.line, result.result.nll[i], example.supervised_tokens,
                      text.prompt, text.reference, text.source.empty() ? result.data : text.source,
                      text.tags, check_of(text, spec), std::nullopt, std::nullopt});
    }
    return rows;
  }

  const EvalOptions& options_;
  Config config_;
  Variants variants_;
  TextTools text_;
  std::vector<Dataset> data_;
  std::optional<AnswerScoring> scoring_;
  std::optional<PreferenceEvaluation> preferences_;
  EvalReport report_;
};

/// Each form of a result is made when it is asked for.
template <typename Text, typename Json, typename Predictions>
void write_report(const EvalOptions& options, const Text& text, const Json& json,
                  const Predictions& predictions) {
  if (!options.predictions.empty()) write_output(options.predictions, predictions());
  if (!options.json.empty()) {
    write_output(options.json,
                 json().dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  }
  if (options.json != "-" && options.predictions != "-") write_output("-", text());
}

void write_report(const EvalOptions& options, const EvalReport& report) {
  write_report(
      options, [&] { return report_text(report); }, [&] { return report_json(report); },
      [&] { return report_predictions(report); });
}

void write_report(const EvalOptions& options, const PreferenceEvaluation& preferences) {
  write_report(
      options, [&] { return preferences.text(); }, [&] { return preferences.json(); },
      [&] { return preferences.predictions(); });
}

/// Scores that need no model.
void score_answers_only(const EvalOptions& options, const Config& config) {
  if (!options.data.empty() || options.generate) {
    fail(ErrorKind::config,
         "--answers scores answers that are there; it goes with neither --data nor --generate");
  }
  EvalReport report = score_file(options.answers, config);
  report.seed = static_cast<std::uint64_t>(config.seed);
  report.shown_rows = options.shown_rows;
  write_report(options, report);
}

void run_eval(const EvalOptions& options) {
  const Config config = config_of(options);
  if (options.config.show_config) return write_output("-", show_config(config));
  if (!options.answers.empty()) return score_answers_only(options, config);
  validate(config, ConfigUse::eval);
  if (compares_answers(config) && options.generate) {
    fail(ErrorKind::config,
         "--generate answers rows of one right answer, and stage: {} has others; leave it out, or "
         "evaluate such rows with stage=sft",
         to_string(config.stage));
  }
  prepare_process(config);
  catch_interrupts(config.interrupt_grace_seconds);
  Evaluation evaluation(options, config);
  evaluation.run();
  if (interrupt_signal() != 0) {
    log_warning("eval", "interrupted; nothing was written");
    return;
  }
  if (evaluation.preferences()) return write_report(options, *evaluation.preferences());
  write_report(options, evaluation.report());
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
  verb->add_option("--answers", options->answers,
                   "Score the answers of this file ({prediction, reference} a line, as "
                   "--predictions writes them); no model is needed")
      ->type_name("FILE");
  verb->add_flag("--generate", options->generate,
                 "Also answer every row, greedily, and score the answers");
  verb->add_option("--max-new-tokens", options->max_new_tokens,
                   "Longest answer; default: a little above the longest reference")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  verb->add_option("--show", options->shown_rows, "How many of the worst rows to show")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  verb->final_callback([options] { run_eval(*options); });
}

}  // namespace finetune
