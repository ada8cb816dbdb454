#pragma once

#include "finetune/config/config.h"
#include "finetune/formats/adapter_hub.h"
#include "finetune/model/causal_lm.h"

#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// A place that takes a bottleneck adapter, under the name the `adapters` library gives it.
struct BottleneckSlot {
  std::string name;  ///< "model.layers.0.attention_adapters"
  std::int64_t layer = 0;
  bool after_attention = false;  ///< else after the MLP
  std::optional<Bottleneck>* bottleneck;
};

/// Two places a block, in the model's order.
std::vector<BottleneckSlot> bottleneck_slots(CausalLM& model);

/// One trained tensor of an attached bottleneck, with the name it is stored under.
struct BottleneckTensor {
  std::string name;
  Tensor* slot;
  bool decays;  ///< false for biases
};

/// All of them, in order.
std::vector<BottleneckTensor> bottleneck_parameters(CausalLM& model);

/// New adapters as the configuration asks for, which leave the model as it is: W_up and biases are
/// zero. Throws Error(config) where the family's blocks have no place for them.
void attach_new_bottlenecks(CausalLM& model, const Config& config);

/// Goes on with the adapter that init_lora_weights names. Throws Error(config, model).
void continue_bottlenecks(CausalLM& model, const Config& config);

/// Puts a saved adapter onto the model, as float32 masters. Throws Error(model) with all that does
/// not fit.
void attach_bottlenecks(CausalLM& model, const BottleneckAdapter& adapter);

/// The attached adapter as it is saved, tensors on the CPU; nothing where none is attached.
std::optional<BottleneckAdapter> bottlenecks_of(CausalLM& model);

/// Copies the values of a saved adapter into the attached one. Throws Error(model); `where` is for
/// the message.
void restore_bottlenecks(CausalLM& model, const BottleneckAdapter& adapter,
                         const std::string& where);

}  // namespace finetune
