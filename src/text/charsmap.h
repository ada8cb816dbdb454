#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// The rewriting rules of a sentencepiece model (precompiled_charsmap): a double-array trie of what
/// is rewritten (the darts-clone layout), and the texts that take its place.
class Charsmap {
 public:
  /// `blob`: the size of the trie in bytes (32 bits, little-endian), the trie, the texts, each with
  /// a zero at its end. Throws Error(model) with `where` when any walk through the trie could leave
  /// it.
  Charsmap(std::string_view blob, const std::string& where);

  /// What takes the place of a text that begins with a rule's left side: that of the shortest rule,
  /// as `tokenizers` does it. Nothing where no rule fits.
  std::optional<std::string_view> replacement(std::string_view text) const;

 private:
  void check(const std::string& where) const;
  std::vector<std::uint32_t> units_;
  std::string texts_;
};

/// Bytes of base64 text (RFC 4648, padding optional); nothing when it is not that.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace finetune
