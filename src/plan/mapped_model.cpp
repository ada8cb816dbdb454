#include "plan/mapped_model.h"

#include "finetune/model/placement.h"

namespace finetune {

namespace {

// As FlatParameters has them.
constexpr std::uint64_t kBlock = 256;  // gaps between parameters, 8-bit moments with one scale
constexpr std::uint64_t kLeastLarge = 4096;  // values; smaller ones keep moments in float32

}  // namespace

CausalLM map_model(const Config& config) {
  LoadOptions options;
  options.dtype = stored_dtype(config.model_name_or_path);
  options.allow_extra_tensors = config.allow_extra_tensors;
  return load_model(config.model_name_or_path, options);
}

Config countable(const Config& config) {
  Config result = config;
  if (result.init_lora_weights.kind != LoraInit::Kind::adapter)
    result.init_lora_weights = LoraInit{};
  result.use_dora = false;
  result.stack_on_adapter.reset();
  return result;
}

std::vector<TrainableParameter> trained_of(CausalLM& model, const Config& countable) {
  return countable.method == Method::full ? unfreeze(model, countable)
                                          : adapter_parameters(model, 1.0);
}

TrainedCount count_trained(const std::vector<TrainableParameter>& parameters) {
  TrainedCount trained;
  for (const TrainableParameter& parameter : parameters) {
    const auto size = static_cast<std::uint64_t>(parameter.slot->numel());
    const std::uint64_t padded = (size + kBlock - 1) / kBlock * kBlock;
    trained.values += size;
    trained.padded += padded;
    if (size >= kLeastLarge) trained.large_padded += padded;
  }
  return trained;
}

std::uint64_t optimizer_bytes(const Config& config, const TrainedCount& trained) {
  const std::uint64_t plain = 4 * trained.padded;
  const std::uint64_t eighth = trained.large_padded + 4 * (trained.large_padded / kBlock) +
                               4 * (trained.padded - trained.large_padded);
  switch (config.optim) {
    case Optim::adamw:
      return 2 * plain;
    case Optim::adamw_8bit:
      return 2 * eighth;
    case Optim::lion:
      return plain;
    case Optim::sgd:
      return config.momentum > 0 ? plain : 0;
  }
  return 0;
}

const char* memory_bound(const MemoryLimits& limits) {
  return limits.group_bounds() ? "the memory limit of this container"
                               : "the free memory of this machine";
}

}  // namespace finetune
