#pragma once

#include "finetune/config/config.h"

#include <nlohmann/json.hpp>

#include <string>

namespace finetune {

using OrderedJson = nlohmann::ordered_json;

/// The readers' other direction: a member as JSON, from which the YAML text, the schema's defaults
/// and the comparison of two configurations are made. An absent value is null.
OrderedJson json_value(const std::string& value);
OrderedJson json_value(bool value);
OrderedJson json_value(std::int64_t value);
OrderedJson json_value(double value);
OrderedJson json_value(const ModuleSelector& value);
OrderedJson json_value(const LoraInit& value);
OrderedJson json_value(const DatasetSpec& value);

/// The words `true` and `false` of an enum become JSON's.
template <Choice E>
OrderedJson json_value(E value) {
  const std::string word = to_string(value);
  if (word == "true" || word == "false") return OrderedJson(word == "true");
  return OrderedJson(word);
}

template <typename T>
OrderedJson json_value(const std::optional<T>& value) {
  return value ? json_value(*value) : OrderedJson();
}

template <typename T>
OrderedJson json_value(const std::vector<T>& values) {
  OrderedJson list = OrderedJson::array();
  for (const T& value : values) list.push_back(json_value(value));
  return list;
}

template <typename T>
OrderedJson json_value(const std::map<std::string, T>& values) {
  OrderedJson map = OrderedJson::object();
  for (const auto& [key, value] : values) map[key] = json_value(value);
  return map;
}

/// YAML on one line: flow style, quotes only where a word would be misread.
std::string yaml_text(const OrderedJson& value);

/// yaml_text without quotes around a text: how a value is named in messages and in Field::has.
std::string plain_text(const OrderedJson& value);

}  // namespace finetune
