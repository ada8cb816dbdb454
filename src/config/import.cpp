#include "finetune/config/import.h"

#include "config/aliases.h"
#include "config/imported.h"
#include "config/numbers.h"
#include "finetune/base/error.h"
#include "finetune/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace finetune {

namespace {

enum class Trainer { axolotl, llama_factory, trl };

/// The keys that tell the trainers apart.
struct TrainerKeys {
  Trainer trainer;
  std::string_view name;
  std::vector<std::string_view> keys;
};

const std::array<TrainerKeys, 3>& all_trainers() {
  static const std::array<TrainerKeys, 3> trainers = {{
      {Trainer::axolotl,
       "Axolotl",
       {"base_model", "sequence_len", "micro_batch_size", "num_epochs", "val_set_size", "adapter",
        "lora_target_linear", "sample_packing", "dataset_prepared_path", "rl", "special_tokens",
        "train_on_inputs", "test_datasets", "optimizer", "lr_scheduler", "lora_model_dir"}},
      {Trainer::llama_factory,
       "LLaMA-Factory",
       {"stage", "finetuning_type", "lora_target", "lora_rank", "cutoff_len", "template", "dataset",
        "dataset_dir", "val_size", "do_train", "plot_loss", "preprocessing_num_workers",
        "pref_loss", "pref_beta", "overwrite_cache", "quantization_bit", "eval_dataset"}},
      {Trainer::trl,
       "TRL",
       {"dataset_name",
        "use_peft",
        "lora_r",
        "lora_target_modules",
        "max_length",
        "max_seq_length",
        "torch_dtype",
        "dtype",
        "dataset_text_field",
        "completion_only_loss",
        "assistant_only_loss",
        "attn_implementation",
        "dataset_train_split",
        "eval_strategy",
        "max_prompt_length",
        "num_generations",
        "reward_funcs",
        "beta",
        "packing",
        "report_to",
        "gradient_checkpointing_kwargs",
        "max_completion_length"}},
  }};
  return trainers;
}

std::string text_of(const YamlValue* value) {
  return value != nullptr && value->kind == YamlValue::Kind::scalar ? value->text : "";
}

bool is_given(const YamlValue* value) {
  return value != nullptr && value->kind != YamlValue::Kind::null;
}

const TrainerKeys& recognise(const YamlValue& root, const std::string& file) {
  const TrainerKeys* best = nullptr;
  std::ptrdiff_t most = 0;
  for (const TrainerKeys& trainer : all_trainers()) {
    const std::ptrdiff_t count =
        std::count_if(trainer.keys.begin(), trainer.keys.end(),
                      [&](std::string_view key) { return root.find(key) != nullptr; });
    if (count > most) best = &trainer;
    most = std::max(most, count);
  }
  if (is_given(root.find("method")) && is_given(root.find("model_name_or_path")))
    fail(ErrorKind::config, "{}: this is a configuration of finetune already; use it with --config",
         file);
  if (best == nullptr)
    fail(ErrorKind::config,
         "{}: none of its keys is one of Axolotl (base_model, sequence_len), LLaMA-Factory "
         "(finetuning_type, cutoff_len) or TRL (dataset_name, use_peft)",
         file);
  return *best;
}

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// Goes through the entries of one file.
class Importer {
 public:
  Importer(const YamlValue& root, const TrainerKeys& trainer, std::string file)
      : root_(root), trainer_(trainer), file_(std::move(file)), out_(std::string(trainer.name)) {}

  ImportedConfig run() {
    for (const YamlEntry& entry : root_.entries) {  // first, since others depend on them
      if (is_given(&entry.value)) add_data(entry);
    }
    for (const YamlEntry& entry : root_.entries) {
      if (!is_given(&entry.value) || is_data(entry.key)) continue;
      if (!add_special(entry) && !add_common(entry)) add_rest(entry);
    }
    set_defaults();
    complete();
    return {std::string(trainer_.name), text(), out_.notes()};
  }

 private:
  bool is_axolotl() const { return trainer_.trainer == Trainer::axolotl; }
  bool is_llama_factory() const { return trainer_.trainer == Trainer::llama_factory; }
  bool is_trl() const { return trainer_.trainer == Trainer::trl; }

  std::string text_at(std::string_view key) const { return text_of(root_.find(key)); }

  bool is_data(std::string_view key) const {
    if (is_axolotl()) return key == "datasets" || key == "test_datasets";
    if (is_llama_factory()) return is_one_of(key, {"dataset", "eval_dataset", "dataset_dir"});
    return is_one_of(key, {"dataset_name", "datasets", "dataset_text_field"});
  }

