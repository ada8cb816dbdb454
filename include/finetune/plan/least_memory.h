#pragma once

#include "finetune/base/machine.h"
#include "finetune/config/config.h"
#include "finetune/dataset/example.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace finetune {

/// Bytes that a run cannot do without, beside what the process holds already. A bound from below:
/// what can be read from a file again, and what is not certain, counts nothing.
struct LeastMemory {
  /// weights (copies in another type than the files have), trained values, gradients, optimizer,
  /// activations (what each trained block keeps of its input).
  std::vector<std::pair<std::string, std::uint64_t>> components;

  std::uint64_t total() const;
};

/// Told from the headers of the weights and the lengths of the rows; nothing is computed and no
/// weight read. Throws as load_model and attach_new_adapter do.
LeastMemory least_memory(const Config& config, const Dataset& train_data);

/// Throws Error(resource) with what to change when a run with these needs cannot fit.
void require_memory(const Config& config, const LeastMemory& least, const MemoryLimits& limits);

/// Both for this machine, before a run on the CPU starts; runs that are far from the limit cost no
/// time.
void require_memory(const Config& config, const Dataset& train_data);

}  // namespace finetune
