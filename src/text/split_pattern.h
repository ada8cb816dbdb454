#pragma once

#include "finetune/text/tokenizer.h"

#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// The published patterns that most byte-level vocabularies split text with.
inline constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Appends the matches of one of those patterns in `text`, moved by `base`; they leave out no byte.
using SplitFunction = void (*)(std::string_view text, std::size_t base,
                               std::vector<ByteSpan>& words);

/// The matcher written for `pattern`, about ten times as fast as the regular expression; null for
/// any other pattern. tests/text/split_pattern_test.cpp holds both against each other.
SplitFunction find_split_function(std::string_view pattern);

}  // namespace finetune
