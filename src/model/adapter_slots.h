#pragma once

#include "finetune/base/error.h"
#include "finetune/config/config.h"
#include "finetune/formats/peft.h"
#include "finetune/model/causal_lm.h"

#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// A place that takes LoRA matrices: a linear of the blocks, the embeddings, or the head.
struct AdapterSlot {
  std::string name;
  std::optional<Lora>* lora;
  Linear* linear = nullptr;  ///< nullptr for embeddings and head
  Tensor table;              ///< [V, C] of embeddings and head
  bool embedding = false;
  std::uint64_t index = 0;  ///< part of the seed its matrices are drawn with

  std::int64_t out_features() const;  ///< rows of B: of embeddings C
  std::int64_t in_features() const;   ///< columns of A: of embeddings V
  /// The base weight [O, I] that an update is added to (of embeddings its transpose).
  Tensor weight() const;
};

/// All places, linears first, in the model's order.
std::vector<AdapterSlot> adapter_slots(CausalLM& model);

/// Those that the configuration selects. Throws Error(config).
std::vector<AdapterSlot> select_slots(CausalLM& model, const Config& config);

/// Throws Error(config) where layers_to_transform names a block the model does not have.
void check_layers(const CausalLM& model, const Config& config);

/// What the configuration says besides the adapter that it continues must agree with it: a given
/// key that differs from the adapter's value is an Error(config).
template <typename T>
void check_given(const Config& config, const char* key, const T& given, const T& stored) {
  if (!config.is_given(key) || given == stored) return;
  fail(ErrorKind::config,
       "{}: {} is {}, but the adapter {} has {}; leave {} out, or start a new adapter",
       config.origins.at(key), key, given, config.init_lora_weights.path, stored, key);
}

/// Throws Error(config) for a given key that the continued adapter decides alone.
void check_not_given(const Config& config, std::initializer_list<const char*> keys);

/// Copies a saved tensor into a trained one of the same shape. Throws Error(model).
void fill_tensor(Tensor target, const Tensor& source, const std::string& name,
                 const std::string& where);

/// True when `module` is called `wanted`, or ends in it after a dot.
bool named(const std::string& module, const std::string& wanted);

/// "q_proj" of "model.layers.0.self_attn.q_proj"
std::string last_part(const std::string& name);

/// Matrices to begin with, by the configuration's init_lora_weights, rank_pattern and
/// alpha_pattern; float32 on the model's device. `stored`: the base's tensors as its files hold
/// them, which LoftQ reads. Throws Error(config).
Lora new_lora(const AdapterSlot& slot, const Config& config,
              const std::map<std::string, Tensor>& stored, const at::Device& device);

/// The matrices of a saved adapter as they work over `weight` [O, I]: with the constant part that
/// PiSSA and OLoRA imply.
Lora lora_of(const PeftAdapter& adapter, const PeftLora& stored, const Tensor& weight,
             const at::Device& device);

/// Trained copies of the modules that modules_to_save names, by PEFT's rule; unties the head where
/// one of the two tied modules is named. Throws Error(config) for a text that matches nothing.
void train_modules(CausalLM& model, const std::vector<std::string>& names);

/// Calls `visit(name, slot, decays)` for every tensor that train_modules() put in.
void visit_trained_modules(
    CausalLM& model,
    const std::function<void(const std::string& name, Tensor& slot, bool decays)>& visit);

}  // namespace finetune
