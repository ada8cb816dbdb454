#pragma once

#include "finetune/base/file.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace finetune {

/// An event file as TensorBoard reads it: records of TFRecord, each an Event message of
/// tensorflow/core/util/event.proto. Only scalars are written.
class EventFile {
 public:
  /// Begins a new file in `folder`. What older files there say of `first_step` and later steps is
  /// void from then on: a resumed run does them again. Throws Error(resource).
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);

  /// Notes a scalar, in memory.
  void scalar(std::int64_t step, const std::string& tag, double value);
  /// Writes all that was noted since. Throws Error(resource); it then stays noted for the next try.
  void flush();

 private:
  void record(std::int64_t step, const std::string& what);

  std::optional<AppendFile> file_;
  std::string noted_;
};

}  // namespace finetune
