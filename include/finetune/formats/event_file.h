#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace finetune {

/// An event file as TensorBoard reads it: records of TFRecord, each an Event message of
/// tensorflow/core/util/event.proto. Only scalars are written.
class EventFile {
 public:
  /// Begins a new file in `folder`. What older files there say of `first_step` and later steps is
  /// void from then on: a resumed run does them again. Throws Error(resource).
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);

  void scalar(std::int64_t step, const std::string& tag, double value);
  /// Hands what was written to the system.
  void flush();

 private:
  void record(std::int64_t step, const std::string& what);

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace finetune
