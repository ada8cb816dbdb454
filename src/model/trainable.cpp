#include "finetune/base/error.h"
#include "finetune/model/adapters.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <regex>

namespace finetune {

namespace {

/// Lists what training is to change.
class Unfreezer {
 public:
  explicit Unfreezer(std::function<bool(const std::string&)> matches)
      : matches_(std::move(matches)) {}

  void take(const std::string& name, Tensor& slot, bool decays) {
    if (slot.defined() && matches_(name)) list.push_back({name, &slot, decays});
  }

  void take_linear(Linear& linear) {
    const std::string name = linear.name + ".weight";
    if (matches_(name)) {
      linear.trained = linear.weight.dense();
      list.push_back({name, &linear.trained, true, 1.0, &linear.weight});
    }
    take(linear.name + ".bias", linear.bias, false);
  }

  std::vector<TrainableParameter> list;

 private:
  std::function<bool(const std::string&)> matches_;
};

/// LLaMA-Factory's freeze_trainable_layers: the last `count` blocks, or the first when it is
/// negative.
std::function<bool(const std::string&)> in_blocks(const ModelConfig& config, std::int64_t count) {
  const std::int64_t all = config.num_hidden_layers, wanted = std::abs(count);
  if (wanted > all) {
    fail(ErrorKind::config,
         "freeze_trainable_layers is {}; this model has {} blocks, expected {} to {}", count, all,
         -all, all);
  }
  std::vector<std::string> prefixes;
  for (std::int64_t i = 0; i < wanted; ++i)
    prefixes.push_back(config.layer_prefix(count > 0 ? all - wanted + i : i));
  return [prefixes](const std::string& name) {
    return std::any_of(prefixes.begin(), prefixes.end(),
                       [&](const std::string& prefix) { return name.starts_with(prefix); });
  };
}

std::function<bool(const std::string&)> chosen_by(const CausalLM& model, const Config& config) {
  if (config.freeze_trainable_layers != 0)
    return in_blocks(model.config, config.freeze_trainable_layers);
  if (!config.trainable_modules) return [](const std::string&) { return true; };
  return [pattern = std::regex(*config.trainable_modules)](const std::string& name) {
    return std::regex_match(name, pattern);
  };
}

}  // namespace

std::vector<TrainableParameter> lora_parameters(CausalLM& model, double lr_ratio) {
  std::vector<TrainableParameter> list;
  for (Linear* linear : model.linears()) {
    if (!linear->lora) continue;
    list.push_back({linear->name + ".lora_A.weight", &linear->lora->a, true});
    list.push_back({linear->name + ".lora_B.weight", &linear->lora->b, true});
  }
  for (TrainableParameter& parameter : list) {
    const auto has = [&](const char* part) {
      return parameter.name.find(part) != std::string::npos;
    };
    if (has(".lora_B") || has(".lora_embedding_B") || parameter.slot->dim() == 1)
      parameter.lr_scale = lr_ratio;
  }
  return list;
}

std::vector<TrainableParameter> unfreeze(CausalLM& model, const Config& config) {
  Unfreezer unfreezer(chosen_by(model, config));
  for (Linear* linear : model.linears()) unfreezer.take_linear(*linear);
  model.visit_other_tensors([&](const std::string& name, Tensor& tensor, bool decays) {
    unfreezer.take(name, tensor, decays);
  });
  if (unfreezer.list.empty()) {
    fail(ErrorKind::config,
         "trainable_modules: '{}' matches no parameter; names look like {}.weight",
         config.trainable_modules.value_or(""),
         model.linears().empty() ? model.norm.name : model.linears().front()->name);
  }
  return unfreezer.list;
}

}  // namespace finetune
