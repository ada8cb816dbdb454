#pragma once

#include "finetune/config/config.h"
#include "finetune/formats/peft.h"
#include "finetune/model/causal_lm.h"

#include <string>
#include <vector>

namespace finetune {

/// Puts new LoRA matrices on the linears that target_modules, exclude_modules and
/// layers_to_transform select, by PEFT's rules; or, with init_lora_weights: PATH, those of that
/// adapter, whose rank and alpha then hold. A is Kaiming uniform (+-1/sqrt(in)) or N(0, 1/rank)
/// (`gaussian`), B is zero. Throws Error(config) for a target that matches nothing, naming the
/// linears there are.
void attach_new_lora(CausalLM& model, const Config& config);

/// Puts a saved adapter onto the linears of the same names, as float32 masters.
/// Throws Error(model) with every name the model does not have and every shape that does not fit.
void attach_adapter(CausalLM& model, const PeftAdapter& adapter);

/// What adapter_config.json says of the attached adapter; target_modules are suffixes where these
/// are exact, else full names.
PeftLoraConfig lora_config_of(const CausalLM& model);

/// Module name -> A and B, on the CPU, of the attached adapter.
std::map<std::string, PeftAdapter::Pair> lora_pairs_of(const CausalLM& model);

/// Takes every adapter off.
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

/// The A and B of every attached adapter. `lr_ratio`: learning rate of B over that of A (LoRA+,
/// Hayou et al. 2024, arXiv 2402.12354); vectors go with B, as in PEFT's
/// create_loraplus_optimizer.
std::vector<TrainableParameter> lora_parameters(CausalLM& model, double lr_ratio);

/// Full fine-tuning: lists the weights whose names match trainable_modules (end to end), or those
/// of the blocks that freeze_trainable_layers counts, else all; the trainer puts its copies into
/// their slots. A tied head is one parameter with the embeddings. Throws Error(config) when nothing
/// matches or the model has fewer blocks.
std::vector<TrainableParameter> unfreeze(CausalLM& model, const Config& config);

}  // namespace finetune
