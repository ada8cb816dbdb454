#include "text/tokenizer_config.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

#include <algorithm>
#include <cctype>
#include <limits>

namespace finetune {

namespace {

using nlohmann::json;

constexpr std::int64_t kLargestId = std::numeric_limits<std::int32_t>::max();

/// A special token is a string or an AddedToken object; null and absent are "".
std::string special_content(const json& config, const char* key) {
  const auto token = config.find(key);
  if (token == config.end() || token->is_null()) return "";
  return token->is_object() ? token->at("content").get<std::string>() : token->get<std::string>();
}

std::optional<bool> optional_bool(const json& config, const char* key) {
  const auto value = config.find(key);
  if (value == config.end() || value->is_null()) return std::nullopt;
  return value->get<bool>();
}

std::string lower_text(const json& config, const char* key) {
  const auto value = config.find(key);
  std::string text =
      value == config.end() || !value->is_string() ? std::string() : value->get<std::string>();
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

void add_special(TokenizerConfig& result, const std::string& content) {
  if (content.empty()) return;
  if (std::find(result.specials.begin(), result.specials.end(), content) == result.specials.end()) {
    result.specials.push_back(content);
  }
}

/// bos_token ... of tokenizer_config.json or special_tokens_map.json; what is already known stays.
void read_specials(const json& config, TokenizerConfig& result) {
  if (result.bos_token.empty()) result.bos_token = special_content(config, "bos_token");
  if (result.eos_token.empty()) result.eos_token = special_content(config, "eos_token");
  for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                          "cls_token", "mask_token"}) {
    add_special(result, special_content(config, key));
  }
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto list = config.find(key);
    if (list == config.end() || list->is_null()) continue;
    for (const json& token : *list) {
      add_special(result, token.is_object() ? token.at("content").get<std::string>()
                                            : token.get<std::string>());
    }
  }
}

void read_main(const json& config, TokenizerConfig& result) {
  read_specials(config, result);
  result.add_bos = optional_bool(config, "add_bos_token");
  result.add_eos = optional_bool(config, "add_eos_token");
  result.add_prefix_space = optional_bool(config, "add_prefix_space");
  result.legacy = optional_bool(config, "legacy").value_or(true);
  result.tokenizer_class = lower_text(config, "tokenizer_class");
  result.family = result.tokenizer_class.substr(0, result.tokenizer_class.find("tokenizer"));
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || decoder->is_null()) return;
  for (const auto& [id, value] : decoder->items()) {
    AddedToken token = parse_added_token(value);
    token.id = std::stoi(id);
    if (token.special) add_special(result, token.content);
    result.added.push_back(std::move(token));
  }
  std::sort(result.added.begin(), result.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
}

/// An id of a file; one that no vocabulary has becomes one that is refused, not another one.
std::int32_t checked_id(const json& id) {
  const auto number = id.get<std::int64_t>();
  return number < 0 ? -1 : static_cast<std::int32_t>(std::min<std::int64_t>(number, kLargestId));
}

/// The older file {"content": id}.
void read_added(const json& tokens, TokenizerConfig& result) {
  for (const auto& [content, id] : tokens.items()) {
    const bool known =
        std::any_of(result.added.begin(), result.added.end(),
                    [&name = content](const AddedToken& token) { return token.content == name; });
    if (known) continue;
    AddedToken token;
    token.content = content;
    token.id = checked_id(id);
    result.added.push_back(std::move(token));
  }
}

/// eos_token_id is a number or a list, whose first one ends a text.
std::optional<std::int32_t> token_id_of(const json& config, const char* key) {
  auto value = config.find(key);
  if (value == config.end()) return std::nullopt;
  const json& id = value->is_array() && !value->empty() ? value->front() : *value;
  if (!id.is_number_integer()) return std::nullopt;
  return checked_id(id);
}

void read_model_config(const json& config, TokenizerConfig& result) {
  if (result.bos_token.empty()) result.bos_id = token_id_of(config, "bos_token_id");
  if (result.eos_token.empty()) result.eos_id = token_id_of(config, "eos_token_id");
  if (const std::string type = lower_text(config, "model_type"); !type.empty())
    result.family = type;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = config.find(key);
    if (rope != config.end() && rope->is_object())
      result.llama3_rope |= lower_text(*rope, "rope_type") == "llama3";
  }
}

template <typename Read>
void read_if_there(const std::filesystem::path& path, const Read& read) {
  if (!std::filesystem::exists(path)) return;
  const json content = read_json_file(path);
  try {
    if (!content.is_object()) fail(ErrorKind::model, "{}: expected a JSON object", path.string());
    read(content);
  } catch (const json::exception& error) {
    fail(ErrorKind::model, "{}: {}; the file is not what transformers writes", path.string(),
         without_exception_name(error.what()));
  } catch (const std::logic_error& error) {  // std::stoi
    fail(ErrorKind::model, "{}: added_tokens_decoder has a key that is not an id ({})",
         path.string(), error.what());
  }
}

}  // namespace

void refuse_json(const std::string& where, std::string_view text, std::size_t offset,
                 const std::string& problem) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t newline = before.rfind('\n');
  const std::size_t column =
      newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
  fail(ErrorKind::model, "{}:{}:{}: this is not JSON ({}); is the file complete?", where, line,
       column, utf8_lossy(problem));
}

json read_json_file(const std::filesystem::path& path) {
  const std::string text = read_model_text(path);
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    refuse_json(path.string(), text, error.byte > 0 ? error.byte - 1 : 0,
                std::string(without_exception_name(error.what())));
  } catch (const json::exception& error) {
    fail(ErrorKind::model, "{}: {}", path.string(),
         utf8_lossy(without_exception_name(error.what())));
  }
}

AddedToken parse_added_token(const json& config) {
  AddedToken token;
  token.content = config.at("content").get<std::string>();
  token.id = config.contains("id") ? checked_id(config.at("id")) : -1;
  token.lstrip = config.value("lstrip", false);
  token.rstrip = config.value("rstrip", false);
  token.single_word = config.value("single_word", false);
  token.normalized = config.value("normalized", false);
  token.special = config.value("special", false);
  return token;
}

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig result;
  read_if_there(folder / "tokenizer_config.json",
                [&](const json& config) { read_main(config, result); });
  read_if_there(folder / "special_tokens_map.json",
                [&](const json& config) { read_specials(config, result); });
  read_if_there(folder / "added_tokens.json",
                [&](const json& tokens) { read_added(tokens, result); });
  read_if_there(folder / "config.json",
                [&](const json& config) { read_model_config(config, result); });
  return result;
}

}  // namespace finetune
