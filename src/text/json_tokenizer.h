#pragma once

#include "finetune/text/tokenizer.h"
#include "text/added_tokens.h"
#include "text/model.h"
#include "text/stages.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_file.h"

#include <unordered_map>

namespace finetune {

/// tokenizer.json: added tokens, then normalizer -> pre-tokenizer -> model; and a decoder back. Ids
/// and text are those of the `tokenizers` library for the same file; its saved padding and
/// truncation are not applied.
class JsonTokenizer final : public Tokenizer {
 public:
  /// Throws Error(model) naming a stage, model or setting that is not in this version. Without a
  /// `model`, it is the one that the file describes.
  JsonTokenizer(TokenizerFile file, const TokenizerConfig& config,
                std::unique_ptr<WordModel> model = nullptr);

  Encoding encode(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override;
  std::int32_t vocab_size() const override { return vocab_size_; }
  std::optional<std::int32_t> token_id(std::string_view content) const override;

 private:
  void read(TokenizerFile& file, const TokenizerConfig& config);
  void add_tokens(const nlohmann::json& file, const TokenizerConfig& config);
  void add_token(AddedToken token);
  void read_post_processor(const nlohmann::json& post);
  void read_template(const nlohmann::json& post);
  /// Puts special tokens around those that are there already, as a later post-processor does.
  void surround(std::vector<std::int32_t> prefix, const std::vector<std::int32_t>& suffix);
  /// Appends the tokens of one stretch of text without added tokens that are looked for in raw
  /// text.
  void encode_plain(std::string_view text, std::size_t base, Encoding& out) const;
  void encode_words(AlignedText text, Encoding& out) const;

  std::string where_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<WordModel> model_;
  Decoder decoder_;
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
  std::unordered_map<std::string, AddedToken> added_;             ///< by content
  std::unordered_map<std::int32_t, std::string> added_contents_;  ///< by id
  std::unordered_map<std::int32_t, bool> special_;  ///< ids left out when specials are skipped
  std::int32_t vocab_size_ = 0, next_id_ = 0;
};

}  // namespace finetune
