#pragma once

#include "text/model.h"

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace finetune {

/// The tokens of the words that a thread saw last. A word has one place, where the next one with
/// the same hash replaces it; words that are long or have many tokens are not kept, for they hardly
/// come back.
class WordCache {
 public:
  static constexpr std::size_t kWordBytes = 24, kTokens = 6;

  /// A word as it is compared: padded with zeros.
  struct Key {
    std::array<std::uint64_t, 3> bytes = {};
    std::uint32_t size = 0;
    std::size_t slot = 0;
  };

  /// This thread's cache, emptied when another model used it.
  static WordCache& of_thread(std::uint64_t model);

  /// `word` has 1 to kWordBytes bytes. Words and mere pieces of words (not `whole`) are kept apart.
  static Key key(std::string_view word, bool whole);
  /// Appends the tokens of the word and returns true if they are here.
  bool find(const Key& key, std::vector<WordToken>& tokens) const;
  void put(const Key& key, std::span<const WordToken> tokens);

 private:
  static constexpr std::size_t kSlots = std::size_t{1} << 15;
  struct alignas(64) Slot {
    std::array<std::uint64_t, 3> bytes = {};
    std::array<std::int32_t, kTokens> ids = {};
    std::array<std::uint8_t, kTokens> begins = {}, ends = {};
    std::uint8_t size = 0, count = 0;
  };
  static_assert(sizeof(Slot) == 64, "a slot is one line of the processor's cache");

  std::vector<Slot> slots_;
  std::uint64_t model_ = 0;
};

}  // namespace finetune
