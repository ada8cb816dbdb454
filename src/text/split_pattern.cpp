#include "text/split_pattern.h"

#include "text/regex.h"
#include "text/utf8.h"

#include <cstdint>

namespace finetune {

namespace {

enum Kind : std::uint8_t { other, letter, number, space, newline };

/// The kind of every character below U+40000; all above are `other`. Taken from the library that
/// matches the regular expressions, so that both follow the same version of Unicode.
const std::vector<std::uint8_t>& kinds() {
  static const std::vector<std::uint8_t> table = [] {
    constexpr char32_t kLimit = 0x40000;
    std::string all;
    std::vector<char32_t> value_at;  // by byte of `all`
    for (char32_t value = 0; value < kLimit; ++value) {
      if (value >= 0xD800 && value < 0xE000) continue;
      append_utf8(all, value);
      value_at.resize(all.size(), value);
    }
    std::vector<std::uint8_t> result(kLimit, other);
    const auto mark = [&](const char* pattern, Kind kind) {
      Regex(pattern, "split pattern").for_each(all, [&](ByteSpan run) {
        for (std::size_t i = run.begin; i < run.end; ++i) result[value_at[i]] = kind;
      });
    };
    mark(R"(\p{L}+)", letter);
    mark(R"(\p{N}+)", number);
    mark(R"(\s+)", space);
    mark(R"([\r\n]+)", newline);
    return result;
  }();
  return table;
}

/// Reads a text character by character.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text), kinds_(kinds().data()) {}

  bool at_end(std::size_t position) const { return position >= text_.size(); }
  char byte(std::size_t position) const { return position < text_.size() ? text_[position] : '\0'; }
  /// Kind of the character at `position` and the place after it.
  Kind kind(std::size_t position, std::size_t& next) const {
    const auto first = static_cast<unsigned char>(text_[position]);
    if (first < 0x80) {
      next = position + 1;
      return static_cast<Kind>(kinds_[first]);
    }
    const CodePoint character = code_point_at(text_, position);
    next = position + character.size;
    return character.value < 0x40000 ? static_cast<Kind>(kinds_[character.value]) : other;
  }
  /// The end of the run of characters of `wanted` that begins at `position`.
  std::size_t run(Kind wanted, std::size_t position) const {
    for (std::size_t next = 0; position < text_.size() && kind(position, next) == wanted;
         position = next) {
    }
    return position;
  }
  std::string_view text() const { return text_; }

 private:
  std::string_view text_;
  const std::uint8_t* kinds_;
};

/// A run of white space: where it ends, where its last character begins, and the end of its last
/// line break.
struct White {
  std::size_t end, last, break_end = 0;
};

White white_space(const Scanner& scan, std::size_t position) {
  White white{position, position};
  for (std::size_t next = 0; !scan.at_end(white.end); white.end = next) {
    const Kind kind = scan.kind(white.end, next);
    if (kind != space && kind != newline) break;
    white.last = white.end;
    if (kind == newline) white.break_end = next;
  }
  return white;
}

/// `\s+(?!\S)|\s+`: the last character of a run stays for the word that follows, if the run has
/// others.
std::size_t leave_last(const Scanner& scan, const White& white, std::size_t position) {
  return scan.at_end(white.end) || white.last == position ? white.end : white.last;
}

/// Length of 's, 't, 're, 've, 'm, 'll or 'd at the apostrophe, or 0. Without case also U+017F,
/// whose capital is S.
std::size_t contraction(const Scanner& scan, std::size_t position, bool any_case) {
  const auto byte = [&](std::size_t i) {
    const char c = scan.byte(position + i);
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = byte(1), second = byte(2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l'))
    return 3;
  return any_case && first == '\xC5' && second == '\xBF' ? 3 : 0;
}

std::size_t gpt2_word(const Scanner& scan, std::size_t position) {
  if (scan.byte(position) == '\'') {
    if (const std::size_t size = contraction(scan, position, false)) return position + size;
  }
  std::size_t next = 0;
  Kind kind = scan.kind(position, next);
  if (scan.byte(position) == ' ' && !scan.at_end(next)) {
    std::size_t after = 0;
    const Kind following = scan.kind(next, after);
    if (following <= number) {
      kind = following;
      next = after;
    }
  }
  if (kind <= number) return scan.run(kind, next);
  return leave_last(scan, white_space(scan, position), position);
}

/// The pattern of Llama 3 (three digits) and of Qwen2 (one).
template <int digits>
std::size_t cl100k_word(const Scanner& scan, std::size_t position) {
  const char first = scan.byte(position);
  if (first == '\'') {
    if (const std::size_t size = contraction(scan, position, true)) return position + size;
  }
  std::size_t next = 0, after = 0;
  const Kind kind = scan.kind(position, next);
  if (kind == letter) return scan.run(letter, next);
  if (kind == number) {
    for (int count = 1; count < digits && !scan.at_end(next) && scan.kind(next, after) == number;
         ++count)
      next = after;
    return next;
  }
  const Kind following = scan.at_end(next) ? newline : scan.kind(next, after);
  if (kind != newline && following == letter) return scan.run(letter, after);
  if (kind == other || (first == ' ' && following == other)) {
    std::size_t end = scan.run(other, next);
    while (scan.byte(end) == '\r' || scan.byte(end) == '\n') ++end;
    return end;
  }
  const White white = white_space(scan, position);
  return white.break_end > 0 ? white.break_end : leave_last(scan, white, position);
}

template <std::size_t (*next_word)(const Scanner&, std::size_t)>
void split_all(std::string_view text, std::size_t base, std::vector<ByteSpan>& words) {
  const Scanner scan(text);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = next_word(scan, begin);
    words.push_back({base + begin, base + end});
    begin = end;
  }
}

}  // namespace

SplitFunction find_split_function(std::string_view pattern) {
  if (pattern == kGpt2Pattern) return split_all<gpt2_word>;
  if (pattern == kLlama3Pattern) return split_all<cl100k_word<3>>;
  if (pattern == kQwen2Pattern) return split_all<cl100k_word<1>>;
  return nullptr;
}

}  // namespace finetune
