#pragma once

#include "finetune/base/file.h"
#include "finetune/formats/safetensors.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <string>

namespace finetune::tiny_llama {

using Weights = std::map<std::string, Tensor>;

/// A Llama of two layers with grouped heads, small enough to check by hand.
inline nlohmann::json config() {
  return {{"model_type", "llama"},
          {"hidden_size", 12},
          {"intermediate_size", 20},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 4},
          {"vocab_size", 17},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 100.0},
          {"attention_bias", false},
          {"tie_word_embeddings", false}};
}

/// Random weights under the Hugging Face names for what the configuration describes, lm_head
/// included.
inline Weights weights(const nlohmann::json& c, at::ScalarType dtype = at::kFloat) {
  const auto size = [&](const char* key) { return c.at(key).get<std::int64_t>(); };
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(7);
  Weights all;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, double mean,
                       double width) {
    all[name] =
        at::randn(shape, generator, at::TensorOptions(at::kDouble)).mul(width).add(mean).to(dtype);
  };
  const std::int64_t hidden = size("hidden_size"), inner = size("intermediate_size");
  const std::int64_t queries = size("num_attention_heads") * size("head_dim");
  const std::int64_t keys = size("num_key_value_heads") * size("head_dim");
  const bool bias = c.at("attention_bias").get<bool>();
  add("model.embed_tokens.weight", {size("vocab_size"), hidden}, 0.0, 1.0);
  add("lm_head.weight", {size("vocab_size"), hidden}, 0.0, 1.0);
  add("model.norm.weight", {hidden}, 1.0, 0.2);
  for (std::int64_t i = 0; i < size("num_hidden_layers"); ++i) {
    const std::string base = "model.layers." + std::to_string(i) + ".";
    const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in,
                            bool with_bias) {
      add(base + name + ".weight", {out, in}, 0.0, 0.4);
      if (with_bias) add(base + name + ".bias", {out}, 0.0, 0.4);
    };
    add(base + "input_layernorm.weight", {hidden}, 1.0, 0.2);
    add(base + "post_attention_layernorm.weight", {hidden}, 1.0, 0.2);
    linear("self_attn.q_proj", queries, hidden, bias);
    linear("self_attn.k_proj", keys, hidden, bias);
    linear("self_attn.v_proj", keys, hidden, bias);
    linear("self_attn.o_proj", hidden, queries, bias);
    linear("mlp.gate_proj", inner, hidden, false);
    linear("mlp.up_proj", inner, hidden, false);
    linear("mlp.down_proj", hidden, inner, false);
  }
  return all;
}

/// config.json and model.safetensors.
inline void write(const std::filesystem::path& folder, const nlohmann::json& config,
                  const Weights& weights) {
  write_file_atomically(folder / "config.json", config.dump());
  write_safetensors(folder / "model.safetensors", weights, {{"format", "pt"}});
}

/// The text of the Error that `run` throws; fails the test when there is none.
template <typename Run>
std::string error_of(Run run, ErrorKind kind = ErrorKind::model) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace finetune::tiny_llama
