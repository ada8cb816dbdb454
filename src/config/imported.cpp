#include "config/imported.h"

#include "config/aliases.h"
#include "config/fields.h"
#include "config/numbers.h"
#include "config/write_value.h"
#include "finetune/base/text.h"

#include <fmt/format.h>

#include <algorithm>

namespace finetune {

namespace {

constexpr std::size_t kShownBytes = 60;

/// What stands behind "file:line: " in a message of the configuration's reader.
std::string without_place(const std::string& message, const std::string& where) {
  return message.starts_with(where + ": ") ? message.substr(where.size() + 2) : message;
}

/// The member that a key sets, as JSON; null for a key without a member.
OrderedJson value_of(const Config& config, std::string_view key) {
  OrderedJson value;
  visit_fields(config, [&](const Field& field, const auto& member) {
    if (field.key == key) value = json_value(member);
  });
  return value;
}

/// Writes the settings that were found under the titles of their groups.
struct ImportWriter {
  const std::map<std::string, std::string>& comments;
  const std::map<std::string, std::vector<std::string>>& data_comments;
  std::string text = {};
  std::string title = {};  ///< of a group that has shown no key yet

  void group(std::string_view name) { title = name; }

  template <typename T>
  void operator()(const Field& field, const T& member) {
    const std::string key(field.key);
    const auto comment = comments.find(key);
    if (comment == comments.end()) return;
    if (!title.empty()) text += fmt::format("{}# {}\n", text.empty() ? "" : "\n", title);
    title.clear();
    if constexpr (std::is_same_v<T, std::vector<DatasetSpec>>) {
      text += key + ":\n";
      const std::vector<std::string>& of_files = data_comments.at(key);
      for (std::size_t i = 0; i < member.size(); ++i)
        text += line("  - " + yaml_text(json_value(member[i])), of_files[i]);
    } else {
      text += line(key + ": " + yaml_text(json_value(member)), comment->second);
    }
  }

  static std::string line(const std::string& content, const std::string& comment) {
    return comment.empty() ? content + "\n" : fmt::format("{:<39} # {}\n", content, comment);
  }
};

}  // namespace

std::string shown(const YamlValue& value) {
  std::string text;
  if (value.kind == YamlValue::Kind::scalar) {
    text = value.text;
  } else if (value.kind == YamlValue::Kind::list) {
    std::vector<std::string> items;
    for (const YamlValue& item : value.items) items.push_back(shown(item));
    text = "[" + join(items, ", ") + "]";
  } else if (value.kind == YamlValue::Kind::map) {
    std::vector<std::string> items;
    for (const YamlEntry& entry : value.entries)
      items.push_back(entry.key + ": " + shown(entry.value));
    text = "{" + join(items, ", ") + "}";
  }
  std::replace(text.begin(), text.end(), '\n', ' ');
  if (text.size() <= kShownBytes) return text;
  std::size_t end = kShownBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole letters
  return text.substr(0, end) + " ...";
}

bool is_off(const YamlValue& value) {
  return value.kind == YamlValue::Kind::scalar && parse_bool(value.text) == false;
}

void Imported::add(const YamlEntry& entry) {
  YamlValue alone;
  alone.kind = YamlValue::Kind::map;
  alone.entries.push_back(entry);
  Problems problems;
  for (const Setting& setting : flatten(alone, keys_, problems, Notices::silent))
    set(setting.key, setting.value, setting.name == setting.key ? "" : setting.name);
  for (const std::string& problem : problems)
    note(entry, without_place(problem, entry.value.where));
}

void Imported::set(const std::string& key, const YamlValue& value, const std::string& comment) {
  const YamlEntry entry{comment.empty() ? key : comment, value};
  Problems problems;
  Config config = config_;
  const OrderedJson before = value_of(config_, key);
  const OrderedJson after = set_member({entry.key, key, value}, config, problems);
  const std::string absent = not_in_version(key, after);
  if (!problems.empty()) return note(entry, without_place(problems[0], value.where));
  if (!absent.empty()) return note(entry, absent);
  if (has(key) && before != after) {
    return note(entry, fmt::format("{} is {} already, from another key", key, yaml_text(before)));
  }
  config_ = std::move(config);
  config_.origins[key] = value.where;
  comments_.emplace(key, comment);
}

void Imported::set_default(const std::string& key, const std::string& value) {
  if (!has(key)) set(key, scalar(value, trainer_), "what " + trainer_ + " does without it");
}

void Imported::set_data(const std::string& key, std::vector<DatasetSpec> specs,
                        std::vector<std::string> comments, const std::string& where) {
  if (specs.empty()) return;
  (key == "datasets" ? config_.datasets : config_.eval_datasets) = std::move(specs);
  config_.origins[key] = where;
  comments_[key] = "";
  data_comments_[key] = std::move(comments);
}

void Imported::note(const YamlEntry& entry, std::string_view why) {
  note(entry.value.where, fmt::format("{}: {}: {}", entry.key, shown(entry.value), why));
}

void Imported::note(const std::string& where, std::string_view what) {
  notes_.push_back(fmt::format("{}: {}", where, what));
}

std::string Imported::yaml() const {
  ImportWriter writer{comments_, data_comments_};
  visit_fields(config_, writer);
  return writer.text;
}

}  // namespace finetune
