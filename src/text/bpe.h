#pragma once

#include <nlohmann/json.hpp>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace finetune {

/// A token of a word and the bytes of the word it stands for.
struct WordToken {
  std::int32_t id;
  std::uint32_t begin, end;
};

/// Byte pair encoding as in `tokenizers` (models/bpe): characters are merged in the order of the merge list,
/// leftmost first among equals. A word of n characters costs O(n log n). Safe from several threads.
class BpeModel {
 public:
  /// `config` is the "model" object of tokenizer.json. Throws Error(model) with `where` for what is not
  /// supported or does not fit together.
  BpeModel(const nlohmann::json& config, const std::string& where);
  ~BpeModel();

  /// Appends the tokens of one word.
  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const;

  std::optional<std::int32_t> token_id(std::string_view content) const;
  /// Content of each token -> id.
  const std::unordered_map<std::string, std::int32_t>& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    std::int32_t rank = 0, result = 0;
  };
  /// Pairs of ids -> merge: open addressing in one array, for this is asked several times for every character.
  class MergeTable {
   public:
    void reserve(std::size_t merges);
    /// The last one given for a pair wins.
    void put(std::uint64_t pair, Merge merge);
    const Merge* find(std::uint64_t pair) const;

   private:
    struct Slot {
      std::uint64_t pair;
      Merge merge;
    };
    std::size_t place(std::uint64_t pair) const;
    std::vector<Slot> slots_;
    int shift_ = 0;
  };
  struct Symbol {
    std::int32_t id, previous, next;  ///< neighbours as indices, -1 at the ends; id -1: merged away
    std::uint32_t begin, end;
  };
  struct Cache;

  void read_merges(const nlohmann::json& merges, const std::string& where);
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  std::vector<Symbol> characters(std::string_view word) const;
  void merge_all(std::vector<Symbol>& symbols) const;

  std::unordered_map<std::string, std::int32_t> vocabulary_;
  MergeTable merges_;                                ///< key: left id << 32 | right id
  std::array<std::int32_t, 128> ascii_ids_;          ///< id of each one-byte character, or -1
  std::array<std::int32_t, 256> byte_ids_;           ///< byte_fallback: id of "<0xNN>", or -1
  std::int32_t unknown_id_ = -1;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
  std::string continuing_prefix_, end_suffix_;
  std::unique_ptr<Cache> cache_;
};

}  // namespace finetune
