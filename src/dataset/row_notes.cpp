#include "dataset/row_formats.h"
#include "finetune/base/error.h"

namespace finetune {

namespace {

using Json = nlohmann::ordered_json;

/// nullptr where the key is absent or null.
const Json* find(const Json& row, const char* key) {
  const auto member = row.find(key);
  return member == row.end() || member->is_null() ? nullptr : &*member;
}

[[noreturn]] void fail_type(const char* key, const Json& value, const char* expected) {
  fail(ErrorKind::data, "\"{}\" is {}; expected {}", key, value.dump().substr(0, 80), expected);
}

}  // namespace

RowText read_notes(const Json& row) {
  RowText notes;
  // Many data sets have another kind of value under this name, which is no reason to refuse a row.
  if (const Json* source = find(row, "source"); source != nullptr && source->is_string())
    notes.source = source->get<std::string>();
  if (const Json* tags = find(row, "tags")) {
    for (const Json& tag : tags->is_array() ? *tags : Json::array({*tags})) {
      if (!tag.is_string()) fail_type("tags", *tags, "a text or a list of texts");
      notes.tags.push_back(tag.get<std::string>());
    }
  }
  if (const Json* check = find(row, "format_check")) {
    if (!check->is_string() && !check->is_object())
      fail_type("format_check", *check, "a regular expression or a JSON schema");
    notes.format_check = check->is_string() ? check->get<std::string>() : check->dump();
  }
  return notes;
}

}  // namespace finetune
