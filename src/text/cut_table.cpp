#include "text/cut_table.h"

#include "text/utf8.h"

#include <algorithm>
#include <string>

namespace finetune {

namespace {

constexpr std::size_t kCharacterBytes = 4;

/// Bytes of the character whose last byte stands before `position`; 0: it does not begin in this
/// text.
std::size_t last_character(std::string_view text, std::size_t position) {
  for (std::size_t size = 1; size <= std::min(kCharacterBytes, position); ++size) {
    if (!is_continuation(text[position - size])) return size;
  }
  return 0;
}

/// Bytes that a character with this first byte has.
std::size_t character_size(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

std::size_t CutTable::place(std::string_view text, std::size_t position) {
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15u;
  std::uint64_t hash = 0;
  const std::size_t end = std::min(text.size(), position + character_size(text[position]));
  for (std::size_t i = position - last_character(text, position); i < end; ++i) {
    hash = hash << 8 | static_cast<unsigned char>(text[i]);
  }
  return (hash * kOdd) >> (64 - kBits);
}

void CutTable::add(std::string_view left, std::string_view right) {
  if (left.empty() || right.empty() || is_continuation(right[0])) return;
  const std::string both =
      std::string(left.substr(left.size() - std::min(left.size(), kCharacterBytes))) +
      std::string(right.substr(0, kCharacterBytes));
  const std::size_t position = std::min(left.size(), kCharacterBytes);
  const std::size_t before = last_character(both, position);
  const bool whole = before > 0 && before == character_size(both[position - before]) &&
                     right.size() >= character_size(right[0]);
  if (whole) {
    characters_->set(place(both, position));
  } else {
    bytes_[static_cast<unsigned char>(left.back())].set(static_cast<unsigned char>(right[0]));
  }
}

std::size_t CutTable::piece_end(std::string_view word, std::size_t begin) const {
  for (std::size_t at = begin + 1; at < word.size(); ++at) {
    const auto before = static_cast<unsigned char>(word[at - 1]),
               after = static_cast<unsigned char>(word[at]);
    if ((before < 0x80 && after < 0x80) || is_continuation(word[at])) continue;
    if (!bytes_[before].test(after) && !characters_->test(place(word, at))) return at;
  }
  return word.size();
}

}  // namespace finetune
