#include "model/families.h"

#include "finetune/base/error.h"

#include <cmath>

namespace finetune {

namespace {

/// What all Gemmas share: (1 + weight) norms, scaled embeddings, heads of 256, tied embeddings,
/// GELU by tanh.
ModelConfig read_gemma_base(const ConfigReader& reader) {
  ModelConfig config = read_common(reader, 256);
  config.norm = NormKind::rms_plus_one;
  config.embedding_scale = std::sqrt(static_cast<double>(config.hidden_size));
  config.tie_word_embeddings = reader.flag("tie_word_embeddings", true);
  if (reader.flag("use_bidirectional_attention", false)) {
    reader.fail_field("use_bidirectional_attention", "is true",
                      "false: a model that sees later tokens is not trained to predict them");
  }
  return config;
}

/// Norms before and after attention and MLP, and the scale of the scores.
void read_gemma_sandwich(const ConfigReader& reader, ModelConfig& config) {
  ParameterNames& names = config.names;
  names.attention_out_norm = "post_attention_layernorm";
  names.mlp_norm = "pre_feedforward_layernorm";
  names.mlp_out_norm = "post_feedforward_layernorm";
  for (LayerConfig& layer : config.layers) {
    layer.attention_scale = 1.0 / std::sqrt(reader.positive("query_pre_attn_scalar", 256));
  }
}

/// A cap that is written null is off; one that is absent has the family's default.
double read_softcap(const ConfigReader& reader, const std::string& key, double fallback) {
  if (reader.holds_null(key)) return 0.0;
  return reader.number(key, fallback);
}

}  // namespace

ModelConfig read_gemma(const ConfigReader& reader) {
  ModelConfig config = read_gemma_base(reader);
  config.activation = read_activation(reader, {"hidden_act"}, "gelu_pytorch_tanh");
  // Early files say "gelu" and mean the tanh form, as transformers reads them.
  if (config.activation == Activation::gelu) config.activation = Activation::gelu_tanh;
  config.ropes = {read_rope(reader, config)};
  return config;
}

/// Soft caps, and a window on every other layer.
ModelConfig read_gemma2(const ConfigReader& reader) {
  ModelConfig config = read_gemma_base(reader);
  config.activation = read_activation(reader, {"hidden_activation"}, "gelu_pytorch_tanh");
  read_gemma_sandwich(reader, config);
  config.attention_softcap = read_softcap(reader, "attn_logit_softcapping", 50.0);
  config.logit_softcap = read_softcap(reader, "final_logit_softcapping", 30.0);
  config.ropes = {read_rope(reader, config)};
  const std::vector<bool> sliding = read_sliding_layers(reader, config);
  if (reader.holds_null("sliding_window")) return config;
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    if (sliding.empty() ? i % 2 == 0 : sliding[i])
      config.layers[i].window = reader.size("sliding_window", 4096);
  }
  return config;
}

/// Norms over each head, and two sets of rotary angles: layers with a window have unscaled ones of
/// their own.
ModelConfig read_gemma3_text(const ConfigReader& reader) {
  ModelConfig config = read_gemma_base(reader);
  config.activation = read_activation(reader, {"hidden_activation"}, "gelu_pytorch_tanh");
  read_gemma_sandwich(reader, config);
  config.max_position_embeddings = reader.size("max_position_embeddings", 131072);
  config.qk_norm = ModelConfig::QkNorm::per_head;
  config.names.q_norm = "q_norm";
  config.names.k_norm = "k_norm";
  config.attention_softcap = read_softcap(reader, "attn_logit_softcapping", 0.0);
  config.logit_softcap = read_softcap(reader, "final_logit_softcapping", 0.0);
  if (reader.find("rope_parameters") != nullptr &&
      reader.section("rope_parameters").find("full_attention") != nullptr) {
    const ConfigReader both = reader.section("rope_parameters");
    config.ropes = {read_rope_object(reader, both.section("full_attention"), config, 1000000.0),
                    read_rope_object(reader, both.section("sliding_attention"), config, 10000.0)};
  } else {
    RopeConfig local;
    local.theta = reader.positive("rope_local_base_freq", 10000.0);
    local.rotary_dim = config.head_dim;
    config.ropes = {read_rope(reader, config, 1000000.0), local};
  }
  const std::vector<bool> sliding = read_sliding_layers(reader, config);
  const auto pattern = static_cast<std::size_t>(
      reader.size_of_either("_sliding_window_pattern", "sliding_window_pattern", 6));
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    if (!(sliding.empty() ? (i + 1) % pattern != 0 : sliding[i])) continue;
    config.layers[i].rope = 1;
    if (!reader.holds_null("sliding_window"))
      config.layers[i].window = reader.size("sliding_window", 4096);
  }
  return config;
}

}  // namespace finetune
