#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/log.h"
#include "finetune/base/machine.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/config/import.h"
#include "finetune/config/keys.h"
#include "finetune/dataset/dataset.h"

#include <algorithm>
#include <filesystem>
#include <limits>

namespace finetune {

namespace {

struct InitOptions {
  std::string method = "lora", model, data, from;
};

constexpr std::int64_t kCompletionTokens = 64;  // room for the answers that grpo samples

/// The stages that --method also takes: those that learn from more than one answer.
std::vector<std::string> preference_stages() {
  std::vector<std::string> stages = available_words("stage");
  std::erase(stages, "sft");
  return stages;
}

bool is_stage(const std::string& method) {
  const std::vector<std::string> stages = preference_stages();
  return std::find(stages.begin(), stages.end(), method) != stages.end();
}

/// What the given model and data say; the defaults are for those that are not given.
struct Facts {
  std::string about_model, about_data;
  std::int64_t rows = 0, longest = 0, hidden = 0, model_longest = 0;
};

Facts look(const InitOptions& options) {
  Facts facts;
  if (options.model.empty()) return facts;
  const ModelConfig model = read_model_config(options.model);
  facts.hidden = model.hidden_size;
  facts.model_longest = model.longest_sequence();
  facts.about_model =
      fmt::format("{}, {} blocks of width {}, reads up to {} tokens", model.model_type,
                  model.num_hidden_layers, model.hidden_size, format_count(facts.model_longest));
  if (options.data.empty()) return facts;
  std::vector<std::string> settings = {
      "model_name_or_path=" + options.model,
      "stage=" + (is_stage(options.method) ? options.method : "sft")};
  if (options.method == "grpo") settings.push_back("reward_funcs=answer");
  const Config config = load_config({std::nullopt, settings});
  const TextTools text = load_text_tools(config);
  DatasetOptions data_options = dataset_options(config, 0);
  data_options.max_length = std::numeric_limits<std::int64_t>::max();
  const Dataset data = open_dataset({DatasetSpec{.path = options.data}}, *text.tokenizer,
                                    *text.chat_template, data_options);
  facts.rows = data.summary.rows;
  facts.longest = data.summary.longest;
  facts.about_data =
      fmt::format("{} rows, {} tokens, the longest row has {}", format_count(facts.rows),
                  format_count(data.summary.tokens), format_count(facts.longest));
  return facts;
}

/// The longest row and what is written behind it, with some room, as a power of two, and no more
/// than the model reads.
std::int64_t max_length(const std::string& method, const Facts& facts) {
  if (facts.longest == 0) return 2048;
  const std::int64_t longest = facts.longest + (method == "grpo" ? kCompletionTokens : 0);
  std::int64_t length = 64;
  while (length < longest) length *= 2;
  return facts.model_longest > 0 ? std::min(length, facts.model_longest) : length;
}

/// "key: value    # comment" with the comments in one column.
std::string line(const std::string& setting, const std::string& comment = "") {
  return comment.empty() ? setting + "\n" : fmt::format("{:<30} # {}\n", setting, comment);
}

/// The smaller a model, the higher the rate it takes.
std::string lora_rate(const Facts& facts) {
  const bool small = facts.hidden > 0 && facts.hidden < 512;
  if (small) return line("learning_rate: 3e-3", "for a model this small; large ones take 2e-4");
  return line("learning_rate: 2e-4");
}

/// The stage, what it is for, and what it cannot do without.
std::string stage_lines(const std::string& stage) {
  if (stage == "grpo") {
    return line("stage: grpo", "writes answers and learns from their rewards; docs/grpo.md") +
           line("reward_funcs: [answer]", "1 for the row's own answer; the page has others") +
           line("num_generations: 8", "answers to each prompt") +
           line(fmt::format("max_completion_length: {}", kCompletionTokens), "their tokens");
  }
  const char* teaches = stage == "kto"      ? "learns from answers marked good or bad"
                        : stage == "reward" ? "learns to score answers, for grpo and eval"
                                            : "learns which answers are better";
  return line("stage: " + stage, fmt::format("{}; docs/preferences.md", teaches));
}

std::string method_lines(const std::string& method, const Facts& facts) {
  if (method == "full") {
    return line("method: full", "every weight is trained: needs 16 bytes of memory for each") +
           line("learning_rate: 1e-5");
  }
  if (method == "adapter") {
    return line("method: adapter", "bottleneck adapters, for the adapters library") +
           line("adapter_size: 64", "width of the bottleneck") + lora_rate(facts);
  }
  std::string text;
  if (is_stage(method)) text += stage_lines(method);
  text += line("method: lora", "low-rank updates; the model's own weights stay");
  if (method == "qlora") text += line("quantization: nf4", "those weights in 4 bits");
  text += line("lora_rank: 16", "size of the update") +
          line("lora_alpha: 32", "its scale is alpha / rank") +
          line("target_modules: all-linear", "or attention: half the size");
  if (is_stage(method)) return text + line("learning_rate: 5e-6", "far below that of instructions");
  return text + lora_rate(facts);
}

std::string configuration(const InitOptions& options, const Facts& facts) {
  const std::int64_t batch = facts.rows > 0 ? std::clamp<std::int64_t>(facts.rows / 20, 1, 8) : 8;
  const bool one_row = facts.rows == 1;
  std::string text =
      "# finetune train --config THIS_FILE. Every key is in docs/config.md; before the start,\n"
      "# finetune plan --config THIS_FILE tells memory, time and disk.\n\n";
  if (!facts.about_model.empty()) text += "# " + facts.about_model + "\n";
  text += line("model_name_or_path: " + (options.model.empty() ? "path/to/model" : options.model));
  if (!facts.about_data.empty()) text += "# " + facts.about_data + "\n";
  text += line("datasets: [" + (options.data.empty() ? "train.jsonl" : options.data) + "]");
  if (!one_row) text += line("eval_split: 0.1", "rows held out; they decide which state is kept");
  text += line("output_dir: runs/" + options.method) + "\n" + method_lines(options.method, facts) +
          "\n";
  text += line(fmt::format("max_length: {}", max_length(options.method, facts)),
               "tokens; longer rows are an error unless overlength says otherwise");
  text += line("num_train_epochs: 3", "how often each row is seen");
  text += line(fmt::format("per_device_train_batch_size: {}", batch),
               "rows of a step; smaller needs less memory");
  text += line("gradient_checkpointing: false", "true: far less memory for a third more time");
  text += fmt::format("# this machine: {} cores, {} of memory available\n", usable_cores(),
                      format_bytes(memory_limits().usable_bytes()));
  return text;
}

/// A configuration of another trainer in our words; what it cannot say is said on standard error.
void run_import(const std::string& file) {
  const ImportedConfig imported = import_config(file);
  write_output("-", imported.yaml);
  log_info("init", "{}: read as a configuration of {}", file, imported.trainer);
  for (const std::string& note : imported.notes) log_info("init", "{}", note);
}

void run_init(const InitOptions& options) {
  std::vector<std::string> methods = {"lora", "qlora", "full", "adapter"};
  for (const std::string& stage : preference_stages()) methods.push_back(stage);
  if (std::find(methods.begin(), methods.end(), options.method) == methods.end()) {
    const std::string near = nearest(options.method, methods);
    fail(ErrorKind::config, "--method {}: expected one of {}{}", options.method,
         join(methods, ", "), near.empty() ? "" : "; did you mean " + near + "?");
  }
  if (options.model.empty() && !options.data.empty())
    fail(ErrorKind::config, "--data is read with the model's tokenizer; give --model too");
  write_output("-", configuration(options, look(options)));
}

}  // namespace

void add_init(CLI::App& program) {
  auto options = std::make_shared<InitOptions>();
  CLI::App* verb =
      add_verb(program, "init", "Write a configuration that fits model and data",
               "finetune init --model data/tiny-base --data data/kubernetes/train.jsonl",
               std::make_shared<CommonOptions>());
  auto* method = verb->add_option("--method", options->method,
                                  "lora, qlora, full, adapter, or a stage such as dpo")
                     ->capture_default_str();
  auto* model = verb->add_option("--model", options->model, "Base model")->type_name("DIR");
  auto* data = verb->add_option("--data", options->data, "Training data")->type_name("FILE");
  verb->add_option("--from", options->from,
                   "Turn a configuration of Axolotl, LLaMA-Factory or TRL into one of ours")
      ->type_name("FILE")
      ->excludes(method)
      ->excludes(model)
      ->excludes(data);
  verb->final_callback([options] {
    if (options->from.empty()) {
      run_init(*options);
    } else {
      run_import(options->from);
    }
  });
}

}  // namespace finetune
