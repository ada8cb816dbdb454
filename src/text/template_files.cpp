#include "text/template_files.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "text/tokenizer_config.h"

namespace finetune {

namespace {

using nlohmann::json;

std::optional<TemplateSource> read_text(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path)) return std::nullopt;
  return TemplateSource{read_file(path, ErrorKind::model), path.string()};
}

/// A text, or a list of {"name", "template"}.
void read_member(const json& member, const std::string& where, OwnTemplates& result) {
  if (member.is_string()) {
    result.chat = TemplateSource{member.get<std::string>(), where};
    return;
  }
  if (!member.is_array())
    fail(ErrorKind::model, "{}: chat_template is neither a text nor a list of templates", where);
  for (const json& item : member) {
    if (!item.is_object() || !item.contains("name") || !item.contains("template") ||
        !item.at("name").is_string() || !item.at("template").is_string()) {
      fail(ErrorKind::model,
           "{}: chat_template has an element that is not {{\"name\", \"template\"}} of two texts",
           where);
    }
    const std::string name = item.at("name").get<std::string>();
    TemplateSource source{item.at("template").get<std::string>(), where + " (" + name + ")"};
    if (name == "default") {
      result.chat = std::move(source);
      continue;
    }
    if (name == "tool_use") result.tool_use = std::move(source);
  }
}

void read_json_templates(const std::filesystem::path& path, OwnTemplates& result) {
  if (!std::filesystem::is_regular_file(path)) return;
  const json config = read_json_file(path);
  if (!config.is_object()) return;
  const auto member = config.find("chat_template");
  if (member != config.end() && !member->is_null()) read_member(*member, path.string(), result);
}

}  // namespace

OwnTemplates read_own_templates(const std::filesystem::path& folder) {
  OwnTemplates result;
  result.chat = read_text(folder / "chat_template.jinja");
  if (!result.chat) {
    read_json_templates(folder / "tokenizer_config.json", result);
    if (!result.chat && !result.tool_use)
      read_json_templates(folder / "chat_template.json", result);
  }
  if (auto more = read_text(folder / "additional_chat_templates" / "tool_use.jinja"))
    result.tool_use = std::move(more);
  if (!result.chat) result.chat = read_text(folder / "additional_chat_templates" / "default.jinja");
  if (!result.chat) result.chat = result.tool_use;
  return result;
}

nlohmann::ordered_json read_token_variables(const std::filesystem::path& folder) {
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    if (!std::filesystem::is_regular_file(folder / file)) continue;
    const json config = read_json_file(folder / file);
    if (!config.is_object()) continue;
    for (const auto& [name, value] : config.items()) {
      if (!name.ends_with("_token") || variables.contains(name)) continue;
      if (value.is_string()) variables[name] = value.get<std::string>();
      if (value.is_object() && value.contains("content") && value.at("content").is_string()) {
        variables[name] = value.at("content").get<std::string>();
      }
    }
  }
  return variables;
}

}  // namespace finetune
