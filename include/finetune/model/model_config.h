#pragma once

#include "finetune/nn/functions.h"
#include "finetune/nn/norm.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

/// How rotary angles are scaled beyond the length a model was first trained on.
/// Source: transformers' modeling_rope_utils (names of the fields too).
struct RopeScaling {
  enum class Type { none, linear, dynamic, llama3, yarn, longrope };
  Type type = Type::none;
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;            // llama3
  std::int64_t original_max_position_embeddings = 0;               // llama3, yarn, longrope
  double beta_fast = 32.0, beta_slow = 1.0;                        // yarn
  std::optional<double> attention_factor, mscale, mscale_all_dim;  // yarn; longrope has the first
  bool truncate = true;                                            // yarn
  std::vector<double> short_factor, long_factor;                   // longrope, [R/2]
};

/// One set of rotary angles.
struct RopeConfig {
  double theta = 10000.0;
  std::int64_t rotary_dim =
      0;  ///< R: the first values of a head that turn; the head's size in most families
  std::int64_t max_position_embeddings = 0;  ///< of the model; `dynamic` grows beyond it
  RopeScaling scaling;

  /// True when the angles depend on the length of the row.
  bool by_length() const {
    return scaling.type == RopeScaling::Type::dynamic ||
           scaling.type == RopeScaling::Type::longrope;
  }
};

/// The switches that may differ from layer to layer.
struct LayerConfig {
  double attention_scale = 1.0;  ///< of q k^T
  std::int64_t window = 0;       ///< sliding window in tokens; 0: none
  std::int32_t rope = 0;         ///< index into ModelConfig::ropes; -1: no rotation
  bool sparse = false;           ///< experts in place of one MLP
};

/// Experts of the sparse layers.
struct MoeConfig {
  std::int64_t num_experts = 0, num_experts_per_token = 0;
  std::int64_t intermediate_size = 0,
               shared_intermediate_size = 0;  ///< the second is 0 without a shared expert
  bool normalize_weights = true;              ///< the chosen experts' weights add up to 1
  double aux_loss_coef =
      0.0;  ///< of the load-balancing loss; 0 unless config.json sets output_router_logits
};

/// What the parts of a family are called in its files, under Hugging Face's names. "" is a part it
/// does not have.
struct ParameterNames {
  std::string prefix =
      "model.";  ///< of everything but the head; a bare decoder is saved without it
  std::string embeddings = "embed_tokens", positions, layers = "layers", final_norm = "norm";
  std::vector<std::string> heads = {"lm_head"};  ///< the first that is stored counts
  std::string attention = "self_attn", q = "q_proj", k = "k_proj", v = "v_proj", qkv, o = "o_proj",
              q_norm, k_norm;
  std::string mlp = "mlp", gate = "gate_proj", up = "up_proj", gate_up, down = "down_proj";
  std::string attention_norm = "input_layernorm", attention_out_norm;
  std::string mlp_norm = "post_attention_layernorm", mlp_out_norm;
  std::string moe = "mlp", router = "gate", expert_gate = "gate_proj", expert_up = "up_proj",
              expert_down = "down_proj";
  std::string shared_expert, shared_expert_gate;
};

/// The switches that one decoder reads. A family is a function that fills them from config.json.
struct ModelConfig {
  enum class QkNorm { none, per_head, all_heads };
  enum class QkvLayout {
    stacked,
    per_head
  };  ///< of a fused projection: all q, all k, all v; or q, k, v of each head

  std::string model_type;
  ParameterNames names;
  std::int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  std::int64_t vocab_size = 0, max_position_embeddings = 0;

  NormKind norm = NormKind::rms;
  double norm_eps = 1e-6;
  Activation activation = Activation::silu;
  QkNorm qk_norm = QkNorm::none;
  QkvLayout qkv_layout = QkvLayout::stacked;
  bool parallel_blocks =
      false;  ///< attention and MLP read the same input; their results are added together
  bool transposed_linears = false;  ///< stored [I, O], as GPT-2's Conv1D
  bool attention_bias = false, attention_out_bias = false, mlp_bias = false, head_bias = false;
  bool tie_word_embeddings = false;
  double embedding_scale = 1.0, residual_scale = 1.0, logit_scale = 1.0;
  double attention_softcap = 0.0, logit_softcap = 0.0;  ///< 0: none

  std::vector<RopeConfig> ropes;    ///< none: learned positions
  std::vector<LayerConfig> layers;  ///< [num_hidden_layers]
  MoeConfig moe;

  /// Tokens the model can read: max_position_embeddings, times the factor with dynamic rope
  /// scaling, whose purpose is to go beyond it (the other scalings name the longer length in
  /// config.json).
  std::int64_t longest_sequence() const;
  /// True when a text that grows to `length` tokens is rotated by other angles than before
  /// (longrope), so that the keys of a cache no longer fit.
  bool angles_change_at(std::int64_t length) const;
  /// "model.layers.3."
  std::string layer_prefix(std::int64_t layer) const;
  /// True for the weight of a linear that is stored [I, O]; `name` is a full tensor name.
  bool stores_transposed(std::string_view name) const;
};

/// Reads `config.json` of a Hugging Face folder, in either spelling (`rope_parameters`, or
/// `rope_theta` with `rope_scaling`; `num_local_experts` or `num_experts` ...). Throws
/// Error(model): missing file or field, a number out of range, a model_type that is not supported
/// (with the list and the nearest).
ModelConfig read_model_config(const std::filesystem::path& folder);

/// The model types there are, for messages and documentation.
std::vector<std::string> supported_model_types();

}  // namespace finetune
