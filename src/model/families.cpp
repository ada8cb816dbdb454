#include "model/families.h"

namespace finetune {

namespace {

/// Llama 1 to 3.x and the many models that share its layout. Source: transformers' LlamaConfig.
ModelConfig read_llama(const ConfigReader& reader) {
  ModelConfig config;
  config.model_type = "llama";
  config.hidden_size = reader.size("hidden_size");
  config.intermediate_size = reader.size("intermediate_size");
  config.num_hidden_layers = reader.size("num_hidden_layers");
  config.num_attention_heads = reader.size("num_attention_heads");
  config.num_key_value_heads = reader.size("num_key_value_heads", config.num_attention_heads);
  config.head_dim = reader.size("head_dim", std::max<std::int64_t>(
                                                1, config.hidden_size / config.num_attention_heads));
  config.vocab_size = reader.size("vocab_size");
  config.max_position_embeddings = reader.size("max_position_embeddings", 2048);
  config.rms_norm_eps = reader.positive("rms_norm_eps", 1e-6);
  config.attention_bias = reader.flag("attention_bias", false);
  config.mlp_bias = reader.flag("mlp_bias", false);
  config.tie_word_embeddings = reader.flag("tie_word_embeddings", false);
  read_rope(reader, config);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    reader.fail_field("num_key_value_heads", fmt::format("is {}", config.num_key_value_heads),
                      fmt::format("a divisor of num_attention_heads ({})", config.num_attention_heads));
  }
  if (config.head_dim % 2 != 0) {
    reader.fail_field("head_dim", fmt::format("is {}", config.head_dim), "an even number");
  }
  if (reader.word("hidden_act", "silu") != "silu") {
    reader.fail_field("hidden_act", "is \"" + reader.word("hidden_act", "") + "\"", "silu");
  }
  return config;
}

}  // namespace

std::span<const Family> families() {
  static const std::vector<Family> all = {{"llama", read_llama}};
  return all;
}

}  // namespace finetune
