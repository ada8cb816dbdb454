#pragma once

#include <CLI/CLI.hpp>

#include <string>
#include <vector>

namespace finetune {

/// An option of a verb as shells and the manual page show it.
struct VerbOption {
  enum class Value { none, file, folder, words, other };
  std::string name;  ///< "--config"
  std::string help;  ///< one sentence
  std::string type;  ///< "FILE", "" without a value
  Value value = Value::none;
  std::vector<std::string> words;  ///< what the value can be
};

/// A verb, or a verb of a verb, as the program defines it.
struct VerbEntry {
  std::vector<std::string> path;  ///< {"inspect", "data"}
  std::string help;
  std::string example;  ///< commands that work, a line each
  std::vector<VerbOption> options;
  std::vector<VerbOption> positionals;  ///< words without a name, apart from settings
  bool has_settings = false;            ///< takes KEY=VALUE
  bool has_verbs = false;               ///< only its own verbs do something

  /// "inspect data"
  std::string name() const;
};

/// All verbs of the program, a verb's own after it.
std::vector<VerbEntry> list_verbs(const CLI::App& program);

/// The scripts that `finetune completion SHELL` prints.
std::string bash_completion(const std::vector<VerbEntry>& verbs);
std::string zsh_completion(const std::vector<VerbEntry>& verbs);
std::string fish_completion(const std::vector<VerbEntry>& verbs);

/// The page that `finetune man` prints, for man(1).
std::string manual_page(const std::vector<VerbEntry>& verbs);

}  // namespace finetune
