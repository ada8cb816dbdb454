#include "commands/plan.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"

namespace finetune {

using nlohmann::ordered_json;

namespace {

struct PlanOptions {
  ConfigOptions config;
  bool json = false;
};

void run_plan(const PlanOptions& options) {
  const Config config = read_config(options.config);
  if (options.config.show_config) return write_output("-", show_config(config));
  validate(config, ConfigUse::plan);
  prepare_process(config);
  const TextTools text = load_text_tools(config);
  Overlong overlong;
  const RunData data =
      open_planned_data(config, text, read_model_config(config.model_name_or_path), overlong);
  if (data.train.examples.empty())
    fail(ErrorKind::data, "no row is left: all are longer than max_length, {}",
         overlong.max_length);
  const Plan plan = plan_run(config, data.train, data.eval ? &*data.eval : nullptr);
  write_output("-", options.json ? plan_json(plan, overlong).dump(2) + "\n"
                                 : plan_text(config, plan, overlong));
}

}  // namespace

ordered_json plan_json(const Plan& plan, const Overlong& overlong) {
  ordered_json components = ordered_json::object();
  for (const auto& [name, bytes] : plan.components) components[name] = bytes;
  return {{"peak_memory_bytes", plan.peak_memory_bytes},
          {"components", components},
          {"memory_limit_bytes", plan.memory_limit_bytes},
          {"step_seconds", plan.step_seconds},
          {"total_seconds", plan.total_seconds},
          {"steps", plan.steps},
          {"trained_parameters", plan.trained_parameters},
          {"largest_batch_tokens", plan.largest_batch_tokens},
          {"disk_bytes", plan.disk_bytes},
          {"free_disk_bytes", plan.free_disk_bytes},
          {"over_length", overlong.rows},
          {"max_length", overlong.max_length},
          {"longest", overlong.longest},
          {"fits", plan.fits},
          {"advice", plan.advice}};
}

std::string plan_text(const Config& config, const Plan& plan, const Overlong& overlong) {
  std::string text = fmt::format("memory   {} at most\n", format_bytes(plan.peak_memory_bytes));
  for (const auto& [name, bytes] : plan.components)
    text += fmt::format("  {:12}{:>10}\n", name, format_bytes(bytes));
  text += fmt::format("time     {} a step, {} for {} steps{}\n", format_seconds(plan.step_seconds),
                      format_seconds(plan.total_seconds), format_count(plan.steps),
                      config.has_eval_data() ? " and the evaluations" : "");
  text += fmt::format("disk     {} at most, {} free\n", format_bytes(plan.disk_bytes),
                      format_bytes(plan.free_disk_bytes));
  if (overlong.rows > 0) {
    text += fmt::format("rows     {} are longer than max_length {} (the longest has {}); {}\n",
                        format_count(overlong.rows), overlong.max_length, overlong.longest,
                        config.overlength == Overlength::error
                            ? "overlength: error stops the run, truncate and drop go on"
                            : "overlength: " + to_string(config.overlength));
  }
  const double share = static_cast<double>(plan.peak_memory_bytes) /
                       static_cast<double>(std::max<std::uint64_t>(plan.memory_limit_bytes, 1));
  text +=
      fmt::format("verdict  {}: {:.0f} % of {}, {}\n", plan.fits ? "it fits" : "it does not fit",
                  100 * share, plan.limit, format_bytes(plan.memory_limit_bytes));
  if (!plan.advice.empty()) text += "to change, cheapest first\n";
  for (const std::string& line : plan.advice) text += "  - " + line + "\n";
  return text;
}

void add_plan(CLI::App& program) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* verb =
      add_verb(program, "plan", "Tell memory, time and disk of a run before it starts",
               "finetune plan --config configs/lora.yaml", std::make_shared<CommonOptions>());
  add_config_options(*verb, options->config);
  verb->add_flag("--json", options->json, "Print JSON");
  verb->final_callback([options] { run_plan(*options); });
}

}  // namespace finetune
