#include "finetune/base/error.h"
#include "jinja/text.h"
#include "jinja/unicode.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace finetune::jinja {

namespace {

/// The tag of a text as a whole: that of its first span where the text begins with it.
Tag whole_tag(const TextObject& text) {
  if (text.spans.empty() || text.spans.front().begin != 0) return {};
  return text.spans.front().tag;
}

Tag source_tag(std::int32_t source) {
  Tag tag;
  tag.source = source;
  return tag;
}

void append_escape(std::string& out, char32_t c) {
  if (c < 0x100) {
    out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
  } else if (c < 0x10000) {
    out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
  } else {
    out += fmt::format("\\U{:08x}", static_cast<unsigned>(c));
  }
}

/// Python's repr of a string: single quotes, unless there are some and no double ones.
void add_quoted(TextBuilder& builder, const TextObject& text) {
  const bool has_single = text.bytes.find('\'') != std::string::npos;
  const char quote = has_single && text.bytes.find('"') == std::string::npos ? '"' : '\'';
  const Tag outer = whole_tag(text);
  builder.add(std::string(1, quote), outer);
  TagCursor cursor(text);
  std::string out;
  for (std::size_t i = 0; i < text.bytes.size();) {
    const Tag tag = cursor.at(i);
    const char32_t c = next_code_point(text.bytes, i);
    out.clear();
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_utf8(out, c);
    } else {
      append_escape(out, c);
    }
    builder.add(out, tag);
  }
  builder.add(std::string(1, quote), outer);
}

void add_items(TextBuilder& builder, const Value& value, std::string_view open,
               std::string_view close) {
  const ListObject& list = list_of(value);
  const Tag tag = source_tag(list.source);
  builder.add(open, tag);
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) builder.add(", ", tag);
    add_repr(builder, list.items[i]);
  }
  if (value.is(Kind::tuple) && list.items.size() == 1) builder.add(",", tag);
  builder.add(close, tag);
}

void add_dict(TextBuilder& builder, const DictObject& dict) {
  const Tag tag = source_tag(dict.source);
  builder.add("{", tag);
  bool first = true;
  for (const auto& [key, value] : dict.entries) {
    if (!first) builder.add(", ", tag);
    first = false;
    add_repr(builder, key);
    builder.add(": ", tag);
    add_repr(builder, value);
  }
  builder.add("}", tag);
}

