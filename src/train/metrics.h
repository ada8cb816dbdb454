#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <fstream>

namespace finetune {

/// metrics.jsonl: one object a line, flushed a line at a time.
class MetricsFile {
 public:
  /// Keeps the lines of steps up to `last_step` (a resumed run does the later ones again) and
  /// appends after them. Throws Error(resource).
  MetricsFile(const std::filesystem::path& path, std::int64_t last_step);

  void write(const nlohmann::ordered_json& line);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace finetune
