#include "finetune/generate/generate.h"

#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/commands/commands.h"
#include "finetune/formats/jsonl.h"
#include "finetune/model/adapters.h"

#include <nlohmann/json.hpp>

namespace finetune {

using nlohmann::ordered_json;

namespace {

constexpr std::size_t kBatch = 32;  // prompts answered together

struct GenerateVerbOptions {
  ConfigOptions config;
  std::string model, prompt, input, chat_template;
  std::vector<std::string> adapters;
  std::int64_t max_new_tokens = 256;
  double temperature = 0;
  bool json = false;
};

Config config_of(const GenerateVerbOptions& options) {
  Config config = read_config(options.config);
  if (!options.model.empty()) config.model_name_or_path = options.model;
  if (!options.chat_template.empty()) config.template_name = options.chat_template;
  return config;
}

std::string text_field(const JsonRow& row, const char* key, const std::string& where) {
  const auto found = row.value.find(key);
  if (found == row.value.end() || !found->is_string())
    fail(ErrorKind::data, "{}: '{}' is missing or not a text", where, key);
  return found->get<std::string>();
}

struct Conversation {
  std::vector<Message> messages;
  TemplateInputs inputs;
};

/// What is no role and no plain text goes to the template as it is.
Message message_of(const ordered_json& item, const std::string& where) {
  if (!item.is_object() || !item.contains("role") || !item.at("role").is_string()) {
    fail(ErrorKind::data, "{}: a message is no object with a 'role'", where);
  }
  Message message{item.at("role").get<std::string>(), ""};
  for (const auto& [name, value] : item.items()) {
    if (name == "content" && value.is_string()) {
      message.content = value.get<std::string>();
    } else if (name != "role") {
      message.fields[name] = value;
    }
  }
  if (!item.contains("content") && !item.contains("tool_calls"))
    fail(ErrorKind::data, "{}: 'content' is missing or not a text", where);
  return message;
}

/// {"prompt"} | {"messages", "tools"?, "documents"?} | {"instruction", "input"?}
Conversation conversation_of(const JsonRow& row, const std::string& where) {
  if (!row.value.is_object()) fail(ErrorKind::data, "{}: expected a JSON object", where);
  Conversation conversation;
  if (row.value.contains("messages")) {
    for (const ordered_json& item : row.value.at("messages"))
      conversation.messages.push_back(message_of(item, where));
    if (conversation.messages.empty()) fail(ErrorKind::data, "{}: 'messages' is empty", where);
    if (row.value.contains("tools")) conversation.inputs.tools = row.value.at("tools");
    if (row.value.contains("documents")) conversation.inputs.documents = row.value.at("documents");
    return conversation;
  }
  if (row.value.contains("prompt")) return {{{"user", text_field(row, "prompt", where)}}, {}};
  if (!row.value.contains("instruction")) {
    fail(ErrorKind::data, "{}: has neither 'prompt', 'messages' nor 'instruction'", where);
  }
  Message message{"user", text_field(row, "instruction", where)};
  if (row.value.contains("input")) message.input = text_field(row, "input", where);
  conversation.messages.push_back(std::move(message));
  return conversation;
}

std::vector<Conversation> read_conversations(const GenerateVerbOptions& options,
                                             const Config& config) {
  std::vector<Conversation> conversations;
  if (!options.prompt.empty()) conversations.push_back({{{"user", options.prompt}}, {}});
  if (!options.input.empty()) {
    JsonRowReader reader(options.input, options.input, config.max_row_bytes);
    while (const auto row = reader.next()) {
      conversations.push_back(
          conversation_of(*row, fmt::format("{}:{}", options.input, row->line)));
    }
  }
  if (config.system_prompt) {
    for (auto& [messages, inputs] : conversations) {
      if (messages.front().role != "system")
        messages.insert(messages.begin(), {"system", *config.system_prompt});
    }
  }
  return conversations;
}

/// Answers of one variant of the model; `adapter` names it where there are several.
class Answers {
 public:
  Answers(const GenerateVerbOptions& options, const TextTools& text,
          const std::vector<Conversation>& conversations)
      : options_(options), text_(text), conversations_(conversations) {
    limits_.max_new_tokens = options.max_new_tokens;
    limits_.stop_ids = text.stop_ids;
  }

