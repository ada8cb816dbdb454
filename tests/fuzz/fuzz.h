#pragma once

#include "finetune/base/error.h"
#include "finetune/base/log.h"

#include <unistd.h>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

/// What the fuzz targets share. A target is one LLVMFuzzerTestOneInput: with clang it is linked
/// with libFuzzer (-DFINETUNE_FUZZ=ON), elsewhere with driver.cpp.
namespace finetune::fuzz {

/// Runs a parser. It may succeed or throw an Error that blames its input; whatever else it throws
/// ends the process.
template <typename Parse>
void only_errors(const Parse& parse) {
  try {
    parse();
    return;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::internal) return;
    std::fprintf(stderr, "a defect: %s\n", error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "not an Error: %s\n", error.what());
  }
  std::abort();
}

/// Ends the process when what a parser gave is not what it promises.
inline void promise(bool kept, const char* what) {
  if (kept) return;
  std::fprintf(stderr, "a broken promise: %s\n", what);
  std::abort();
}

/// A folder in memory for parsers that take a path; removed when the process ends.
class Folder {
 public:
  Folder() {
    const std::filesystem::path memory = "/dev/shm";
    std::error_code none;
    const bool usable =
        std::filesystem::is_directory(memory, none) && access("/dev/shm", W_OK) == 0;
    std::string pattern =
        ((usable ? memory : std::filesystem::temp_directory_path()) / "finetune-fuzz-XXXXXX")
            .string();
    path_ = mkdtemp(pattern.data());
    set_log_level(LogLevel::quiet);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, std::string_view content) const {
    std::ofstream(path_ / name, std::ios::binary)
        .write(content.data(), static_cast<std::streamsize>(content.size()));
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace finetune::fuzz
