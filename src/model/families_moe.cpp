#include "model/families.h"

#include "finetune/base/error.h"

#include <algorithm>

namespace finetune {

namespace {

void read_experts(const ConfigReader& reader, ModelConfig& config, std::int64_t intermediate_size,
                  std::int64_t per_token) {
  MoeConfig& moe = config.moe;
  moe.num_experts = reader.size_of_either("num_local_experts", "num_experts");
  moe.num_experts_per_token = reader.size("num_experts_per_tok", per_token);
  moe.intermediate_size = intermediate_size;
  if (reader.flag("output_router_logits", false))
    moe.aux_loss_coef = reader.number("router_aux_loss_coef", 0.001);
  if (moe.num_experts_per_token > moe.num_experts) {
    reader.fail_field("num_experts_per_tok", fmt::format("is {}", moe.num_experts_per_token),
                      fmt::format("at most the number of experts ({})", moe.num_experts));
  }
}

/// Every decoder_sparse_step-th layer, but for those of mlp_only_layers.
void read_sparse_layers(const ConfigReader& reader, ModelConfig& config) {
  const std::vector<double> dense = reader.numbers("mlp_only_layers");
  const auto step = static_cast<std::size_t>(reader.size("decoder_sparse_step", 1));
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const bool listed =
        std::find(dense.begin(), dense.end(), static_cast<double>(i)) != dense.end();
    config.layers[i].sparse = !listed && (i + 1) % step == 0;
  }
}

}  // namespace

/// Mistral with experts, named w1 (gate), w3 (up) and w2 (down) under block_sparse_moe.
ModelConfig read_mixtral(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.norm_eps = reader.positive("rms_norm_eps", 1e-5);
  config.attention_bias = config.attention_out_bias = false;
  config.ropes = {read_rope(reader, config, 1000000.0)};
  read_experts(reader, config, config.intermediate_size, 2);
  ParameterNames& names = config.names;
  names.moe = "block_sparse_moe";
  names.expert_gate = "w1";
  names.expert_up = "w3";
  names.expert_down = "w2";
  for (LayerConfig& layer : config.layers) {
    layer.sparse = true;
    if (reader.find("sliding_window") != nullptr) layer.window = reader.size("sliding_window");
  }
  return config;
}

/// Qwen2 with experts and one that all tokens visit, behind a gate.
ModelConfig read_qwen2_moe(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.attention_bias = reader.flag("qkv_bias", true);
  config.attention_out_bias = false;
  config.ropes = {read_rope(reader, config)};
  read_experts(reader, config, reader.size("moe_intermediate_size", 1408), 4);
  config.moe.normalize_weights = reader.flag("norm_topk_prob", false);
  config.moe.shared_intermediate_size = reader.size("shared_expert_intermediate_size", 5632);
  config.names.shared_expert = "shared_expert";
  config.names.shared_expert_gate = "shared_expert_gate";
  read_sparse_layers(reader, config);
  if (!reader.flag("use_sliding_window", false)) return config;
  const std::vector<bool> sliding = read_sliding_layers(reader, config);
  const auto last =
      static_cast<std::size_t>(std::clamp(reader.number("max_window_layers", 28), 0.0, 1e9));
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const bool slides = sliding.empty() ? i % 2 == 0 && i < last : sliding[i];
    if (slides) config.layers[i].window = reader.size("sliding_window", 4096);
  }
  return config;
}

/// Qwen3 with experts.
ModelConfig read_qwen3_moe(const ConfigReader& reader) {
  ModelConfig config = read_common(reader);
  config.qk_norm = ModelConfig::QkNorm::per_head;
  config.names.q_norm = "q_norm";
  config.names.k_norm = "k_norm";
  config.ropes = {read_rope(reader, config)};
  read_experts(reader, config, reader.size("moe_intermediate_size", 768), 8);
  config.moe.normalize_weights = reader.flag("norm_topk_prob", false);
  read_sparse_layers(reader, config);
  if (!reader.flag("use_sliding_window", false)) return config;
  for (LayerConfig& layer : config.layers) layer.window = reader.size("sliding_window", 4096);
  return config;
}

}  // namespace finetune
