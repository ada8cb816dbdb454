#include "finetune/model/causal_lm.h"

#include "nn/reference.h"
#include "support/temporary_folder.h"

#include "model/tiny_llama.h"

#include <cmath>

namespace finetune {
namespace {

using reference::expect_close;
using reference::leaf;

using Starts = std::vector<std::int64_t>;

/// Angles are float32 in the program, as in transformers.
constexpr double kAngleTolerance = 1e-5;

/// One sequence through the decoder, from plain operations in float64. `weights` may hold effective
/// weights.
class PlainLlama {
 public:
  PlainLlama(nlohmann::json config, const tiny_llama::Weights& weights)
      : config_(std::move(config)) {
    for (const auto& [name, tensor] : weights) weights_[name] = tensor.to(at::kDouble);
  }

  Tensor& weight(const std::string& name) { return weights_.at(name); }

  Tensor hidden_states(const Tensor& ids) const {
    Tensor x = weights_.at("model.embed_tokens.weight").index_select(0, ids);
    for (std::int64_t i = 0; i < config_.at("num_hidden_layers").get<std::int64_t>(); ++i) {
      const std::string base = "model.layers." + std::to_string(i) + ".";
      x = x + attention_block(base + "self_attn.", normalized(x, base + "input_layernorm.weight"));
      const Tensor y = normalized(x, base + "post_attention_layernorm.weight");
      const Tensor gate = linear(base + "mlp.gate_proj", y), up = linear(base + "mlp.up_proj", y);
      x = x + linear(base + "mlp.down_proj", gate * gate.sigmoid() * up);
    }
    return normalized(x, "model.norm.weight");
  }

  Tensor hidden_states(const Tensor& ids, const Starts& starts) const {
    std::vector<Tensor> parts;
    for (std::size_t s = 0; s + 1 < starts.size(); ++s)
      parts.push_back(hidden_states(ids.slice(0, starts[s], starts[s + 1])));
    return at::cat(parts, 0);
  }

 private:
  Tensor linear(const std::string& name, const Tensor& x) const {
    const Tensor y = x.matmul(weights_.at(name + ".weight").t());
    const auto bias = weights_.find(name + ".bias");
    return bias == weights_.end() ? y : y + bias->second;
  }

  Tensor normalized(const Tensor& x, const std::string& name) const {
    return x / x.square().mean(-1, true).add(config_.at("rms_norm_eps").get<double>()).sqrt() *
           weights_.at(name);
  }

  Tensor rotated(const Tensor& x) const {  // [L, heads, D]
    const double dim = static_cast<double>(x.size(2));
    const Tensor pair = at::arange(x.size(2) / 2, at::kDouble);
    const Tensor frequency = at::pow(config_.at("rope_theta").get<double>(), pair * (-2.0 / dim));
    const Tensor angles = at::outer(at::arange(x.size(0), at::kDouble), frequency).unsqueeze(1);
    const auto halves = x.chunk(2, -1);
    return at::cat({halves[0] * angles.cos() - halves[1] * angles.sin(),
                    halves[1] * angles.cos() + halves[0] * angles.sin()},
                   -1);
  }

  Tensor attention_block(const std::string& base, const Tensor& x) const {
    const std::int64_t dim = config_.at("head_dim").get<std::int64_t>(), length = x.size(0);
    const auto heads = [&](const char* name) {
      return linear(base + name, x).view({length, -1, dim});
    };
    const Tensor q = rotated(heads("q_proj")), k = rotated(heads("k_proj")), v = heads("v_proj");
    const std::int64_t group = q.size(1) / k.size(1);
    const Tensor future = at::ones({length, length}, at::kBool).triu(1);
    std::vector<Tensor> out;
    for (std::int64_t h = 0; h < q.size(1); ++h) {
      const Tensor scores =
          q.select(1, h).matmul(k.select(1, h / group).t()) / std::sqrt(static_cast<double>(dim));
      out.push_back(
          scores.masked_fill(future, -INFINITY).softmax(-1).matmul(v.select(1, h / group)));
    }
    return linear(base + "o_proj", at::cat(out, 1));
  }

  nlohmann::json config_;
  tiny_llama::Weights weights_;
};

class CausalLMTest : public ::testing::Test {
 protected:
  CausalLMTest() {
    config_["attention_bias"] = true;
    weights_ = tiny_llama::weights(config_);
    tiny_llama::write(folder_.path(), config_, weights_);
    ids_ = at::arange(20, at::kLong).mul(7).remainder(17);
  }

  CausalLM load(at::ScalarType dtype) const { return load_model(folder_.path(), {.dtype = dtype}); }

  static void attach(CausalLM& model, double dropout) {
    std::uint64_t seed = 100;
    for (Linear* linear : model.linears()) {
      Lora lora;
      lora.a =
          leaf(reference::random({2, linear->weight.in_features()}, ++seed, model.compute_dtype)
                   .mul(0.3));
      lora.b =
          leaf(reference::random({linear->weight.out_features(), 2}, ++seed, model.compute_dtype)
                   .mul(0.3));
      lora.scaling = 0.5;
      lora.dropout = dropout;
      linear->lora = lora;
    }
  }

