#include "finetune/base/error.h"
#include "finetune/model/adapters.h"
#include "model/adapter_slots.h"
#include "model/bottlenecks.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <regex>

namespace finetune {

namespace {

/// Where a weight can be trained: its slot, and how its values are got.
struct Weight {
  std::string name;
  Tensor* slot;    // of a linear's weight the place of its trained copy
  Linear* linear;  // whose weight it is, else nullptr
  bool decays;

  void train() const {
    const Tensor value = linear != nullptr ? linear->weight.dense() : *slot;
    *slot = value.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }
};

/// Every tensor of the base model; a tied head is one with the embeddings.
std::vector<Weight> weights_of(CausalLM& model) {
  std::vector<Weight> weights;
  for (Linear* linear : model.linears()) {
    weights.push_back({linear->name + ".weight", &linear->trained, linear, true});
    if (linear->bias.defined())
      weights.push_back({linear->name + ".bias", &linear->bias, nullptr, false});
  }
  model.visit_other_tensors([&](const std::string& name, Tensor& tensor, bool decays) {
    weights.push_back({name, &tensor, nullptr, decays});
  });
  return weights;
}

/// PEFT's rule: a module whose name ends in the text, or any module inside one.
bool saves(const std::string& wanted, const std::string& tensor) {
  for (std::size_t end = tensor.rfind('.'); end != std::string::npos && end > 0;
       end = tensor.rfind('.', end - 1)) {
    if (std::string_view(tensor).substr(0, end).ends_with(wanted)) return true;
  }
  return false;
}

/// A tied head or embedding that is trained becomes a tensor of its own, as with PEFT.
void untie_for(CausalLM& model, const std::vector<std::string>& names) {
  if (!model.tied()) return;
  for (const std::string& name : names) {
    if (saves(name, model.embeddings_name() + ".weight") ||
        saves(name, model.head_name + ".weight")) {
      model.lm_head = model.embed_tokens;
      return;
    }
  }
}

/// The weights that have an adapter -> their modules.
std::map<std::string, std::string> adapted_weights(CausalLM& model) {
  std::map<std::string, std::string> adapted;
  for (const AdapterSlot& slot : adapter_slots(model)) {
    if (*slot.lora || (slot.linear != nullptr && slot.linear->ia3))
      adapted[slot.name + ".weight"] = slot.name;
  }
  return adapted;
}

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

void train_modules(CausalLM& model, const std::vector<std::string>& names) {
  if (names.empty()) return;
  untie_for(model, names);
  const std::vector<Weight> weights = weights_of(model);
  const std::map<std::string, std::string> adapted = adapted_weights(model);
  for (const std::string& wanted : names) {
    const bool found = std::any_of(weights.begin(), weights.end(), [&](const Weight& weight) {
      return saves(wanted, weight.name);
    });
    if (found) continue;
    fail(ErrorKind::config,
         "modules_to_save: no module of this model ends in '{}'; names look like {}, {}, {}",
         wanted, model.embeddings_name(), model.linears().front()->name, model.head_name);
  }
  for (const Weight& weight : weights) {
    if (std::none_of(names.begin(), names.end(),
                     [&](const std::string& wanted) { return saves(wanted, weight.name); })) {
      continue;
    }
    if (adapted.contains(weight.name)) {
      fail(ErrorKind::config,
           "{} is in both target_modules and modules_to_save; leave it out of one of them",
           adapted.at(weight.name));
    }
    model.originals[weight.name] = weight.linear != nullptr ? Tensor() : *weight.slot;
    weight.train();
  }
  model.modules_to_save = names;
}

void visit_trained_modules(
    CausalLM& model,
    const std::function<void(const std::string& name, Tensor& slot, bool decays)>& visit) {
  if (model.originals.empty()) return;
  for (const Weight& weight : weights_of(model)) {
    if (model.originals.contains(weight.name)) visit(weight.name, *weight.slot, weight.decays);
  }
}

std::vector<TrainableParameter> adapter_parameters(CausalLM& model, double lr_ratio) {
  std::vector<TrainableParameter> list;
  for (const AdapterSlot& slot : adapter_slots(model)) {
    if (slot.linear != nullptr && slot.linear->ia3)
      list.push_back({slot.name + ".ia3_l", &slot.linear->ia3->factors, true});
    if (!*slot.lora || (*slot.lora)->a.numel() == 0) continue;
    Lora& lora = **slot.lora;
    const char* ending = slot.embedding ? "" : ".weight";
    const std::string stem = slot.name + (slot.embedding ? ".lora_embedding_" : ".lora_");
    list.push_back({stem + "A" + ending, &lora.a, true});
    list.push_back({stem + "B" + ending, &lora.b, true, lr_ratio});
    if (lora.magnitude.defined())
      list.push_back({slot.name + ".lora_magnitude_vector", &lora.magnitude, true, lr_ratio});
  }
  for (const BottleneckTensor& tensor : bottleneck_parameters(model))
    list.push_back({tensor.name, tensor.slot, tensor.decays});
  visit_trained_modules(model, [&](const std::string& name, Tensor& slot, bool decays) {
    list.push_back({name, &slot, decays});
  });
  return list;
}

std::vector<TrainableParameter> unfreeze(CausalLM& model, const Config& config) {
  const auto chosen = chosen_by(model, config);
  std::vector<TrainableParameter> list;
  for (const Weight& weight : weights_of(model)) {
    if (!chosen(weight.name)) continue;
    if (weight.linear != nullptr) *weight.slot = weight.linear->weight.dense();
    list.push_back({weight.name, weight.slot, weight.decays, 1.0,
                    weight.linear == nullptr ? nullptr : &weight.linear->weight});
  }
  if (list.empty()) {
    fail(ErrorKind::config,
         "trainable_modules: '{}' matches no parameter; names look like {}.weight",
         config.trainable_modules.value_or(""),
         model.linears().empty() ? model.norm.name : model.linears().front()->name);
  }
  return list;
}

at::ScalarType trained_dtype(const Config& config) {
  return config.method == Method::full && config.pure_bf16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace finetune
