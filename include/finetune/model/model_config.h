#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// How rotary angles are scaled beyond the length a model was first trained on.
/// Source: transformers' modeling_rope_utils (names of the fields too).
struct RopeScaling {
  enum class Type { none, linear, dynamic, llama3, yarn };
  Type type = Type::none;
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;            // llama3
  std::int64_t original_max_position_embeddings = 0;               // llama3, yarn
  double beta_fast = 32.0, beta_slow = 1.0;                        // yarn
  std::optional<double> attention_factor, mscale, mscale_all_dim;  // yarn
  bool truncate = true;                                            // yarn
};

/// The switches that one decoder reads. A family is a function that fills them from config.json.
struct ModelConfig {
  std::string model_type;
  std::int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  std::int64_t vocab_size = 0, max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool attention_bias = false, mlp_bias = false;
  bool tie_word_embeddings = false;

  /// Tokens the model can read: max_position_embeddings, times the factor with dynamic rope scaling, whose purpose is
  /// to go beyond it (the other scalings name the longer length in config.json).
  std::int64_t longest_sequence() const;
};

/// Reads `config.json` of a Hugging Face folder, in either spelling (`rope_parameters`, or `rope_theta` with
/// `rope_scaling`). Throws Error(model): missing file or field, a number out of range, a model_type that is not
/// supported (with the list and the nearest).
ModelConfig read_model_config(const std::filesystem::path& folder);

}  // namespace finetune
