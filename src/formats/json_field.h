#pragma once

#include "finetune/base/error.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>

namespace finetune {

/// The value of `key` in an object of the file `path`, or `fallback` where it is absent or null.
/// T is bool, std::int64_t, double or std::string. Throws Error(model) for another type.
template <typename T>
T json_field(const nlohmann::ordered_json& object, const std::filesystem::path& path,
             const char* key, const T& fallback) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  const bool fits = std::is_same_v<T, bool>           ? found->is_boolean()
                    : std::is_same_v<T, std::int64_t> ? found->is_number_integer()
                    : std::is_same_v<T, double>       ? found->is_number()
                                                      : found->is_string();
  if (!fits) {
    fail(ErrorKind::model, "{}: '{}' is {}, which is not of the expected type", path.string(), key,
         found->dump());
  }
  return found->get<T>();
}

}  // namespace finetune
