#include "finetune/base/error.h"
#include "finetune/model/causal_lm.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

#include "model/tiny_llama.h"

namespace finetune {
namespace {

using tiny_llama::contains;
using tiny_llama::error_of;
using tiny_llama::Weights;

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

class LoadModel : public ::testing::Test {
 protected:
  CausalLM load(const LoadOptions& options = {}) {
    tiny_llama::write(folder_.path(), config_, weights_);
    return load_model(folder_.path(), options);
  }

  std::string load_error(const LoadOptions& options = {}) {
    return error_of([&] { load(options); });
  }

  TemporaryFolder folder_;
  nlohmann::json config_ = tiny_llama::config();
  Weights weights_ = tiny_llama::weights(config_);
};

TEST_F(LoadModel, EveryTensorGoesToItsPlace) {
  config_["attention_bias"] = true;
  weights_ = tiny_llama::weights(config_);
  const CausalLM model = load();
  EXPECT_TRUE(at::equal(model.embed_tokens, weights_.at(kEmbedding)));
  EXPECT_TRUE(at::equal(model.lm_head, weights_.at(kHead)));
  EXPECT_TRUE(at::equal(model.norm.weight, weights_.at("model.norm.weight")));
  EXPECT_FALSE(model.tied());
  ASSERT_EQ(model.layers.size(), 2U);
  EXPECT_TRUE(at::equal(model.layers[1].attention_norm.weight,
                        weights_.at("model.layers.1.input_layernorm.weight")));
  EXPECT_TRUE(at::equal(model.layers[1].mlp_norm.weight,
                        weights_.at("model.layers.1.post_attention_layernorm.weight")));
  const auto linears = model.linears();
  ASSERT_EQ(linears.size(), 14U);
  EXPECT_EQ(linears[7]->name, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(linears[13]->name, "model.layers.1.mlp.down_proj");
  for (std::size_t i = 0; i < linears.size(); ++i) {
    EXPECT_EQ(linears[i]->index, i);  // part of the dropout seed: no two are the same
    EXPECT_TRUE(at::equal(linears[i]->weight.dense(), weights_.at(linears[i]->name + ".weight")));
    EXPECT_EQ(linears[i]->bias.defined(), contains(linears[i]->name, "self_attn"));
    if (!linears[i]->bias.defined()) continue;
    EXPECT_TRUE(at::equal(linears[i]->bias, weights_.at(linears[i]->name + ".bias")));
  }
}

TEST_F(LoadModel, ConvertsToTheComputingType) {
  const CausalLM model = load({.dtype = at::kBFloat16});
  EXPECT_EQ(model.compute_dtype, at::kBFloat16);
  EXPECT_TRUE(at::equal(model.embed_tokens, weights_.at(kEmbedding).to(at::kBFloat16)));
  EXPECT_EQ(model.layers[0].attention.q_proj.weight.dense().scalar_type(), at::kBFloat16);
  EXPECT_EQ(model.norm.weight.scalar_type(), at::kBFloat16);
}

TEST_F(LoadModel, TiedUnderEitherNameOrBoth) {
  config_["tie_word_embeddings"] = true;
  const Weights both = weights_;
  for (const char* absent : {kEmbedding, kHead}) {
    weights_ = both;
    weights_.erase(absent);
    const CausalLM model = load();
    EXPECT_TRUE(model.tied());
    EXPECT_TRUE(at::equal(model.embed_tokens, both.at(absent == kHead ? kEmbedding : kHead)))
        << absent;
  }
  weights_ = both;
  weights_[kHead] = weights_[kEmbedding].clone();
  EXPECT_TRUE(load().tied());
}

TEST_F(LoadModel, StoredTensorsWinOverATieThatTheyContradict) {
  config_["tie_word_embeddings"] = true;
  const CausalLM model = load();
  EXPECT_FALSE(model.tied());
  EXPECT_FALSE(model.config.tie_word_embeddings);
  EXPECT_TRUE(at::equal(model.lm_head, weights_.at(kHead)));
}

TEST_F(LoadModel, UntiedNeedsItsHead) {
  weights_.erase(kHead);
  EXPECT_TRUE(contains(load_error(), "missing: lm_head.weight [17, 12]"));
}

TEST_F(LoadModel, BareDecoderWithoutPrefix) {
  config_["tie_word_embeddings"] = true;
  Weights bare;
  for (const auto& [name, tensor] : weights_) {
    if (name != kHead) bare[name.substr(6)] = tensor;
  }
  std::swap(bare, weights_);
  const CausalLM model = load();
  EXPECT_EQ(model.linears()[0]->name,
            "model.layers.0.self_attn.q_proj");  // adapters keep the usual names
  EXPECT_TRUE(at::equal(model.linears()[0]->weight.dense(),
                        bare.at("model.layers.0.self_attn.q_proj.weight")));
}

TEST_F(LoadModel, ReadsShards) {
  write_file_atomically(folder_.path() / "config.json", config_.dump());
  Weights shards[2];
  nlohmann::json map;
  for (const auto& [name, tensor] : weights_) {
    const int shard = contains(name, "layers.1.") ? 1 : 0;
    shards[shard][name] = tensor;
    map[name] =
        shard == 0 ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
  }
  write_safetensors(folder_.path() / "model-00001-of-00002.safetensors", shards[0], {});
  write_safetensors(folder_.path() / "model-00002-of-00002.safetensors", shards[1], {});
  write_file_atomically(folder_.path() / "model.safetensors.index.json",
                        nlohmann::json{{"weight_map", map}}.dump());
  const CausalLM model = load_model(folder_.path(), {});
  for (const Linear* linear : model.linears()) {
    EXPECT_TRUE(at::equal(linear->weight.dense(), weights_.at(linear->name + ".weight")))
        << linear->name;
  }
}

TEST_F(LoadModel, ReportsEverythingAtOnce) {
  weights_.erase("model.layers.0.mlp.up_proj.weight");
  weights_.erase("model.norm.weight");
  weights_["model.layers.1.self_attn.k_proj.weight"] = at::zeros({16, 12});
  weights_["model.layers.1.self_attn.v_proj.weight"] = at::zeros({8, 12}, at::kInt);
  weights_["model.layers.2.self_attn.q_proj.weight"] = at::zeros({16, 12});
  const std::string message = load_error();
  EXPECT_TRUE(contains(message, folder_.path().string())) << message;
  EXPECT_TRUE(contains(message, "missing: model.layers.0.mlp.up_proj.weight [20, 12]")) << message;
  EXPECT_TRUE(contains(message, "missing: model.norm.weight [12]")) << message;
  EXPECT_TRUE(contains(message,
                       "misshapen: model.layers.1.self_attn.k_proj.weight is [16, 12]; this "
                       "config.json needs [8, 12]"))
      << message;
  EXPECT_TRUE(contains(message, "mistyped: model.layers.1.self_attn.v_proj.weight is I32"))
      << message;
  EXPECT_TRUE(contains(message, "extra: model.layers.2.self_attn.q_proj.weight")) << message;
}

TEST_F(LoadModel, ExtraTensorsNeedPermission) {
  weights_["score.weight"] = at::zeros({2, 12});
  const std::string message = load_error();
  EXPECT_TRUE(contains(message, "extra: score.weight")) << message;
  EXPECT_TRUE(contains(message, "allow_extra_tensors: true")) << message;
  EXPECT_EQ(load({.allow_extra_tensors = true}).layers.size(), 2U);
}

TEST_F(LoadModel, SavedRopeTablesAreHarmless) {
  weights_["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({2});
  EXPECT_EQ(load().layers.size(), 2U);
}

TEST_F(LoadModel, HugeLayerCountIsRefusedAtOnce) {
  config_["num_hidden_layers"] = 2147483647;
  tiny_llama::write(folder_.path(), config_, weights_);
  std::string message = error_of([&] { load_model(folder_.path(), {}); });
  EXPECT_TRUE(contains(message, "'num_hidden_layers' is 2147483647; expected at most")) << message;
  config_["num_hidden_layers"] = 60000;
  tiny_llama::write(folder_.path(), config_, weights_);
  message = error_of([&] { load_model(folder_.path(), {}); });
  EXPECT_TRUE(contains(message, "missing: model.layers.2.input_layernorm.weight")) << message;
}

TEST_F(LoadModel, ExplainsAGitLfsPointer) {
  tiny_llama::write(folder_.path(), config_, weights_);
  write_file_atomically(folder_.path() / "model.safetensors",
                        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  EXPECT_TRUE(contains(error_of([&] { load_model(folder_.path(), {}); }), "git lfs pull"));
}

TEST_F(LoadModel, MissingWeightsAndFolder) {
  write_file_atomically(folder_.path() / "config.json", config_.dump());
  EXPECT_TRUE(contains(error_of([&] { load_model(folder_.path(), {}); }), "model.safetensors"));
  const auto absent = folder_.path() / "absent";
  EXPECT_TRUE(contains(error_of([&] { load_model(absent, {}); }), absent.string()));
}

TEST_F(LoadModel, StoredTypeIsThatOfMostBytes) {
  weights_ = tiny_llama::weights(config_, at::kBFloat16);
  weights_["model.norm.weight"] = at::ones({12}, at::kFloat);
  tiny_llama::write(folder_.path(), config_, weights_);
  EXPECT_EQ(stored_dtype(folder_.path()), at::kBFloat16);
}

}  // namespace
}  // namespace finetune
