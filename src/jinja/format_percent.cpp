#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/unicode.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace finetune::jinja {

namespace {

constexpr std::int64_t kMaxWidth = 100'000;

/// One "%..." of a format.
struct Directive {
  std::string key;
  bool has_key = false;
  bool left = false, plus = false, space = false, zero = false, alternate = false;
  std::int64_t width = 0, precision = -1;
  char kind = 's';
};

/// Reads a format and takes the values in turn.
class PercentFormat {
 public:
  PercentFormat(Interpreter& interpreter, const Value& format, const Value& values,
                const std::vector<std::pair<std::string, Value>>& named)
      : interpreter_(interpreter), format_(text_of(format)), values_(values), named_(named) {}

  Value run() {
    const std::string& bytes = format_.bytes;
    while (at_ < bytes.size()) {
      const std::size_t percent = bytes.find('%', at_);
      builder_.add(format_, at_, std::min(percent, bytes.size()));
      if (percent == std::string::npos) break;
      at_ = percent + 1;
      const Directive directive = read();
      if (directive.kind == '%') {
        builder_.add("%");
      } else {
        write(directive);
      }
    }
    if (values_.is(Kind::tuple) && taken_ < items_of(values_).size() && !used_key_) {
      fail(ErrorKind::data, "not all arguments converted during string formatting");
    }
    if (!values_.is(Kind::tuple) && !values_.is(Kind::dict) && taken_ == 0 &&
        !values_.is(Kind::list)) {
      fail(ErrorKind::data, "not all arguments converted during string formatting");
    }
    return builder_.finish(interpreter_.heap(), format_.markup);
  }

 private:
  char next() {
    if (at_ >= format_.bytes.size()) fail(ErrorKind::data, "incomplete format");
    return format_.bytes[at_++];
  }

  std::int64_t read_number(char& c) {
    if (c == '*') {
      const std::int64_t number = require_whole(take(), "a width");
      c = next();
      return number;
    }
    std::int64_t number = 0;
    while (c >= '0' && c <= '9') {
      number = std::min(number * 10 + (c - '0'), kMaxWidth + 1);
      c = next();
    }
    return number;
  }

  Directive read() {
    Directive directive;
    char c = next();
    if (c == '(') {
      directive.has_key = true;
      while ((c = next()) != ')') directive.key += c;
      c = next();
    }
    for (; std::string_view("-+ 0#").find(c) != std::string_view::npos; c = next()) {
      directive.left |= c == '-';
      directive.plus |= c == '+';
      directive.space |= c == ' ';
      directive.zero |= c == '0';
      directive.alternate |= c == '#';
    }
    directive.width = read_number(c);
    if (directive.width < 0) {
      directive.left = true;
      directive.width = -directive.width;
    }
    if (c == '.') {
      c = next();
      directive.precision = std::max<std::int64_t>(0, read_number(c));
    }
    while (c == 'h' || c == 'l' || c == 'L') c = next();
    if (directive.width > kMaxWidth || directive.precision > kMaxWidth) {
      fail(ErrorKind::data, "a width above {} in a format", kMaxWidth);
    }
    directive.kind = c;
    return directive;
  }

  Value take() {
    if (values_.is(Kind::tuple)) {
      if (taken_ >= items_of(values_).size())
        fail(ErrorKind::data, "not enough arguments for format string");
      return items_of(values_)[taken_++];
    }
    if (taken_++ > 0) fail(ErrorKind::data, "not enough arguments for format string");
    return values_;
  }

  Value value_of(const Directive& directive) {
    if (!directive.has_key) return take();
    used_key_ = true;
    for (const auto& [name, value] : named_) {
      if (name == directive.key) return value;
    }
    if (!values_.is(Kind::dict) && named_.empty())
      fail(ErrorKind::data, "format requires a mapping");
    const Value* found = values_.is(Kind::dict) ? dict_of(values_).find(directive.key) : nullptr;
    if (found == nullptr)
      fail(ErrorKind::data, "the values of a format have no '{}'", directive.key);
    return *found;
  }

