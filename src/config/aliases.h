#pragma once

#include "config/yaml_value.h"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// A key of ours and its value.
struct Assignment {
  std::string key;
  YamlValue value;
};

/// Spellings whose value has to be translated too, such as `load_in_4bit: true` and `method:
/// qlora`. Returns what they set (perhaps nothing: `load_in_4bit: false`), or nullopt when name and
/// value are not one of them. A value of the wrong type is added to the problems.
std::optional<std::vector<Assignment>> translate(const std::string& name, const YamlValue& value,
                                                 Problems& problems);

/// Names that only translate() knows, with the text that the documentation has of them.
const std::map<std::string, std::string, std::less<>>& translated_names();

/// What to do instead of a key that other trainers have and this program has not; "" for other
/// words.
std::string_view advice_for(std::string_view name);

}  // namespace finetune
