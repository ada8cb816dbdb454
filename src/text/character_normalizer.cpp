#include "text/stages.h"
#include "text/utf8.h"

#include <utf8proc.h>

#include <utility>

namespace finetune {

namespace {

using nlohmann::json;

/// What sentencepiece's "nmt" rules do to control and white space characters.
std::string_view nmt(char32_t value, std::string_view bytes) {
  const bool dropped = (value >= 0x01 && value <= 0x08) || value == 0x0B ||
                       (value >= 0x0E && value <= 0x1F) || value == 0x7F || value == 0x8F ||
                       value == 0x9F;
  if (dropped) return {};
  const bool space = value == 0x09 || value == 0x0A || value == 0x0C || value == 0x0D ||
                     value == 0x1680 || (value >= 0x200B && value <= 0x200F) || value == 0x2028 ||
                     value == 0x2029 || value == 0x2581 || value == 0xFEFF || value == 0xFFFD;
  return space ? " " : bytes;
}

/// Lower case as Rust's char::to_lowercase; one character has two there (SpecialCasing.txt).
std::string_view lower_case(char32_t value, std::string_view bytes) {
  thread_local std::string result;
  if (value == 0x130) return "i\xCC\x87";
  const auto lower = static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(value)));
  if (lower == value) return bytes;
  result.clear();
  append_utf8(result, lower);
  return result;
}

std::string_view without_marks(char32_t value, std::string_view bytes) {
  return is_mark(value) ? std::string_view() : bytes;
}

std::string_view without_nonspacing_marks(char32_t value, std::string_view bytes) {
  return is_nonspacing_mark(value) ? std::string_view() : bytes;
}

/// BERT's clean_text: no control characters, every white space a space.
std::string_view clean(char32_t value, std::string_view bytes) {
  const bool kept_control = value == '\t' || value == '\n' || value == '\r';
  if (value == 0 || value == 0xFFFD || (is_other(value) && !kept_control)) return {};
  return is_space(value) ? " " : bytes;
}

bool is_chinese(char32_t value) {
  return (value >= 0x4E00 && value <= 0x9FFF) || (value >= 0x3400 && value <= 0x4DBF) ||
         (value >= 0x20000 && value <= 0x2A6DF) || (value >= 0x2A700 && value <= 0x2B73F) ||
         (value >= 0x2B740 && value <= 0x2B81F) || (value >= 0x2B920 && value <= 0x2CEAF) ||
         (value >= 0xF900 && value <= 0xFAFF) || (value >= 0x2F800 && value <= 0x2FA1F);
}

std::string_view space_chinese(char32_t value, std::string_view bytes) {
  thread_local std::string result;
  if (!is_chinese(value)) return bytes;
  return result.assign(" ").append(bytes).append(" ");
}

Normalizer rewriter(std::string_view (*write)(char32_t, std::string_view)) {
  return [write](AlignedText& text) { rewrite_characters(text, write); };
}

Normalizer make_strip(const json& config) {
  const bool left = config.value("strip_left", true), right = config.value("strip_right", true);
  return [left, right](AlignedText& text) {
    const std::string_view in = text.text();
    std::size_t begin = 0, end = in.size();
    while (left && begin < end && is_space(code_point_at(in, begin).value))
      begin += code_point_at(in, begin).size;
    while (right && end > begin) {
      std::size_t last = end - 1;
      while (is_continuation(in[last])) --last;
      if (!is_space(code_point_at(in, last).value)) break;
      end = last;
    }
    if (end - begin < in.size()) text = text.slice(begin, end);
  };
}

Normalizer make_bert(const json& config) {
  const bool lower = config.value("lowercase", true);
  const auto accents = config.find("strip_accents");
  const bool strip = accents == config.end() || accents->is_null() ? lower : accents->get<bool>();
  std::vector<Normalizer> steps;
  if (config.value("clean_text", true)) steps.push_back(rewriter(clean));
  if (config.value("handle_chinese_chars", true)) steps.push_back(rewriter(space_chinese));
  if (strip) {
    steps.push_back(make_unicode_normalizer("NFD"));
    steps.push_back(rewriter(without_nonspacing_marks));
  }
  if (lower) steps.push_back(rewriter(lower_case));
  return [steps](AlignedText& text) {
    for (const Normalizer& step : steps) step(text);
  };
}

}  // namespace

void rewrite_characters(AlignedText& text, const RewriteCharacter& write) {
  AlignedText result = text.rewritten();
  const std::string_view in = text.text();
  std::size_t done = 0;
  bool changed = false;
  for (std::size_t at = 0; at < in.size();) {
    const CodePoint character = code_point_at(in, at);
    const std::string_view bytes = in.substr(at, character.size);
    const std::string_view written = write(character.value, bytes);
    if (written.data() != bytes.data()) {
      changed = true;
      result.append_from(text, done, at);
      result.append(written, text.original(at, at + character.size));
      done = at + character.size;
    }
    at += character.size;
  }
  if (!changed) return;
  result.append_from(text, done, in.size());
  text = std::move(result);
}

Normalizer make_character_normalizer(const std::string& type, const json& config) {
  if (type == "Nmt") return rewriter(nmt);
  if (type == "Lowercase") return rewriter(lower_case);
  if (type == "StripAccents") return rewriter(without_marks);
  if (type == "Strip") return make_strip(config);
  if (type == "BertNormalizer") return make_bert(config);
  return nullptr;
}

}  // namespace finetune
