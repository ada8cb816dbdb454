#pragma once

#include <string_view>
#include <vector>

namespace finetune {

/// A chat template that comes with the program: templates/<name>.jinja.
struct BuiltinTemplate {
  std::string_view name;
  std::string_view source;
};

/// All of them, by name. The definition is written by CMake from the files.
const std::vector<BuiltinTemplate>& builtin_templates();

}  // namespace finetune
