#include "finetune/base/error.h"

#include <algorithm>

namespace finetune {

std::string join_problems(const std::vector<std::string>& problems, std::size_t shown) {
  std::string text;
  for (std::size_t i = 0; i < std::min(shown, problems.size()); ++i) {
    if (i > 0) text += '\n';
    text += problems[i];
  }
  if (problems.size() > shown) text += fmt::format("\n... and {} more", problems.size() - shown);
  return text;
}

}  // namespace finetune
