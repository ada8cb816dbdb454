#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/example.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace finetune {

/// What a run will need.
struct Plan {
  std::uint64_t peak_memory_bytes = 0;  ///< resident set
  /// What the peak is made of, in the order it comes to be: program (with the data, and what the
  /// allocator keeps), weights, adapters (the trained values), gradients, optimizer, activations,
  /// logits, workspace.
  std::vector<std::pair<std::string, std::uint64_t>> components;
  double step_seconds = 0;   ///< of a step of mean size
  double total_seconds = 0;  ///< steps and evaluations
  std::int64_t steps = 0, trained_parameters = 0;
  std::int64_t largest_batch_tokens = 0;  ///< of a micro-batch: the peak is that one's
  std::uint64_t disk_bytes = 0;           ///< most that the output folder holds at once
  std::uint64_t memory_limit_bytes = 0, free_disk_bytes = 0;
  std::string limit;  ///< what sets memory_limit_bytes
  bool fits = false;
  std::vector<std::string> advice;  ///< cheapest first; empty when it fits

  std::uint64_t component(const std::string& name) const;
};

/// Plans the run of a configuration over these data, whose rows have their final length. The
/// weights stay on disk but for up to four blocks, which one short batch goes through: the
/// bytes it keeps and the time it takes, block by block, give those of the whole model.
/// Throws Error(config) when the run is not for the CPU.
Plan plan_run(const Config& config, const Dataset& train_data, const Dataset* eval_data);

}  // namespace finetune