  void print(const CausalLM& model, const std::string& adapter) const {
    for (std::size_t begin = 0; begin < conversations_.size() && interrupt_signal() == 0;
         begin += kBatch) {
      std::vector<std::string> prompts;
      std::vector<std::vector<std::int32_t>> ids;
      for (std::size_t i = begin; i < std::min(begin + kBatch, conversations_.size()); ++i) {
        const Conversation& conversation = conversations_[i];
        prompts.push_back(
            text_.chat_template->render_prompt(conversation.messages, conversation.inputs));
        ids.push_back(encode_prompt(*text_.tokenizer, prompts.back()).ids);
      }
      const std::vector<Generation> generations = generate(model, ids, limits_);
      for (std::size_t i = 0; i < generations.size(); ++i) {
        print_one(adapter, prompts[i], text_.tokenizer->decode(generations[i].ids, true),
                  generations[i]);
      }
    }
  }

 private:
  void print_one(const std::string& adapter, const std::string& prompt,
                 const std::string& completion, const Generation& generation) const {
    if (!options_.json) {
      const std::string title = adapter.empty() ? "" : "[" + adapter + "]\n";
      return write_output("-", title + completion + "\n");
    }
    ordered_json line = {{"prompt", prompt},
                         {"completion", completion},
                         {"finish_reason", generation.finish_reason},
                         {"tokens", generation.ids.size()}};
    if (!adapter.empty()) line["adapter"] = adapter;
    write_output("-", line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  }

  const GenerateVerbOptions& options_;
  const TextTools& text_;
  const std::vector<Conversation>& conversations_;
  GenerateOptions limits_;
};

void run_generate(const GenerateVerbOptions& options) {
  const Config config = config_of(options);
  if (options.config.show_config) return write_output("-", show_config(config));
  if (options.prompt.empty() == options.input.empty())
    fail(ErrorKind::config, "give either --prompt TEXT or --input FILE");
  if (options.temperature != 0) {
    fail(ErrorKind::config,
         "--temperature {} is not in this version; it has: 0 (the likeliest token every time)",
         options.temperature);
  }
  validate(config, ConfigUse::generate);
  prepare_process(config);
  const TextTools text = load_text_tools(config);
  const auto conversations = read_conversations(options, config);
  std::vector<SavedAdapter> adapters;  // read first: a wrong path is told before the work
  for (const std::string& path : options.adapters) adapters.push_back(read_adapter(path));
  CausalLM model = load_base(config, ModelUse::eval);
  catch_interrupts(config.interrupt_grace_seconds);
  const Answers answers(options, text, conversations);
  if (adapters.empty()) answers.print(model, "");
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    attach_adapter(model, adapters[i]);
    answers.print(model, adapters.size() == 1 ? "" : options.adapters[i]);
    detach_adapters(model);
  }
}

}  // namespace

void add_generate(CLI::App& program) {
  auto options = std::make_shared<GenerateVerbOptions>();
  CLI::App* verb = add_verb(program, "generate", "Answer a prompt, or every row of a file",
                            "finetune generate --model data/tiny-base --adapter runs/lora --prompt "
                            "\"What is an Ingress?\"",
                            std::make_shared<CommonOptions>());
  add_config_options(*verb, options->config);
  verb->add_option("--model", options->model, "Base model")->type_name("DIR");
  verb->add_option("--adapter", options->adapters,
                   "Adapter. Given again: one more, all over one loaded base")
      ->type_name("DIR")
      ->take_all()
      ->allow_extra_args(false);
  verb->add_option("--prompt", options->prompt, "What to answer")->type_name("TEXT");
  verb->add_option("--input", options->input, "Rows with a prompt, messages, or an instruction")
      ->type_name("FILE");
  verb->add_option("--template", options->chat_template,
                   "How a prompt becomes text; default: the key `template`")
      ->type_name("NAME");
  verb->add_option("--max-new-tokens", options->max_new_tokens, "Longest answer in tokens")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  verb->add_option("--temperature", options->temperature, "0 takes the likeliest token every time")
      ->capture_default_str();
  verb->add_flag("--json", options->json, "One JSON object an answer");
  verb->final_callback([options] { run_generate(*options); });
}

}  // namespace finetune
