#pragma once

#include <string>

namespace finetune {

/// Appends the UTF-8 of a code point.
void append_utf8(std::string& text, char32_t code_point);

/// Python's str.isspace for one code point.
bool is_python_space(char32_t code_point);

}  // namespace finetune
