#pragma once

#include "text/tokenizer_file.h"
#include "text/vocabulary.h"

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace finetune {

/// A token of a word and the bytes of the word it stands for.
struct WordToken {
  std::int32_t id;
  std::uint32_t begin, end;
};

/// What turns a word into tokens: the "model" of a tokenizer.json. Immutable after loading, safe
/// from several threads.
class WordModel {
 public:
  virtual ~WordModel() = default;

  /// Appends the tokens of one word, which is not empty. Throws Error(model) where the model would
  /// need an unknown token and names none.
  virtual void tokenize(std::string_view word, std::vector<WordToken>& tokens) const = 0;
  /// From now on words are bytes, not bytes written as characters (pre_tokenizer ByteLevel). False
  /// where the model cannot do that. Called once, before the first `tokenize`.
  virtual bool take_raw_bytes() { return false; }

  const Vocabulary& vocabulary() const { return vocabulary_; }

 protected:
  Vocabulary vocabulary_;
};

/// The model of a file: BPE, Unigram, WordPiece or WordLevel; files from before 2021 name no type.
/// Takes the file's lists. Throws Error(model) for what is not supported or does not fit together.
std::unique_ptr<WordModel> make_word_model(TokenizerFile& file);

/// Unigram: the most likely sequence of tokens, with every token's own logarithmic probability.
std::unique_ptr<WordModel> make_unigram_model(TokenizerFile& file);
/// WordPiece: again and again the longest token that fits.
std::unique_ptr<WordModel> make_word_piece_model(TokenizerFile& file);
/// WordLevel: a word is one token.
std::unique_ptr<WordModel> make_word_level_model(TokenizerFile& file);

/// Fills a vocabulary from [token, id] pairs. Throws Error(model) for ids out of range.
void fill_vocabulary(TokenizerFile& file, Vocabulary& vocabulary);
/// A text member of the model's settings; "" where it is absent or null.
std::string text_setting(const TokenizerFile& file, const char* key);

}  // namespace finetune
