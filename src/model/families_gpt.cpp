#include "model/families.h"

#include "finetune/base/error.h"

#include <algorithm>
#include <cmath>

namespace finetune {

namespace {

/// LayerNorm, two linears with biases, no gate.
void read_plain_mlp(const ConfigReader& reader, ModelConfig& config, const char* epsilon) {
  config.norm = NormKind::layer;
  config.norm_eps = reader.positive(epsilon, 1e-5);
  config.mlp_bias = true;
  config.names.gate = "";
}

void require_whole_heads(const ConfigReader& reader, const ModelConfig& config,
                         const std::string& key) {
  if (config.hidden_size % config.num_attention_heads == 0) return;
  reader.fail_field(key, fmt::format("is {}", config.num_attention_heads),
                    fmt::format("a divisor of the hidden size ({})", config.hidden_size));
}

}  // namespace

/// Learned positions, Conv1D weights (stored [in, out]), tied embeddings. Source: transformers'
/// GPT2Config.
ModelConfig read_gpt2(const ConfigReader& reader) {
  ModelConfig config;
  config.hidden_size = reader.size_of_either("n_embd", "hidden_size");
  config.num_hidden_layers = reader.size_of_either("n_layer", "num_hidden_layers");
  config.num_attention_heads = reader.size_of_either("n_head", "num_attention_heads");
  config.num_key_value_heads = config.num_attention_heads;
  config.intermediate_size = reader.size("n_inner", 4 * config.hidden_size);
  config.vocab_size = reader.size("vocab_size");
  config.max_position_embeddings =
      reader.size_of_either("n_positions", "max_position_embeddings", 1024);
  require_whole_heads(reader, config, "n_head");
  config.head_dim = config.hidden_size / config.num_attention_heads;
  read_plain_mlp(reader, config, "layer_norm_epsilon");
  config.activation = read_activation(reader, {"activation_function"}, "gelu_new");
  config.tie_word_embeddings = reader.flag("tie_word_embeddings", true);
  config.attention_bias = config.attention_out_bias = true;
  config.transposed_linears = true;
  ParameterNames& names = config.names;
  names.prefix = "transformer.";
  names.embeddings = "wte";
  names.positions = "wpe";
  names.layers = "h";
  names.final_norm = "ln_f";
  names.attention = "attn";
  names.qkv = "c_attn";
  names.o = names.down = "c_proj";
  names.up = "c_fc";
  names.attention_norm = "ln_1";
  names.mlp_norm = "ln_2";
  config.layers = plain_layers(config);
  const bool scales = reader.flag("scale_attn_weights", true),
             by_layer = reader.flag("scale_attn_by_inverse_layer_idx", false);
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    LayerConfig& layer = config.layers[i];
    layer.rope = -1;
    if (!scales) layer.attention_scale = 1.0;
    if (by_layer) layer.attention_scale /= static_cast<double>(i + 1);
  }
  if (reader.flag("add_cross_attention", false))
    reader.fail_field("add_cross_attention", "is true", "false: a decoder alone");
  return config;
}

/// One projection with each head's q, k and v together, a part of each head rotated, parallel
/// blocks.
ModelConfig read_gpt_neox(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  require_whole_heads(reader, config, "num_attention_heads");
  config.num_key_value_heads = config.num_attention_heads;
  read_plain_mlp(reader, config, "layer_norm_eps");
  config.activation = read_activation(reader, {"hidden_act"}, "gelu");
  config.attention_bias = config.attention_out_bias = reader.flag("attention_bias", true);
  config.parallel_blocks = reader.flag("use_parallel_residual", true);
  config.qkv_layout = ModelConfig::QkvLayout::per_head;
  ParameterNames& names = config.names;
  names.prefix = "gpt_neox.";
  names.embeddings = "embed_in";
  names.final_norm = "final_layer_norm";
  names.heads = {"embed_out", "lm_head"};
  names.attention = "attention";
  names.qkv = "query_key_value";
  names.o = "dense";
  names.up = "dense_h_to_4h";
  names.down = "dense_4h_to_h";
  config.ropes = {read_rope(reader, config, reader.positive("rotary_emb_base", 10000.0),
                            reader.positive("rotary_pct", 0.25))};
  return config;
}

/// One norm for parallel blocks, biases everywhere (the head too), a part of each head rotated.
ModelConfig read_phi(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  read_plain_mlp(reader, config, "layer_norm_eps");
  config.activation = read_activation(reader, {"hidden_act"}, "gelu_new");
  config.attention_bias = config.attention_out_bias = config.head_bias = true;
  config.parallel_blocks = true;
  ParameterNames& names = config.names;
  names.final_norm = "final_layernorm";
  names.o = "dense";
  names.up = "fc1";
  names.down = "fc2";
  names.mlp_norm = "";
  if (reader.flag("qk_layernorm", false)) {
    config.qk_norm = ModelConfig::QkNorm::per_head;
    names.q_norm = "q_layernorm";
    names.k_norm = "k_layernorm";
  }
  config.ropes = {read_rope(reader, config, 10000.0, 0.5)};
  return config;
}

}  // namespace finetune
