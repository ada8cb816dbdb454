#include "commands/eval_samples.h"
#include "commands/plan.h"
#include "commands/run_data.h"
#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/dataset/dataset.h"
#include "finetune/plan/least_memory.h"
#include "finetune/report/report.h"
#include "finetune/train/evaluate.h"
#include "finetune/train/trainer.h"

#include <stdlib.h>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>

namespace finetune {

namespace {

struct TrainOptions {
  ConfigOptions config;
  bool resume = false;
  bool allow_changed = false;
  bool dry_run = false;
};

/// Log-probabilities in `reference_adapter`; empty without one.
struct Reference {
  std::vector<double> train, eval;
};

Reference reference_of(const Config& config, CausalLM& model, const RunData& data) {
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

/// What only the run itself knows of itself.
nlohmann::ordered_json about_run(const TrainOptions& options, const Config& config,
                                 const RunData& data, const Tokenizer& tokenizer,
                                 const TrainReport& report) {
  constexpr std::size_t kSampleRows = 3;
  nlohmann::ordered_json sets = nlohmann::ordered_json::array();
  sets.push_back(describe_data("training data", data.train, tokenizer, kSampleRows));
  if (data.eval)
    sets.push_back(describe_data("evaluation data", *data.eval, tokenizer, kSampleRows));
  std::string repeat = "finetune train";
  if (!options.config.file.empty()) repeat += " --config " + options.config.file;
  for (const std::string& word : options.config.overrides) repeat += " '" + word + "'";
  repeat += "\n# or, with every value written out:\nfinetune train --config " +
            (std::filesystem::path(config.output_dir) / kConfigFile).string() +
            " overwrite_output_dir=true";
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  char when[32] = "";
  std::strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", std::gmtime(&now));
  return {{"finished", when},
          {"result",
           {{"steps", report.steps},
            {"total_steps", report.total_steps},
            {"seconds", report.seconds},
            {"trained_parameters", report.trained_parameters},
            {"best_step", report.best_step},
            {"stopped_early", report.stopped_early}}},
          {"data", sets},
          {"config", describe_config(config)},
          {"environment", describe_environment()},
          {"repeat", repeat}};
}

/// The plan, then one step of the real model in a folder that is removed again.
void dry_run(const Config& config) {
  const TextTools text = load_text_tools(config);
  const RunData data = open_run_data(config, text, read_model_config(config.model_name_or_path));
  const Dataset* eval = data.eval ? &*data.eval : nullptr;
  const Plan plan = plan_run(config, data.train, eval);
  if (log_level() != LogLevel::quiet)
    write_output("-", plan_text(config, plan, {0, data.train.summary.longest, config.max_length}));
  if (!plan.fits) fail(ErrorKind::resource, "the run does not fit, so no step was tried");
  Config one = config;
  one.max_steps = 1;
  one.warmup_steps = 0;
  one.load_best_model_at_end = false;
  std::string folder = (std::filesystem::temp_directory_path() / "finetune-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) fail(ErrorKind::resource, "{}: cannot be made", folder);
  const std::shared_ptr<void> removed(nullptr, [&folder](void*) {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  });
  one.output_dir = folder;
  CausalLM model = load_base(one, ModelUse::train);
  model.recompute_blocks = one.gradient_checkpointing == Recompute::on;
  const std::vector<TrainableParameter> parameters = choose_parameters(model, one);
  RunDir run(folder, RunStart::overwrite);
  Trainer(TrainInputs{one, model, parameters, data.train, nullptr}, run).run({});
  log_info("train",
           "dry run: configuration, data and model are fine, and a step was made; nothing is left "
           "of it");
}

void run_train(const TrainOptions& options) {
  const Config config = read_config(options.config);
  if (options.config.show_config) return write_output("-", show_config(config));
  validate(config, ConfigUse::train);
  prepare_process(config);
  if (options.dry_run) return dry_run(config);
  RunDir run(config.output_dir, start_of(options, config));
  const TextTools text = load_text_tools(config);
  const RunData data = open_run_data(config, text, read_model_config(config.model_name_or_path));
  require_memory(config, data.train);
  CausalLM model = load_base(config, ModelUse::train);
  const Reference reference = reference_of(config, model, data);
  model.recompute_blocks = config.gradient_checkpointing == Recompute::on;
  const std::vector<TrainableParameter> parameters = choose_parameters(model, config);
  write_file_atomically(run.path() / kConfigFile, resolved_yaml(config));
  catch_interrupts(config.interrupt_grace_seconds);
  std::optional<EvalSamples> samples;
  if (data.eval) samples.emplace(config, text, *data.eval, run.path());
  TrainInputs inputs{
      config,          model,         parameters, data.train, data.eval ? &*data.eval : nullptr,
      reference.train, reference.eval};
  inputs.on_evaluation = [&](std::int64_t step) { samples->answer(model, step); };
  Trainer trainer(std::move(inputs), run);
  const TrainReport report = trainer.run({options.resume, options.allow_changed});
  if (interrupt_signal() != 0) {
    log_warning("train", "interrupted after step {} of {}; --resume continues", report.steps,
                report.total_steps);
    return;
  }
  write_report(run.path(), about_run(options, config, data, *text.tokenizer, report));
  print_report(report, run, config);
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
                 "The plan, a check of the data and one step; nothing is kept");
  verb->final_callback([options] { run_train(*options); });
}

}  // namespace finetune
