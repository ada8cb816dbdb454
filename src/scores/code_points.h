#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// Code points of UTF-8; a byte that is no part of a character becomes U+FFFD.
std::u32string code_points(std::string_view text);

/// Lower case as Python's str.lower gives it.
std::u32string lower_case(const std::u32string& text);

/// A letter, a digit or another number, as Python's str.isalnum.
bool is_alphanumeric(char32_t c);
/// A letter of a script that writes no spaces between words (Chinese, Japanese, Thai ...).
bool is_unspaced(char32_t c);

/// The words between white space.
std::vector<std::u32string> split_words(const std::u32string& text);

}  // namespace finetune
