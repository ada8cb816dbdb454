#include "finetune/text/chat_template.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/base/text.h"
#include "finetune/jinja/template.h"
#include "text/builtin_templates.h"
#include "text/supervision.h"
#include "text/template_files.h"

#include <algorithm>
#include <cstdlib>

namespace finetune {

namespace {

using nlohmann::ordered_json;

/// A template with the tokenizer it is for.
class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(RawTemplate raw, const Tokenizer& tokenizer)
      : raw_(std::move(raw)), tokenizer_(tokenizer) {
    options_.now = fixed_time();
    find_stop_id();
  }

  RenderedText render(const std::vector<Message>& messages,
                      const TemplateInputs& inputs) const override {
    const jinja::Template& chosen = choose(inputs);
    return supervise(chosen.render(variables(messages, inputs, false), options_), messages,
                     chosen.has_generation(), tokenizer_, raw_.where);
  }

  std::string render_prompt(const std::vector<Message>& messages,
                            const TemplateInputs& inputs) const override {
    return choose(inputs).render(variables(messages, inputs, true), options_).text;
  }

  std::string name() const override { return raw_.name; }
  std::optional<std::int32_t> stop_id() const override { return stop_id_; }
  std::string fingerprint() const override {
    const bool looks_at_clock = raw_.source.find("strftime_now") != std::string::npos;
    return looks_at_clock ? "" : content_hash(raw_.name + raw_.source + raw_.variables.dump());
  }

 private:
  const jinja::Template& choose(const TemplateInputs& inputs) const {
    return raw_.tool_use && !inputs.tools.is_null() ? *raw_.tool_use : raw_.chat;
  }

  ordered_json variables(const std::vector<Message>& messages, const TemplateInputs& inputs,
                         bool prompt) const {
    require_seen(messages, inputs);
    ordered_json all = raw_.variables;
    ordered_json list = ordered_json::array();
    for (const Message& message : messages) list.push_back(message_variables(message));
    all["messages"] = std::move(list);
    all["tools"] = inputs.tools;
    all["documents"] = inputs.documents;
    all["add_generation_prompt"] = prompt;
    return all;
  }

  /// What a row says must not be lost without a word.
  void require_seen(const std::vector<Message>& messages, const TemplateInputs& inputs) const {
    if (!inputs.tools.is_null() && !raw_.sees_tools) {
      fail(ErrorKind::data,
           "there are \"tools\", for which the template {} has no place; expected a row without "
           "them, or the "
           "template of a model that calls tools",
           raw_.where);
    }
    for (std::size_t i = 0; i < messages.size() && !raw_.sees_tool_calls; ++i) {
      if (!messages[i].fields.is_object() || !messages[i].fields.contains("tool_calls")) continue;
      fail(ErrorKind::data,
           "message {} has tool_calls, for which the template {} has no place; expected a text "
           "answer, or the "
           "template of a model that calls tools",
           i + 1, raw_.where);
    }
  }

  ordered_json message_variables(const Message& message) const {
    ordered_json object = {{"role", message.role}, {"content", message.content}};
    if (!message.input.empty()) {
      // Only alpaca has a place of its own for it.
      if (raw_.name == "alpaca") {
        object["input"] = message.input;
      } else {
        object["content"] = message.content + (message.content.empty() ? "" : "\n") + message.input;
      }
    }
    // The template writes the EOS token itself where the answer brings it along.
    const std::string& eos = tokenizer_.specials().eos_token;
    if (message.role == "assistant" && !eos.empty() && message.content.ends_with(eos)) {
      object["content"] = message.content.substr(0, message.content.size() - eos.size());
    }
    if (message.fields.is_object()) {
      for (const auto& [name, value] : message.fields.items()) object[name] = value;
    }
    return object;
  }

  /// From a plain question and answer; templates that need more have none.
  void find_stop_id() {
    try {
      const RenderedText probe = render({{"user", "question"}, {"assistant", "answer"}}, {});
      if (!probe.specials.empty() && probe.specials.back().span.begin > 0)
        stop_id_ = probe.specials.back().id;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::data) throw;
    }
  }

