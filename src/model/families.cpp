#include "model/families.h"

#include "finetune/base/error.h"

#include <algorithm>
#include <cmath>

namespace finetune {

namespace {

/// Qwen: `use_sliding_window`, then layer_types, else the layers from max_window_layers on.
void read_qwen_window(const ConfigReader& reader, ModelConfig& config) {
  if (!reader.flag("use_sliding_window", false) || reader.find("sliding_window") == nullptr) return;
  const std::int64_t window = reader.size("sliding_window");
  const std::vector<bool> sliding = read_sliding_layers(reader, config);
  const auto first =
      static_cast<std::size_t>(std::clamp(reader.number("max_window_layers", 28), 0.0, 1e9));
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    if (sliding.empty() ? i >= first : sliding[i]) config.layers[i].window = window;
  }
}

}  // namespace

std::span<const Family> families() {
  static const std::vector<Family> all = {{"llama", read_llama},
                                          {"mistral", read_mistral},
                                          {"qwen2", read_qwen2},
                                          {"qwen3", read_qwen3},
                                          {"gemma", read_gemma},
                                          {"gemma2", read_gemma2},
                                          {"gemma3_text", read_gemma3_text},
                                          {"phi3", read_phi3},
                                          {"phi", read_phi},
                                          {"olmo2", read_olmo2},
                                          {"smollm3", read_smollm3},
                                          {"granite", read_granite},
                                          {"gpt2", read_gpt2},
                                          {"gpt_neox", read_gpt_neox},
                                          {"mixtral", read_mixtral},
                                          {"qwen2_moe", read_qwen2_moe},
                                          {"qwen3_moe", read_qwen3_moe}};
  return all;
}

Activation read_activation(const ConfigReader& reader, std::initializer_list<const char*> keys,
                           const std::string& fallback) {
  const auto named = std::find_if(keys.begin(), keys.end(),
                                  [&](const char* key) { return reader.find(key) != nullptr; });
  const std::string word = named == keys.end() ? fallback : reader.word(*named, fallback);
  if (const auto activation = parse_activation(word)) return *activation;
  reader.fail_field(*named, "is \"" + word + "\"",
                    "silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu or tanh");
}

ModelConfig read_common(const ConfigReader& reader, std::int64_t head_dim) {
  ModelConfig config;
  config.hidden_size = reader.size("hidden_size");
  config.intermediate_size = reader.size("intermediate_size");
  config.num_hidden_layers = reader.size("num_hidden_layers");
  config.num_attention_heads = reader.size("num_attention_heads");
  config.num_key_value_heads = reader.size("num_key_value_heads", config.num_attention_heads);
  config.head_dim = reader.size(
      "head_dim", head_dim > 0
                      ? head_dim
                      : std::max<std::int64_t>(1, config.hidden_size / config.num_attention_heads));
  config.vocab_size = reader.size("vocab_size");
  config.max_position_embeddings = reader.size("max_position_embeddings", 2048);
  config.norm_eps = reader.positive("rms_norm_eps", 1e-6);
  config.activation = read_activation(reader, {"hidden_act"}, "silu");
  config.attention_bias = config.attention_out_bias = reader.flag("attention_bias", false);
  config.tie_word_embeddings = reader.flag("tie_word_embeddings", false);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    reader.fail_field(
        "num_key_value_heads", fmt::format("is {}", config.num_key_value_heads),
        fmt::format("a divisor of num_attention_heads ({})", config.num_attention_heads));
  }
  config.layers = plain_layers(config);
  return config;
}

std::vector<LayerConfig> plain_layers(const ModelConfig& config) {
  constexpr std::int64_t kMostLayers = 1 << 16;  // a hostile count must not fill memory
  LayerConfig layer;
  layer.attention_scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim));
  return std::vector<LayerConfig>(
      static_cast<std::size_t>(std::min(config.num_hidden_layers, kMostLayers)), layer);
}

std::vector<bool> read_sliding_layers(const ConfigReader& reader, const ModelConfig& config) {
  std::vector<bool> sliding;
  for (const std::string& type : reader.words("layer_types")) {
    if (type != "full_attention" && type != "sliding_attention") {
      reader.fail_field("layer_types", "holds \"" + type + "\"",
                        "full_attention and sliding_attention");
    }
    sliding.push_back(type == "sliding_attention");
  }
  if (!sliding.empty() && sliding.size() != config.layers.size()) {
    reader.fail_field("layer_types", fmt::format("holds {} entries", sliding.size()),
                      fmt::format("one for each of the {} layers", config.num_hidden_layers));
  }
  return sliding;
}

