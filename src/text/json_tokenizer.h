#pragma once

#include "finetune/text/tokenizer.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/stages.h"
#include "text/tokenizer_config.h"

#include <unordered_map>

namespace finetune {

/// tokenizer.json: added tokens, then normalizer -> pre-tokenizer -> model; and a decoder back. Ids and text are
/// those of the `tokenizers` library for the same file.
class JsonTokenizer final : public Tokenizer {
 public:
  /// Throws Error(model) naming a stage, model or setting that is not in this version.
  JsonTokenizer(const std::filesystem::path& path, const TokenizerConfig& config);

  Encoding encode(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override;
  std::int32_t vocab_size() const override { return static_cast<std::int32_t>(contents_.size()); }
  std::optional<std::int32_t> token_id(std::string_view content) const override;

 private:
  void add_tokens(const nlohmann::json& file, const TokenizerConfig& config);
  void add_token(AddedToken token);
  void read_post_processor(const nlohmann::json& post);
  /// Appends the tokens of one stretch of text without added tokens that are looked for in raw text.
  void encode_plain(std::string_view text, std::size_t base, Encoding& out) const;
  void encode_words(const AlignedText& text, ByteSpan range, Encoding& out) const;

  std::string where_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<BpeModel> model_;
  Decoder decoder_;
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
  std::unordered_map<std::string, AddedToken> added_;  ///< by content
  std::vector<std::string> contents_;                  ///< id -> token; "" for an id without one
  std::vector<bool> special_;                          ///< id -> left out when specials are skipped
};

}  // namespace finetune
