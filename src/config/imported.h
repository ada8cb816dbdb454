#pragma once

#include "config/settings.h"
#include "finetune/config/config.h"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// What has been found of our settings in a configuration of another trainer.
class Imported {
 public:
  explicit Imported(std::string trainer) : trainer_(std::move(trainer)) {}

  /// Reads an entry whose name the field list or the aliases know; what they refuse becomes a note.
  void add(const YamlEntry& entry);
  /// Sets a key of ours; `comment` says where the value is from. A note where it is refused, or
  /// where the key has another value already.
  void set(const std::string& key, const YamlValue& value, const std::string& comment);
  /// Sets a key that is not there yet to what the other trainer does without it.
  void set_default(const std::string& key, const std::string& value);
  /// Sets a list of data files; `comments` has one for each.
  void set_data(const std::string& key, std::vector<DatasetSpec> specs,
                std::vector<std::string> comments, const std::string& where);
  /// Something without a counterpart: "where: name: value: why".
  void note(const YamlEntry& entry, std::string_view why);
  void note(const std::string& where, std::string_view what);

  bool has(const std::string& key) const { return comments_.contains(key); }
  const Config& config() const { return config_; }
  const std::vector<std::string>& notes() const { return notes_; }
  /// The settings as YAML in the order of the documentation, without the notes.
  std::string yaml() const;

 private:
  std::string trainer_;
  KeyTable keys_;
  Config config_;
  std::map<std::string, std::string> comments_;  ///< key -> where its value is from
  std::map<std::string, std::vector<std::string>> data_comments_;
  std::vector<std::string> notes_;
};

/// The value as it was written, on one line and cut where it is long.
std::string shown(const YamlValue& value);

/// A switch that is written as false.
bool is_off(const YamlValue& value);

// The data of each trainer, whose entries have structure of their own.

/// `datasets` and `test_datasets` of Axolotl.
void import_axolotl_data(const std::string& key, const YamlEntry& list, Imported& out);
/// `dataset` and `eval_dataset` of LLaMA-Factory: names in dataset_info.json of the folder
/// `dataset_dir`, looked for in the working directory and above the configuration `file`.
void import_llama_factory_data(const std::string& key, const YamlEntry& names,
                               const std::string& dataset_dir, const std::string& file,
                               Imported& out);
/// `dataset_name` or `datasets` of TRL; `text_field` renames {"text"}.
void import_trl_data(const YamlEntry& data, const std::string& text_field, Imported& out);

}  // namespace finetune
