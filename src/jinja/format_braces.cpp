#include "finetune/base/error.h"
#include "jinja/functions.h"
#include "jinja/unicode.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace finetune::jinja {

namespace {

constexpr std::int64_t kMaxWidth = 100'000;

/// [[fill]align][sign][#][0][width][,][.precision][type]
struct Specification {
  std::string fill = " ";
  char align = '\0', sign = '-', grouping = '\0', type = '\0';
  bool alternate = false;
  std::int64_t width = 0, precision = -1;
};

bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

Specification parse_specification(std::string_view text) {
  Specification result;
  std::size_t at = 0;
  if (!text.empty()) {
    std::size_t after = 0;
    next_code_point(text, after);
    if (after < text.size() && is_align(text[after])) {
      result.fill = text.substr(0, after);
      result.align = text[after];
      at = after + 1;
    } else if (is_align(text[0])) {
      result.align = text[0];
      at = 1;
    }
  }
  const auto peek = [&] { return at < text.size() ? text[at] : '\0'; };
  const auto number = [&] {
    std::int64_t value = 0;
    while (peek() >= '0' && peek() <= '9')
      value = std::min(value * 10 + (text[at++] - '0'), kMaxWidth + 1);
    if (value > kMaxWidth) fail(ErrorKind::data, "a width above {} in a format", kMaxWidth);
    return value;
  };
  if (peek() == '+' || peek() == '-' || peek() == ' ') result.sign = text[at++];
  if (peek() == '#') {
    result.alternate = true;
    ++at;
  }
  if (peek() == '0') {
    if (result.align == '\0') {
      result.fill = "0";
      result.align = '=';
    }
    ++at;
  }
  result.width = number();
  if (peek() == ',' || peek() == '_') result.grouping = text[at++];
  if (peek() == '.') {
    ++at;
    if (peek() < '0' || peek() > '9') fail(ErrorKind::data, "Format specifier missing precision");
    result.precision = number();
  }
  if (at < text.size()) result.type = text[at++];
  if (at < text.size()) fail(ErrorKind::data, "Invalid format specifier '{}'", text);
  return result;
}

void group_digits(std::string& digits, char separator, std::size_t every) {
  std::size_t end = digits.find_first_not_of("0123456789abcdefABCDEF");
  if (end == std::string::npos) end = digits.size();
  for (std::size_t at = end; at > every; at -= every) digits.insert(at - every, 1, separator);
}

std::string float_digits(double number, const Specification& spec) {
  if (spec.type != '\0' && std::string_view("eEfFgG%n").find(spec.type) == std::string_view::npos) {
    fail(ErrorKind::data, "Unknown format code '{}' for object of type 'float'", spec.type);
  }
  std::string digits;
  if (spec.type == '\0' && spec.precision < 0) {
    digits = float_text(number);
  } else {
    const char kind = spec.type == '%'                        ? 'f'
                      : spec.type == '\0' || spec.type == 'n' ? 'g'
                                                              : spec.type;
    char buffer[512];  // the longest: 309 digits, a point, 150 more
    const std::string pattern = std::string("%.*") + kind;
    const auto precision =
        static_cast<int>(std::min<std::int64_t>(spec.precision < 0 ? 6 : spec.precision, 150));
    std::snprintf(buffer, sizeof(buffer), pattern.c_str(), precision,
                  spec.type == '%' ? number * 100 : number);
    digits = buffer;
    if (spec.type == '%') digits += '%';
  }
  if (spec.grouping != '\0') group_digits(digits, spec.grouping, 3);
  return digits;
}

std::string whole_digits(std::uint64_t size, const Specification& spec) {
  if (spec.precision >= 0)
    fail(ErrorKind::data, "Precision not allowed in integer format specifier");
  std::string digits;
  switch (spec.type) {
    case '\0':
    case 'n':
    case 'd':
      digits = std::to_string(size);
      break;
    case 'x':
      digits = fmt::format("{:x}", size);
      break;
    case 'X':
      digits = fmt::format("{:X}", size);
      break;
    case 'o':
      digits = fmt::format("{:o}", size);
      break;
    case 'b':
      digits = fmt::format("{:b}", size);
      break;
    case 'c':
      append_utf8(digits, static_cast<char32_t>(std::min<std::uint64_t>(size, 0x10FFFF)));
      return digits;
    default:
      fail(ErrorKind::data, "Unknown format code '{}' for object of type 'int'", spec.type);
  }
  if (spec.grouping != '\0')
    group_digits(digits, spec.grouping, spec.type == '\0' || spec.type == 'd' ? 3 : 4);
  if (spec.alternate && std::string_view("xXob").find(spec.type) != std::string_view::npos)
    digits.insert(0, std::string("0") + spec.type);
  return digits;
}

/// The digits of a number without its sign.
std::string digits_of(const Value& value, const Specification& spec) {
  const bool is_float = value.is(Kind::floating) ||
                        std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  if (is_float) return float_digits(std::abs(value.number()), spec);
  const std::int64_t whole = value.whole();
  const auto size = static_cast<std::uint64_t>(whole);
  return whole_digits(whole < 0 ? 0 - size : size, spec);
}

/// Fields {name.attribute[key]!conversion:specification}.
class BraceFormat {
 public:
  BraceFormat(Interpreter& interpreter, const Value& format, const Arguments& arguments)
      : interpreter_(interpreter), format_(text_of(format)), arguments_(arguments) {}

