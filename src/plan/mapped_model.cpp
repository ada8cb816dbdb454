#include "plan/mapped_model.h"

#include "finetune/model/placement.h"

namespace finetune {

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

const char* memory_bound(const MemoryLimits& limits) {
  return limits.group_bytes && *limits.group_bytes < limits.available_bytes
             ? "the memory limit of this container"
             : "the free memory of this machine";
}

}  // namespace finetune
