#pragma once

#include <string>
#include <vector>

namespace finetune {

/// A key of the configuration as the command line offers it.
struct ConfigKey {
  std::string key;
  std::string help;                 ///< its first sentence, without Markdown
  std::vector<std::string> values;  ///< the words it can be in this version; empty: anything
  bool is_path = false;             ///< a file or a folder
};

/// Every key in the order of docs/config.md.
std::vector<ConfigKey> config_keys();

/// The key that a name or an alias means, or "".
std::string config_key(const std::string& name);

/// The words that a key of choices can be in this version; empty for other keys.
std::vector<std::string> available_words(const std::string& key);

}  // namespace finetune
