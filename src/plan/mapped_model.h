#pragma once

#include "finetune/base/machine.h"
#include "finetune/config/config.h"
#include "finetune/model/adapters.h"

#include <vector>

namespace finetune {

/// The base model of a run with its tensors in the type of the files: mapped, nothing is read.
/// Throws as load_model does.
CausalLM map_model(const Config& config);

/// The settings for counting and measuring what a run trains: those that read or change every
/// weight have the size of the plain ones.
Config countable(const Config& config);

/// What a countable configuration trains of the model, whose adapter, if any, is attached.
std::vector<TrainableParameter> trained_of(CausalLM& model, const Config& countable);

/// What a configuration trains.
struct TrainedCount {
  std::uint64_t values = 0;
  std::uint64_t padded = 0;        ///< each parameter begins at a multiple of 256 values
  std::uint64_t large_padded = 0;  ///< of parameters whose moments adamw_8bit keeps in 8 bits
};
TrainedCount count_trained(const std::vector<TrainableParameter>& parameters);

/// Bytes of the optimizer's state.
std::uint64_t optimizer_bytes(const Config& config, const TrainedCount& trained);

/// What bounds the memory of a process that starts now, for messages.
const char* memory_bound(const MemoryLimits& limits);

}  // namespace finetune
