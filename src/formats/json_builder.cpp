#include "formats/json_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace finetune {

using Json = nlohmann::ordered_json;

/// Of the parser's message.
constexpr std::size_t kShownBytes = 200;

Json* JsonBuilder::add(Json value) {
  if (open_.empty()) {
    root_ = std::move(value);
    return &root_;
  }
  Json& parent = *open_.back();
  if (parent.is_array()) {
    auto& elements = parent.get_ref<Json::array_t&>();
    return &elements.emplace_back(std::move(value));
  }
  // The map's own emplace searches all keys; end_object looks for repeated ones at once.
  Json::object_t::Container& members = parent.get_ref<Json::object_t&>();
  return &members.emplace_back(std::move(key_), std::move(value)).second;
}

bool JsonBuilder::open(Json value) {
  if (open_.size() == kMaxDepth) {
    problem_ = fmt::format("the row is nested deeper than {} levels", kMaxDepth);
    return false;
  }
  open_.push_back(add(std::move(value)));
  return true;
}

bool JsonBuilder::key(string_t& name) {
  key_ = std::move(name);
  return true;
}

bool JsonBuilder::end_object() {
  const auto& members = open_.back()->get_ref<const Json::object_t&>();
  std::vector<std::string_view> names;
  names.reserve(members.size());
  for (const auto& member : members) names.push_back(member.first);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    problem_ = fmt::format("the key \"{}\" is there twice in one object; expected it once", *twice);
    return false;
  }
  open_.pop_back();
  return true;
}

bool JsonBuilder::end_array() {
  open_.pop_back();
  return true;
}

bool JsonBuilder::parse_error(std::size_t position, const std::string&,
                              const nlohmann::json::exception& error) {
  // The library's text begins with its own name and a place that counts from the row's beginning.
  std::string_view what = error.what();
  if (const std::size_t place = what.find("column ");
      place != what.npos && what.find(": ", place) != what.npos) {
    what.remove_prefix(what.find(": ", place) + 2);
  } else if (const std::size_t name = what.find("] "); name != what.npos) {
    what.remove_prefix(name + 2);
  }
  // It quotes what was read last, which may be a whole book without its closing quote.
  std::size_t shown = std::min(what.size(), kShownBytes);
  while (shown < what.size() && (static_cast<unsigned char>(what[shown]) & 0xC0) == 0x80) --shown;
  problem_ =
      fmt::format("not valid JSON: {}{}", what.substr(0, shown), shown < what.size() ? "..." : "");
  offset_ = position == 0 ? 0 : position - 1;
  return false;
}

}  // namespace finetune
