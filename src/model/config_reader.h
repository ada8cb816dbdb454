#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// Checked reading of config.json: a field of the wrong type or range is Error(model) naming file
/// and field. null counts as absent, as in transformers.
class ConfigReader {
 public:
  explicit ConfigReader(std::filesystem::path path);

  const nlohmann::json* find(const std::string& key) const;
  /// True when the key is there with the value null, which switches some things off.
  bool holds_null(const std::string& key) const;
  /// A whole number from 1 to 2^31.
  std::int64_t size(const std::string& key, std::optional<std::int64_t> fallback = {}) const;
  /// `first`, or `second` where that is the name that is there.
  std::int64_t size_of_either(const std::string& first, const std::string& second,
                              std::optional<std::int64_t> fallback = {}) const;
  double number(const std::string& key, double fallback) const;
  /// A number above 0.
  double positive(const std::string& key, double fallback) const;
  bool flag(const std::string& key, bool fallback) const;
  std::string word(const std::string& key, const std::string& fallback) const;
  /// Lists; empty where absent.
  std::vector<double> numbers(const std::string& key) const;
  std::vector<std::string> words(const std::string& key) const;
  /// The object under `key`, or an empty one.
  ConfigReader section(const std::string& key) const;
  [[noreturn]] void fail_field(const std::string& key, const std::string& found,
                               const std::string& expected) const;

 private:
  std::filesystem::path path_;
  nlohmann::json values_;
};

}  // namespace finetune
