#pragma once

#include "finetune/text/tokenizer.h"
#include "text/added_tokens.h"
#include "text/sentencepiece_proto.h"
#include "text/tokenizer_config.h"
#include "text/unigram.h"

#include <sentencepiece_processor.h>

#include <unordered_map>

namespace finetune {

/// tokenizer.model through the sentencepiece library, whose ids are the truth for text without
/// special tokens. Control pieces and the added tokens of the folder are recognised in the text;
/// what lies between them is encoded piece by piece, with the dummy prefix each time (`legacy`) or
/// at the beginning of the text only, as transformers' LlamaTokenizer does.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// `model` is the content of the file. Throws Error(model) when that is not a sentencepiece
  /// model.
  SentencePieceTokenizer(const std::filesystem::path& path, std::string model,
                         const TokenizerConfig& config);

  Encoding encode(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override;
  std::int32_t vocab_size() const override { return vocab_size_; }
  std::optional<std::int32_t> token_id(std::string_view content) const override;

 private:
  void add_tokens(const TokenizerConfig& config);
  void add_token(AddedToken token);
  std::optional<std::int32_t> piece_id(std::string_view content) const;
  /// Appends the tokens of text that stands at `base`.
  void encode_plain(std::string_view text, std::size_t base, Encoding& out) const;
  void read_unigram(const SentencePieceFacts& facts);
  /// Versions of the library round differently, and so differ in which of two equally likely ways
  /// they take. Cuts the text again that `pieces` begin at `first` in `out` as the library since
  /// 0.2 does.
  void settle_ties(const sentencepiece::ImmutableSentencePieceText& pieces, std::size_t first,
                   Encoding& out) const;
  /// The library with the dummy prefix or without, for text that begins at `base`.
  const sentencepiece::SentencePieceProcessor& processor_at(bool at_start) const;

  std::string where_;
  sentencepiece::SentencePieceProcessor first_,
      later_;  ///< later_: without dummy prefix, unless legacy
  bool legacy_ = true, byte_fallback_ = false;
  std::optional<UnigramLattice> lattice_;  ///< of a unigram model
  std::int32_t vocab_size_ = 0;
  AddedTokenMatcher matcher_;
  std::unordered_map<std::int32_t, AddedToken> added_;       ///< by id
  std::unordered_map<std::string, std::int32_t> added_ids_;  ///< by content
};

}  // namespace finetune
