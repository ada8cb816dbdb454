#pragma once

#include "finetune/base/unicode.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace finetune::jinja {

/// The code point at `position`, which moves behind it. The text is UTF-8.
char32_t next_code_point(std::string_view text, std::size_t& position);

/// Number of code points.
std::size_t count_code_points(std::string_view text);
/// Byte offset of every code point, and the size of the text.
std::vector<std::size_t> code_point_offsets(std::string_view text);

/// Begin of the text after its leading white space, and end before its trailing.
std::size_t skip_space(std::string_view text, std::size_t position);
std::size_t trim_space(std::string_view text, std::size_t begin, std::size_t end);

bool is_letter(char32_t code_point);  ///< str.isalpha
bool is_digit(char32_t code_point);   ///< str.isdigit, without superscripts
bool is_cased(char32_t code_point);
bool is_upper(char32_t code_point);
bool is_lower(char32_t code_point);
bool is_printable(char32_t code_point);  ///< str.isprintable, which repr() uses

void append_upper(std::string& text, char32_t code_point);
void append_lower(std::string& text, char32_t code_point);
void append_title(std::string& text, char32_t code_point);

}  // namespace finetune::jinja
