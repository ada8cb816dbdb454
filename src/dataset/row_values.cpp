#include "dataset/row_values.h"

#include "finetune/base/error.h"
#include "finetune/base/text.h"

#include <vector>

namespace finetune {

using Json = nlohmann::ordered_json;

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == text.npos; }

std::string describe(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number()) return "the number " + value.dump();
  if (value.is_string())
    return value.get_ref<const std::string&>().empty() ? "an empty text" : "a text";
  if (value.is_array()) return value.empty() ? "an empty list" : "a list";
  return "an object";
}

std::string list_keys(const Json& row) {
  std::vector<std::string> keys;
  for (const auto& [name, value] : row.items()) {
    if (keys.size() == 12) {
      keys.push_back("...");
      break;
    }
    keys.push_back(name);
  }
  return keys.empty() ? "no keys" : "the keys " + join(keys, ", ");
}

const std::string& require_text(const Json& value, const std::string& name) {
  if (!value.is_string()) fail(ErrorKind::data, "{} is {}; expected a text", name, describe(value));
  const auto& text = value.get_ref<const std::string&>();
  if (is_blank(text)) {
    fail(ErrorKind::data, "{} is {}; expected a text with something in it", name,
         text.empty() ? "empty" : "only white space");
  }
  return text;
}

}  // namespace finetune
