#include "finetune/config/config.h"

namespace finetune {

bool Config::is_given(std::string_view key) const { return origins.contains(std::string(key)); }

double Config::resolved_learning_rate() const {
  if (learning_rate) return *learning_rate;
  if (stage != Stage::sft) return 5e-6;
  if (method == Method::ia3) return 3e-3;
  return method == Method::full ? 1e-5 : 2e-4;
}

double Config::resolved_beta() const { return beta.value_or(stage == Stage::grpo ? 0.0 : 0.1); }

double Config::resolved_adapter_scaling() const {
  return adapter_scaling.value_or(adapter_placement == AdapterPlacement::parallel ? 4.0 : 1.0);
}

bool Config::resolved_load_best_model_at_end() const {
  return load_best_model_at_end.value_or(has_eval_data());
}

bool Config::has_eval_data() const { return !eval_datasets.empty() || eval_split > 0; }

std::int64_t Config::eval_batch_size() const {
  return per_device_eval_batch_size.value_or(per_device_train_batch_size);
}

}  // namespace finetune
