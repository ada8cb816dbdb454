#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace finetune {

/// Nothing but white space.
bool is_blank(std::string_view text);
/// "a text", "an empty list", "the number 3": for messages.
std::string describe(const nlohmann::ordered_json& value);
/// "the keys a, b": the row's for a message, the first twelve.
std::string list_keys(const nlohmann::ordered_json& row);
/// A text with something in it; `name` is what the message calls it. Throws Error(data).
const std::string& require_text(const nlohmann::ordered_json& value, const std::string& name);

}  // namespace finetune
