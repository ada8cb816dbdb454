#pragma once

#include "finetune/config/config.h"
#include "finetune/formats/event_file.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace finetune {

constexpr const char* kTensorboardFolder = "tensorboard";

/// The numbers of metrics.jsonl for other programs: TensorBoard's event files, and Prometheus'
/// text file.
class Telemetry {
 public:
  Telemetry(const Config& config, const std::filesystem::path& run, std::int64_t last_step,
            std::int64_t total_steps);

  /// Takes a line of metrics.jsonl, in memory.
  void tell(const nlohmann::ordered_json& line);
  /// Writes what was told. Throws Error(resource) when the disk refuses TensorBoard's file; nothing
  /// is lost then, and nothing twice in the next try.
  void write();
  /// Writes what is held back for Prometheus.
  void finish();

 private:
  void write_prometheus();

  std::optional<EventFile> events_;
  std::string prometheus_file_, run_;
  std::map<std::string, double> newest_;
  std::chrono::steady_clock::time_point written_;
  bool refused_ = false;  // said once
};

}  // namespace finetune
