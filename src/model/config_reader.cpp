#include "model/config_reader.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"

namespace finetune {

using nlohmann::json;

ConfigReader::ConfigReader(std::filesystem::path path) : path_(std::move(path)) {
  values_ = json::parse(read_file(path_, ErrorKind::model), nullptr, false);
  if (!values_.is_object()) {
    fail(ErrorKind::model, "{}: expected a JSON object", path_.string());
  }
}

void ConfigReader::fail_field(const std::string& key, const std::string& found,
                              const std::string& expected) const {
  fail(ErrorKind::model, "{}: '{}' {}; expected {}", path_.string(), key, found, expected);
}

const json* ConfigReader::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() || found->is_null() ? nullptr : &*found;
}

bool ConfigReader::holds_null(const std::string& key) const {
  const auto found = values_.find(key);
  return found != values_.end() && found->is_null();
}

std::int64_t ConfigReader::size(const std::string& key,
                                std::optional<std::int64_t> fallback) const {
  constexpr std::int64_t kLargest = std::int64_t{1}
                                    << 31;  // a hostile number must not overflow a shape
  const json* value = find(key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    fail_field(key, "is missing", "a whole number");
  }
  if (!value->is_number_integer() || value->get<double>() < 1 ||
      value->get<double>() > static_cast<double>(kLargest)) {
    fail_field(key, "is " + value->dump(), fmt::format("a whole number from 1 to {}", kLargest));
  }
  return value->get<std::int64_t>();
}

std::int64_t ConfigReader::size_of_either(const std::string& first, const std::string& second,
                                          std::optional<std::int64_t> fallback) const {
  return find(first) == nullptr && find(second) != nullptr ? size(second) : size(first, fallback);
}

double ConfigReader::number(const std::string& key, double fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_number()) fail_field(key, "is " + value->dump(), "a number");
  return value->get<double>();
}

double ConfigReader::positive(const std::string& key, double fallback) const {
  const double value = number(key, fallback);
  if (!(value > 0.0)) fail_field(key, "is " + find(key)->dump(), "a number above 0");
  return value;
}

bool ConfigReader::flag(const std::string& key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) fail_field(key, "is " + value->dump(), "true or false");
  return value->get<bool>();
}

std::string ConfigReader::word(const std::string& key, const std::string& fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) fail_field(key, "is " + value->dump(), "a word");
  return value->get<std::string>();
}

std::vector<double> ConfigReader::numbers(const std::string& key) const {
  std::vector<double> result;
  const json* value = find(key);
  if (value == nullptr) return result;
  if (!value->is_array()) fail_field(key, "is " + value->dump(), "a list of numbers");
  for (const json& item : *value) {
    if (!item.is_number()) fail_field(key, "holds " + item.dump(), "numbers");
    result.push_back(item.get<double>());
  }
  return result;
}

std::vector<std::string> ConfigReader::words(const std::string& key) const {
  std::vector<std::string> result;
  const json* value = find(key);
  if (value == nullptr) return result;
  if (!value->is_array()) fail_field(key, "is " + value->dump(), "a list of words");
  for (const json& item : *value) {
    if (!item.is_string()) fail_field(key, "holds " + item.dump(), "words");
    result.push_back(item.get<std::string>());
  }
  return result;
}

ConfigReader ConfigReader::section(const std::string& key) const {
  ConfigReader inner = *this;
  const json* value = find(key);
  inner.values_ = value == nullptr ? json::object() : *value;
  if (!inner.values_.is_object()) fail_field(key, "is " + inner.values_.dump(), "an object");
  return inner;
}

}  // namespace finetune
