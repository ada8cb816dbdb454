#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/formats/adapter_folder.h"
#include "finetune/model/write_model.h"

namespace finetune {

namespace fs = std::filesystem;

namespace {

struct MergeOptions {
  std::vector<std::string> adapters;
  std::vector<double> weights;
  std::string model, output;
  std::string dtype = "auto", combination = "cat";
  bool adapter_only = false;
};

/// Never writes over a model: the base may be the user's only copy.
void check_output(const fs::path& output) {
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json",
                           "adapter_config.json"}) {
    if (fs::exists(output / name)) {
      fail(ErrorKind::config, "{}: already holds {}; choose another --output, or remove it",
           output.string(), name);
    }
  }
}

PeftAdapter open_adapter(const fs::path& folder) {
  const SavedAdapter adapter = read_adapter(folder);
  if (const auto* peft = std::get_if<PeftAdapter>(&adapter)) return *peft;
  fail(
      ErrorKind::model,
      "{}: a bottleneck adapter cannot be merged: a nonlinearity lies between its two matrices, so "
      "no weight of the base does what it does. Keep it beside the base, with --adapter",
      folder.string());
}

/// The adapter to merge: the one given, or the weighted sum of several.
PeftAdapter open_adapters(const MergeOptions& options) {
  std::vector<PeftAdapter> adapters;
  for (const std::string& folder : options.adapters) adapters.push_back(open_adapter(folder));
  if (!options.weights.empty() && options.weights.size() != adapters.size()) {
    fail(ErrorKind::config, "{} adapters and {} weights; expected one --weight for each --adapter",
         adapters.size(), options.weights.size());
  }
  if (adapters.size() == 1 && options.weights.empty()) return adapters.front();
  const std::vector<double> weights =
      options.weights.empty() ? std::vector<double>(adapters.size(), 1.0) : options.weights;
  return combine_adapters(adapters, weights,
                          options.combination == "cat" ? Combination::cat : Combination::linear);
}

void write_combined(const PeftAdapter& adapter, const MergeOptions& options) {
  make_folder(options.output);
  write_peft_adapter(options.output, adapter);
  write_output(
      "-", fmt::format("{} adapters are one, in {}\n", options.adapters.size(), options.output));
}

void run_merge(const MergeOptions& options) {
  const auto dtype = parse_choice<Dtype>(options.dtype);
  if (!dtype)
    fail(ErrorKind::config, "--dtype is {}; expected auto, float32, bfloat16 or float16",
         options.dtype);
  check_output(options.output);
  const PeftAdapter adapter = open_adapters(options);
  if (options.adapter_only) return write_combined(adapter, options);
  const std::string base = options.model.empty() ? adapter.base_model_name_or_path : options.model;
  if (base.empty()) {
    fail(ErrorKind::config,
         "{} does not say which base model it belongs to; give it with --model DIR",
         options.adapters.front());
  }
  if (!fs::is_directory(base)) {
    fail(
        ErrorKind::model, "{}: no such folder; expected the base model{}", base,
        options.model.empty() ? ", as adapter_config.json names it; give it with --model DIR" : "");
  }
  std::optional<at::ScalarType> stored;
  if (*dtype != Dtype::automatic)
    stored = resolve_dtype(*dtype, at::kCPU, at::kFloat, ModelUse::eval);
  const MergeReport report = merge_adapter(base, adapter, options.output, stored);
  write_output(
      "-",
      fmt::format("{} of {} tensors took the update of {}\n"
                  "reopened and compared with base and adapter: products differ by {:.1e} at most\n"
                  "{}the merged model is in {}\n",
                  report.merged, report.tensors, join(options.adapters, " and "),
                  report.largest_difference,
                  report.lost_to_rounding > 1e-4
                      ? fmt::format("rounding to the stored type changed the update by {:.1f} %\n",
                                    100 * report.lost_to_rounding)
                      : "",
                  options.output));
}

}  // namespace

void add_merge(CLI::App& program) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* verb =
      add_verb(program, "merge", "Add an adapter to its base model and write one model folder",
               "finetune merge --adapter runs/lora --output runs/lora-merged",
               std::make_shared<CommonOptions>());
  verb->add_option("--adapter", options->adapters,
                   "Adapter folder (PEFT). Given again: the updates are added")
      ->required()
      ->type_name("DIR")
      ->take_all()
      ->allow_extra_args(false);
  verb->add_option("--weight", options->weights,
                   "Factor of an adapter's update, one for each --adapter; default 1")
      ->type_name("X")
      ->take_all()
      ->allow_extra_args(false);
  verb->add_option("--combination", options->combination,
                   "cat: the exact sum of the updates; linear: sums of their A and of their B")
      ->check(CLI::IsMember({"cat", "linear"}))
      ->capture_default_str();
  verb->add_flag("--adapter-only", options->adapter_only,
                 "Write one adapter made of those given, not a model");
  verb->add_option("--model", options->model, "Base model; default: the one the adapter names")
      ->type_name("DIR");
  verb->add_option("--output", options->output, "Folder to write")->required()->type_name("DIR");
  verb->add_option("--dtype", options->dtype, "auto (the base's own), float32, bfloat16 or float16")
      ->capture_default_str();
  verb->final_callback([options] { run_merge(*options); });
}

}  // namespace finetune
