#include "finetune/model/causal_lm.h"

#include "finetune/base/error.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"
#include "finetune/formats/safetensors.h"
#include "model/quantized_weights.h"
#include "model/stored_names.h"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <map>
#include <set>

namespace finetune {

namespace fs = std::filesystem;

namespace {

/// Tensors that older exports carry and nobody needs: rotary tables and causal masks.
bool harmless(const std::string& name) {
  const char* endings[] = {".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias",
                           ".attention.bias", ".attention.masked_bias"};
  return std::any_of(std::begin(endings), std::end(endings),
                     [&](const char* ending) { return name.ends_with(ending); });
}

/// Takes tensors out of a folder by name and shape, and remembers every problem.
class WeightTaker {
 public:
  WeightTaker(const fs::path& folder, const ModelConfig& config, const LoadOptions& options)
      : weights_(folder),
        names_(config, weights_),
        config_(config),
        options_(options),
        folder_(folder) {
    check_quant_states(weights_);
    if (options.quantization != Quantization::nf4) return;
    cache_.emplace(folder, weights_, options.double_quant);
    cached_ = cache_->open();
  }

  bool has(const std::string& name) const { return weights_.find(names_.stored(name)) != nullptr; }

  Tensor take(const std::string& name, const std::vector<std::int64_t>& shape) {
    const Tensor tensor = find(name, shape);
    return tensor.defined() ? tensor.to(options_.device, options_.dtype) : tensor;
  }

  Norm norm(const std::string& name, std::int64_t size) {
    const bool layer = config_.norm == NormKind::layer;
    return {name, config_.norm, config_.norm_eps, take(name + ".weight", {size}),
            layer ? take(name + ".bias", {size}) : Tensor()};
  }

  Linear linear(const std::string& name, std::int64_t out, std::int64_t in, bool bias) {
    Linear linear;
    linear.name = name;
    linear.weight = is_nf4(weights_, names_.stored(name + ".weight"))
                        ? take_nf4(name + ".weight", out, in)
                        : take_weight(name + ".weight", out, in, options_.quantization);
    if (bias) linear.bias = take(name + ".bias", {out});
    return linear;
  }

  /// A linear that is never quantized: what decides which experts see a token is small.
  Linear router(const std::string& name, std::int64_t out, std::int64_t in) {
    Linear linear;
    linear.name = name;
    linear.weight = take_weight(name + ".weight", out, in, Quantization::none);
    return linear;
  }

