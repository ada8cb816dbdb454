#include "config/settings.h"

#include "config/aliases.h"
#include "config/fields.h"
#include "config/read_value.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"

#include <algorithm>
#include <type_traits>

namespace finetune {

namespace {

using Path = std::vector<std::string>;

/// "lora.learning-rate" -> {"lora", "learning_rate"}, added to the path.
Path extended(Path path, std::string_view name) {
  std::string part;
  for (const char c : name) {
    if (c == '.') {
      path.push_back(std::move(part));
      part.clear();
    } else {
      part += c == '-' ? '_' : c;
    }
  }
  path.push_back(std::move(part));
  return path;
}

/// Walks the sections of one source.
class Flattener {
 public:
  Flattener(const KeyTable& keys, Problems& problems, Notices notices)
      : keys_(keys), problems_(problems), logs_(notices == Notices::logged) {}

  void add_entries(const YamlValue& section, const Path& path) {
    for (const YamlEntry& entry : section.entries) add(entry.value, extended(path, entry.key));
  }

  std::vector<Setting> settings;

 private:
  void add(const YamlValue& value, const Path& path) {
    const std::string name = known_name(path);
    const std::string key = keys_.key_of(name);
    if (value.kind == YamlValue::Kind::map && !takes_map(name, key, value)) {
      add_entries(value, path);
      return;
    }
    const std::string shown = join(path, ".");
    if (name.empty()) {
      problems_.push_back(
          fmt::format("{}: unknown key '{}'; {}", value.where, shown, keys_.suggestion(path)));
      return;
    }
    if (const auto assignments = translate(name, value, problems_)) {
      for (const Assignment& assignment : *assignments) {
        add_translated(shown, value, assignment);
      }
      return;
    }
    if (name != key && logs_)
      log_info("config", "{}: '{}' is read as '{}'", value.where, shown, key);
    settings.push_back({shown, key, value});
  }

  void add_translated(const std::string& shown, const YamlValue& value,
                      const Assignment& assignment) {
    if (logs_) {
      log_info("config", "{}: '{}: {}' is read as '{}: {}'", value.where, shown, value.text,
               assignment.key, assignment.value.text);
    }
    settings.push_back({shown, assignment.key, assignment.value});
  }

  /// The longest end of the path that is a name: {"lora", "rank"} -> "lora_rank", {"training",
  /// "seed"} -> "seed"; "" when none is.
  std::string known_name(const Path& path) const {
    for (auto begin = path.begin(); begin != path.end(); ++begin) {
      const std::string name = join({begin, path.end()}, "_");
      if (!keys_.key_of(name).empty() || translated_names().contains(name)) return name;
    }
    return "";
  }

  /// True when the map is the value of the key, false when it is a section that has the same name.
  bool takes_map(const std::string& name, const std::string& key, const YamlValue& value) const {
    if (keys_.is_map(key)) return true;
    return keys_.is_datasets(key) && (name == key || value.find("path") != nullptr);
  }

  const KeyTable& keys_;
  Problems& problems_;
  bool logs_;
};

/// Sets the one member that a setting names.
struct MemberReader {
  const Setting& setting;
  Problems& problems;
  OrderedJson result = {};  ///< what was set

  template <typename T>
  void operator()(const Field& field, T& member) {
    if (field.key != setting.key) return;
    read_value(setting.value, {field, setting.name, problems}, member);
    result = json_value(member);
  }
};

template <typename T>
constexpr bool kIsMap = false;
template <typename T>
constexpr bool kIsMap<std::map<std::string, T>> = true;

}  // namespace

KeyTable::KeyTable() {
  const Config config;
  visit_fields(config, [&](const Field& field, const auto& member) {
    using Member = std::decay_t<decltype(member)>;
    const std::string key(field.key);
    key_of_[key] = key;
    if constexpr (kIsMap<Member>) maps_.insert(key);
    if constexpr (std::is_same_v<Member, std::vector<DatasetSpec>>) datasets_.insert(key);
    names_.push_back(key);
    for (const std::string_view alias : field.aliases) {
      key_of_[std::string(alias)] = key;
      names_.emplace_back(alias);
    }
  });
  for (const auto& [name, text] : translated_names()) names_.push_back(name);
}

std::string KeyTable::key_of(std::string_view name) const {
  const auto found = key_of_.find(name);
  return found == key_of_.end() ? "" : found->second;
}

bool KeyTable::is_map(std::string_view key) const { return maps_.contains(key); }

bool KeyTable::is_datasets(std::string_view key) const { return datasets_.contains(key); }

std::string KeyTable::suggestion(const std::vector<std::string>& path) const {
  const std::string whole = join(path, "_");
  for (const std::string& word : {whole, path.back()}) {
    if (const std::string_view advice = advice_for(word); !advice.empty())
      return std::string(advice);
    if (const std::string near = nearest(word, names_); !near.empty()) {
      return "did you mean '" + near + "'?";
    }
  }
  return "remove it; docs/config.md lists the keys";
}

std::vector<Setting> flatten(const YamlValue& root, const KeyTable& keys, Problems& problems,
                             Notices notices) {
  Flattener flattener(keys, problems, notices);
  flattener.add_entries(root, {});
  return std::move(flattener.settings);
}

OrderedJson set_member(const Setting& setting, Config& config, Problems& problems) {
  MemberReader reader{setting, problems};
  visit_fields(config, reader);
  return std::move(reader.result);
}

std::string not_in_version(const Field& field, const OrderedJson& value) {
  const std::string word = plain_text(value);
  if (field.has.empty() || std::find(field.has.begin(), field.has.end(), word) != field.has.end())
    return "";
  std::vector<std::string> has;
  for (const std::string_view known : field.has) has.emplace_back(known);
  const bool nothing =
      has.size() == 1 && (has[0].empty() || has[0] == "{}" || has[0] == "[]" || has[0] == "null");
  return fmt::format("{}: {} is not in this version; {}", field.key, word,
                     nothing ? "leave it out" : "it has: " + join(has, ", "));
}

std::string not_in_version(std::string_view key, const OrderedJson& value) {
  std::string message;
  const Config config;
  visit_fields(config, [&](const Field& field, const auto&) {
    if (field.key == key) message = not_in_version(field, value);
  });
  return message;
}

}  // namespace finetune
