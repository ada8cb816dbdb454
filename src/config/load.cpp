#include "finetune/config/config.h"

#include "config/settings.h"
#include "config/write_value.h"
#include "finetune/base/error.h"
#include "finetune/base/log.h"

namespace finetune {

namespace {

/// Collects the settings of both sources and makes the configuration of those that count.
class Loader {
 public:
  void read_file(const std::filesystem::path& path) {
    const YamlValue root = read_yaml_file(path, problems_);
    std::map<std::string, Chosen> file;
    for (Setting& setting : flatten(root, keys_, problems_)) {
      if (setting.value.kind == YamlValue::Kind::null) continue;
      Chosen chosen = parse(std::move(setting));
      const auto [first, is_new] = file.emplace(chosen.setting.key, chosen);
      if (!is_new && first->second.value != chosen.value) add_conflict(first->second, chosen);
    }
    chosen_ = std::move(file);
  }

  void read_override(const std::string& word) {
    const auto equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      problems_.push_back(fmt::format(
          "command line: '{}' is not a setting; expected key=value, such as lora_rank=8", word));
      return;
    }
    YamlValue root;
    root.kind = YamlValue::Kind::map;
    try {
      root.entries.push_back(
          {word.substr(0, equals), read_yaml_word(word.substr(equals + 1), problems_)});
    } catch (const Error& error) {
      problems_.push_back(fmt::format("'{}': {}", word, error.what()));
      return;
    }
    for (Setting& setting : flatten(root, keys_, problems_)) {
      if (setting.value.kind == YamlValue::Kind::null) {
        chosen_.erase(setting.key);  // null on the command line undoes what the file says
        continue;
      }
      Chosen chosen = parse(std::move(setting));
      Chosen& place = chosen_[chosen.setting.key];
      if (place.setting.value.where == chosen.setting.value.where && place.value != chosen.value) {
        log_info("config", "command line: '{}' is given more than once; the last one counts",
                 chosen.setting.name);
      }
      place = std::move(chosen);
    }
  }

  Config finish() {
    if (!problems_.empty()) throw Error(ErrorKind::config, join_problems(problems_));
    Config config;
    for (const auto& [key, chosen] : chosen_) {
      set_member(chosen.setting, config, problems_);
      config.origins[key] = chosen.setting.value.where;
    }
    return config;
  }

 private:
  struct Chosen {
    Setting setting;
    OrderedJson value;
  };

  Chosen parse(Setting setting) {
    Config scratch;
    OrderedJson value = set_member(setting, scratch, problems_);
    return {std::move(setting), std::move(value)};
  }

  void add_conflict(const Chosen& first, const Chosen& second) {
    problems_.push_back(
        fmt::format("{}: '{}' makes {} {}, but '{}' ({}) makes it {}; keep one of them",
                    second.setting.value.where, second.setting.name, second.setting.key,
                    yaml_text(second.value), first.setting.name, first.setting.value.where,
                    yaml_text(first.value)));
  }

  KeyTable keys_;
  Problems problems_;
  std::map<std::string, Chosen> chosen_;
};

}  // namespace

Config load_config(const ConfigSource& source) {
  Loader loader;
  if (source.file) loader.read_file(*source.file);
  for (const std::string& word : source.overrides) loader.read_override(word);
  Config config = loader.finish();
  if (config.output_dir.empty()) {
    config.output_dir = "runs/" + (source.file ? source.file->stem().string() : "train");
  }
  return config;
}

}  // namespace finetune