  RawTemplate raw_;
  const Tokenizer& tokenizer_;
  jinja::RenderOptions options_;
  std::optional<std::int32_t> stop_id_;
};

const BuiltinTemplate* find_builtin(std::string_view name) {
  const auto& all = builtin_templates();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const BuiltinTemplate& t) { return t.name == name; });
  return found == all.end() ? nullptr : &*found;
}

[[noreturn]] void fail_unknown(std::string_view name) {
  std::vector<std::string> names = {"auto"};
  for (const BuiltinTemplate& known : builtin_templates()) names.emplace_back(known.name);
  const std::string near = nearest(name, names);
  fail(ErrorKind::config,
       "template: {} is not known{}; expected {}, or a file whose name ends in .jinja", name,
       near.empty() ? "" : " (did you mean " + near + "?)", join(names, ", "));
}

}  // namespace

std::optional<std::int64_t> fixed_time() {
  const char* text = std::getenv("SOURCE_DATE_EPOCH");
  if (text == nullptr || *text == '\0') return std::nullopt;
  char* end = nullptr;
  const long long seconds = std::strtoll(text, &end, 10);
  if (*end != '\0')
    fail(ErrorKind::config, "SOURCE_DATE_EPOCH is '{}'; expected seconds since 1970", text);
  return seconds;
}

RawTemplate load_raw_template(const std::filesystem::path& model_folder, std::string_view name) {
  RawTemplate raw;
  raw.variables =
      model_folder.empty() ? ordered_json::object() : read_token_variables(model_folder);
  const auto parse = [&](std::string resolved, std::string where, const TemplateSource& source) {
    raw.name = std::move(resolved);
    raw.where = std::move(where);
    raw.chat = jinja::Template::parse(source.text, source.where);
    raw.source += source.text;
    raw.sees_tools |= source.text.find("tools") != std::string::npos;
    raw.sees_tool_calls |= source.text.find("tool_calls") != std::string::npos;
  };
  if (name.ends_with(".jinja")) {
    const std::string path(name);
    parse(path, path, {read_file(path, ErrorKind::config), path});
    return raw;
  }
  if (name == "auto") {
    const OwnTemplates own =
        model_folder.empty() ? OwnTemplates() : read_own_templates(model_folder);
    if (own.chat) {
      parse("auto", own.chat->where, *own.chat);
      if (own.tool_use) {
        raw.tool_use = jinja::Template::parse(own.tool_use->text, own.tool_use->where);
        raw.source += own.tool_use->text;
        raw.sees_tools = raw.sees_tool_calls = true;
      }
      return raw;
    }
    name = "alpaca";
  }
  const BuiltinTemplate* builtin = find_builtin(name);
  if (builtin == nullptr) fail_unknown(name);
  parse(std::string(name), std::string(name),
        {std::string(builtin->source), "template " + std::string(name)});
  return raw;
}

std::unique_ptr<ChatTemplate> load_chat_template(const std::filesystem::path& model_folder,
                                                 std::string_view name,
                                                 const Tokenizer& tokenizer) {
  RawTemplate raw = load_raw_template(model_folder, name);
  const Tokenizer::Specials& specials = tokenizer.specials();
  const BuiltinTemplate* builtin = find_builtin(raw.name);
  if (builtin != nullptr && builtin->source.find("eos_token") != std::string_view::npos &&
      (!specials.eos_id || specials.eos_token.empty())) {
    fail(ErrorKind::model,
         "{}: the tokenizer has no end-of-sequence token, which ends every answer; name one as "
         "\"eos_token\" in "
         "tokenizer_config.json",
         model_folder.string());
  }
  // The tokenizer's own names, where the files say nothing of them.
  const bool has_config = std::filesystem::exists(model_folder / "tokenizer_config.json");
  if (!has_config && !raw.variables.contains("bos_token") && !specials.bos_token.empty()) {
    raw.variables["bos_token"] = specials.bos_token;
  }
  if (!raw.variables.contains("eos_token") && !specials.eos_token.empty())
    raw.variables["eos_token"] = specials.eos_token;
  return std::make_unique<JinjaChatTemplate>(std::move(raw), tokenizer);
}

}  // namespace finetune
