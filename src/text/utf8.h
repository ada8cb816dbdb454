#pragma once

#include "finetune/base/unicode.h"

#include <cstddef>
#include <string>
#include <string_view>

namespace finetune {

/// One character of a text and how many bytes it takes.
struct CodePoint {
  char32_t value = 0;
  std::size_t size = 0;
};

/// The character at `position` of well-formed UTF-8; `position` must be on a character's first
/// byte.
inline CodePoint code_point_at(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[position + i]));
  };
  const char32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

/// True for the second and later bytes of a character.
inline bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

/// Unicode's White_Space property (Rust's `\s` and char::is_whitespace).
bool is_space(char32_t value);
/// Letters, marks, digits and connectors (Rust's `\w`).
bool is_word(char32_t value);
/// Mn, Mc, Me.
bool is_mark(char32_t value);
/// Mn.
bool is_nonspacing_mark(char32_t value);
/// Control, format and private use characters.
bool is_other(char32_t value);
/// Nd, Nl, No (Rust's char::is_numeric).
bool is_numeric(char32_t value);
/// ASCII punctuation and the categories P* (Rust's char::is_ascii_punctuation or P).
bool is_punctuation(char32_t value);

/// Bytes as text, each ill-formed part (Unicode 15, 3.9: maximal subparts) replaced by U+FFFD.
std::string utf8_lossy(std::string_view bytes);

}  // namespace finetune
