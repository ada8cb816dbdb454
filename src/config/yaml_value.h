#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// Problems found so far, each a whole message; all are reported at once.
using Problems = std::vector<std::string>;

struct YamlEntry;

/// A YAML value whose scalars are still text: what a word means is decided by the type of its
/// target
/// (`1e-4`, `no` and `on` are misread by rules that do not know it).
struct YamlValue {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  std::string text;                ///< scalar
  std::vector<YamlValue> items;    ///< list
  std::vector<YamlEntry> entries;  ///< map, in the file's order
  std::string where;               ///< "lora.yaml:3" or "command line"

  const YamlValue* find(std::string_view key) const;
};

struct YamlEntry {
  std::string key;
  YamlValue value;  ///< `value.where` is the key's line
};

/// A scalar made by us, e.g. from an alias.
YamlValue scalar(std::string text, std::string where);

/// The value in words for "is ...": `"three"`, `a list`, `a section`, `empty`.
std::string describe(const YamlValue& value);

/// Reads a file that holds one YAML map; an empty file is an empty map. Repeated keys are added to
/// `problems`. Throws Error(config) with file:line:column for what is not YAML, a second document,
/// or anything but a map.
YamlValue read_yaml_file(const std::filesystem::path& path, Problems& problems);

/// Reads the right side of `key=value`. Text that begins with [ { " or ' is YAML, the rest is a
/// scalar as it stands, or null (nothing, `null`, `~`). Throws Error(config).
YamlValue read_yaml_word(std::string_view text, Problems& problems);

}  // namespace finetune
