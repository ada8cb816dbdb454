#pragma once

#include "config/field.h"
#include "config/write_value.h"
#include "config/yaml_value.h"
#include "finetune/config/config.h"

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// A value with the key it sets.
struct Setting {
  std::string name;  ///< as the user wrote it, sections joined by dots: "lora.rank"
  std::string key;   ///< of the field list: "lora_rank"
  YamlValue value;
};

/// The names that the field list knows.
class KeyTable {
 public:
  KeyTable();

  /// The key that a name or an alias means, or "".
  std::string key_of(std::string_view name) const;
  /// True when the value of this key is itself a map of names.
  bool is_map(std::string_view key) const;
  /// True when the value of this key is a list of data files.
  bool is_datasets(std::string_view key) const;
  /// "did you mean 'lora_rank'?", advice for a key of another trainer, or what to do without
  /// either.
  std::string suggestion(const std::vector<std::string>& path) const;

 private:
  std::map<std::string, std::string, std::less<>> key_of_;
  std::set<std::string, std::less<>> maps_, datasets_;
  std::vector<std::string> names_;
};

/// Whether a spelling of another trainer is logged where it is replaced.
enum class Notices { logged, silent };

/// Turns the entries of a file, or one word of the command line, into settings: joins sections with
/// their keys, replaces aliases and translates values. Unknown keys are added to
/// the problems.
std::vector<Setting> flatten(const YamlValue& root, const KeyTable& keys, Problems& problems,
                             Notices notices = Notices::logged);

/// Sets the one member that the setting names, and returns it as JSON; adds to the problems and
/// leaves it as it was where the value does not fit.
OrderedJson set_member(const Setting& setting, Config& config, Problems& problems);

/// "stage: kto is not in this version; it has: sft, dpo", or "" for a value that it has.
std::string not_in_version(const Field& field, const OrderedJson& value);
/// The same for the key of a setting.
std::string not_in_version(std::string_view key, const OrderedJson& value);

}  // namespace finetune
