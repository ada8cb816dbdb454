#include "finetune/config/schema.h"

#include "config/aliases.h"
#include "config/fields.h"
#include "config/read_value.h"
#include "config/write_value.h"

#include <cmath>

namespace finetune {

namespace {

OrderedJson type_of(const std::string&) { return {{"type", "string"}}; }
OrderedJson type_of(bool) { return {{"type", "boolean"}}; }
OrderedJson type_of(std::int64_t) { return {{"type", "integer"}}; }
OrderedJson type_of(double) { return {{"type", "number"}}; }

OrderedJson type_of(const ModuleSelector&) {
  return {{"type", {"string", "array"}}, {"items", {{"type", "string"}}}};
}

OrderedJson type_of(const LoraInit&) { return {{"type", {"boolean", "string"}}}; }

template <Choice E>
OrderedJson type_of(E) {
  OrderedJson words = OrderedJson::array();
  for (const ChoiceWord<E>& entry : Choices<E>::words) {
    if (to_string(entry.value) == entry.word) words.push_back(json_value(entry.value));
  }
  return {{"enum", words}};
}

OrderedJson type_of(const std::vector<DatasetSpec>&) {
  return {{"anyOf",
           {{{"type", "string"}},
            {{"$ref", "#/$defs/dataset"}},
            {{"type", "array"},
             {"items", {{"anyOf", {{{"type", "string"}}, {{"$ref", "#/$defs/dataset"}}}}}}}}}};
}

template <typename T>
OrderedJson type_of(const std::optional<T>&) {
  return type_of(T());
}

template <typename T>
OrderedJson type_of(const std::vector<T>&) {
  return {{"type", "array"}, {"items", type_of(T())}};
}

template <typename T>
OrderedJson type_of(const std::map<std::string, T>&) {
  return {{"type", "object"}, {"additionalProperties", type_of(T())}};
}

void add_range(const Range& range, OrderedJson& type) {
  if (std::isfinite(range.low)) type[range.low_open ? "exclusiveMinimum" : "minimum"] = range.low;
  if (std::isfinite(range.high))
    type[range.high_open ? "exclusiveMaximum" : "maximum"] = range.high;
}

/// Collects the properties of one struct.
struct PropertyCollector {
  OrderedJson properties = OrderedJson::object();

  template <typename T>
  void operator()(const Field& field, const T& member) {
    OrderedJson property = type_of(member);
    const bool is_list = property.contains("items") && property["type"] == "array";
    const bool is_map = property.contains("additionalProperties");
    add_range(field.range, is_list  ? property["items"]
                           : is_map ? property["additionalProperties"]
                                    : property);
    if (field.bytes) property["type"] = {"integer", "string"};
    property["description"] = field.help;
    const OrderedJson standard = json_value(member);
    if (!standard.is_null() && field.absent.empty()) property["default"] = standard;
    const std::string key(field.key);
    properties[key] = property;
    for (const std::string_view alias : field.aliases) {
      OrderedJson other = property;
      other["description"] = "Another name of " + key + ".";
      other["deprecated"] = true;
      properties[std::string(alias)] = other;
    }
  }
};

}  // namespace

nlohmann::ordered_json config_schema() {
  PropertyCollector config;
  const Config defaults;
  visit_fields(defaults, config);
  for (const auto& [name, meaning] : translated_names()) {
    config.properties[name] = {{"description", meaning}, {"deprecated", true}};
  }
  PropertyCollector dataset;
  const DatasetSpec dataset_defaults;
  visit_dataset_fields(dataset_defaults, dataset);
  // Sections (`lora: {rank: 8}`) have free names; everything else that is unknown is an error.
  return {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
          {"title", "Configuration of finetune"},
          {"type", "object"},
          {"properties", config.properties},
          {"additionalProperties", {{"type", "object"}}},
          {"$defs",
           {{"dataset",
             {{"type", "object"},
              {"properties", dataset.properties},
              {"required", {"path"}},
              {"additionalProperties", false}}}}}};
}

}  // namespace finetune
