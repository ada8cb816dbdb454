#include "config/write_value.h"

#include "config/fields.h"
#include "config/numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace finetune {

namespace {

/// True when YAML reads the text back as this text without quotes, in flow lists too.
bool is_plain(const std::string& text) {
  const auto is_safe = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '/' || c == '-';
  };
  if (text.empty() || !std::all_of(text.begin(), text.end(), is_safe)) return false;
  const auto first = static_cast<unsigned char>(text[0]);
  if (std::isalpha(first) == 0 && first != '/' && !text.starts_with("./") &&
      !text.starts_with("../")) {
    return false;
  }
  return !parse_bool(text) && text != "null" && text != "Null" && text != "NULL";
}

/// A value of a list or map that is at its default is left out of `datasets`.
struct DatasetWriter {
  OrderedJson& out;
  const DatasetSpec& spec;

  template <typename T>
  void operator()(const Field& field, const T& member) const {
    const DatasetSpec defaults;
    OrderedJson standard;
    visit_dataset_fields(defaults, [&](const Field& other, const auto& value) {
      if (other.key == field.key) standard = json_value(value);
    });
    OrderedJson value = json_value(member);
    if (field.key == "path" || value != standard) out[std::string(field.key)] = std::move(value);
  }
};

}  // namespace

OrderedJson json_value(const std::string& value) { return OrderedJson(value); }
OrderedJson json_value(bool value) { return OrderedJson(value); }
OrderedJson json_value(std::int64_t value) { return OrderedJson(value); }
OrderedJson json_value(double value) { return OrderedJson(value); }

OrderedJson json_value(const ModuleSelector& value) {
  switch (value.kind) {
    case ModuleSelector::Kind::none:
      return OrderedJson::array();
    case ModuleSelector::Kind::attention:
      return "attention";
    case ModuleSelector::Kind::all_linear:
      return "all-linear";
    case ModuleSelector::Kind::names:
      return json_value(value.names);
    case ModuleSelector::Kind::regex:
      return value.regex;
  }
  return {};
}

OrderedJson json_value(const LoraInit& value) {
  switch (value.kind) {
    case LoraInit::Kind::standard:
      return true;
    case LoraInit::Kind::gaussian:
      return "gaussian";
    case LoraInit::Kind::pissa:
      return value.pissa_niter == 0 ? "pissa" : "pissa_niter_" + std::to_string(value.pissa_niter);
    case LoraInit::Kind::olora:
      return "olora";
    case LoraInit::Kind::loftq:
      return "loftq";
    case LoraInit::Kind::adapter:
      return value.path;
  }
  return {};
}

OrderedJson json_value(const DatasetSpec& value) {
  OrderedJson out = OrderedJson::object();
  visit_dataset_fields(value, DatasetWriter{out, value});
  return out;
}

std::string yaml_text(const OrderedJson& value) {
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    return is_plain(text) ? text : value.dump();
  }
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  if (!value.is_array() && !value.is_object()) return value.dump();
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (!text.empty()) text += ", ";
    if (value.is_object()) text += yaml_text(OrderedJson(key)) + ": ";
    text += yaml_text(item);
  }
  return value.is_array() ? "[" + text + "]" : "{" + text + "}";
}

std::string plain_text(const OrderedJson& value) {
  return value.is_string() ? value.get<std::string>() : yaml_text(value);
}

}  // namespace finetune