  TemporaryFolder folder_;
  nlohmann::json config_ = tiny_llama::config();
  tiny_llama::Weights weights_;
  Tensor ids_;
  Starts starts_ = {0, 1, 9, 11, 20};
};

TEST_F(CausalLMTest, MatchesTheReference) {
  const PlainLlama plain(config_, weights_);
  const Tensor expected = plain.hidden_states(ids_, starts_);
  expect_close(load(at::kDouble).hidden_states(ids_, starts_, {}), expected, kAngleTolerance,
               "float64");
  expect_close(load(at::kFloat).hidden_states(ids_, starts_, {}), expected, 10 * kAngleTolerance,
               "float32");
  const Tensor half = load(at::kBFloat16).hidden_states(ids_, starts_, {});
  EXPECT_EQ(half.scalar_type(), at::kBFloat16);
  expect_close(half, expected, 5 * reference::kBfloat16Tolerance, "bfloat16");
}

TEST_F(CausalLMTest, AdapterGradientsMatchTheReference) {
  CausalLM model = load(at::kDouble);
  attach(model, 0.0);
  PlainLlama plain(config_, weights_);
  std::vector<Tensor> adapters;
  for (Linear* linear : model.linears()) {
    Tensor& weight = plain.weight(linear->name + ".weight");
    weight = weight + 0.5 * linear->lora->b.matmul(linear->lora->a);
    adapters.insert(adapters.end(), {linear->lora->a, linear->lora->b});
  }
  const Tensor y = model.hidden_states(ids_, starts_, {.training = true, .seed = 1});
  const Tensor expected = plain.hidden_states(ids_, starts_);
  expect_close(y, expected, kAngleTolerance, "y");
  const Tensor dy = reference::random(y.sizes().vec(), 5);
  const auto grads = reference::gradients(y, dy, adapters),
             expected_grads = reference::gradients(expected, dy, adapters);
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    expect_close(grads[i], expected_grads[i], 10 * kAngleTolerance,
                 model.linears()[i / 2]->name + (i % 2 == 0 ? " dA" : " dB"));
  }
}

TEST_F(CausalLMTest, SequenceAloneIsSequenceInCompany) {
  const CausalLM model = load(at::kFloat);
  const Tensor together = model.hidden_states(ids_, starts_, {});
  for (std::size_t s = 0; s + 1 < starts_.size(); ++s) {
    const Tensor alone = model.hidden_states(ids_.slice(0, starts_[s], starts_[s + 1]),
                                             Starts{0, starts_[s + 1] - starts_[s]}, {});
    expect_close(together.slice(0, starts_[s], starts_[s + 1]), alone, reference::kFloatTolerance,
                 std::to_string(s));
  }
  // Whatever stands beside it, not only nothing.
  Tensor other = ids_.clone();
  other.slice(0, 0, 9).fill_(3);
  EXPECT_TRUE(at::equal(model.hidden_states(other, starts_, {}).slice(0, 9), together.slice(0, 9)));
}

TEST_F(CausalLMTest, LaterTokensDoNotChangeEarlierOnes) {
  const CausalLM model = load(at::kFloat);
  Tensor other = ids_.clone();
  other[19] = (other[19].item<std::int64_t>() + 1) % 17;
  const Tensor a = model.hidden_states(ids_, Starts{0, 20}, {}),
               b = model.hidden_states(other, Starts{0, 20}, {});
  EXPECT_TRUE(at::equal(a.slice(0, 0, 19), b.slice(0, 0, 19)));
  EXPECT_FALSE(at::equal(a[19], b[19]));
}

TEST_F(CausalLMTest, CacheEqualsTheFullPass) {
  CausalLM model = load(at::kDouble);
  attach(model, 0.0);
  const Starts starts = {0, 10, 20}, prompts = {3, 5};
  const Tensor full = model.hidden_states(ids_, starts, {});
  KvCache cache;
  cache.layers.resize(2);
  for (LayerCache& layer : cache.layers) {
    layer.keys.resize(2);
    layer.values.resize(2);
  }
  cache.lengths = {0, 0};
  const at::NoGradGuard no_grad;
  for (int pass = 0; pass < 5; ++pass) {
    const Starts counts = pass == 0 ? prompts : Starts{1, 1};
    const Starts places = {starts[0] + cache.lengths[0], starts[1] + cache.lengths[1]};
    const auto take = [&](const Tensor& x) {
      return at::cat({x.slice(0, places[0], places[0] + counts[0]),
                      x.slice(0, places[1], places[1] + counts[1])});
    };
    const Tensor y =
        model.hidden_states(take(ids_), Starts{0, counts[0], counts[0] + counts[1]}, cache);
    expect_close(y, take(full), reference::kDoubleTolerance, "pass " + std::to_string(pass));
  }
  EXPECT_EQ(cache.lengths, (Starts{7, 9}));
}

TEST_F(CausalLMTest, DropoutFollowsTheSeedOfTheMicroBatch) {
  CausalLM model = load(at::kFloat);
  attach(model, 0.5);
  const auto run = [&](bool training, std::uint64_t seed) {
    return model.hidden_states(ids_, starts_, {.training = training, .seed = seed}).detach();
  };
  EXPECT_TRUE(at::equal(run(true, 1), run(true, 1)));
  EXPECT_FALSE(at::equal(run(true, 1), run(true, 2)));
  EXPECT_TRUE(at::equal(run(false, 1), run(false, 2)));
}

TEST_F(CausalLMTest, NothingIsComputedBelowTheLowestAdapter) {
  CausalLM model = load(at::kFloat);
  attach(model, 0.0);
  for (Linear* linear : model.linears()) {
    if (linear->name.find("layers.0.") != std::string::npos) linear->lora.reset();
  }
  model.layers[1].attention.q_proj.lora.reset();
  EXPECT_TRUE(model.hidden_states(ids_, starts_, {}).requires_grad());
  for (Linear* linear : model.linears()) linear->lora.reset();
  EXPECT_FALSE(model.hidden_states(ids_, starts_, {}).requires_grad());
}

}  // namespace
}  // namespace finetune
