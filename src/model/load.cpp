#include "finetune/model/causal_lm.h"

#include "finetune/base/error.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/formats/safetensors.h"

#include <ATen/ops/equal.h>

#include <map>
#include <set>

namespace finetune {

namespace fs = std::filesystem;

namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

/// Tensors that older exports carry and nobody needs: tables that are computed from the configuration.
bool harmless(const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.bias") ||
         name.ends_with(".attn.masked_bias");
}

/// Takes tensors out of a folder by name and shape, and remembers every problem.
class WeightTaker {
 public:
  WeightTaker(const fs::path& folder, const LoadOptions& options)
      : weights_(folder), options_(options), folder_(folder) {
    // A bare decoder (LlamaModel) is saved without the "model." prefix.
    prefix_missing_ = weights_.find(kEmbedding) == nullptr && weights_.find("embed_tokens.weight") != nullptr;
  }

  bool has(const std::string& name) const { return weights_.find(stored_name(name)) != nullptr; }

  Tensor take(const std::string& name, const std::vector<std::int64_t>& shape) {
    const std::string stored = stored_name(name);
    const TensorInfo* info = weights_.find(stored);
    if (info == nullptr) {
      missing_.push_back(fmt::format("missing: {} {}", stored, format_shape(shape)));
      return {};
    }
    taken_.insert(stored);
    if (info->shape != shape) {
      misshapen_.push_back(fmt::format("misshapen: {} is {}; this config.json needs {}", stored,
                                       format_shape(info->shape), format_shape(shape)));
      return {};
    }
    if (!at::isFloatingType(info->dtype)) {
      misshapen_.push_back(fmt::format("mistyped: {} is {}; expected a floating type", stored,
                                       safetensors_dtype(info->dtype)));
      return {};
    }
    return weights_.tensor(stored).to(options_.device, options_.dtype);
  }

  /// Throws one Error with everything that is missing, misshapen, or extra.
  void finish() const {
    std::vector<std::string> problems = missing_;
    problems.insert(problems.end(), misshapen_.begin(), misshapen_.end());
    std::size_t extra = 0;
    for (const std::string& name : weights_.names()) {
      if (taken_.contains(name) || harmless(name) || options_.allow_extra_tensors) continue;
      problems.push_back(fmt::format("extra: {}", name));
      ++extra;
    }
    if (problems.empty()) return;
    const char* hint = extra == problems.size()
                           ? "\nIf they are not needed, set allow_extra_tensors: true."
                           : "\nIs config.json the one of these weights?";
    fail(ErrorKind::model, "{}: the tensors are not those that config.json describes:\n{}{}",
         folder_.string(), join_problems(problems), hint);
  }

 private:
  std::string stored_name(const std::string& name) const {
    if (!prefix_missing_ || !name.starts_with("model.")) return name;
    return name.substr(6);
  }

  WeightFolder weights_;
  LoadOptions options_;
  fs::path folder_;
  bool prefix_missing_ = false;
  std::set<std::string> taken_;
  std::vector<std::string> missing_, misshapen_;
};

void load_layer(DecoderLayer& layer, std::size_t index, const ModelConfig& config,
                WeightTaker& weights) {
  const std::string base = fmt::format("model.layers.{}.", index);
  const std::int64_t hidden = config.hidden_size;
  const auto linear = [&](Linear& into, const std::string& name, std::int64_t out, std::int64_t in,
                          bool bias) {
    into.name = base + name;
    into.weight = FrozenWeight(weights.take(into.name + ".weight", {out, in}));
    if (bias) into.bias = weights.take(into.name + ".bias", {out});
  };
  const std::int64_t queries = config.num_attention_heads * config.head_dim;
  const std::int64_t keys = config.num_key_value_heads * config.head_dim;
  layer.input_layernorm = weights.take(base + "input_layernorm.weight", {hidden});
  linear(layer.q_proj, "self_attn.q_proj", queries, hidden, config.attention_bias);
  linear(layer.k_proj, "self_attn.k_proj", keys, hidden, config.attention_bias);
  linear(layer.v_proj, "self_attn.v_proj", keys, hidden, config.attention_bias);
  linear(layer.o_proj, "self_attn.o_proj", hidden, queries, config.attention_bias);
  layer.post_attention_layernorm = weights.take(base + "post_attention_layernorm.weight", {hidden});
  linear(layer.gate_proj, "mlp.gate_proj", config.intermediate_size, hidden, config.mlp_bias);
  linear(layer.up_proj, "mlp.up_proj", config.intermediate_size, hidden, config.mlp_bias);
  linear(layer.down_proj, "mlp.down_proj", hidden, config.intermediate_size, config.mlp_bias);
}

/// Tied weights may be stored under either name, or under both.
void load_embeddings(CausalLM& model, WeightTaker& weights) {
  const std::vector<std::int64_t> shape = {model.config.vocab_size, model.config.hidden_size};
  if (!model.config.tie_word_embeddings) {
    model.embed_tokens = weights.take(kEmbedding, shape);
    model.lm_head = weights.take(kHead, shape);
    return;
  }
  model.embed_tokens = weights.take(weights.has(kEmbedding) ? kEmbedding : kHead, shape);
  model.lm_head = model.embed_tokens;
  if (!weights.has(kEmbedding) || !weights.has(kHead)) return;
  const Tensor head = weights.take(kHead, shape);
  if (head.defined() && model.embed_tokens.defined() && !at::equal(head, model.embed_tokens)) {
    // As transformers does: two different stored tensors contradict the tie, and the tensors win.
    log_warning("model", "config.json ties lm_head to the embeddings, but both are stored and differ; they "
                         "are not tied. Set tie_word_embeddings to false in config.json.");
    model.lm_head = head;
    model.config.tie_word_embeddings = false;
  }
}

}  // namespace

CausalLM load_model(const fs::path& folder, const LoadOptions& options) {
  CausalLM model;
  model.config = read_model_config(folder);
  model.compute_dtype = options.dtype;
  model.device = options.device;
  WeightTaker weights(folder, options);
  load_embeddings(model, weights);
  model.norm = weights.take("model.norm.weight", {model.config.hidden_size});
  for (std::int64_t i = 0; i < model.config.num_hidden_layers; ++i) {
    if (i > 0 && !weights.has(fmt::format("model.layers.{}.input_layernorm.weight", i)) &&
        !weights.has(fmt::format("model.layers.{}.self_attn.q_proj.weight", i))) {
      // A hostile layer count must not fill memory with problems: one is enough.
      DecoderLayer absent;
      load_layer(absent, static_cast<std::size_t>(i), model.config, weights);
      break;
    }
    load_layer(model.layers.emplace_back(), static_cast<std::size_t>(i), model.config, weights);
  }
  weights.finish();
  std::uint64_t index = 0;
  for (Linear* linear : model.linears()) linear->index = index++;
  return model;
}

at::ScalarType stored_dtype(const fs::path& folder) {
  std::map<at::ScalarType, std::uint64_t> bytes;
  const WeightFolder weights(folder);
  for (const std::string& name : weights.names()) {
    const TensorInfo& info = *weights.find(name);
    if (at::isFloatingType(info.dtype)) bytes[info.dtype] += info.bytes();
  }
  at::ScalarType most = at::kFloat;
  std::uint64_t largest = 0;
  for (const auto& [dtype, count] : bytes) {
    if (count > largest) {
      largest = count;
      most = dtype;
    }
  }
  return most;
}

}  // namespace finetune