  void add_data(const YamlEntry& entry) {
    const std::string& key = entry.key;
    if (!is_data(key) || key == "dataset_dir" || key == "dataset_text_field") return;
    if (is_axolotl()) {
      import_axolotl_data(key == "datasets" ? key : "eval_datasets", entry, out_);
    } else if (is_llama_factory()) {
      const std::string folder = text_at("dataset_dir");
      import_llama_factory_data(key == "dataset" ? "datasets" : "eval_datasets", entry,
                                folder.empty() ? "data" : folder, file_, out_);
    } else {
      import_trl_data(entry, text_at("dataset_text_field"), out_);
    }
  }

  bool add_special(const YamlEntry& entry) {
    if (is_axolotl()) return add_axolotl(entry);
    return is_llama_factory() ? add_llama_factory(entry) : add_trl(entry);
  }

  bool add_axolotl(const YamlEntry& entry) {
    const auto& [key, value] = entry;
    if (key == "chat_template") {
      add_template(entry);
    } else if (key == "unfrozen_parameters" && value.kind == YamlValue::Kind::list) {
      std::vector<std::string> patterns;
      for (const YamlValue& item : value.items) patterns.push_back(item.text);
      out_.set("trainable_modules", scalar("(" + join(patterns, "|") + ").*", value.where), key);
    } else if (key == "peft" && value.find("loftq_config") != nullptr) {
      out_.set("init_lora_weights", scalar("loftq", value.where), "peft.loftq_config");
    } else if (key == "bf16" && value.text == "full") {
      out_.set("dtype", scalar("bfloat16", value.where), "bf16: full");
    } else {
      return false;
    }
    return true;
  }

  bool add_llama_factory(const YamlEntry& entry) {
    const auto& [key, value] = entry;
    const std::string& word = value.text;
    if (key == "template") {
      add_template(entry);
    } else if (key == "stage" && word == "pt") {
      out_.set("stage", scalar("sft", value.where), "stage: pt, with rows of {text}");
    } else if (key == "finetuning_type" && word == "freeze") {
      out_.set("method", scalar("full", value.where), "finetuning_type: freeze");
      if (!is_given(root_.find("freeze_trainable_layers")))
        out_.set_default("freeze_trainable_layers", "2");
    } else if (key == "pref_loss" && is_one_of(word, {"orpo", "simpo", "ipo"})) {
      out_.set("stage", scalar(word, value.where), "pref_loss: " + word);
    } else if (key == "stage" && word == "dpo") {
      const std::string loss = text_at("pref_loss");
      if (!is_one_of(loss, {"orpo", "simpo", "ipo"})) out_.add(entry);
    } else if (key == "pissa_init") {
      const std::string rounds = text_at("pissa_iter");
      if (!is_off(value))
        out_.set("init_lora_weights",
                 scalar("pissa_niter_" + (rounds.empty() ? "16" : rounds), value.where), key);
    } else if (is_one_of(key, {"temperature", "top_p", "top_k", "max_length", "max_new_tokens",
                               "do_sample", "num_beams", "repetition_penalty"})) {
      out_.note(entry, "of answers; finetune generate and finetune eval have options for it");
    } else {
      return is_one_of(key, {"do_train", "pissa_iter"});
    }
    return true;
  }

  bool add_trl(const YamlEntry& entry) {
    const auto& [key, value] = entry;
    const std::string& word = value.text;
    if (key == "use_peft") {
      out_.set("method", scalar(is_off(value) ? "full" : "lora", value.where), key + ": " + word);
    } else if (key == "loss_type" && word == "ipo") {
      out_.set("stage", scalar("ipo", value.where), "loss_type: ipo");
    } else if (key == "loss_type" && is_one_of(word, {"grpo", "bnpo", "dr_grpo", "dapo"})) {
      out_.set("grpo_loss_type", value, key);
    } else if (key == "bnb_4bit_quant_type" && word != "nf4") {
      out_.note(entry, "four bits are nf4 here");
    } else {
      const bool plain_loss = key == "loss_type" && is_one_of(word, {"nll", "chunked_nll"});
      const bool usual_split = (key == "dataset_train_split" && word == "train") ||
                               (key == "dataset_test_split" && word == "test");
      return plain_loss || usual_split || key == "lora_task_type" || key == "bnb_4bit_quant_type";
    }
    return true;
  }

  /// A name that we have, else the model's own template, which is what such names copy.
  void add_template(const YamlEntry& entry) {
    const std::string& name = entry.value.text;
    if (name.starts_with("tokenizer_default")) {
      out_.set("template", scalar("auto", entry.value.where), entry.key + ": " + name);
    } else if (is_one_of(name, {"alpaca", "chatml", "llama2", "llama3", "mistral", "gemma", "phi3",
                                "qwen", "vicuna"})) {
      out_.set("template", entry.value, entry.key == "template" ? "" : entry.key);
    } else {
      out_.set("template", scalar("auto", entry.value.where), entry.key + ": " + name);
      out_.note(entry,
                "the model's own chat template is used; 'finetune inspect data' shows the "
                "rows, and a file ending in .jinja may be given");
    }
  }

