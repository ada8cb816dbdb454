#include "commands/inspect.h"
#include "commands/session.h"
#include "finetune/base/error.h"
#include "finetune/text/chat_template.h"

#include <iostream>

namespace finetune {

using nlohmann::ordered_json;

namespace {

struct InspectTemplateOptions {
  std::string model, chat_template;
};

/// One row's variables over what the model's files name and the defaults.
ordered_json variables_of(const ordered_json& row, const RawTemplate& raw) {
  ordered_json variables = {
      {"bos_token", "<s>"}, {"eos_token", "</s>"},  {"messages", ordered_json::array()},
      {"tools", nullptr},   {"documents", nullptr}, {"add_generation_prompt", false}};
  for (const auto& [name, value] : raw.variables.items()) variables[name] = value;
  for (const auto& [name, value] : row.items()) variables[name] = value;
  return variables;
}

ordered_json render_row(const ordered_json& row, const RawTemplate& raw,
                        const jinja::RenderOptions& options) {
  const ordered_json variables = variables_of(row, raw);
  const bool with_tools = raw.tool_use && !variables.at("tools").is_null();
  try {
    return {{"text", (with_tools ? *raw.tool_use : raw.chat).render(variables, options).text}};
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::data) throw;
    return {{"error", error.what()}};
  }
}

void run_inspect_template(const InspectTemplateOptions& options) {
  if (options.model.empty() && options.chat_template.empty()) {
    fail(ErrorKind::config, "give --model DIR, whose template it is, or --template FILE.jinja");
  }
  if (!options.model.empty() && !std::filesystem::is_directory(options.model)) {
    fail(ErrorKind::model, "{}: no such folder; expected a Hugging Face model folder",
         options.model);
  }
  const RawTemplate raw = load_raw_template(
      options.model, options.chat_template.empty() ? "auto" : options.chat_template);
  jinja::RenderOptions limits;
  limits.now = fixed_time();
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const ordered_json row = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object()) {
      fail(ErrorKind::data,
           "standard input:{}: expected a JSON object like {{\"messages\": [...]}}", number);
    }
    write_output(
        "-",
        render_row(row, raw, limits).dump(-1, ' ', false, ordered_json::error_handler_t::replace) +
            "\n");
  }
}

}  // namespace

void add_inspect_template(CLI::App& inspect) {
  auto options = std::make_shared<InspectTemplateOptions>();
  CLI::App* verb = add_verb(
      inspect, "template",
      "Render conversations: a JSON object a line in, {\"text\"} or {\"error\"} a line out",
      "echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
      "\"add_generation_prompt\": true}' | "
      "finetune inspect template --model data/tiny-base",
      std::make_shared<CommonOptions>());
  verb->add_option("--model", options->model, "Model whose own template it is")->type_name("DIR");
  verb->add_option("--template", options->chat_template,
                   "A .jinja file, or the name of a template of ours")
      ->type_name("FILE");
  verb->final_callback([options] { run_inspect_template(*options); });
}

}  // namespace finetune
