#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace finetune {

/// A configuration of another trainer in our words.
struct ImportedConfig {
  std::string trainer;             ///< "Axolotl", "LLaMA-Factory" or "TRL"
  std::string yaml;                ///< a configuration of ours; `notes` are comments at its end
  std::vector<std::string> notes;  ///< "file:line: key: value: why": what has no counterpart, and
                                   ///< what the user has to do
};

/// Reads a YAML configuration of Axolotl, LLaMA-Factory or TRL, recognised by its keys. What it
/// leaves to that trainer's defaults is written out where ours differ. Nothing is dropped without
/// a note. Throws Error(config) for what is not YAML or not of one of them.
ImportedConfig import_config(const std::filesystem::path& file);

}  // namespace finetune
