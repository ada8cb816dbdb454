#pragma once

#include "finetune/text/tokenizer.h"
#include "text/prefix_trie.h"

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// A token that is recognised in the text before the model sees it. The flags are those of
/// `tokenizers`.
struct AddedToken {
  std::string content;
  std::int32_t id = -1;      ///< -1: not known yet
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;       ///< takes the white space after it along
  bool single_word = false;  ///< only where no word character touches it
  bool normalized = false;   ///< looked for in the normalized text
  bool special = false;      ///< left out of decoded text when special tokens are skipped
};

/// Finds added tokens in a text: at each place the longest one, from left to right, as `tokenizers`
/// does (AddedVocabulary::find_matches).
class AddedTokenMatcher {
 public:
  /// `pattern` is what stands for `token` in the text that is searched; empty ones are ignored.
  void add(const std::string& pattern, const AddedToken& token);

  /// One part of a text: a token, or text between tokens (id -1).
  struct Part {
    std::int32_t id;
    std::size_t begin, end;
  };
  /// All of the text as parts, none of them empty. They overlap only where a token takes white
  /// space along that holds another token.
  std::vector<Part> split(std::string_view text) const;

 private:
  /// Longest pattern at `position`: index of its token, or -1, and its end.
  std::pair<std::int32_t, std::size_t> longest_at(std::string_view text,
                                                  std::size_t position) const;

  PrefixTrie trie_;
  std::array<bool, 256> begins_ = {};  ///< bytes that a pattern begins with
  std::vector<AddedToken> tokens_;
};

}  // namespace finetune
