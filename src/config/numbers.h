#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace finetune {

/// A finite decimal number: sign, digits with `_` between them, fraction, exponent. Nothing
/// otherwise.
std::optional<double> parse_number(std::string_view text);

/// A whole number, also written `16.0` or `1e3`. Nothing when it is not whole or leaves 64 bits.
std::optional<std::int64_t> parse_integer(std::string_view text);

/// Bytes, or a number and a unit: `64 MiB`, `2GB`. Nothing when it is neither.
std::optional<std::int64_t> parse_bytes(std::string_view text);

/// true/false in YAML 1.2's and 1.1's words: true, yes, on, false, no, off; first letter or all
/// large.
std::optional<bool> parse_bool(std::string_view text);

}  // namespace finetune
