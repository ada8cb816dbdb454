#pragma once

#include "finetune/base/tensor.h"
#include "finetune/config/choices.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace finetune {

/// alpha / rank, or alpha / sqrt(rank) with rsLoRA: what B A is multiplied by.
double lora_scaling(double alpha, std::int64_t rank, bool use_rslora);

/// True when a key of rank_pattern or alpha_pattern means the module: a regular expression for its
/// name, or for the end of it after a dot. Throws std::regex_error. Source: PEFT's get_pattern_key.
bool pattern_matches(const std::string& key, const std::string& module);

/// The matrices of one module and what they are multiplied by.
struct PeftLora {
  Tensor a;          ///< [R, I]; of an embedding lora_embedding_A [R, V]
  Tensor b;          ///< [O, R]; of an embedding lora_embedding_B [C, R]
  Tensor magnitude;  ///< DoRA's lora_magnitude_vector [O], or undefined
  double alpha = 8;
  bool embedding = false;

  std::int64_t rank() const { return a.size(0); }
};

/// What a PEFT adapter folder holds: configuration and tensors by module name
/// ("model.layers.0.self_attn.q_proj").
struct PeftAdapter {
  enum class Type { lora, ia3 };

  Type type = Type::lora;
  std::string base_model_name_or_path;
  double lora_dropout = 0.0;
  bool use_rslora = false;
  bool fan_in_fan_out =
      false;  ///< written for GPT-2's Conv1D, whose weights are stored [I, O]; A and B are not
  std::string
      init_lora_weights;  ///< "pissa" or "olora": the base lost the matrices' start; else ""
  std::vector<std::string>
      target_modules;  ///< names or suffixes of modules, to write; the tensors say it when reading
  std::vector<std::string> feedforward_modules;  ///< (IA)3: those whose input is scaled
  std::vector<std::string> modules_to_save;      ///< as the user named them
  bool scores = false;  ///< of a reward model (task_type SEQ_CLS): `saved` has its scalar head
  /// How the base's linears were held in training. PEFT's files have no field for it, so it stands
  /// in the metadata of the weights, which PEFT passes over.
  Quantization quantization = Quantization::none;
  bool double_quant = true;  ///< with nf4

  std::map<std::string, PeftLora> modules;
  std::map<std::string, Tensor> ia3;    ///< module -> ia3_l, [O, 1] or [1, I]
  std::map<std::string, Tensor> saved;  ///< full name of a tensor trained in whole -> its values

  double scaling(const PeftLora& lora) const {
    return lora_scaling(lora.alpha, lora.rank(), use_rslora);
  }
  bool use_dora() const;
};

/// The module of a reward model's scalar head, as transformers calls it.
constexpr const char* kScoreHead = "score";

constexpr const char* kAdapterWeightsFile = "adapter_model.safetensors";
constexpr const char* kAdapterConfigFile = "adapter_config.json";

/// Throws Error(model): missing files, a peft_type or variant that this version does not compute,
/// a tensor that belongs to none, an A without its B, ranks that disagree.
PeftAdapter read_peft_adapter(const std::filesystem::path& folder);

/// Writes both files of an adapter into a folder that is there. Throws Error(resource).
void write_peft_adapter(const std::filesystem::path& folder, const PeftAdapter& adapter);

/// The text of adapter_config.json, every field that PEFT itself writes for a causal model. `r`
/// and `lora_alpha` are those of most modules; the others stand in rank_pattern and alpha_pattern.
std::string peft_config_json(const PeftAdapter& adapter);

/// Tensors under PEFT's names ("base_model.model.<module>.lora_A.weight").
std::map<std::string, Tensor> peft_tensors(const PeftAdapter& adapter);

/// "base_model.model.", before every tensor's name.
constexpr std::string_view kPeftPrefix = "base_model.model.";

}  // namespace finetune
