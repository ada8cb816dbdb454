#include "finetune/base/cache_folder.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kVariable = "FINETUNE_CACHE_DIR";

}  // namespace

fs::path cache_folder() {
  if (const char* given = std::getenv(kVariable)) return given;
  if (const char* given = std::getenv("XDG_CACHE_HOME"); given != nullptr && *given != '\0')
    return fs::path(given) / "finetune";
  const char* home = std::getenv("HOME");
  return home == nullptr || *home == '\0' ? fs::path() : fs::path(home) / ".cache" / "finetune";
}

bool cache_folder_is_given() {
  const char* given = std::getenv(kVariable);
  return given != nullptr && *given != '\0';
}

void prune_cache(const fs::path& folder, std::string_view prefix, std::size_t most) {
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".safetensors"))
      files.emplace_back(entry.last_write_time(), entry.path());
  }
  std::sort(files.begin(), files.end());
  for (std::size_t i = 0; i + most < files.size(); ++i) {
    std::error_code gone_already;
    fs::remove(files[i].second, gone_already);
  }
}

}  // namespace finetune