  bool add_common(const YamlEntry& entry) {
    const auto& [key, value] = entry;
    const bool evaluates = key == "eval_strategy" || key == "evaluation_strategy";
    if (evaluates || key == "save_strategy" || key == "logging_strategy") {
      if (value.text != "steps" && value.text != "epoch")
        out_.note(entry, evaluates ? "leave eval_datasets and eval_split out for that"
                                   : "checkpoints are kept at the end of each epoch, or every "
                                     "save_steps");
    } else if (key == "eval_steps" || key == "save_steps") {
      if (strategy_of(key) != "epoch") return false;
    } else if (key == "evals_per_epoch" || key == "saves_per_epoch") {
      if (value.text != "1")
        out_.note(entry,
                  fmt::format("set {} to the steps of an epoch divided by {}",
                              key == "evals_per_epoch" ? "eval_steps" : "save_steps", value.text));
    } else if (is_one_of(key, {"val_set_size", "val_size"})) {
      const auto number = parse_number(value.text);
      if (number && *number < 1) return *number == 0;
      out_.note(entry, "a number of rows; eval_split takes a fraction of them");
    } else if (is_one_of(key, {"load_best_model_at_end", "early_stopping_patience",
                               "early_stopping_steps"})) {
      if (evaluated() || is_off(value)) return false;
      out_.note(entry, "there are no evaluation data; give eval_datasets or eval_split");
    } else {
      return add_schedule(entry);
    }
    return true;
  }

  bool add_schedule(const YamlEntry& entry) {
    const auto& [key, value] = entry;
    const bool schedules = key == "lr_scheduler" || key == "lr_scheduler_type";
    if (key == "optim" || key == "optimizer") {
      if (!is_one_of(value.text, {"paged_adamw_8bit", "paged_adamw_32bit"})) return false;
      out_.set("optim",
               scalar(value.text == "paged_adamw_8bit" ? "adamw_8bit" : "adamw", value.where),
               key + ": " + value.text);
    } else if (schedules && value.text == "cosine" && is_given(root_.find("cosine_min_lr_ratio"))) {
      out_.set("lr_scheduler_type", scalar("cosine_with_min_lr", value.where),
               "cosine with cosine_min_lr_ratio");
    } else if (key == "cosine_min_lr_ratio") {
      out_.set("min_lr_ratio", value, key);
    } else if (key == "lr_scheduler_kwargs" && value.kind == YamlValue::Kind::map) {
      for (const YamlEntry& part : value.entries) {
        if (part.key == "min_lr_rate") {
          out_.set("min_lr_ratio", part.value, "min_lr_rate");
        } else if (is_given(&part.value)) {
          out_.note(part, "the shapes of the learning rate here have no such number");
        }
      }
    } else {
      return false;
    }
    return true;
  }

  /// A key of ours under any name, or something to tell the user.
  void add_rest(const YamlEntry& entry) {
    const bool is_section = entry.value.kind == YamlValue::Kind::map;
    const std::string ours = keys_.key_of(entry.key);
    const bool known = !ours.empty() || translated_names().contains(entry.key);
    if (known && (!is_section || keys_.is_map(ours))) return out_.add(entry);
    std::string_view advice = advice_for(entry.key);
    if (advice.ends_with("; leave it out"))
      advice.remove_suffix(std::string_view("; leave it out").size());
    if (is_off(entry.value) && !advice.empty()) return;  // it is off there, and here there is none
    out_.note(entry, advice.empty() ? "nothing like it here" : advice);
  }

  std::string strategy_of(std::string_view steps_key) const {
    if (steps_key == "save_steps") return text_at("save_strategy");
    const std::string strategy = text_at("eval_strategy");
    return strategy.empty() ? text_at("evaluation_strategy") : strategy;
  }

  /// Whether there will be evaluation data.
  bool evaluated() const {
    for (const char* key : {"val_set_size", "val_size"}) {
      const auto number = parse_number(text_at(key));
      if (number && *number > 0 && *number < 1) return true;
    }
    return !out_.config().eval_datasets.empty();
  }

