#pragma once

#include "finetune/base/file.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>

namespace finetune {

/// metrics.jsonl: one object a line, flushed a line at a time.
class MetricsFile {
 public:
  /// Keeps the lines of steps up to `last_step` (a resumed run does the later ones again) and
  /// appends after them. Throws Error(resource).
  MetricsFile(const std::filesystem::path& path, std::int64_t last_step);

  /// One line, whole or not at all. Throws Error(resource).
  void write(const nlohmann::ordered_json& line);

 private:
  std::optional<AppendFile> file_;
};

}  // namespace finetune
