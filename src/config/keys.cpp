#include "finetune/config/keys.h"

#include "config/fields.h"
#include "config/read_value.h"
#include "config/settings.h"

#include <algorithm>

namespace finetune {

namespace {

/// Keys with a path that their type does not show.
constexpr std::string_view kPaths[] = {"model_name_or_path", "output_dir",      "stack_on_adapter",
                                       "reference_adapter",  "prometheus_file", "terms",
                                       "init_lora_weights"};

template <typename T>
std::vector<std::string> words_of(const T& member) {
  if constexpr (Choice<T>) return main_words<T>();
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::optional<bool>>)
    return {"true", "false"};
  if constexpr (std::is_same_v<T, ModuleSelector>) {
    if (member.kind != ModuleSelector::Kind::none) return {"attention", "all-linear"};
  }
  return {};
}

/// "The first sentence." of a help text, without its marks of Markdown.
std::string first_sentence(std::string_view help) {
  const std::size_t end = help.find(". ");
  std::string text(help.substr(0, end == std::string_view::npos ? end : end + 1));
  std::erase(text, '`');
  return text;
}

struct KeyCollector {
  std::vector<ConfigKey> keys = {};

  template <typename T>
  void operator()(const Field& field, const T& member) {
    ConfigKey key{std::string(field.key), first_sentence(field.help), words_of(member), false};
    if (!field.has.empty()) {
      std::erase_if(key.values, [&](const std::string& word) {
        return std::find(field.has.begin(), field.has.end(), word) == field.has.end();
      });
    }
    key.is_path = std::is_same_v<T, std::vector<DatasetSpec>> ||
                  std::find(std::begin(kPaths), std::end(kPaths), field.key) != std::end(kPaths);
    keys.push_back(std::move(key));
  }
};

}  // namespace

std::vector<ConfigKey> config_keys() {
  KeyCollector collector;
  const Config defaults;
  visit_fields(defaults, collector);
  return std::move(collector.keys);
}

std::string config_key(const std::string& name) { return KeyTable().key_of(name); }

std::vector<std::string> available_words(const std::string& key) {
  for (ConfigKey& entry : config_keys()) {
    if (entry.key == key) return std::move(entry.values);
  }
  return {};
}

}  // namespace finetune
