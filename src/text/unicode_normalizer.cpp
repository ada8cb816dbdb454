#include "finetune/base/error.h"
#include "text/stages.h"
#include "text/utf8.h"

#include <utf8proc.h>

#include <cstdlib>
#include <iterator>
#include <utility>

namespace finetune {

namespace {

std::string normalize_unicode(std::string_view text, utf8proc_option_t options) {
  utf8proc_uint8_t* buffer = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &buffer, options);
  if (size < 0) {
    fail(ErrorKind::data, "Unicode normalization failed: {}", utf8proc_errmsg(size));
  }
  std::string result(reinterpret_cast<const char*>(buffer), static_cast<std::size_t>(size));
  std::free(buffer);
  return result;
}

/// Can a character before this one combine with it?
bool combines_with_previous(char32_t value) {
  constexpr std::uint16_t kComposesAsSecond = 0x8000;
  if (value < 0x300) return false;
  const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(value));
  const bool hangul_vowel_or_tail = value >= 0x1160 && value <= 0x11FF;
  const bool second =
      property->comb_index != UINT16_MAX && property->comb_index >= kComposesAsSecond;
  return property->combining_class != 0 || second || hangul_vowel_or_tail;
}

/// True when normalization can be done up to here. A compatibility form may turn a character into
/// one that combines, such as the half-width voiced sound mark.
bool begins_unit(char32_t value, bool compatible) {
  if (combines_with_previous(value)) return false;
  if (!compatible || value < 0x300) return true;
  utf8proc_int32_t decomposed[32];
  int last_class = 0;
  const utf8proc_ssize_t size = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(value), decomposed, std::size(decomposed),
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT), &last_class);
  return size <= 0 || !combines_with_previous(static_cast<char32_t>(decomposed[0]));
}

/// True when the normal forms, at least NFC, leave this character alone: by far most text is of
/// such characters. Composed Hangul and Latin letters stay only where the form composes.
bool is_inert(char32_t value, bool composes, bool compatible) {
  if (value < 0x80) return true;
  if (value >= 0x4E00 && value <= 0x9FFF) return true;  // Chinese characters
  if (!composes) return false;
  if (value >= 0xAC00 && value <= 0xD7A3) return true;
  if (compatible) return false;
  return value < 0x300 || (value >= 0x3001 && value <= 0x3096) ||
         (value >= 0xFF01 && value <= 0xFF60) || (value >= 0x2010 && value <= 0x2027);
}

/// One normal form over a text that is cut into units, which do not influence each other.
class UnicodeNormalizer {
 public:
  UnicodeNormalizer(bool composes, bool compatible)
      : composes_(composes),
        compatible_(compatible),
        options_(static_cast<utf8proc_option_t>(UTF8PROC_STABLE |
                                                (composes ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                                (compatible ? UTF8PROC_COMPAT : 0))) {}

  void operator()(AlignedText& text) const {
    const std::string_view in = text.text();
    std::size_t begin = next_unit(in, 0);
    if (begin == in.size()) return;
    AlignedText result = text.rewritten();
    bool changed = false;
    std::size_t done = 0;
    for (; begin < in.size(); begin = next_unit(in, begin)) {
      const std::size_t end = unit_end(in, begin);
      const std::string_view unit = in.substr(begin, end - begin);
      const std::string normal = normalize_unicode(unit, options_);
      if (normal != unit) {
        if (!changed) result.reserve(in.size() + in.size() / 4);
        changed = true;
        result.append_from(text, done, begin);
        result.append(normal, text.original(begin, end));
        done = end;
      }
      begin = end;
    }
    if (!changed) return;
    result.append_from(text, done, in.size());
    text = std::move(result);
  }

 private:
  /// The place of the next unit that may change, at or after `position`.
  std::size_t next_unit(std::string_view in, std::size_t position) const {
    std::size_t start = position;
    while (position < in.size()) {
      if (static_cast<unsigned char>(in[position]) < 0x80) {
        start = position++;
        continue;
      }
      const CodePoint character = code_point_at(in, position);
      if (!is_inert(character.value, composes_, compatible_)) {
        return begins_unit(character.value, compatible_) ? position : start;
      }
      start = position;
      position += character.size;
    }
    return position;
  }
  std::size_t unit_end(std::string_view in, std::size_t begin) const {
    std::size_t end = begin + code_point_at(in, begin).size;
    while (end < in.size()) {
      const CodePoint character = code_point_at(in, end);
      if (begins_unit(character.value, compatible_)) break;
      end += character.size;
    }
    return end;
  }

  bool composes_, compatible_;
  utf8proc_option_t options_;
};

}  // namespace

Normalizer make_unicode_normalizer(const std::string& type) {
  if (type == "NFC") return UnicodeNormalizer(true, false);
  if (type == "NFD") return UnicodeNormalizer(false, false);
  if (type == "NFKC") return UnicodeNormalizer(true, true);
  if (type == "NFKD") return UnicodeNormalizer(false, true);
  return nullptr;
}

}  // namespace finetune
