#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace finetune {

/// Where what can be made again is kept between runs: FINETUNE_CACHE_DIR (empty: nowhere), else
/// XDG_CACHE_HOME/finetune, else ~/.cache/finetune. Empty where there is no such place.
std::filesystem::path cache_folder();

/// Whether the user named the place.
bool cache_folder_is_given();

/// Removes the oldest files called `prefix`...safetensors beyond the newest `most`. Throws
/// std::filesystem::filesystem_error where the folder cannot be read.
void prune_cache(const std::filesystem::path& folder, std::string_view prefix, std::size_t most);

}  // namespace finetune
