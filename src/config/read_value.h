#pragma once

#include "config/field.h"
#include "config/yaml_value.h"

#include "config/numbers.h"
#include "finetune/base/text.h"
#include "finetune/config/config.h"

#include <fmt/format.h>

#include <string>

namespace finetune {

/// What a reader knows of the value it reads, for its messages.
struct ReadContext {
  const Field& field;
  std::string name;  ///< the key as the user wrote it
  Problems& problems;

  /// Adds "file:line: 'name' is <found>; expected <expected>".
  void mismatch(const YamlValue& value, const std::string& expected) const;
};

/// "a number above 0": `noun` and the range in words.
std::string describe_range(const std::string& noun, const Range& range);

/// The readers: set `out` from a value that is not null, or add to the problems and leave `out` as
/// it was.
void read_value(const YamlValue& value, const ReadContext& context, std::string& out);
void read_value(const YamlValue& value, const ReadContext& context, bool& out);
void read_value(const YamlValue& value, const ReadContext& context, std::int64_t& out);
void read_value(const YamlValue& value, const ReadContext& context, double& out);
void read_value(const YamlValue& value, const ReadContext& context, std::vector<std::string>& out);
void read_value(const YamlValue& value, const ReadContext& context, std::vector<std::int64_t>& out);
void read_value(const YamlValue& value, const ReadContext& context, std::vector<double>& out);
void read_value(const YamlValue& value, const ReadContext& context, ModuleSelector& out);
void read_value(const YamlValue& value, const ReadContext& context, LoraInit& out);
void read_value(const YamlValue& value, const ReadContext& context, std::vector<DatasetSpec>& out);

/// The words of an enum that we write, without synonyms.
template <Choice E>
std::vector<std::string> main_words() {
  std::vector<std::string> words;
  for (const ChoiceWord<E>& entry : Choices<E>::words) {
    if (to_string(entry.value) == entry.word) words.emplace_back(entry.word);
  }
  return words;
}

/// The value of a word, of its lower-case form, or of true/false/on/off where one of them is a
/// word.
template <Choice E>
std::optional<E> find_choice(std::string_view text) {
  if (const auto exact = parse_choice<E>(text)) return exact;
  std::string word(text);
  for (char& c : word) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (const auto lower = parse_choice<E>(word)) return lower;
  const auto flag = parse_bool(text);
  if (!flag) return std::nullopt;
  if (const auto named = parse_choice<E>(*flag ? "true" : "false")) return named;
  return parse_choice<E>(*flag ? "on" : "off");
}

template <Choice E>
void read_value(const YamlValue& value, const ReadContext& context, E& out) {
  const auto choice =
      value.kind == YamlValue::Kind::scalar ? find_choice<E>(value.text) : std::optional<E>();
  if (choice) {
    out = *choice;
    return;
  }
  const std::vector<std::string> words = main_words<E>();
  std::string expected = "one of: " + join(words, ", ");
  const std::string near = nearest(value.text, words);
  if (!near.empty()) expected += "; did you mean '" + near + "'?";
  context.mismatch(value, expected);
}

template <typename T>
void read_value(const YamlValue& value, const ReadContext& context, std::optional<T>& out) {
  T inner = out.value_or(T());
  const std::size_t before = context.problems.size();
  read_value(value, context, inner);
  if (context.problems.size() == before) out = inner;
}

template <typename T>
void read_value(const YamlValue& value, const ReadContext& context, std::map<std::string, T>& out) {
  if (value.kind != YamlValue::Kind::map) {
    context.mismatch(value, "a section of 'name: value' lines");
    return;
  }
  out.clear();
  for (const YamlEntry& entry : value.entries) {
    const ReadContext inner{context.field, context.name + "." + entry.key, context.problems};
    read_value(entry.value, inner, out[entry.key]);
  }
}

}  // namespace finetune