/// Llama 1 to 3.x and the many models that share its layout. Source: transformers' LlamaConfig.
ModelConfig read_llama(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.mlp_bias = reader.flag("mlp_bias", false);
  config.ropes = {read_rope(reader, config)};
  return config;
}

/// Llama with a window over all layers.
ModelConfig read_mistral(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.attention_bias = config.attention_out_bias = false;
  config.ropes = {read_rope(reader, config)};
  if (reader.find("sliding_window") != nullptr) {
    for (LayerConfig& layer : config.layers) layer.window = reader.size("sliding_window");
  }
  return config;
}

/// Llama with biases on queries, keys and values only.
ModelConfig read_qwen2(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.attention_bias = true;
  config.attention_out_bias = false;
  config.ropes = {read_rope(reader, config)};
  read_qwen_window(reader, config);
  return config;
}

/// Llama with a norm over each head's queries and keys.
ModelConfig read_qwen3(const ConfigReader& reader) {
  ModelConfig config = read_common(reader, 128);
  config.qk_norm = ModelConfig::QkNorm::per_head;
  config.names.q_norm = "q_norm";
  config.names.k_norm = "k_norm";
  config.ropes = {read_rope(reader, config)};
  read_qwen_window(reader, config);
  return config;
}

/// Norms after attention and MLP instead of before, and over all queries and keys.
ModelConfig read_olmo2(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.norm = NormKind::rms_wide;
  config.norm_eps = reader.positive("rms_norm_eps", 1e-5);
  config.qk_norm = ModelConfig::QkNorm::all_heads;
  ParameterNames& names = config.names;
  names.q_norm = "q_norm";
  names.k_norm = "k_norm";
  names.attention_norm = names.mlp_norm = "";
  names.attention_out_norm = "post_attention_layernorm";
  names.mlp_out_norm = "post_feedforward_layernorm";
  config.ropes = {read_rope(reader, config)};
  return config;
}

/// Llama with layers that are not rotated; those may have a window.
ModelConfig read_smollm3(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.tie_word_embeddings = reader.flag("tie_word_embeddings", true);
  config.mlp_bias = reader.flag("mlp_bias", false);
  config.ropes = {read_rope(reader, config, 2000000.0)};
  const std::vector<double> rotated =
      reader.numbers("no_rope_layers");  // 1: with rope, whatever the key says
  const auto interval = static_cast<std::size_t>(reader.size("no_rope_layer_interval", 4));
  if (!rotated.empty() && rotated.size() != config.layers.size()) {
    reader.fail_field("no_rope_layers", fmt::format("holds {} entries", rotated.size()),
                      fmt::format("one for each of the {} layers", config.num_hidden_layers));
  }
  const bool windows =
      reader.flag("use_sliding_window", false) && reader.find("sliding_window") != nullptr;
  const std::vector<bool> sliding = read_sliding_layers(reader, config);
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const bool has_rope = rotated.empty() ? (i + 1) % interval != 0 : rotated[i] != 0.0;
    config.layers[i].rope = has_rope ? 0 : -1;
    if (windows && (sliding.empty() ? !has_rope : sliding[i]))
      config.layers[i].window = reader.size("sliding_window");
  }
  return config;
}

/// Llama with four multipliers.
ModelConfig read_granite(const ConfigReader& reader) {
  ModelConfig config = read_llama(reader);
  config.embedding_scale = reader.number("embedding_multiplier", 1.0);
  config.residual_scale = reader.number("residual_multiplier", 1.0);
  config.logit_scale = 1.0 / reader.positive("logits_scaling", 1.0);
  for (LayerConfig& layer : config.layers)
    layer.attention_scale = reader.number("attention_multiplier", 1.0);
  return config;
}

/// Fused projections, optional window, LongRoPE.
ModelConfig read_phi3(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.norm_eps = reader.positive("rms_norm_eps", 1e-5);
  config.attention_bias = config.attention_out_bias = false;
  config.names.qkv = "qkv_proj";
  config.names.gate_up = "gate_up_proj";
  config.ropes = {read_rope(reader, config)};
  RopeScaling& scaling = config.ropes.front().scaling;
  const bool known =
      scaling.type == RopeScaling::Type::none || scaling.type == RopeScaling::Type::longrope;
  if (!known)
    reader.fail_field("rope_scaling", "is of another type",
                      "longrope, the only one of this family");
  if (reader.find("sliding_window") != nullptr) {
    for (LayerConfig& layer : config.layers) layer.window = reader.size("sliding_window");
  }
  return config;
}

}  // namespace finetune