  /// Where the trainer's defaults are not ours. Its documentation has them.
  void set_defaults() {
    if (is_trl()) set_trl_stage();
    const Stage stage = out_.config().stage;
    if (is_axolotl() || is_trl()) out_.set_default("method", "full");
    if (is_axolotl()) {
      out_.set_default("max_length", "512");
      out_.set_default("overlength", "drop");
      out_.set_default("num_train_epochs", "1");
      out_.set_default("per_device_train_batch_size", "1");
    } else {
      out_.set_default("overlength", "truncate");
      out_.set_default("lr_scheduler_type", "linear");
      if (!out_.has("warmup_steps")) out_.set_default("warmup_ratio", "0");
    }
    if (is_trl()) {
      out_.set_default("max_length", "1024");
      out_.set_default("learning_rate", stage == Stage::sft      ? "2e-5"
                                        : stage == Stage::reward ? "1e-4"
                                                                 : "1e-6");
    } else if (is_llama_factory()) {
      out_.set_default("learning_rate", "5e-5");
    }
    if (out_.config().method == Method::lora) set_lora_defaults();
    if (evaluated()) out_.set_default("load_best_model_at_end", "false");
  }

  void set_lora_defaults() {
    if (is_llama_factory()) {
      out_.set_default("lora_rank", "8");
      out_.set_default("lora_alpha", fmt::format("{}", 2 * out_.config().lora_rank));
      out_.set_default("target_modules", "all-linear");
    } else if (is_trl()) {
      out_.set_default("lora_dropout", "0.05");
      out_.set_default("target_modules", "q_proj, v_proj");
      if (out_.config().quantization == Quantization::nf4)
        out_.set_default("double_quant", "false");
    }
  }

  /// TRL has a verb for each stage, which the file does not show.
  void set_trl_stage() {
    struct Sign {
      std::string_view key, stage;
    };
    constexpr Sign kSigns[] = {{"reward_funcs", "grpo"},
                               {"num_generations", "grpo"},
                               {"desirable_weight", "kto"},
                               {"undesirable_weight", "kto"},
                               {"beta", "dpo"},
                               {"max_prompt_length", "dpo"},
                               {"precompute_ref_log_probs", "dpo"},
                               {"center_rewards_coefficient", "reward"}};
    for (const Sign& sign : kSigns) {
      if (out_.has("stage") || !is_given(root_.find(sign.key))) continue;
      out_.set("stage", scalar(std::string(sign.stage), root_.find(sign.key)->where),
               fmt::format("since there is {}", sign.key));
    }
    const bool said =
        is_given(root_.find("assistant_only_loss")) || is_given(root_.find("completion_only_loss"));
    if (out_.config().stage == Stage::sft && !said && !out_.has("train_on_prompt"))
      out_.note(file_,
                "assistant_only_loss is not given: on conversations TRL then trains every "
                "token, and here answers alone are trained; train_on_prompt: true is TRL's "
                "way");
    const std::string evaluation = strategy_of("eval_steps");
    if (!evaluation.empty() && evaluation != "no" && !evaluated())
      out_.note(file_, "eval_strategy: " + evaluation +
                           ": TRL evaluates the test split; save it as a file and give "
                           "eval_datasets");
  }

  /// What a run cannot be without, and what only a person can do.
  void complete() {
    std::error_code ignored;
    const std::string& model = out_.config().model_name_or_path;
    if (model.empty()) {
      out_.set("model_name_or_path", scalar("path/to/model", file_), "not given");
    } else if (!std::filesystem::is_directory(model, ignored)) {
      out_.note(out_.config().origins.at("model_name_or_path"),
                model +
                    ": there is no such folder, and nothing is fetched here; download the "
                    "model and give its folder");
    }
    if (!out_.has("datasets")) {
      DatasetSpec spec;
      spec.path = "train.jsonl";
      out_.set_data("datasets", {spec}, {"not given"}, file_);
    }
    try {
      validate(out_.config(), ConfigUse::plan);
    } catch (const Error& error) {
      out_.note(file_, std::string("before it runs: ") + error.what());
    }
  }

  std::string text() const {
    std::string text = fmt::format(
        "# From {}, a configuration of {}. Every key is in docs/config.md; behind a value stands\n"
        "# what it was called there. `finetune plan --config THIS_FILE` says what it will "
        "need.\n\n",
        file_, trainer_.name);
    text += out_.yaml();
    if (out_.notes().empty()) return text;
    text += fmt::format("\n# Without a counterpart, or for you to do ({}):\n", out_.notes().size());
    for (const std::string& note : out_.notes()) {
      std::string line = "# - " + note + "\n";
      for (std::size_t at = 0; (at = line.find('\n', at)) + 1 < line.size();)
        line.insert(++at, "#   ");
      text += line;
    }
    return text;
  }

  const YamlValue& root_;
  const TrainerKeys& trainer_;
  const std::string file_;
  const KeyTable keys_;
  Imported out_;
};

}  // namespace

ImportedConfig import_config(const std::filesystem::path& file) {
  Problems problems;
  const YamlValue root = read_yaml_file(file, problems);
  if (!problems.empty()) throw Error(ErrorKind::config, join_problems(problems));
  return Importer(root, recognise(root, file.string()), file.string()).run();
}

}  // namespace finetune
