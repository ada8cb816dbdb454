#pragma once

#include "finetune/base/tensor.h"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace finetune {

/// The fields of PEFT's adapter_config.json that decide what a LoRA adapter computes.
struct PeftLoraConfig {
  std::string base_model_name_or_path;
  std::int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0.0;
  bool use_rslora = false;
  bool fan_in_fan_out =
      false;  ///< written for GPT-2's Conv1D, whose weights are stored [I, O]; A and B are not
  std::vector<std::string>
      target_modules;  ///< names or suffixes of modules, to write; the tensors say it when reading

  /// alpha / r, or alpha / sqrt(r).
  double scaling() const;
};

/// A PEFT adapter folder: configuration and tensors by module name
/// ("model.layers.0.self_attn.q_proj" -> its A and B).
struct PeftAdapter {
  struct Pair {
    Tensor a;  ///< [R, I]
    Tensor b;  ///< [O, R]
  };
  PeftLoraConfig config;
  std::map<std::string, Pair> modules;
};

constexpr const char* kAdapterWeightsFile = "adapter_model.safetensors";
constexpr const char* kAdapterConfigFile = "adapter_config.json";

/// Throws Error(model): missing files, a peft_type or variant that this version does not compute
/// (DoRA, biases, saved modules, patterns), a tensor that is neither an A nor a B, an A without its
/// B, ranks that disagree.
PeftAdapter read_peft_adapter(const std::filesystem::path& folder);

/// The text of adapter_config.json, every field that PEFT itself writes for a LoRA of a causal
/// model.
std::string peft_config_json(const PeftLoraConfig& config);

/// Tensors under PEFT's names ("base_model.model.<module>.lora_A.weight").
std::map<std::string, Tensor> peft_tensors(const std::map<std::string, PeftAdapter::Pair>& modules);

}  // namespace finetune
