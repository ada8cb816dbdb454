#include "finetune/base/error.h"
#include "text/regex.h"
#include "text/stages.h"
#include "text/utf8.h"

#include <utility>

namespace finetune {

namespace {

using nlohmann::json;

Normalizer make_prepend(const std::string& prefix) {
  return [prefix](AlignedText& text) {
    if (text.empty()) return;
    AlignedText result = text.rewritten();
    result.reserve(text.text().size() + prefix.size());
    const std::size_t start = text.original(0, 1).begin;
    result.append(prefix, {start, start});
    result.append_from(text, 0, text.text().size());
    text = std::move(result);
  };
}

/// Where the text of a match came from; an empty match takes no text.
ByteSpan origin_of(const AlignedText& text, ByteSpan match) {
  if (match.begin < match.end) return text.original(match.begin, match.end);
  if (match.begin < text.size())
    return {text.original(match.begin, match.begin + 1).begin,
            text.original(match.begin, match.begin + 1).begin};
  if (text.empty()) return {};
  const std::size_t end = text.original(match.begin - 1, match.begin).end;
  return {end, end};
}

/// Replaces every span that `for_each_match` reports by `content`.
template <typename ForEachMatch>
void replace_matches(AlignedText& text, const std::string& content,
                     const ForEachMatch& for_each_match) {
  AlignedText result = text.rewritten();
  std::size_t done = 0;
  bool found = false;
  for_each_match(text.text(), [&](ByteSpan match) {
    if (!found) result.reserve(text.text().size() + text.text().size() / 2);
    found = true;
    result.append_from(text, done, match.begin);
    result.append(content, origin_of(text, match));
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
      replace_matches(text, content,
                      [&](std::string_view in, const auto& found) { regex->for_each(in, found); });
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

void write_byte_characters(AlignedText& text) {
  AlignedText result = text.rewritten();
  for (std::size_t i = 0; i < text.size(); ++i) {
    result.append(byte_characters()[static_cast<unsigned char>(text.text()[i])],
                  text.original(i, i + 1));
  }
  text = std::move(result);
}

}  // namespace

const json& stage_list(const json& config, const char* key, const std::string& where) {
  const auto list = config.find(key);
  if (list == config.end() || !list->is_array()) {
    fail(ErrorKind::model,
         "{}: a Sequence has no list '{}'; the file is damaged or of another version", where, key);
  }
  return *list;
}

void refuse_stage(const std::string& where, const char* kind, const std::string& type) {
  fail(ErrorKind::model,
       "{}: the tokenizer's {} '{}' is not in this version; convert the tokenizer or use a model "
       "without it",
       where, kind, type);
}

Normalizer make_normalizer(const json& config, const std::string& where) {
  if (config.is_null()) return nullptr;
  const std::string type = config.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<Normalizer> stages;
    for (const json& stage : stage_list(config, "normalizers", where)) {
      if (Normalizer normalizer = make_normalizer(stage, where))
        stages.push_back(std::move(normalizer));
    }
    return [stages](AlignedText& text) {
      for (const Normalizer& stage : stages) stage(text);
    };
  }
  if (type == "Prepend") return make_prepend(config.at("prepend").get<std::string>());
  if (type == "Replace") return make_replace(config, where);
  if (type == "Precompiled") return make_precompiled_normalizer(config, where);
  if (type == "ByteLevel") return write_byte_characters;
  if (Normalizer normalizer = make_unicode_normalizer(type)) return normalizer;
  if (Normalizer normalizer = make_character_normalizer(type, config)) return normalizer;
  refuse_stage(where, "normalizer", type);
}

}  // namespace finetune
