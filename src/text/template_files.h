#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>

namespace finetune {

/// A template's text and where it is, for messages.
struct TemplateSource {
  std::string text;
  std::string where;
};

/// A model's own chat templates.
struct OwnTemplates {
  std::optional<TemplateSource> chat;  ///< the one called "default"
  std::optional<TemplateSource>
      tool_use;  ///< for conversations with tools, where there is another one for them
};

/// chat_template.jinja, else chat_template of tokenizer_config.json, else of chat_template.json;
/// and additional_chat_templates. Throws Error(model) naming the file for members of the wrong
/// type.
OwnTemplates read_own_templates(const std::filesystem::path& folder);

/// The special tokens that templates see as variables (bos_token, eos_token, unk_token ...): every
/// member of tokenizer_config.json, or special_tokens_map.json, that is named so. Null ones are
/// left out.
nlohmann::ordered_json read_token_variables(const std::filesystem::path& folder);

}  // namespace finetune
