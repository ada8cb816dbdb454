#include "jinja/lexer.h"

#include "finetune/base/error.h"
#include "jinja/unicode.h"

#include <algorithm>
#include <array>

namespace finetune::jinja {

namespace {

bool is_name_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool is_decimal(char c) { return c >= '0' && c <= '9'; }

/// "\r\n" and "\r" as "\n", without the last newline.
std::string normalise(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where)
      : text_(normalise(source)), where_(where) {}

  std::vector<Token> run() {
    while (position_ < text_.size()) read_data();
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::model, "{}:{}: {}", where_, line_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void advance(std::size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    position_ = to;
  }

  bool looking_at(std::string_view word) const {
    return std::string_view(text_).substr(position_).starts_with(word);
  }

  /// The earliest "{%", "{{" or "{#" from here on, or npos.
  std::size_t find_tag() const {
    for (std::size_t at = text_.find('{', position_); at != std::string::npos;
         at = text_.find('{', at + 1)) {
      if (at + 1 < text_.size() &&
          (text_[at + 1] == '%' || text_[at + 1] == '{' || text_[at + 1] == '#'))
        return at;
    }
    return std::string::npos;
  }

  /// The data before a tag at `tag` whose sign is `sign`, without the white space that the sign or
  /// lstrip_blocks removes.
  void add_data(std::size_t tag, char sign, bool block) {
    const std::size_t begin = position_;
    const bool line_starts = begin == 0 || text_[begin - 1] == '\n';
    std::size_t end = tag;
    if (sign == '-') {
      end = trim_space(text_, begin, tag);
    } else if (sign != '+' && block) {
      const std::size_t newline = tag == begin ? std::string::npos : text_.rfind('\n', tag - 1);
      const bool inside = newline != std::string::npos && newline >= begin;
      const std::size_t line = inside ? newline + 1 : begin;
      if ((inside || line_starts) && trim_space(text_, line, tag) == line) end = line;
    }
    if (end > begin) add(TokenKind::data, text_.substr(begin, end - begin));
    advance(tag);
  }

  void read_data() {
    const std::size_t tag = find_tag();
    if (tag == std::string::npos) {
      add(TokenKind::data, text_.substr(position_));
      return advance(text_.size());
    }
    const char kind = text_[tag + 1];
    char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    if (sign != '-' && sign != '+') sign = '\0';
    add_data(tag, sign, kind != '{');
    advance(tag + 2 + (sign != '\0' ? 1 : 0));
    if (kind == '#') return skip_comment();
    if (kind == '%' && read_raw()) return;
    add(kind == '%' ? TokenKind::block_begin : TokenKind::print_begin, "");
    read_inside(kind == '%');
  }

  /// Behind the end of a tag that ends at `end` and has `sign` before its closing brackets.
  void close_tag(std::size_t end, char sign, bool block) {
    if (sign == '-') {
      end = skip_space(text_, end);
    } else if (block && sign != '+' && end < text_.size() && text_[end] == '\n') {
      ++end;
    }
    advance(end);
  }

  void skip_comment() {
    const std::size_t found = text_.find("#}", position_);
    if (found == std::string::npos) fail_here("a comment has no end; expected '#}}'");
    close_tag(found + 2, found > position_ ? text_[found - 1] : '\0', true);
  }

  /// Past `word` and white space around it, or npos.
  std::size_t match_word(std::size_t at, std::string_view word) const {
    at = skip_space(text_, at);
    if (!std::string_view(text_).substr(at).starts_with(word)) return std::string::npos;
    return skip_space(text_, at + word.size());
  }

  /// A raw block, where there is one behind "{%".
  bool read_raw() {
    std::size_t at = match_word(position_, "raw");
    if (at == std::string::npos) return false;
    const char sign = at < text_.size() ? text_[at] : '\0';
    if (sign == '-') ++at;
    if (text_.compare(at, 2, "%}") != 0) return false;
    advance(at + 2);
    if (sign == '-') advance(skip_space(text_, position_));
    for (std::size_t tag = text_.find("{%", position_); tag != std::string::npos;
         tag = text_.find("{%", tag + 1)) {
      const char before = tag + 2 < text_.size() && (text_[tag + 2] == '-' || text_[tag + 2] == '+')
                              ? text_[tag + 2]
                              : '\0';
      std::size_t end = match_word(tag + 2 + (before != '\0' ? 1 : 0), "endraw");
      if (end == std::string::npos) continue;
      const char after =
          end < text_.size() && (text_[end] == '-' || text_[end] == '+') ? text_[end] : '\0';
      if (after != '\0') ++end;
      if (text_.compare(end, 2, "%}") != 0) continue;
      add_data(tag, before, true);
      close_tag(end + 2, after, true);
      return true;
    }
    fail_here("a raw block has no end; expected {{% endraw %}}");
  }

  /// True when the tag ended here.
  bool read_end(bool block) {
    const std::string_view close = block ? "%}" : "}}";
    const char sign = text_[position_];
    const bool signed_end = (sign == '-' || (block && sign == '+')) &&
                            std::string_view(text_).substr(position_ + 1).starts_with(close);
    if (!signed_end && !looking_at(close)) return false;
    add(block ? TokenKind::block_end : TokenKind::print_end, "");
    close_tag(position_ + close.size() + (signed_end ? 1 : 0), signed_end ? sign : '\0', block);
    return true;
  }

  void read_inside(bool block) {
    std::string open;  // brackets that are not closed yet
    while (true) {
      advance(skip_space(text_, position_));
      if (position_ >= text_.size())
        fail_here("a tag has no end; expected '{}'", block ? "%}" : "}}");
      if (open.empty() && read_end(block)) return;
      const char c = text_[position_];
      if (is_decimal(c)) {
        read_number();
      } else if (is_name_byte(c)) {
        std::size_t end = position_;
        while (end < text_.size() && is_name_byte(text_[end])) ++end;
        add(TokenKind::name, text_.substr(position_, end - position_));
        advance(end);
      } else if (c == '"' || c == '\'') {
        read_text(c);
      } else {
        read_symbol(open);
      }
    }
  }

  std::size_t digits_end(std::size_t at) const {
    while (at < text_.size() &&
           (is_decimal(text_[at]) ||
            (text_[at] == '_' && at + 1 < text_.size() && is_decimal(text_[at + 1])))) {
      ++at;
    }
    return at;
  }

  void read_number() {
    const std::size_t begin = position_;
    const auto lower = [&](std::size_t at) { return at < text_.size() ? text_[at] | 0x20 : 0; };
    std::size_t end = begin;
    bool floating = false;
    if (text_[begin] == '0' &&
        (lower(begin + 1) == 'x' || lower(begin + 1) == 'o' || lower(begin + 1) == 'b')) {
      end = begin + 2;
      while (end < text_.size() && is_name_byte(text_[end])) ++end;
    } else {
      end = digits_end(begin);
      const bool after_dot = begin > 0 && text_[begin - 1] == '.';  // foo.0.1
      if (!after_dot && end + 1 < text_.size() && text_[end] == '.' && is_decimal(text_[end + 1])) {
        floating = true;
        end = digits_end(end + 1);
      }
      std::size_t exponent = end + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
      if (!after_dot && lower(end) == 'e' && exponent < text_.size() &&
          is_decimal(text_[exponent])) {
        floating = true;
        end = digits_end(exponent);
      }
    }
    std::string digits = text_.substr(begin, end - begin);
    std::erase(digits, '_');
    add(floating ? TokenKind::floating : TokenKind::integer, std::move(digits));
    advance(end);
  }

  void read_text(char quote) {
    std::string value;
    std::size_t at = position_ + 1;
    while (true) {
      if (at >= text_.size()) fail_here("a string has no end; expected {}", quote);
      const char c = text_[at++];
      if (c == quote) break;
      if (c != '\\') {
        value += c;
        continue;
      }
      if (at >= text_.size()) fail_here("a string has no end; expected {}", quote);
      read_escape(at, value);
    }
    add(TokenKind::text, std::move(value));
    advance(at);
  }

  /// What follows a backslash, as in a Python string.
  void read_escape(std::size_t& at, std::string& value) {
    const char c = text_[at++];
    static constexpr std::string_view names = "abfnrtv\\'\"", values = "\a\b\f\n\r\t\v\\'\"";
    if (const auto found = names.find(c); found != names.npos) {
      value += values[found];
    } else if (c == '\n') {
      return;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      append_hex(at, c == 'x' ? 2 : c == 'u' ? 4 : 8, value);
    } else if (c >= '0' && c <= '7') {
      char32_t code = static_cast<char32_t>(c - '0');
      for (int i = 0; i < 2 && at < text_.size() && text_[at] >= '0' && text_[at] <= '7'; ++i) {
        code = code * 8 + static_cast<char32_t>(text_[at++] - '0');
      }
      append_utf8(value, code);
    } else if (c == 'N') {
      fail_here("\\N{{...}} in a string is not supported; write the character itself");
    } else {
      value += '\\';
      value += c;
    }
  }

  void append_hex(std::size_t& at, std::size_t count, std::string& value) {
    char32_t code = 0;
    for (std::size_t i = 0; i < count; ++i, ++at) {
      const char c = at < text_.size() ? static_cast<char>(text_[at] | 0x20) : '\0';
      if (!is_decimal(c) && (c < 'a' || c > 'f'))
        fail_here("an escape of a string is not {} hexadecimal digits", count);
      code = code * 16 + static_cast<char32_t>(is_decimal(c) ? c - '0' : c - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      fail_here("an escape of a string is no Unicode character");
    append_utf8(value, code);
  }

  void read_symbol(std::string& open) {
    static constexpr std::array<std::string_view, 25> symbols = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};
    const auto found = std::find_if(symbols.begin(), symbols.end(),
                                    [&](std::string_view s) { return looking_at(s); });
    if (found == symbols.end()) {
      std::size_t next = position_;
      next_code_point(text_, next);
      fail_here("unexpected character '{}'", text_.substr(position_, next - position_));
    }
    const char c = found->front();
    if (c == '(' || c == '[' || c == '{') open += c;
    if (c == ')' || c == ']' || c == '}') {
      const char expected = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open.empty() || open.back() != expected) fail_here("unexpected '{}'", c);
      open.pop_back();
    }
    add(TokenKind::symbol, std::string(*found));
    advance(position_ + found->size());
  }

  std::string text_;
  const std::string& where_;
  std::size_t position_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& where) {
  return Lexer(source, where).run();
}

}  // namespace finetune::jinja
