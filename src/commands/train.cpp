#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/dataset/dataset.h"
#include "finetune/dataset/overlap.h"
#include "finetune/train/evaluate.h"
#include "finetune/train/trainer.h"

#include <cstdio>

namespace finetune {

namespace {

struct TrainOptions {
  ConfigOptions config;
  bool resume = false;
  bool allow_changed = false;
  bool dry_run = false;
};

struct Data {
  Dataset train;
  std::optional<Dataset> eval;
};

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
void tell_overlap(const Data& data) {
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

Data open_data(const Config& config, const TextTools& text, const ModelConfig& model) {
  const DatasetOptions options = dataset_options(config, model.longest_sequence());
  Data data;
  data.train = open_dataset(config.datasets, *text.tokenizer, *text.chat_template, options);
  if (config.eval_split > 0) {
    auto [train, eval] = split_dataset(std::move(data.train), config.eval_split, options.seed);
    data.train = std::move(train);
    data.eval = std::move(eval);
  } else if (!config.eval_datasets.empty()) {
    data.eval = open_dataset(config.eval_datasets, *text.tokenizer, *text.chat_template, options);
  }
  tell("train", data.train);
  if (data.eval) tell("eval", *data.eval);
  tell_overlap(data);
  return data;
}

/// Log-probabilities in `reference_adapter`; empty without one.
struct Reference {
  std::vector<double> train, eval;
};

Reference reference_of(const Config& config, CausalLM& model, const Data& data) {
  Reference reference;
  if (!config.reference_adapter) return reference;
  attach_adapter(model, read_adapter(*config.reference_adapter));
  const auto score = [&](const Dataset& dataset) {
    return answer_log_probabilities(model, dataset, config.eval_batch_size());
  };
  reference.train = score(data.train);
  if (data.eval) reference.eval = score(*data.eval);
  detach_adapters(model);
  return reference;
}

std::vector<TrainableParameter> choose_parameters(CausalLM& model, const Config& config) {
  std::vector<TrainableParameter> parameters;
  if (config.method == Method::full) {
    parameters = unfreeze(model, config);
  } else {
    attach_new_adapter(model, config);
    parameters = adapter_parameters(model, config.loraplus_lr_ratio);
  }
  std::int64_t count = 0;
  for (const TrainableParameter& parameter : parameters) count += parameter.slot->numel();
  log_info("train", "{}: {} trainable parameters in {} tensors", to_string(config.method),
           format_count(count), parameters.size());
  return parameters;
}

RunStart start_of(const TrainOptions& options, const Config& config) {
  if (options.resume) return RunStart::resume;
  return config.overwrite_output_dir ? RunStart::overwrite : RunStart::fresh;
}

void print_report(const TrainReport& report, const RunDir& run, const Config& config) {
  std::string text = fmt::format("{} of {} steps in {}", report.steps, report.total_steps,
                                 format_seconds(report.seconds));
  if (report.stopped_early) text += ", stopped early";
  if (report.nonfinite_steps > 0)
    text += fmt::format(", {} left out because they were not finite", report.nonfinite_steps);
  text += "\n";
  if (report.first_eval_loss > 0)
    text += fmt::format("eval loss before training  {:.4f}\n", report.first_eval_loss);
  if (report.best_step > 0)
    text += fmt::format("best eval loss             {:.4f}  (step {})\n", report.best_eval_loss,
                        report.best_step);
  const bool kept_best = config.resolved_load_best_model_at_end() && report.best_step > 0;
  text += fmt::format("{} {} is in {}\n", kept_best ? "the best" : "the last",
                      config.method == Method::full ? "model" : "adapter", run.path().string());
  if (log_level() != LogLevel::quiet) write_output("-", text);
}

void run_train(const TrainOptions& options) {
  const Config config = read_config(options.config);
  if (options.config.show_config) return write_output("-", show_config(config));
  validate(config, ConfigUse::train);
  prepare_process(config);
  std::optional<RunDir> run;
  if (!options.dry_run) run.emplace(config.output_dir, start_of(options, config));
  const TextTools text = load_text_tools(config);
  const Data data = open_data(config, text, read_model_config(config.model_name_or_path));
  CausalLM model = load_base(config, ModelUse::train);
  const Reference reference = reference_of(config, model, data);
  model.recompute_blocks = config.gradient_checkpointing == Recompute::on;
  const std::vector<TrainableParameter> parameters = choose_parameters(model, config);
  if (options.dry_run) {
    log_info("train", "dry run: configuration, data and model are fine; nothing was written");
    return;
  }
  write_file_atomically(run->path() / kConfigFile, resolved_yaml(config));
  catch_interrupts(config.interrupt_grace_seconds);
  Trainer trainer({config, model, parameters, data.train, data.eval ? &*data.eval : nullptr,
                   reference.train, reference.eval},
                  *run);
  const TrainReport report = trainer.run({options.resume, options.allow_changed});
  if (interrupt_signal() != 0) {
    log_warning("train", "interrupted after step {} of {}; --resume continues", report.steps,
                report.total_steps);
    return;
  }
  print_report(report, *run, config);
}

}  // namespace

void add_train(CLI::App& program) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* verb =
      add_verb(program, "train", "Train an adapter, or a whole model, on your data",
               "finetune train --config configs/lora.yaml", std::make_shared<CommonOptions>());
  add_config_options(*verb, options->config);
  verb->add_flag("--resume", options->resume,
                 "Continue from the last checkpoint, or begin where there is none");
  verb->add_flag("--allow-changed", options->allow_changed,
                 "With --resume: although settings or data have changed");
  verb->add_flag("--dry-run", options->dry_run,
                 "Check configuration, data and model, write nothing");
  verb->final_callback([options] { run_train(*options); });
}

}  // namespace finetune
