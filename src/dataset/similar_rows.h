#pragma once

#include "finetune/dataset/example.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace finetune {

/// A text as its words, lower case and without punctuation, between single spaces. In scripts
/// without spaces every character is a word.
std::string plain_words(std::string_view text);

/// Finds rows that say nearly the same: those with many common stretches of three words (Jaccard).
/// Stretches that more than half of all rows have are the template's, and do not count. Candidates
/// come from bands of minimal hashes (Broder 1997), and are then compared in full.
class SimilarRows {
 public:
  struct Match {
    std::size_t row;  ///< how many rows were added before it
    double share;     ///< 1: the same words
  };

  /// `texts` are all rows that will be added or looked for.
  explicit SimilarRows(const std::vector<std::string>& texts);

  /// The most similar row that was added, or nullptr where none has kNearDuplicate in common.
  const Match* find(const std::string& text);
  void add(const std::string& text);

 private:
  static constexpr std::size_t kBucket = 64;  // thousands of equal rows stay cheap

  std::vector<std::uint64_t> own_stretches(const std::string& text) const;

  std::unordered_map<std::uint64_t, std::size_t> rows_with_;  // of those that many have
  std::vector<std::vector<std::uint64_t>> rows_;
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> buckets_;
  Match best_{0, 0.0};
};

}  // namespace finetune
