#pragma once

#include "finetune/model/model_config.h"
#include "model/config_reader.h"

#include <span>
#include <string>

namespace finetune {

/// One model family: its `model_type` and how its config.json becomes switches.
struct Family {
  std::string model_type;
  ModelConfig (*read)(const ConfigReader&);
};
std::span<const Family> families();

/// The fields that most families share: sizes, heads, RMSNorm, activation, tied embeddings, one set
/// of rotary angles, and layers that are all alike. `head_dim` is what the family has where
/// config.json is silent; 0: hidden_size / heads.
ModelConfig read_common(const ConfigReader& reader, std::int64_t head_dim = 0);

/// Layers that are all alike: full attention with 1/sqrt(head_dim), rotated by the first set of
/// angles.
std::vector<LayerConfig> plain_layers(const ModelConfig& config);

/// Rotary angles from `rope_parameters`, or from `rope_theta` and `rope_scaling`.
RopeConfig read_rope(const ConfigReader& reader, const ModelConfig& config, double theta = 10000.0,
                     double partial_rotary_factor = 1.0);

/// The same from an object that holds them; `reader` is the file's top level.
RopeConfig read_rope_object(const ConfigReader& reader, const ConfigReader& rope,
                            const ModelConfig& config, double theta,
                            double partial_rotary_factor = 1.0);

/// The activation under the first of `keys` that is there, else `fallback`.
Activation read_activation(const ConfigReader& reader, std::initializer_list<const char*> keys,
                           const std::string& fallback);

/// `layer_types` of config.json, one of "full_attention" and "sliding_attention" a layer; empty
/// where it is absent.
std::vector<bool> read_sliding_layers(const ConfigReader& reader, const ModelConfig& config);

// The families, by file.
ModelConfig read_llama(const ConfigReader& reader);  // families.cpp
ModelConfig read_mistral(const ConfigReader& reader);
ModelConfig read_qwen2(const ConfigReader& reader);
ModelConfig read_qwen3(const ConfigReader& reader);
ModelConfig read_olmo2(const ConfigReader& reader);
ModelConfig read_smollm3(const ConfigReader& reader);
ModelConfig read_granite(const ConfigReader& reader);
ModelConfig read_phi3(const ConfigReader& reader);
ModelConfig read_gemma(const ConfigReader& reader);  // families_gemma.cpp
ModelConfig read_gemma2(const ConfigReader& reader);
ModelConfig read_gemma3_text(const ConfigReader& reader);
ModelConfig read_gpt2(const ConfigReader& reader);  // families_gpt.cpp
ModelConfig read_gpt_neox(const ConfigReader& reader);
ModelConfig read_phi(const ConfigReader& reader);
ModelConfig read_mixtral(const ConfigReader& reader);  // families_moe.cpp
ModelConfig read_qwen2_moe(const ConfigReader& reader);
ModelConfig read_qwen3_moe(const ConfigReader& reader);

}  // namespace finetune
