#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <string_view>

namespace finetune {

/// Where a word can be cut in two before its symbols are merged, because no merge joins what ends
/// before that place with what begins after it. Chinese has no spaces: cut like this, its long
/// words become short ones that come back. Only places between characters that are not both ASCII
/// are looked at. Bits may be shared: a place that could be cut is sometimes left whole, never the
/// other way round.
class CutTable {
 public:
  /// There is a merge of two tokens with these bytes.
  void add(std::string_view left, std::string_view right);

  /// The end of the piece of `word` that begins at `begin`.
  std::size_t piece_end(std::string_view word, std::size_t begin) const;

 private:
  static constexpr int kBits = 20;
  /// Bit for the characters on both sides of `position`, which lies between two characters.
  static std::size_t place(std::string_view text, std::size_t position);

  std::unique_ptr<std::bitset<std::size_t{1} << kBits>> characters_ =
      std::make_unique<std::bitset<std::size_t{1} << kBits>>();  ///< by the characters on both
                                                                 ///< sides
  std::array<std::bitset<256>, 256>
      bytes_;  ///< by the bytes on both sides, for tokens of parts of characters
};

}  // namespace finetune
