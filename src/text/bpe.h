#pragma once

#include "text/cut_table.h"
#include "text/model.h"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// Byte pair encoding as in `tokenizers` (models/bpe): characters are merged in the order of the
/// merge list, leftmost first among equals. A word of n characters costs O(n log n); short words
/// come from a cache that every thread has for itself.
class BpeModel final : public WordModel {
 public:
  /// Throws Error(model) for what is not supported or does not fit together.
  explicit BpeModel(TokenizerFile& file);
  /// The vocabulary of a rank file: bytes of a token -> rank, which is its id. Any two neighbours
  /// whose bytes together are a token are merged, lowest rank first; a word that is a token is that
  /// token. Words are raw bytes.
  BpeModel(const std::vector<std::pair<std::string, std::int32_t>>& ranks,
           const std::string& where);

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override;
  bool take_raw_bytes() override;

 private:
  struct Merge {
    std::int32_t rank = 0, result = 0;
  };
  /// Pairs of ids -> merge: open addressing in one array, for this is asked several times for every
  /// character.
  class MergeTable {
   public:
    void reserve(std::size_t merges);
    /// The last one given for a pair wins.
    void put(std::int32_t left, std::int32_t right, Merge merge);
    const Merge* find(std::int32_t left, std::int32_t right) const;
    /// Calls `visit(left, right)` for every pair.
    template <typename Visit>
    void for_each(const Visit& visit) const {
      for (const Slot& slot : slots_) {
        if (slot.pair != kNoPair)
          visit(static_cast<std::int32_t>(slot.pair >> 32), static_cast<std::int32_t>(slot.pair));
      }
    }

   private:
    static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};
    struct Slot {
      std::uint64_t pair;
      Merge merge;
    };
    std::size_t place(std::uint64_t pair) const;
    std::vector<Slot> slots_;
    std::size_t used_ = 0;
    int shift_ = 0;
  };
  /// A token of a word while it is merged. `rank` and `result` are of the merge with the next
  /// symbol.
  struct Symbol {
    std::int32_t id;
    std::int32_t rank, result;
    std::uint32_t begin, end;
    std::int32_t previous, next;  ///< indices, -1 at the ends; of long words only
  };

  void read_merges(TokenizerFile& file);
  void prepare_cuts();
  void tokenize_piece(std::string_view piece, bool whole, std::vector<WordToken>& tokens) const;
  std::optional<std::int32_t> whole_word(std::string_view word) const;
  void characters(std::string_view word, std::vector<Symbol>& symbols) const;
  void push_piece(const std::string& piece, std::size_t begin, std::size_t end,
                  std::vector<Symbol>& symbols, Symbol& unknown) const;
  void propose(Symbol& symbol, const Symbol* next) const;
  void merge_short(std::vector<Symbol>& symbols) const;
  void merge_long(std::vector<Symbol>& symbols) const;

  std::string where_;
  MergeTable merges_;
  std::array<std::int32_t, 256>
      symbol_ids_;  ///< id of each character of one byte (or of each raw byte), or -1
  std::array<std::int32_t, 256> byte_ids_;  ///< byte_fallback: id of "<0xNN>", or -1
  std::string unknown_name_;
  std::int32_t unknown_id_ = -1;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false, raw_bytes_ = false;
  std::string continuing_prefix_, end_suffix_;
  Vocabulary raw_words_;            ///< with raw_bytes_ and ignore_merges_: bytes of a token -> id
  std::unique_ptr<CutTable> cuts_;  ///< null: words are not cut
  std::uint64_t cache_key_;         ///< of this model's words in the threads' caches
};

}  // namespace finetune
