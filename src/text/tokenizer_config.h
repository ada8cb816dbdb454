#pragma once

#include "text/added_tokens.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// What tokenizer_config.json, special_tokens_map.json, added_tokens.json and, for the family and
/// for missing BOS and EOS only, config.json of a folder say about its tokenizer.
struct TokenizerConfig {
  std::string bos_token, eos_token;            ///< "" when absent
  std::optional<std::int32_t> bos_id, eos_id;  ///< of config.json, used where the tokens are absent
  std::vector<AddedToken> added;  ///< with ids (added_tokens_decoder, added_tokens.json)
  std::vector<std::string>
      specials;  ///< every token named as special: bos, eos, unk, pad, additional ...
  std::optional<bool> add_bos, add_eos;  ///< add_bos_token, add_eos_token
  std::optional<bool> add_prefix_space;
  std::string tokenizer_class;  ///< of tokenizer_config.json, "" when absent
  std::string family;        ///< model_type of config.json, else from tokenizer_class; lower case
  bool llama3_rope = false;  ///< config.json scales positions as Llama 3.1 and later do
  bool legacy = true;        ///< transformers' switch: dummy prefix after every special token
};

/// Reads the files that are there. Throws Error(model) naming the file for JSON that does not parse
/// or members of the wrong type.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

/// A JSON file as a value. Throws Error(model) with path, line and column of what does not parse.
nlohmann::json read_json_file(const std::filesystem::path& path);

/// Throws the Error(model) for text that stops being JSON at byte `offset`.
[[noreturn]] void refuse_json(const std::string& where, std::string_view text, std::size_t offset,
                              const std::string& problem);

/// An AddedToken object of `tokenizers`.
AddedToken parse_added_token(const nlohmann::json& token);

}  // namespace finetune
