#pragma once

#include <string>

namespace finetune {

/// A regular expression (regex.h) that matches runs of characters of one script, as the
/// UnicodeScripts pre-tokenizer of `tokenizers` sees scripts: Hiragana, Katakana and U+30FC are
/// Han, a space has none.
std::string script_pattern();

}  // namespace finetune
