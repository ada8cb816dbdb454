#pragma once

#include "finetune/base/error.h"
#include "finetune/model/model_config.h"

#include <nlohmann/json.hpp>

#include <span>

namespace finetune {

/// Checked reading of config.json: a field of the wrong type or range is Error(model) naming file and field.
/// null counts as absent, as in transformers.
class ConfigReader {
 public:
  explicit ConfigReader(std::filesystem::path path);

  const nlohmann::json* find(const std::string& key) const;
  /// A whole number from 1 to 2^31.
  std::int64_t size(const std::string& key, std::optional<std::int64_t> fallback = {}) const;
  double number(const std::string& key, double fallback) const;
  /// A number above 0.
  double positive(const std::string& key, double fallback) const;
  bool flag(const std::string& key, bool fallback) const;
  std::string word(const std::string& key, const std::string& fallback) const;
  /// The object under `key`, or an empty one.
  ConfigReader section(const std::string& key) const;
  [[noreturn]] void fail_field(const std::string& key, const std::string& found,
                               const std::string& expected) const;

 private:
  std::filesystem::path path_;
  nlohmann::json values_;
};

/// One model family: its `model_type` and how its config.json becomes switches.
struct Family {
  std::string model_type;
  ModelConfig (*read)(const ConfigReader&);
};
std::span<const Family> families();

/// Rotary fields in either spelling; needs config.max_position_embeddings.
void read_rope(const ConfigReader& reader, ModelConfig& config);

}  // namespace finetune
