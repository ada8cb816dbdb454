#include "finetune/generate/generate.h"

#include "commands/chat.h"
#include "commands/conversations.h"
#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/commands/commands.h"
#include "finetune/generate/answer_text.h"
#include "finetune/model/adapters.h"

#include <nlohmann/json.hpp>

namespace finetune {

using nlohmann::ordered_json;

namespace {

constexpr double kChatTemperature = 0.7;

struct GenerateVerbOptions {
  ConfigOptions config;
  std::string model, prompt, input, chat_template;
  std::vector<std::string> adapters, stops;
  std::int64_t max_new_tokens = 256;
  std::optional<double> temperature;
  std::optional<std::int64_t> seed;
  SamplingOptions sampling;
  bool json = false, chat = false;
};

Config config_of(const GenerateVerbOptions& options) {
  Config config = read_config(options.config);
  if (!options.model.empty()) config.model_name_or_path = options.model;
  if (!options.chat_template.empty()) config.template_name = options.chat_template;
  return config;
}

void check_options(const GenerateVerbOptions& options) {
  const int ways =
      (options.prompt.empty() ? 0 : 1) + (options.input.empty() ? 0 : 1) + (options.chat ? 1 : 0);
  if (ways != 1)
    fail(ErrorKind::config, "give one of --prompt TEXT, --input FILE and --chat; found {}", ways);
  if (options.chat && options.json)
    fail(ErrorKind::config, "--json is for --prompt and --input; --chat prints text");
  for (const std::string& stop : options.stops) {
    if (stop.empty())
      fail(ErrorKind::config, "--stop is empty; expected a text that ends an answer");
  }
}

GenerateOptions generate_options(const GenerateVerbOptions& options, const Config& config,
                                 const TextTools& text) {
  GenerateOptions result;
  result.max_new_tokens = options.max_new_tokens;
  result.stop_ids = text.stop_ids;
  result.sampling = options.sampling;
  result.sampling.temperature = options.temperature.value_or(options.chat ? kChatTemperature : 0);
  result.sampling.seed = static_cast<std::uint64_t>(options.seed.value_or(config.seed));
  const SamplingOptions& sampling = result.sampling;
  if (sampling.greedy() && (sampling.top_k > 0 || sampling.top_p < 1 || sampling.min_p > 0)) {
    log_warning("generate",
                "--top-k, --top-p and --min-p have no effect with --temperature 0, which takes the "
                "likeliest token every time");
  }
  return result;
}

/// Answers of one variant of the model, printed in the order of the prompts as they get finished;
/// `adapter` names the variant where there are several.
class Answers {
 public:
  Answers(const GenerateVerbOptions& options, GenerateOptions limits, const TextTools& text,
          const std::vector<Conversation>& conversations)
      : options_(options), limits_(std::move(limits)), text_(text) {
    for (const Conversation& conversation : conversations) {
      prompts_.push_back(
          text.chat_template->render_prompt(conversation.messages, conversation.inputs));
      ids_.push_back(encode_prompt(*text.tokenizer, prompts_.back()).ids);
    }
  }

  void print(const CausalLM& model, const std::string& adapter) const {
    GenerateOptions limits = limits_;
    std::vector<AnswerText> answers(prompts_.size(), AnswerText(*text_.tokenizer, options_.stops));
    if (!options_.stops.empty()) {
      limits.on_token = [&](std::size_t i, std::span<const std::int32_t> ids) {
        return answers[i].update(ids);
      };
    }
    std::vector<std::optional<Generation>> finished(prompts_.size());
    std::size_t next = 0;
    limits.on_finish = [&](std::size_t i, const Generation& generation) {
      finished[i] = generation;
      for (; next < finished.size() && finished[next]; ++next) {
        // The ids, not what on_token left: it has not seen an answer without a token.
        answers[next].update(finished[next]->ids);
        print_one(adapter, prompts_[next], answers[next].text(), *finished[next]);
      }
    };
    generate(model, ids_, limits);
    if (next < finished.size())
      log_warning("generate", "interrupted; {} of {} answers were printed", next, finished.size());
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
  GenerateOptions limits_;
  const TextTools& text_;
  std::vector<std::string> prompts_;
  std::vector<std::vector<std::int32_t>> ids_;
};

void run_generate(const GenerateVerbOptions& options) {
  const Config config = config_of(options);
  if (options.config.show_config) return write_output("-", show_config(config));
  check_options(options);
  validate(config, ConfigUse::generate);
  prepare_process(config);
  const TextTools text = load_text_tools(config);
  const GenerateOptions limits = generate_options(options, config, text);
  std::vector<Conversation> conversations;
  if (!options.prompt.empty()) conversations.push_back({{{"user", options.prompt}}, {}});
  if (!options.input.empty()) conversations = read_conversations(options.input, config);
  add_system_prompt(config, conversations);
  std::vector<NamedAdapter> adapters;  // read first: a wrong path is told before the work
  for (std::size_t i = 0; i < options.adapters.size(); ++i)
    adapters.push_back({adapter_name(options.adapters, i), read_text_adapter(options.adapters[i])});
  CausalLM model = load_base(config, ModelUse::eval);
  if (options.chat) {
    return run_chat(model, text,
                    {limits, options.stops, config.system_prompt, std::move(adapters)});
  }
  catch_interrupts(config.interrupt_grace_seconds);
  const Answers answers(options, limits, text, conversations);
  if (adapters.empty()) answers.print(model, "");
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    attach_adapter(model, adapters[i].saved);
    answers.print(model, adapters.size() == 1 ? "" : options.adapters[i]);
    detach_adapters(model);
  }
}

void add_sampling_options(CLI::App& verb, GenerateVerbOptions& options) {
  SamplingOptions& sampling = options.sampling;
  verb.add_option("--max-new-tokens", options.max_new_tokens, "Longest answer in tokens")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  verb.add_option("--temperature", options.temperature,
                  "0 takes the likeliest token every time; default: 0, with --chat 0.7")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--top-k", sampling.top_k, "Draw from the K likeliest tokens; 0: from all")
      ->type_name("K")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--top-p", sampling.top_p,
                  "Draw from the likeliest tokens that together have this probability")
      ->check(CLI::Range(0.0, 1.0));
  verb.add_option("--min-p", sampling.min_p,
                  "Draw from tokens with at least this share of the likeliest one's probability")
      ->check(CLI::Range(0.0, 1.0));
  verb.add_option("--repetition-penalty", sampling.repetition_penalty,
                  "Above 1: tokens that were there before get less likely")
      ->check(CLI::PositiveNumber);
  verb.add_option("--stop", options.stops,
                  "A text that ends the answer and is not part of it. Given again: one more")
      ->type_name("TEXT")
      ->take_all()
      ->allow_extra_args(false);
  verb.add_option("--seed", options.seed, "Of the draws; default: the key `seed`")
      ->check(CLI::NonNegativeNumber);
}

}  // namespace

void add_generate(CLI::App& program) {
  auto options = std::make_shared<GenerateVerbOptions>();
  CLI::App* verb = add_verb(program, "generate",
                            "Answer a prompt, every row of a file, or a person at the terminal",
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
  verb->add_flag("--chat", options->chat,
                 "Talk: streamed answers, turn by turn; /help lists the commands");
  verb->add_option("--template", options->chat_template,
                   "How a prompt becomes text; default: the key `template`")
      ->type_name("NAME");
  add_sampling_options(*verb, *options);
  verb->add_flag("--json", options->json, "One JSON object an answer");
  verb->final_callback([options] { run_generate(*options); });
}

}  // namespace finetune
