#include "finetune/base/error.h"
#include "text/regex.h"
#include "text/stages.h"
#include "text/utf8.h"

#include <utf8proc.h>

#include <cstdlib>
#include <utility>

namespace finetune {

namespace {

using nlohmann::json;

Normalizer make_prepend(const std::string& prefix) {
  return [prefix](AlignedText& text) {
    if (text.empty()) return;
    AlignedText result;
    result.reserve(text.text().size() + prefix.size());
    const std::size_t start = text.original(0, 1).begin;
    result.append(prefix, {start, start});
    result.append_from(text, 0, text.text().size());
    text = std::move(result);
  };
}

/// Replaces every span that `for_each_match` reports by `content`.
template <typename ForEachMatch>
void replace_matches(AlignedText& text, const std::string& content, const ForEachMatch& for_each_match) {
  AlignedText result;
  std::size_t done = 0;
  bool found = false;
  for_each_match(text.text(), [&](ByteSpan match) {
    if (!found) result.reserve(text.text().size() + text.text().size() / 2);
    found = true;
    result.append_from(text, done, match.begin);
    result.append(content, text.original(match.begin, match.end));
    done = match.end;
  });
  if (!found) return;
  result.append_from(text, done, text.text().size());
  text = std::move(result);
}

Normalizer make_replace(const json& config, const std::string& where) {
  const json& pattern = config.at("pattern");
  const std::string content = config.at("content").get<std::string>();
  if (pattern.contains("Regex")) {
    const auto regex = std::make_shared<Regex>(pattern.at("Regex").get<std::string>(), where);
    return [regex, content](AlignedText& text) {
      replace_matches(text, content, [&](std::string_view in, const auto& found) {
        regex->for_each(in, found);
      });
    };
  }
  const std::string literal = pattern.at("String").get<std::string>();
  if (literal.empty()) return nullptr;
  return [literal, content](AlignedText& text) {
    replace_matches(text, content, [&](std::string_view in, const auto& found) {
      for (std::size_t at = in.find(literal); at != std::string_view::npos;
           at = in.find(literal, at + literal.size())) {
        found(ByteSpan{at, at + literal.size()});
      }
    });
  };
}

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

/// True when nothing before this character can combine with it: normalization can be done up to here.
bool begins_unit(char32_t value) {
  constexpr std::uint16_t kComposesAsSecond = 0x8000;
  if (value < 0x80) return true;
  const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(value));
  const bool hangul_vowel_or_tail = value >= 0x1160 && value <= 0x11FF;
  const bool second = property->comb_index != UINT16_MAX && property->comb_index >= kComposesAsSecond;
  return property->combining_class == 0 && !second && !hangul_vowel_or_tail;
}

Normalizer make_unicode_normalizer(utf8proc_option_t options) {
  return [options](AlignedText& text) {
    const std::string_view in = text.text();
    const std::string whole = normalize_unicode(in, options);
    if (whole == in) return;
    AlignedText result;
    result.reserve(whole.size());
    for (std::size_t begin = 0, end = 0; begin < in.size(); begin = end) {
      end = begin + code_point_at(in, begin).size;
      while (end < in.size() && !begins_unit(code_point_at(in, end).value)) {
        end += code_point_at(in, end).size;
      }
      const std::string unit = normalize_unicode(in.substr(begin, end - begin), options);
      if (unit == in.substr(begin, end - begin)) {
        result.append_from(text, begin, end);
      } else {
        result.append(unit, text.original(begin, end));
      }
    }
    if (result.text() != whole) {  // units that interact after all: exact text, coarse alignment
      result = AlignedText();
      result.append(whole, text.original(0, in.size()));
    }
    text = std::move(result);
  };
}

}  // namespace

const json& stage_list(const json& config, const char* key, const std::string& where) {
  const auto list = config.find(key);
  if (list == config.end() || !list->is_array()) {
    fail(ErrorKind::model, "{}: a Sequence has no list '{}'; the file is damaged or of another version", where,
         key);
  }
  return *list;
}

void refuse_stage(const std::string& where, const char* kind, const std::string& type) {
  fail(ErrorKind::model,
       "{}: the tokenizer's {} '{}' is not in this version; convert the tokenizer or use a model without it",
       where, kind, type);
}

Normalizer make_normalizer(const json& config, const std::string& where) {
  if (config.is_null()) return nullptr;
  const std::string type = config.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<Normalizer> stages;
    for (const json& stage : stage_list(config, "normalizers", where)) {
      if (Normalizer normalizer = make_normalizer(stage, where)) stages.push_back(std::move(normalizer));
    }
    return [stages](AlignedText& text) {
      for (const Normalizer& stage : stages) stage(text);
    };
  }
  const auto options = [](int extra) {
    return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | extra);
  };
  if (type == "Prepend") return make_prepend(config.at("prepend").get<std::string>());
  if (type == "Replace") return make_replace(config, where);
  if (type == "NFC") return make_unicode_normalizer(options(UTF8PROC_COMPOSE));
  if (type == "NFD") return make_unicode_normalizer(options(UTF8PROC_DECOMPOSE));
  if (type == "NFKC") return make_unicode_normalizer(options(UTF8PROC_COMPOSE | UTF8PROC_COMPAT));
  if (type == "NFKD") return make_unicode_normalizer(options(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT));
  refuse_stage(where, "normalizer", type);
}

}  // namespace finetune
