#pragma once

#include "finetune/config/config.h"
#include "finetune/formats/adapter_folder.h"
#include "finetune/model/causal_lm.h"

#include <string>
#include <vector>

namespace finetune {

/// Puts what `config` asks for onto the model: new LoRA matrices or (IA)3 factors on the modules
/// that target_modules, exclude_modules and layers_to_transform select, by PEFT's rules, and
/// trained copies of modules_to_save; or new bottlenecks at adapter_placement; or with
/// init_lora_weights: PATH those of that adapter, whose rank, alpha and targets then hold. Throws
/// Error(config) for a target that matches nothing, naming the modules there are.
void attach_new_adapter(CausalLM& model, const Config& config);

/// Puts a saved adapter onto the modules of the same names, as float32 masters.
/// Throws Error(model) with every name the model does not have and every shape that does not fit.
void attach_adapter(CausalLM& model, const SavedAdapter& saved);

/// The attached adapter as it is saved: tensors on the CPU; target_modules are suffixes where these
/// are exact, else full names. A constant part is in A and B, so the rank may be larger than the
/// trained one, and the base is the stored one.
SavedAdapter adapter_of(CausalLM& model);

/// Copies the values of an adapter that adapter_of() gave back into the attached one. Throws
/// Error(model) when a tensor is missing or misshapen; `where` is for the message.
void restore_adapter(CausalLM& model, const SavedAdapter& values, const std::string& where);

/// Takes every adapter off; the model is the base again.
void detach_adapters(CausalLM& model);

/// A tensor that training changes.
struct TrainableParameter {
  std::string name;  ///< as the tensor is stored: "model.layers.0.self_attn.q_proj.lora_A.weight",
                     ///< "model.norm.weight"
  Tensor* slot;      ///< where the model keeps it
  bool decays =
      true;  ///< weight decay applies: not for biases and norms, as in transformers' Trainer
  double lr_scale = 1;  ///< its learning rate over that of the run
  FrozenWeight* frozen =
      nullptr;  ///< the weight whose place `slot` takes; once trained, both are one memory
};

/// Every tensor of the attached adapter that is trained, under PEFT's names (the `adapters`
/// library's for bottlenecks). `lr_ratio`: learning
/// rate of B over that of A (LoRA+, Hayou et al. 2024, arXiv 2402.12354); vectors go with B, as in
/// PEFT's create_loraplus_optimizer.
std::vector<TrainableParameter> adapter_parameters(CausalLM& model, double lr_ratio);

/// Full fine-tuning: lists the weights whose names match trainable_modules (end to end), or those
/// of the blocks that freeze_trainable_layers counts, else all; the trainer puts its copies into
/// their slots. A tied head is one parameter with the embeddings. Throws Error(config) when nothing
/// matches or the model has fewer blocks.
std::vector<TrainableParameter> unfreeze(CausalLM& model, const Config& config);

/// The type that trained values are kept in between steps.
at::ScalarType trained_dtype(const Config& config);

}  // namespace finetune