  /// Keeps what was quantized for the next time.
  void fill_cache(const CausalLM& model) const {
    if (!cache_ || cached_) return;
    std::map<std::string, const Nf4Tensor*> weights;
    for (const Linear* linear : model.linears()) {
      if (linear->weight.nf4() != nullptr) weights[linear->name + ".weight"] = linear->weight.nf4();
    }
    cache_->write(weights);
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
  /// The tensor as it is stored; undefined, with a problem noted, where there is none that fits.
  Tensor find(const std::string& name, const std::vector<std::int64_t>& shape) {
    const std::string stored = names_.stored(name);
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
    return weights_.tensor(stored);
  }

  /// A weight that the files hold in NF4.
  FrozenWeight take_nf4(const std::string& name, std::int64_t out, std::int64_t in) {
    const std::string stored = names_.stored(name);
    for (const std::string& part : nf4_parts(weights_, stored)) taken_.insert(part);
    Nf4Tensor weight = read_nf4(weights_, stored);
    if (weight.out == out && weight.in == in) return FrozenWeight(std::move(weight));
    misshapen_.push_back(fmt::format("misshapen: {} is {}; this config.json needs {}", stored,
                                     format_shape({weight.out, weight.in}),
                                     format_shape({out, in})));
    return {};
  }

  /// A weight that the files hold as numbers. It is quantized from the stored numbers, not from
  /// those of the computing type, and before the next one is touched.
  FrozenWeight take_weight(const std::string& name, std::int64_t out, std::int64_t in,
                           Quantization quantization) {
    const bool transposed = config_.stores_transposed(name);
    const Tensor tensor = find(name, transposed ? std::vector{in, out} : std::vector{out, in});
    if (!tensor.defined()) return {};
    const Tensor weight = transposed ? tensor.t() : tensor;
    FrozenWeight result;
    if (quantization == Quantization::nf4) {
      result = cached_ && is_nf4(*cached_, name)
                   ? FrozenWeight(read_nf4(*cached_, name))
                   : FrozenWeight(nf4_quantize(weight, options_.double_quant));
    } else if (quantization == Quantization::int8) {
      result = FrozenWeight(int8_quantize(weight));
    } else {
      return FrozenWeight(weight.to(options_.device, options_.dtype));
    }
    weights_.release(names_.stored(name));
    return result;
  }

  WeightFolder weights_;
  StoredNames names_;
  const ModelConfig& config_;
  LoadOptions options_;
  fs::path folder_;
  std::optional<QuantizedCache> cache_;
  std::optional<WeightFolder> cached_;
  std::set<std::string> taken_;
  std::vector<std::string> missing_, misshapen_;
};

AttentionBlock load_attention(const ModelConfig& config, const std::string& layer,
                              WeightTaker& weights) {
  const ParameterNames& names = config.names;
  const std::string base = layer + names.attention + ".";
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t queries = config.num_attention_heads * config.head_dim;
  const std::int64_t keys = config.num_key_value_heads * config.head_dim;
  AttentionBlock block;
  if (!names.qkv.empty()) {
    block.qkv_proj =
        weights.linear(base + names.qkv, queries + 2 * keys, hidden, config.attention_bias);
  } else {
    block.q_proj = weights.linear(base + names.q, queries, hidden, config.attention_bias);
    block.k_proj = weights.linear(base + names.k, keys, hidden, config.attention_bias);
    block.v_proj = weights.linear(base + names.v, keys, hidden, config.attention_bias);
  }
  block.o_proj = weights.linear(base + names.o, hidden, queries, config.attention_out_bias);
  if (config.qk_norm == ModelConfig::QkNorm::none) return block;
  const bool all = config.qk_norm == ModelConfig::QkNorm::all_heads;
  block.q_norm = weights.norm(base + names.q_norm, all ? queries : config.head_dim);
  block.k_norm = weights.norm(base + names.k_norm, all ? keys : config.head_dim);
  return block;
}

MlpBlock load_mlp(const ModelConfig& config, const std::string& base, WeightTaker& weights) {
  const ParameterNames& names = config.names;
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  MlpBlock block;
  if (!names.gate_up.empty()) {
    block.gate_up_proj = weights.linear(base + names.gate_up, 2 * inner, hidden, config.mlp_bias);
  } else {
    if (!names.gate.empty())
      block.gate_proj = weights.linear(base + names.gate, inner, hidden, config.mlp_bias);
    block.up_proj = weights.linear(base + names.up, inner, hidden, config.mlp_bias);
  }
  block.down_proj = weights.linear(base + names.down, hidden, inner, config.mlp_bias);
  return block;
}

MlpBlock load_expert(const ModelConfig& config, const std::string& base, std::int64_t inner,
                     WeightTaker& weights) {
  const ParameterNames& names = config.names;
  MlpBlock expert;
  expert.gate_proj = weights.linear(base + names.expert_gate, inner, config.hidden_size, false);
  expert.up_proj = weights.linear(base + names.expert_up, inner, config.hidden_size, false);
  expert.down_proj = weights.linear(base + names.expert_down, config.hidden_size, inner, false);
  return expert;
}

MoeBlock load_experts(const ModelConfig& config, const std::string& layer, WeightTaker& weights) {
  const ParameterNames& names = config.names;
  const std::string base = layer + names.moe + ".";
  MoeBlock block;
  block.router = weights.router(base + names.router, config.moe.num_experts, config.hidden_size);
  for (std::int64_t e = 0; e < config.moe.num_experts; ++e) {
    block.experts.push_back(load_expert(config, fmt::format("{}experts.{}.", base, e),
                                        config.moe.intermediate_size, weights));
    if (!block.experts.back().down_proj.defined()) break;  // a hostile count: one problem is enough
  }
  if (names.shared_expert.empty()) return block;
  block.shared_expert = load_expert(config, base + names.shared_expert + ".",
                                    config.moe.shared_intermediate_size, weights);
  block.shared_expert_gate = weights.router(base + names.shared_expert_gate, 1, config.hidden_size);
  return block;
}

DecoderLayer load_layer(const ModelConfig& config, std::int64_t index, WeightTaker& weights) {
  const ParameterNames& names = config.names;
  const std::string base = config.layer_prefix(index);
  const auto norm = [&](const std::string& name) {
    return name.empty() ? Norm() : weights.norm(base + name, config.hidden_size);
  };
  DecoderLayer layer;
  layer.attention_norm = norm(names.attention_norm);
  layer.attention = load_attention(config, base, weights);
  layer.attention_out_norm = norm(names.attention_out_norm);
  layer.mlp_norm = norm(names.mlp_norm);
  if (config.layers[static_cast<std::size_t>(index)].sparse) {
    layer.moe = load_experts(config, base, weights);
  } else {
    layer.mlp = load_mlp(config, base + names.mlp + ".", weights);
  }
  layer.mlp_out_norm = norm(names.mlp_out_norm);
  return layer;
}

/// Tied weights may be stored under either name, or under both.
void load_embeddings(CausalLM& model, WeightTaker& weights) {
  const ParameterNames& names = model.config.names;
  const std::vector<std::int64_t> shape = {model.config.vocab_size, model.config.hidden_size};
  const auto stored =
      std::find_if(names.heads.begin(), names.heads.end(),
                   [&](const std::string& name) { return weights.has(name + ".weight"); });
  model.head_name = stored == names.heads.end() ? names.heads.front() : *stored;
  const std::string embedding = names.prefix + names.embeddings + ".weight",
                    head = model.head_name + ".weight";
  if (!names.positions.empty()) {
    model.embed_positions =
        weights.take(names.prefix + names.positions + ".weight",
                     {model.config.max_position_embeddings, model.config.hidden_size});
  }
  if (model.config.head_bias)
    model.lm_head_bias = weights.take(model.head_name + ".bias", {model.config.vocab_size});
  if (!model.config.tie_word_embeddings) {
    model.embed_tokens = weights.take(embedding, shape);
    model.lm_head = weights.take(head, shape);
    return;
  }
  model.embed_tokens =
      weights.take(weights.has(embedding) || !weights.has(head) ? embedding : head, shape);
  if (!weights.has(embedding) || !weights.has(head)) return;
  const Tensor own = weights.take(head, shape);
  if (own.defined() && model.embed_tokens.defined() && !at::equal(own, model.embed_tokens)) {
    // As transformers does: two different stored tensors contradict the tie, and the tensors win.
    log_warning("model",
                "config.json ties {} to the embeddings, but both are stored and differ; they "
                "are not tied. Set tie_word_embeddings to false in config.json.",
                model.head_name);
    model.lm_head = own;
    model.config.tie_word_embeddings = false;
  }
}

}  // namespace

CausalLM load_model(const fs::path& folder, const LoadOptions& options) {
  CausalLM model;
  model.config = read_model_config(folder);
  check_quantization_config(folder);
  model.compute_dtype = options.dtype;
  model.device = options.device;
  const ModelConfig config = model.config;  // loading the embeddings may untie the model's own copy
  WeightTaker weights(folder, config, options);
  load_embeddings(model, weights);
  model.norm = weights.norm(config.names.prefix + config.names.final_norm, config.hidden_size);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(config.layers.size()); ++i) {
    model.layers.push_back(load_layer(config, i, weights));
    // A hostile layer count must not fill memory with problems: one absent layer is enough.
    if (!model.layers.back().attention.o_proj.defined()) break;
  }
  weights.finish();
  weights.fill_cache(model);
  std::uint64_t index = 0;
  for (Linear* linear : model.linears()) linear->index = index++;
  return model;
}

at::ScalarType stored_dtype(const fs::path& folder) {
  std::map<at::ScalarType, std::uint64_t> bytes;
  const WeightFolder weights(folder);
  for (const std::string& name : weights.names()) {
    const TensorInfo& info = *weights.find(name);
    if (name.ends_with("absmax")) continue;  // of quantized weights
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