  Value run() {
    const std::string& bytes = format_.bytes;
    while (at_ < bytes.size()) {
      const std::size_t brace = std::min(bytes.find_first_of("{}", at_), bytes.size());
      builder_.add(format_, at_, brace);
      at_ = brace;
      if (at_ == bytes.size()) break;
      if (at_ + 1 < bytes.size() && bytes[at_ + 1] == bytes[at_]) {
        builder_.add(format_, at_, at_ + 1);
        at_ += 2;
        continue;
      }
      if (bytes[at_] == '}') fail(ErrorKind::data, "Single '}}' encountered in format string");
      ++at_;
      builder_.add(text_of(field()));
    }
    return builder_.finish(interpreter_.heap(), format_.markup);
  }

 private:
  /// The text up to the brace that closes this field.
  std::string field_text() {
    std::string text;
    for (int open = 1; at_ < format_.bytes.size();) {
      const char c = format_.bytes[at_++];
      if (c == '{') ++open;
      if (c == '}' && --open == 0) return text;
      text += c;
    }
    fail(ErrorKind::data, "expected '}}' before end of string");
  }

  Value field() {
    const std::string text = field_text();
    std::size_t name_end = 0;
    for (bool inside = false; name_end < text.size(); ++name_end) {
      if (text[name_end] == '[') inside = true;
      if (text[name_end] == ']') inside = false;
      if (!inside && (text[name_end] == '!' || text[name_end] == ':')) break;
    }
    Value value = look_up(text.substr(0, name_end));
    std::size_t at = name_end;
    if (at < text.size() && text[at] == '!') {
      if (at + 1 >= text.size())
        fail(ErrorKind::data, "end of string while looking for conversion specifier");
      value = convert(value, text[at + 1]);
      at += 2;
      if (at < text.size() && text[at] != ':')
        fail(ErrorKind::data, "expected ':' after conversion specifier");
    }
    std::string specification = at < text.size() ? text.substr(at + 1) : "";
    if (specification.find('{') != std::string::npos) specification = fill_in(specification);
    const Value formatted = format_value(interpreter_, value, specification);
    return format_.markup ? escape(interpreter_.heap(), formatted) : formatted;
  }

  /// A specification with fields inside.
  std::string fill_in(const std::string& specification) {
    std::string filled;
    for (std::size_t i = 0; i < specification.size(); ++i) {
      if (specification[i] != '{') {
        filled += specification[i];
        continue;
      }
      const std::size_t close = specification.find('}', i);
      if (close == std::string::npos) fail(ErrorKind::data, "expected '}}' before end of string");
      filled += bytes_of(interpreter_.text(look_up(specification.substr(i + 1, close - i - 1))));
      i = close;
    }
    return filled;
  }

  Value convert(const Value& value, char conversion) const {
    if (conversion == 's') return interpreter_.text(value);
    if (conversion != 'r' && conversion != 'a')
      fail(ErrorKind::data, "Unknown conversion specifier '{}'", conversion);
    TextBuilder repr;
    add_repr(repr, value);
    return repr.finish(interpreter_.heap());
  }

