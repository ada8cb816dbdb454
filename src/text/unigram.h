#pragma once

#include "text/model.h"
#include "text/prefix_trie.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace finetune {

/// The most likely way to cut a text into tokens that have a score each (Viterbi). Among equally
/// likely ways the first one wins, so the precision of the sums matters: `tokenizers` takes double,
/// sentencepiece single.
class UnigramLattice {
 public:
  explicit UnigramLattice(bool single_precision) : single_precision_(single_precision) {}

  void add(std::string_view token, double score, std::int32_t id);
  /// The token for a character that no token begins and ends with, and its score; -1: there is
  /// none.
  void set_unknown(std::int32_t id, double score);

  /// Appends the tokens of a text. Throws Error(model) with `where` when it needs an unknown token
  /// and has none.
  void cut(std::string_view text, const std::string& where, std::vector<WordToken>& tokens) const;

 private:
  /// The best way to a place in the text: its score, and its last token with where that begins.
  struct Step {
    double score = 0;
    std::uint32_t begin = kNowhere;
    std::int32_t id = -1;
  };
  static constexpr std::uint32_t kNowhere = 0xFFFFFFFF;
  std::vector<Step> best_steps(std::string_view text, const std::string& where) const;

  bool single_precision_;
  PrefixTrie trie_;  ///< numbers are indices into entries_
  struct Entry {
    double score;
    std::int32_t id;
  };
  std::vector<Entry> entries_;
  double unknown_score_ = 0;
  std::int32_t unknown_ = -1;
};

}  // namespace finetune
