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

struct MergeVerbOptions {
  std::vector<std::string> adapters;
  std::vector<double> weights;
  std::string model, output;
  std::string dtype = "auto", combination = "cat", quantization = "auto";
  bool adapter_only = false, requantize = false;
};

PeftAdapter open_adapter(const fs::path& folder) {
  const SavedAdapter adapter = read_text_adapter(folder);
  if (const auto* peft = std::get_if<PeftAdapter>(&adapter)) return *peft;
  fail(
      ErrorKind::model,
      "{}: a bottleneck adapter cannot be merged: a nonlinearity lies between its two matrices, so "
      "no weight of the base does what it does. Keep it beside the base, with --adapter",
      folder.string());
}

/// The adapter to merge: the one given, or the weighted sum of several.
PeftAdapter open_adapters(const MergeVerbOptions& options) {
  std::vector<PeftAdapter> adapters;
  for (const std::string& folder : options.adapters) adapters.push_back(open_adapter(folder));
  if (!options.weights.empty() && options.weights.size() != adapters.size()) {
    fail(ErrorKind::config, "{} adapters and {} weights; expected one --weight for each --adapter",
         adapters.size(), options.weights.size());
  }
  for (const PeftAdapter& adapter : adapters) {
    if (adapter.quantization == adapters.front().quantization || options.quantization != "auto")
      continue;
    fail(ErrorKind::config,
         "the adapters were trained over quantization: {} and {}; say with --quantization which of "
         "these bases to add them to",
         to_string(adapters.front().quantization), to_string(adapter.quantization));
  }
  if (adapters.size() == 1 && options.weights.empty()) return adapters.front();
  const std::vector<double> weights =
      options.weights.empty() ? std::vector<double>(adapters.size(), 1.0) : options.weights;
  return combine_adapters(adapters, weights,
                          options.combination == "cat" ? Combination::cat : Combination::linear);
}

void write_combined(const PeftAdapter& adapter, const MergeVerbOptions& options) {
  make_folder(options.output);
  write_peft_adapter(options.output, adapter);
  write_output(
      "-", fmt::format("{} adapters are one, in {}\n", options.adapters.size(), options.output));
}

/// How the base was held in training: what the adapter's file says, unless the user says otherwise.
BaseQuantization base_quantization(const MergeVerbOptions& options, const PeftAdapter& adapter) {
  if (options.quantization == "auto") return {adapter.quantization, adapter.double_quant};
  return {*parse_choice<Quantization>(options.quantization), adapter.double_quant};
}

void print_report(const MergeReport& report, const MergeOptions& merge,
                  const MergeVerbOptions& options) {
  std::string text = fmt::format("{} of {} tensors took the update of {}\n", report.merged,
                                 report.tensors, join(options.adapters, " and "));
  if (report.dequantized > 0) {
    text += fmt::format(
        "{} weights were quantized in training; the update was added to the "
        "dequantized ones{}\n",
        report.dequantized,
        merge.requantize ? ", and the sum quantized to NF4 again"
                         : ", and they are written in full");
  }
  text += merge.requantize
              ? "reopened and compared with base and adapter, bit for bit\n"
              : fmt::format(
                    "reopened and compared with base and adapter: products differ by {:.1e} "
                    "at most\n",
                    report.largest_difference);
  if (report.lost_to_rounding > 1e-4) {
    text += fmt::format("rounding to the stored type changed the update by {:.1f} %\n",
                        100 * report.lost_to_rounding);
  }
  write_output("-", text + fmt::format("the merged model is in {}\n", options.output));
}

void run_merge(const MergeVerbOptions& options) {
  const auto dtype = parse_choice<Dtype>(options.dtype);
  if (!dtype)
    fail(ErrorKind::config, "--dtype is {}; expected auto, float32, bfloat16 or float16",
         options.dtype);
  check_new_model_folder(options.output);
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
  MergeOptions merge;
  if (*dtype != Dtype::automatic)
    merge.dtype = resolve_dtype(*dtype, at::kCPU, at::kFloat, ModelUse::eval);
  merge.trained = base_quantization(options, adapter);
  merge.requantize = options.requantize;
  print_report(merge_adapter(base, adapter, options.output, merge), merge, options);
}

}  // namespace

void add_merge(CLI::App& program) {
  auto options = std::make_shared<MergeVerbOptions>();
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
  verb->add_option(
          "--quantization", options->quantization,
          "How the base was held in training: auto (as the adapter's file says), none, nf4 "
          "or int8; the update is added to the numbers that this gives")
      ->check(CLI::IsMember({"auto", "none", "nf4", "int8"}))
      ->capture_default_str();
  verb->add_flag("--requantize", options->requantize,
                 "Write an NF4 checkpoint where the base was held in NF4; else numbers in full");
  verb->final_callback([options] { run_merge(*options); });
}

}  // namespace finetune