  void write(const Directive& directive) {
    const Value value = value_of(directive);
    const Heap& heap = interpreter_.heap();
    switch (directive.kind) {
      case 's':
      case 'r':
      case 'a': {
        Value text = interpreter_.text(value);
        if (directive.kind != 's') {
          TextBuilder repr;
          add_repr(repr, value);
          text = repr.finish(heap);
        }
        if (format_.markup) text = escape(heap, text);
        if (directive.precision >= 0) {
          text = take_slice(interpreter_, text, Value::none(), Value::of_int(directive.precision),
                            Value::none());
        }
        return add_padded(text_of(text), directive);
      }
      case 'c': {
        std::string c;
        if (value.is(Kind::text)) {
          c = bytes_of(value);
        } else {
          append_utf8(c, static_cast<char32_t>(
                             std::clamp<std::int64_t>(require_whole(value, "%c"), 0, 0x10FFFF)));
        }
        if (count_code_points(c) != 1) fail(ErrorKind::data, "%c requires int or char");
        return add_padded(text_of(heap.text(c)), directive);
      }
      default:
        return add_number(value, directive);
    }
  }

  void add_number(const Value& value, const Directive& directive) {
    require_defined(value);
    const char kind = directive.kind;
    const bool is_float = std::string_view("eEfFgG").find(kind) != std::string_view::npos;
    if (!is_float && std::string_view("diuxXo").find(kind) == std::string_view::npos) {
      fail(ErrorKind::data, "unsupported format character '{}'", kind);
    }
    if (!value.is_number())
      fail(ErrorKind::data, "%{} format: a real number is required, not {}", kind,
           type_name(value));
    std::string digits;
    const bool negative = is_float ? std::signbit(value.number()) : value.number() < 0;
    if (is_float) {
      char buffer[512];
      const std::string pattern = std::string("%.*") + kind;
      std::snprintf(buffer, sizeof(buffer), pattern.c_str(),
                    static_cast<int>(std::min<std::int64_t>(
                        directive.precision < 0 ? 6 : directive.precision, 150)),
                    std::abs(value.number()));
      digits = buffer;
    } else {
      if (value.is(Kind::floating) && (kind == 'x' || kind == 'X' || kind == 'o')) {
        fail(ErrorKind::data, "%{} format: an integer is required, not float", kind);
      }
      if (value.is(Kind::floating) && !(std::abs(value.floating) < 9.2e18))
        fail(ErrorKind::data, "cannot convert the float to an integer");
      const std::int64_t whole =
          value.is(Kind::floating) ? static_cast<std::int64_t>(value.floating) : value.whole();
      const std::uint64_t size =
          whole < 0 ? 0 - static_cast<std::uint64_t>(whole) : static_cast<std::uint64_t>(whole);
      digits = kind == 'x'   ? fmt::format("{:x}", size)
               : kind == 'X' ? fmt::format("{:X}", size)
               : kind == 'o' ? fmt::format("{:o}", size)
                             : std::to_string(size);
      if (directive.precision > static_cast<std::int64_t>(digits.size())) {
        digits.insert(0, static_cast<std::size_t>(directive.precision) - digits.size(), '0');
      }
      if (directive.alternate && kind != 'd' && kind != 'i' && kind != 'u')
        digits.insert(0, std::string("0") + kind);
    }
    const std::string sign = negative ? "-" : directive.plus ? "+" : directive.space ? " " : "";
    const auto length = static_cast<std::int64_t>(sign.size() + digits.size());
    if (directive.zero && !directive.left && length < directive.width) {
      digits.insert(0, static_cast<std::size_t>(directive.width - length), '0');
    }
    const Value text = interpreter_.heap().text(sign + digits);
    add_padded(text_of(text), directive);
  }

  void add_padded(const TextObject& text, const Directive& directive) {
    const auto length = static_cast<std::int64_t>(count_code_points(text.bytes));
    const std::string padding(
        static_cast<std::size_t>(std::max<std::int64_t>(0, directive.width - length)), ' ');
    if (!directive.left) builder_.add(padding);
    builder_.add(text);
    if (directive.left) builder_.add(padding);
    interpreter_.budget().work(padding.size() + text.bytes.size());
  }

  Interpreter& interpreter_;
  const TextObject& format_;
  const Value& values_;
  const std::vector<std::pair<std::string, Value>>& named_;
  TextBuilder builder_;
  std::size_t at_ = 0, taken_ = 0;
  bool used_key_ = false;
};

}  // namespace

Value format_percent(Interpreter& interpreter, const Value& format, const Value& values,
                     const std::vector<std::pair<std::string, Value>>& named) {
  return PercentFormat(interpreter, format, values, named).run();
}

}  // namespace finetune::jinja
