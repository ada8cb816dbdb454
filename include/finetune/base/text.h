#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// The candidate nearest to `word` by edit distance, or "" when none is near (distance at most
/// a third of the longer length, at least 1). Used for "did you mean".
std::string nearest(std::string_view word, std::span<const std::string> candidates);

/// "1.5 GiB", "312 KiB", "12 B".
std::string format_bytes(std::uint64_t bytes);

/// "45 s", "3 min 20 s", "2 h 05 min"; below ten seconds with one decimal ("3.4 s").
std::string format_seconds(double seconds);

/// 1234567 -> "1,234,567".
std::string format_count(std::int64_t count);

/// An exception's text without the name of its library: "[json.exception.x.1] what" is "what".
std::string_view without_exception_name(std::string_view what);

/// Joins with a separator.
std::string join(const std::vector<std::string>& parts, std::string_view separator);

/// Offset of the first byte that is not well-formed UTF-8 (Unicode 15, table 3-7: no surrogates, no
/// overlong forms), or npos.
std::size_t find_invalid_utf8(std::string_view text);

}  // namespace finetune