  Value argument(const std::string& name) {
    const bool number = !name.empty() && name.size() < 10 &&
                        name.find_first_not_of("0123456789") == std::string::npos;
    if (name.empty() || number) {
      if (name.empty() ? next_ < 0 : next_ > 0) {
        fail(ErrorKind::data,
             "cannot mix automatic and manual numbering of the fields of a format");
      }
      const std::size_t index = name.empty() ? static_cast<std::size_t>(next_++)
                                             : static_cast<std::size_t>(std::stoll(name));
      if (!name.empty()) next_ = -1;
      if (index >= arguments_.positional.size())
        fail(ErrorKind::data, "Replacement index {} out of range for positional args tuple", index);
      return arguments_.positional[index];
    }
    const Value* found = arguments_.find_named(name);
    if (found == nullptr) fail(ErrorKind::data, "the values of a format have no '{}'", name);
    return *found;
  }

  Value look_up(const std::string& path) {
    std::size_t at = std::min(path.find_first_of(".["), path.size());
    Value value = argument(path.substr(0, at));
    while (at < path.size()) {
      const bool item = path[at] == '[';
      const std::size_t end =
          std::min(item ? path.find(']', at) : path.find_first_of(".[", at + 1), path.size());
      const std::string name = path.substr(at + 1, end - at - 1);
      const bool number = !name.empty() && name.size() < 10 &&
                          name.find_first_not_of("0123456789") == std::string::npos;
      value = !item    ? interpreter_.attribute(value, name)
              : number ? interpreter_.item(value, Value::of_int(std::stoll(name)))
                       : interpreter_.item(value, interpreter_.heap().text(name));
      require_defined(value);
      at = item ? end + 1 : end;
    }
    return value;
  }

  Interpreter& interpreter_;
  const TextObject& format_;
  const Arguments& arguments_;
  TextBuilder builder_;
  std::size_t at_ = 0;
  std::int64_t next_ = 0;  ///< the argument of the next "{}"; -1 once numbers are given
};

}  // namespace

Value format_value(Interpreter& interpreter, const Value& value, std::string_view specification) {
  const Heap& heap = interpreter.heap();
  if (specification.empty()) return interpreter.text(value);
  const Specification spec = parse_specification(specification);
  Value text;
  std::string sign;
  char align = spec.align;
  if (value.is_number()) {
    const bool negative =
        value.is(Kind::floating) ? std::signbit(value.floating) : value.whole() < 0;
    sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
    text = heap.text(digits_of(value, spec));
    if (align == '\0') align = '>';
  } else if (value.is(Kind::text)) {
    if (spec.type != '\0' && spec.type != 's') {
      fail(ErrorKind::data, "Unknown format code '{}' for object of type 'str'", spec.type);
    }
    if (align == '=' && spec.fill != "0")
      fail(ErrorKind::data, "'=' alignment not allowed in string format specifier");
    text = value;
    if (spec.precision >= 0) {
      text = take_slice(interpreter, value, Value::none(), Value::of_int(spec.precision),
                        Value::none());
    }
    if (align == '\0' || align == '=') align = '<';
  } else {
    fail(ErrorKind::data, "unsupported format string passed to {}.__format__", type_name(value));
  }
  const auto length = static_cast<std::int64_t>(sign.size() + count_code_points(bytes_of(text)));
  const std::int64_t missing = std::max<std::int64_t>(0, spec.width - length);
  const std::int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  TextBuilder builder;
  const auto pad = [&](std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) builder.add(spec.fill);
    interpreter.budget().step(count / 16);
  };
  if (align == '=') {
    builder.add(sign);
    pad(missing);
  } else {
    pad(left);
    builder.add(sign);
  }
  builder.add(text_of(text));
  if (align == '<' || align == '^') pad(missing - left);
  return builder.finish(heap);
}

Value format_braces(Interpreter& interpreter, const Value& format, const Arguments& arguments) {
  return BraceFormat(interpreter, format, arguments).run();
}

}  // namespace finetune::jinja
