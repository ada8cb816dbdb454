#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/machine.h"
#include "finetune/base/text.h"
#include "finetune/commands/commands.h"
#include "finetune/dataset/dataset.h"

#include <algorithm>
#include <filesystem>
#include <limits>

namespace finetune {

namespace {

struct InitOptions {
  std::string method = "lora", model, data;
};

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
  Config config;
  config.model_name_or_path = options.model;
  const TextTools text = load_text_tools(config);
  DatasetOptions data_options;
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

/// The longest row with some room, as a power of two, and no more than the model reads.
std::int64_t max_length(const Facts& facts) {
  if (facts.longest == 0) return 2048;
  std::int64_t length = 64;
  while (length < facts.longest) length *= 2;
  return facts.model_longest > 0 ? std::min(length, facts.model_longest) : length;
}

std::string method_lines(const std::string& method) {
  if (method == "full") {
    return "method: full                # every weight is trained: needs 16 bytes of memory for "
           "each\n"
           "learning_rate: 1e-5\n";
  }
  if (method == "adapter") {
    return "method: adapter             # bottleneck adapters, for the adapters library\n"
           "adapter_size: 64            # width of the bottleneck\n"
           "learning_rate: 2e-4\n";
  }
  return std::string(
             "method: lora                # low-rank updates; the model's own weights stay\n") +
         (method == "qlora" ? "quantization: nf4           # those weights in 4 bits\n" : "") +
         "lora_rank: 16               # size of the update\n"
         "lora_alpha: 32              # its scale is alpha / rank\n"
         "target_modules: all-linear  # or attention: half the size\n"
         "learning_rate: 2e-4\n";
}

std::string configuration(const InitOptions& options, const Facts& facts) {
  const std::int64_t batch = facts.rows > 0 ? std::clamp<std::int64_t>(facts.rows / 20, 1, 8) : 8;
  std::string text =
      "# finetune train --config THIS_FILE. Every key is in docs/config.md; finetune plan "
      "--config\n"
      "# THIS_FILE tells memory, time and disk before the start.\n\n";
  if (!facts.about_model.empty()) text += "# " + facts.about_model + "\n";
  text += fmt::format("model_name_or_path: {}\n",
                      options.model.empty() ? "path/to/model" : options.model);
  if (!facts.about_data.empty()) text += "# " + facts.about_data + "\n";
  text += fmt::format("datasets: [{}]\n", options.data.empty() ? "train.jsonl" : options.data);
  const bool few = facts.rows == 1;
  if (!few) {
    text += "eval_split: 0.1             # rows held out; they decide which state is kept\n";
  }
  text += "output_dir: runs/" + options.method + "\n\n" + method_lines(options.method) + "\n";
  text += fmt::format(
      "max_length: {:<16}# tokens; longer rows are an error unless overlength says "
      "otherwise\n",
      max_length(facts));
  text += "num_train_epochs: 3         # how often each row is seen\n";
  text += fmt::format(
      "per_device_train_batch_size: {}   # rows of a step; smaller needs less "
      "memory\n",
      batch);
  text += "gradient_checkpointing: false  # true: far less memory for a third more time\n";
  text += fmt::format("# this machine: {} cores, {} of memory available\n", usable_cores(),
                      format_bytes(memory_limits().usable_bytes()));
  return text;
}

void run_init(const InitOptions& options) {
  const std::vector<std::string> methods = {"lora", "qlora", "full", "adapter"};
  if (options.method == "dpo")
    fail(ErrorKind::config,
         "--method dpo: preference stages have no configuration here yet; it has: {}",
         join(methods, ", "));
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
  verb->add_option("--method", options->method, "lora, qlora, full, or adapter")
      ->capture_default_str();
  verb->add_option("--model", options->model, "Base model")->type_name("DIR");
  verb->add_option("--data", options->data, "Training data")->type_name("FILE");
  verb->final_callback([options] { run_init(*options); });
}

}  // namespace finetune