/// What str() and repr() agree on.
std::string plain_text(const Value& value) {
  switch (value.kind) {
    case Kind::undefined:
      return "";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return value.boolean ? "True" : "False";
    case Kind::integer:
      return std::to_string(value.integer);
    case Kind::floating:
      return float_text(value.floating);
    case Kind::generator:
    case Kind::range:
      return list_of(value).label;
    case Kind::instance:
      return instance_of(value).print();
    default:
      return "";
  }
}

}  // namespace

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  if (number == 0) return std::signbit(number) ? "-0.0" : "0.0";
  char buffer[40];
  const auto done =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific);
  std::string text(buffer, done.ptr);
  const std::size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  if (exponent < -4 || exponent >= 16) {
    return text.substr(0, e) +
           fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  std::string sign, digits;
  for (const char c : text.substr(0, e)) {
    if (c == '-') sign = "-";
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < 0)
    return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

void add_repr(TextBuilder& builder, const Value& value) {
  switch (value.kind) {
    case Kind::text:
      if (!text_of(value).markup) return add_quoted(builder, text_of(value));
      builder.add("Markup(");
      add_quoted(builder, text_of(value));
      return builder.add(")");
    case Kind::list:
      return add_items(builder, value, "[", "]");
    case Kind::tuple:
      return add_items(builder, value, "(", ")");
    case Kind::view:
      return add_items(builder, value, list_of(value).label + "([", "])");
    case Kind::dict:
      return add_dict(builder, dict_of(value));
    case Kind::undefined:
      return builder.add("Undefined");
    default:
      return builder.add(plain_text(value));
  }
}

Value to_text(const Heap& heap, const Value& value) {
  switch (value.kind) {
    case Kind::text:
      return value;
    case Kind::list:
    case Kind::tuple:
    case Kind::view:
    case Kind::dict: {
      TextBuilder builder;
      add_repr(builder, value);
      heap.work(builder.size() * 16);
      return builder.finish(heap);
    }
    default:
      return heap.text(plain_text(value));
  }
}

namespace {

class JsonWriter {
 public:
  JsonWriter(TextBuilder& builder, const JsonStyle& style) : builder_(builder), style_(style) {}

  void add(const Value& value, Tag around) {
    switch (value.kind) {
      case Kind::none:
        return builder_.add("null", around);
      case Kind::boolean:
        return builder_.add(value.boolean ? "true" : "false", around);
      case Kind::integer:
        return builder_.add(std::to_string(value.integer), around);
      case Kind::floating:
        return builder_.add(number_text(value.floating), around);
      case Kind::text:
        return add_text(text_of(value));
      case Kind::list:
      case Kind::tuple:
        return add_list(list_of(value));
      case Kind::dict:
        return add_dict(dict_of(value));
      default:
        fail(ErrorKind::data, "Object of type {} is not JSON serializable", type_name(value));
    }
  }

 private:
  static std::string number_text(double number) {
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
    return float_text(number);
  }

  void new_line(Tag tag) {
    if (!style_.indent) return;
    builder_.add("\n", tag);
    for (int i = 0; i < level_; ++i) builder_.add(*style_.indent, tag);
  }

  template <typename Item>
  void add_all(std::size_t count, char open, char close, Tag tag, const Item& add_item) {
    if (count == 0) return builder_.add(std::string{open, close}, tag);
    builder_.add(std::string(1, open), tag);
    ++level_;
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) builder_.add(style_.item_separator, tag);
      new_line(tag);
      add_item(i);
    }
    --level_;
    new_line(tag);
    builder_.add(std::string(1, close), tag);
  }

  void add_list(const ListObject& list) {
    const Tag tag = source_tag(list.source);
    add_all(list.items.size(), '[', ']', tag, [&](std::size_t i) { add(list.items[i], tag); });
  }

  void add_dict(const DictObject& dict) {
    const Tag tag = source_tag(dict.source);
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
        return compare(a->first, b->first) < 0;
      });
    }
    add_all(entries.size(), '{', '}', tag, [&](std::size_t i) {
      add_key(entries[i]->first, tag);
      builder_.add(style_.key_separator, tag);
      add(entries[i]->second, tag);
    });
  }

  void add_key(const Value& key, Tag around) {
    if (key.is(Kind::text)) return add_text(text_of(key));
    if (!key.is_number() && !key.is(Kind::none)) {
      fail(ErrorKind::data, "keys must be str, int, float, bool or None, not {}", type_name(key));
    }
    builder_.add("\"", around);
    add(key, around);
    builder_.add("\"", around);
  }

  void add_text(const TextObject& text) {
    const Tag outer = whole_tag(text);
    builder_.add("\"", outer);
    TagCursor cursor(text);
    std::string out;
    for (std::size_t i = 0; i < text.bytes.size();) {
      const Tag tag = cursor.at(i);
      out.clear();
      append_json(out, next_code_point(text.bytes, i));
      builder_.add(out, tag);
    }
    builder_.add("\"", outer);
  }

  void append_json(std::string& out, char32_t c) const {
    switch (c) {
      case '"':
        out += "\\\"";
        return;
      case '\\':
        out += "\\\\";
        return;
      case '\n':
        out += "\\n";
        return;
      case '\r':
        out += "\\r";
        return;
      case '\t':
        out += "\\t";
        return;
      case '\b':
        out += "\\b";
        return;
      case '\f':
        out += "\\f";
        return;
      default:
        break;
    }
    if (c < 0x20 || (style_.ensure_ascii && c >= 0x7F && c < 0x10000)) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else if (style_.ensure_ascii && c >= 0x10000) {
      const unsigned rest = static_cast<unsigned>(c) - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    } else {
      append_utf8(out, c);
    }
  }

  TextBuilder& builder_;
  const JsonStyle& style_;
  int level_ = 0;
};

}  // namespace

void add_json(TextBuilder& builder, const Value& value, const JsonStyle& style) {
  JsonWriter(builder, style).add(value, {});
}

}  // namespace finetune::jinja
