#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/unicode.h"

#include <charconv>
#include <cmath>
#include <unordered_map>

namespace finetune::jinja {

namespace {

using In = Interpreter&;
using Self = const Value&;
using Args = const Arguments&;

/// The text without white space around it and without underscores between digits.
std::string number_text(const std::string& bytes) {
  const std::size_t begin = skip_space(bytes, 0);
  const std::string trimmed = bytes.substr(begin, trim_space(bytes, begin, bytes.size()) - begin);
  std::string text;
  for (std::size_t i = 0; i < trimmed.size(); ++i) {
    const bool between = i > 0 && i + 1 < trimmed.size() &&
                         std::isalnum(static_cast<unsigned char>(trimmed[i - 1])) != 0 &&
                         std::isalnum(static_cast<unsigned char>(trimmed[i + 1])) != 0;
    if (trimmed[i] != '_' || !between) text += trimmed[i];
  }
  return text;
}

std::optional<double> parse_float(const std::string& bytes) {
  const std::string text = number_text(bytes);
  static constexpr std::string_view allowed = "0123456789.eE+-infatyINFATY";
  if (text.empty() || text.find_first_not_of(allowed) != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size()) return std::nullopt;
  return number;
}

std::optional<std::int64_t> parse_int(const std::string& bytes, std::int64_t base) {
  std::string text = number_text(bytes);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.erase(0, 1);
  if (text.size() > 2 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      text.erase(0, 2);
      base = marked;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36 || text.empty() || text[0] == '-') return std::nullopt;
  std::int64_t number = 0;
  const auto done =
      std::from_chars(text.data(), text.data() + text.size(), number, static_cast<int>(base));
  if (done.ec != std::errc() || done.ptr != text.data() + text.size()) return std::nullopt;
  return negative ? -number : number;
}

std::optional<std::int64_t> whole_of(double number) {
  if (!(std::abs(number) < 9.2e18)) return std::nullopt;
  return static_cast<std::int64_t>(number);
}

Value filter_int(In, Self self, Args arguments) {
  const Bound bound(arguments, "int", {"default", "base"});
  require_defined(self);
  const Value otherwise = bound[0] != nullptr ? *bound[0] : Value::of_int(0);
  if (self.is_whole()) return Value::of_int(self.whole());
  std::optional<std::int64_t> number;
  if (self.is(Kind::floating)) number = whole_of(self.floating);
  if (self.is(Kind::text)) {
    number = parse_int(bytes_of(self), bound.whole(1, 10));
    if (!number) {
      if (const auto floating = parse_float(bytes_of(self))) number = whole_of(*floating);
    }
  }
  return number ? Value::of_int(*number) : otherwise;
}

Value filter_float(In, Self self, Args arguments) {
  const Bound bound(arguments, "float", {"default"});
  require_defined(self);
  const Value otherwise = bound[0] != nullptr ? *bound[0] : Value::of_float(0);
  if (self.is_number()) return Value::of_float(self.number());
  if (!self.is(Kind::text)) return otherwise;
  const auto number = parse_float(bytes_of(self));
  return number ? Value::of_float(*number) : otherwise;
}

Value filter_abs(In, Self self, Args arguments) {
  const Bound bound(arguments, "abs", {});
  require_defined(self);
  if (!self.is_number()) fail(ErrorKind::data, "bad operand type for abs(): '{}'", type_name(self));
  if (self.is(Kind::floating)) return Value::of_float(std::abs(self.floating));
  return self.whole() < 0 ? apply_unary("-", self) : Value::of_int(self.whole());
}

/// Python's round(): the decimal nearest to the exact value of the float, ties to even.
double round_decimal(double number, std::int64_t precision) {
  if (!std::isfinite(number) || precision > 22) return number;
  if (precision >= 0)
    return std::strtod(fmt::format("{:.{}f}", number, precision).c_str(), nullptr);
  const double scale = std::pow(10.0, static_cast<double>(std::min<std::int64_t>(-precision, 308)));
  return std::nearbyint(number / scale) * scale;
}

Value filter_round(In, Self self, Args arguments) {
  const Bound bound(arguments, "round", {"precision", "method"});
  require_defined(self);
  const std::int64_t precision = bound.whole(0, 0);
  const std::string method = bound.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    fail(ErrorKind::data, "method must be common, ceil or floor");
  }
  if (!self.is_number())
    fail(ErrorKind::data, "type {} doesn't define __round__ method", type_name(self));
  if (method == "common") {
    if (self.is(Kind::floating)) return Value::of_float(round_decimal(self.floating, precision));
    return precision >= 0
               ? Value::of_int(self.whole())
               : Value::of_int(static_cast<std::int64_t>(round_decimal(self.number(), precision)));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = self.number() * scale;
  return Value::of_float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value filter_filesizeformat(In in, Self self, Args arguments) {
  const Bound bound(arguments, "filesizeformat", {"binary"});
  const Value number = filter_float(in, self, {});
  const double base = bound.flag(0, false) ? 1024 : 1000;
  static constexpr std::string_view decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
  static constexpr std::string_view binary[] = {"KiB", "MiB", "GiB", "TiB",
                                                "PiB", "EiB", "ZiB", "YiB"};
  const double bytes = number.floating;
  if (bytes == 1) return in.heap().text("1 Byte");
  if (bytes < base)
    return in.heap().text(fmt::format("{} Bytes", static_cast<std::int64_t>(bytes)));
  double unit = base;
  std::size_t i = 0;
  while (i < 7 && bytes >= unit * base) {
    unit *= base;
    ++i;
  }
  return in.heap().text(
      fmt::format("{:.1f} {}", bytes / unit, base == 1024 ? binary[i] : decimal[i]));
}

}  // namespace

Function find_number_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Function> filters = {
      {"int", filter_int},
      {"float", filter_float},
      {"abs", filter_abs},
      {"round", filter_round},
      {"filesizeformat", filter_filesizeformat},
  };
  const auto found = filters.find(name);
  return found == filters.end() ? nullptr : found->second;
}

}  // namespace finetune::jinja
