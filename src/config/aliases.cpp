#include "config/aliases.h"

#include "config/numbers.h"

#include <fmt/format.h>

namespace finetune {

namespace {

using Assignments = std::vector<Assignment>;

/// A switch that sets `key` to `word` when it is on. Off says nothing: a file with `load_in_4bit:
/// false` and `load_in_8bit: true` is not a contradiction.
struct Switch {
  std::string_view name;
  std::string_view key;
  std::string_view word;
};

constexpr Switch kSwitches[] = {
    {"load_in_4bit", "quantization", "nf4"},
    {"load_in_8bit", "quantization", "int8"},
    {"bf16", "dtype", "bfloat16"},
    {"fp16", "dtype", "float16"},
    {"lora_target_linear", "target_modules", "all-linear"},
};

/// Switches that are train_on_prompt the other way round.
constexpr std::string_view kInverseOfTrainOnPrompt[] = {
    "train_on_completions", "completion_only_loss", "assistant_only_loss", "mask_prompt"};

Assignments translate_switch(const Switch& entry, const YamlValue& value, Problems& problems) {
  if (value.kind == YamlValue::Kind::scalar && value.text == "auto") return {};
  const auto flag =
      value.kind == YamlValue::Kind::scalar ? parse_bool(value.text) : std::optional<bool>();
  if (!flag) {
    problems.push_back(fmt::format("{}: '{}' is {}; expected true or false, or better '{}: {}'",
                                   value.where, entry.name, describe(value), entry.key,
                                   entry.word));
    return {};
  }
  if (!*flag) return {};
  return {{std::string(entry.key), scalar(std::string(entry.word), value.where)}};
}

Assignments translate_inverse(const std::string& name, const YamlValue& value, Problems& problems) {
  const auto flag =
      value.kind == YamlValue::Kind::scalar ? parse_bool(value.text) : std::optional<bool>();
  if (!flag) {
    problems.push_back(
        fmt::format("{}: '{}' is {}; expected true or false, or better 'train_on_prompt'",
                    value.where, name, describe(value)));
    return {};
  }
  return {{"train_on_prompt", scalar(*flag ? "false" : "true", value.where)}};
}

Assignments translate_bits(const YamlValue& value, Problems& problems) {
  const auto bits = parse_integer(value.text);
  if (bits != 4 && bits != 8) {
    problems.push_back(
        fmt::format("{}: 'quantization_bit' is {}; expected 4 or 8, or better "
                    "'quantization: nf4' or 'quantization: int8'",
                    value.where, describe(value)));
    return {};
  }
  return {{"quantization", scalar(bits == 4 ? "nf4" : "int8", value.where)}};
}

bool is_method_name(std::string_view name) {
  return name == "method" || name == "adapter" || name == "finetuning_type" ||
         name == "fine_tune_type" || name == "tuner_type" || name == "training_type";
}

// Keys that other trainers have and this program has not.

constexpr std::string_view kPacking =
    "batches here are never padded, so there is nothing to pack; leave it out, or set "
    "tokens_per_batch to fill batches up";
constexpr std::string_view kAttention = "attention is chosen by the program; leave it out";
constexpr std::string_view kKernels = "kernels are chosen by the program; leave it out";
constexpr std::string_view kTracker =
    "metrics.jsonl and tensorboard/ are always written and nothing is sent anywhere; leave it "
    "out";
constexpr std::string_view kStrategy =
    "set eval_steps or save_steps, or leave them out for once per epoch; leave this key out";
constexpr std::string_view kCache =
    "tokenized rows are kept in the folder FINETUNE_CACHE_DIR; leave it out";
constexpr std::string_view kResume = "resume with 'finetune train --resume'";
constexpr std::string_view kModelFolder = "the model's folder says it; leave it out";
constexpr std::string_view kTokens =
    "tokens and their meaning are those of the model's folder; change them there";

using Advice = std::pair<std::string_view, std::string_view>;  // key, what to do instead

constexpr Advice kAdvice[] = {
    {"packing", kPacking},
    {"sample_packing", kPacking},
    {"eval_sample_packing", kPacking},
    {"eval_packing", kPacking},
    {"neat_packing", kPacking},
    {"pad_to_sequence_len", kPacking},
    {"padding_free", kPacking},
    {"group_by_length", kPacking},
    {"flash_attention", kAttention},
    {"flash_attn", kAttention},
    {"attn_implementation", kAttention},
    {"xformers_attention", kAttention},
    {"sdp_attention", kAttention},
    {"eager_attention", kAttention},
    {"gradient_checkpointing_kwargs", "there is one way to do it here; leave it out"},
    {"torch_compile", kKernels},
    {"tf32", kKernels},
    {"plugins", kKernels},
    {"cut_cross_entropy", kKernels},
    {"use_liger_kernel", kKernels},
    {"enable_liger_kernel", kKernels},
    {"use_unsloth", kKernels},
    {"report_to", kTracker},
    {"use_wandb", kTracker},
    {"run_name", kTracker},
    {"logging_dir", kTracker},
    {"plot_loss", "report.html always has the curves; leave it out"},
    {"eval_strategy", kStrategy},
    {"evaluation_strategy", kStrategy},
    {"save_strategy", kStrategy},
    {"resume_from_checkpoint", kResume},
    {"auto_resume_from_checkpoints", kResume},
    {"bnb_4bit_compute_dtype", "set dtype"},
    {"bnb_4bit_quant_type", "set 'quantization: nf4'"},
    {"lr_scheduler_kwargs", "set min_lr_ratio or wsd_decay_ratio"},
    {"dataset_name", "set datasets to the path of a local file"},
    {"dataset_prepared_path", kCache},
    {"overwrite_cache", kCache},
    {"max_samples", "an entry of datasets has a weight, which may be below 1"},
    {"push_to_hub", "nothing is sent anywhere; leave it out"},
    {"trust_remote_code", "no code of a model is ever run; leave it out"},
    {"bias", "biases are never trained beside an adapter; leave it out"},
    {"do_train", "the verb says it: finetune train"},
    {"do_eval", "give eval_datasets or eval_split"},
    {"do_predict", "the verb says it: finetune eval --generate"},
    {"predict_with_generate", "the verb says it: finetune eval --generate"},
    {"model_type", kModelFolder},
    {"tokenizer_type", kModelFolder},
    {"tokenizer_use_fast", kModelFolder},
    {"use_fast_tokenizer", kModelFolder},
    {"special_tokens", kTokens},
    {"tokens", kTokens},
    {"lora_fan_in_fan_out", kModelFolder},
    {"ref_model", "the reference is the state at step 0, or reference_adapter"},
    {"precompute_ref_log_probs", "they always are, once; leave it out"},
    {"deepspeed", "a run is one process here; leave it out"},
    {"local_rank", "a run is one process here; leave it out"},
    {"strict", "always so here; leave it out"},
    {"debug", "use --verbose"},
};

/// By what a key begins with.
constexpr Advice kAdviceForFamilies[] = {
    {"wandb_", kTracker},
    {"mlflow_", kTracker},
    {"comet_", kTracker},
    {"swanlab_", kTracker},
    {"hub_", "nothing is sent anywhere; leave it out"},
    {"hf_", "nothing is sent anywhere; leave it out"},
    {"fsdp", "a run is one process here; leave it out"},
    {"ddp_", "a run is one process here; leave it out"},
    {"liger_", kKernels},
    {"vllm_", kKernels},
    {"dataloader_", "rows are read once, by threads; leave it out"},
    {"preprocessing_num_", "rows are read once, by threads; leave it out"},
    {"dataset_num_", "rows are read once, by threads; leave it out"},
    {"dataset_process", "rows are read once, by threads; leave it out"},
    {"include_", "metrics.jsonl has tokens and tokens_per_second; leave it out"},
};

}  // namespace

std::optional<Assignments> translate(const std::string& name, const YamlValue& value,
                                     Problems& problems) {
  const std::string& text = value.text;
  const bool absent = value.kind == YamlValue::Kind::null;
  if (absent && name == "adapter") {
    problems.push_back(
        fmt::format("{}: 'adapter' is empty, which may mean that the whole model is trained; "
                    "write 'method: full' or 'method: lora'",
                    value.where));
  }
  if (absent && translated_names().contains(name)) return Assignments{};
  for (const Switch& entry : kSwitches) {
    if (entry.name == name) return translate_switch(entry, value, problems);
  }
  for (const std::string_view inverse : kInverseOfTrainOnPrompt) {
    if (inverse == name) return translate_inverse(name, value, problems);
  }
  if (name == "quantization_bit") return translate_bits(value, problems);
  if (is_method_name(name) && text == "qlora") {
    return Assignments{{"method", scalar("lora", value.where)},
                       {"quantization", scalar("nf4", value.where)}};
  }
  if (name == "adapter") return Assignments{{"method", value}};
  if (name == "lora_target" && text == "all") {
    return Assignments{{"target_modules", scalar("all-linear", value.where)}};
  }
  if (name == "warmup_steps") {
    const auto number = parse_number(text);
    if (number && *number > 0 && *number < 1) return Assignments{{"warmup_ratio", value}};
  }
  return std::nullopt;
}

const std::map<std::string, std::string, std::less<>>& translated_names() {
  static const std::map<std::string, std::string, std::less<>> names = {
      {"load_in_4bit", "`true` is `quantization: nf4`"},
      {"load_in_8bit", "`true` is `quantization: int8`"},
      {"quantization_bit", "`4` is `quantization: nf4`, `8` is `quantization: int8`"},
      {"bf16", "`true` is `dtype: bfloat16`"},
      {"fp16", "`true` is `dtype: float16`"},
      {"lora_target_linear", "`true` is `target_modules: all-linear`"},
      {"adapter", "`lora` is `method: lora`, `qlora` is that with `quantization: nf4`"},
      {"train_on_completions", "the opposite of `train_on_prompt`"},
      {"completion_only_loss", "the opposite of `train_on_prompt`"},
      {"assistant_only_loss", "the opposite of `train_on_prompt`"},
      {"mask_prompt", "the opposite of `train_on_prompt`"},
  };
  return names;
}

std::string_view advice_for(std::string_view name) {
  for (const auto& [key, text] : kAdvice) {
    if (name == key) return text;
  }
  for (const auto& [beginning, text] : kAdviceForFamilies) {
    if (name.starts_with(beginning)) return text;
  }
  return {};
}

}  // namespace finetune
