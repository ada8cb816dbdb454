#include "config/numbers.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <string>

namespace finetune {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Without `_` between digits and a leading plus; nothing when one stands elsewhere or a letter
/// other than an exponent does (from_chars would read "inf", "nan").
std::optional<std::string> plain_number(std::string_view text) {
  std::string plain;
  if (text.starts_with('+')) text.remove_prefix(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '_') {
      if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
        return std::nullopt;
      }
      continue;
    }
    if (!is_digit(c) && std::string_view("+-.eE").find(c) == std::string_view::npos)
      return std::nullopt;
    plain += c;
  }
  return plain;
}

template <typename T>
std::optional<T> parse_whole(const std::string& plain) {
  T value{};
  const char* end = plain.data() + plain.size();
  const auto [stop, error] = std::from_chars(plain.data(), end, value);
  if (error != std::errc() || stop != end || plain.empty()) return std::nullopt;
  return value;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

}  // namespace

std::optional<double> parse_number(std::string_view text) {
  const auto plain = plain_number(text);
  return plain ? parse_whole<double>(*plain) : std::nullopt;
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
  const auto plain = plain_number(text);
  if (!plain) return std::nullopt;
  if (const auto whole = parse_whole<std::int64_t>(*plain)) return whole;
  const auto number = parse_whole<double>(*plain);
  // Beyond 2^53 a double no longer tells neighbouring integers apart.
  if (!number || std::floor(*number) != *number || std::abs(*number) > 9007199254740992.0) {
    return std::nullopt;
  }
  return static_cast<std::int64_t>(*number);
}

std::optional<std::int64_t> parse_bytes(std::string_view text) {
  const auto unit_begin = text.find_first_not_of("0123456789._+");
  if (unit_begin == std::string_view::npos) return parse_integer(text);
  std::string_view digits = text.substr(0, unit_begin);
  while (digits.ends_with(' ')) digits.remove_suffix(1);
  std::string_view unit_text = text.substr(unit_begin);
  while (unit_text.starts_with(' ')) unit_text.remove_prefix(1);
  const std::string unit = lower(unit_text);
  const std::pair<std::string_view, double> units[] = {
      {"b", 1},      {"kb", 1e3},        {"mb", 1e6},          {"gb", 1e9},
      {"kib", 1024}, {"mib", 1048576.0}, {"gib", 1073741824.0}};
  for (const auto& [name, factor] : units) {
    if (unit != name) continue;
    const auto number = parse_number(digits);
    if (!number || *number * factor > 9007199254740992.0) return std::nullopt;
    return static_cast<std::int64_t>(std::llround(*number * factor));
  }
  return parse_integer(text);
}

std::optional<bool> parse_bool(std::string_view text) {
  const std::string word = lower(text);
  // YAML has true, True and TRUE, but not tRuE.
  std::string capital = word;
  if (!capital.empty()) capital[0] = static_cast<char>(std::toupper(capital[0]));
  std::string large(text);
  const bool all_large = std::none_of(large.begin(), large.end(),
                                      [](unsigned char c) { return std::islower(c) != 0; });
  if (text != word && text != capital && !all_large) return std::nullopt;
  if (word == "true" || word == "yes" || word == "on") return true;
  if (word == "false" || word == "no" || word == "off") return false;
  return std::nullopt;
}

}  // namespace finetune
