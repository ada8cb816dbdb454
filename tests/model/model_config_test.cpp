#include "finetune/model/model_config.h"

#include "finetune/base/error.h"
#include "support/temporary_folder.h"

#include <gtest/gtest.h>

#include "model/tiny_llama.h"

namespace finetune {
namespace {

using nlohmann::json;
using tiny_llama::contains;
using tiny_llama::error_of;

class ReadModelConfig : public ::testing::Test {
 protected:
  ModelConfig read() {
    write_file_atomically(folder_.path() / "config.json", config_.dump());
    return read_model_config(folder_.path());
  }

  void expect_error(const std::string& key, const json& value, const std::string& part) {
    const json before = config_;
    config_[key] = value;
    const std::string message = error_of([&] { read(); });
    EXPECT_TRUE(contains(message, "config.json: ") && contains(message, part)) << message;
    config_ = before;
  }

  TemporaryFolder folder_;
  json config_ = tiny_llama::config();
};

TEST_F(ReadModelConfig, ReadsEveryField) {
  config_["attention_bias"] = true;
  config_["mlp_bias"] = true;
  config_["tie_word_embeddings"] = true;
  const ModelConfig config = read();
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.hidden_size, 12);
  EXPECT_EQ(config.intermediate_size, 20);
  EXPECT_EQ(config.num_hidden_layers, 2);
  EXPECT_EQ(config.num_attention_heads, 4);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.vocab_size, 17);
  EXPECT_EQ(config.max_position_embeddings, 64);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_EQ(config.ropes[0].theta, 100.0);
  EXPECT_EQ(config.ropes[0].scaling.type, RopeScaling::Type::none);
  EXPECT_TRUE(config.attention_bias && config.mlp_bias && config.tie_word_embeddings);
}

TEST_F(ReadModelConfig, AbsentAndNullFieldsHaveTransformersDefaults) {
  for (const char* key :
       {"max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings"})
    config_.erase(key);
  for (const char* key : {"num_key_value_heads", "head_dim", "attention_bias", "rope_scaling"})
    config_[key] = nullptr;
  config_["hidden_size"] = 24;
  const ModelConfig config = read();
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 6);  // 24 / 4
  EXPECT_EQ(config.max_position_embeddings, 2048);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.ropes[0].theta, 10000.0);
  EXPECT_FALSE(config.attention_bias || config.mlp_bias || config.tie_word_embeddings);
}

TEST_F(ReadModelConfig, NamesFileFieldAndExpectation) {
  expect_error("hidden_size", nullptr, "'hidden_size' is missing");
  expect_error("hidden_size", "12", "'hidden_size' is \"12\"; expected a whole number");
  expect_error("vocab_size", 0, "'vocab_size' is 0");
  expect_error("vocab_size", -4, "'vocab_size' is -4");
  expect_error("vocab_size", 1e30, "'vocab_size' is 1e+30");
  expect_error("vocab_size", 4294967296, "'vocab_size' is 4294967296");
  expect_error("vocab_size", 18446744073709551615ULL, "'vocab_size' is 18446744073709551615");
  expect_error("intermediate_size", 20.5, "'intermediate_size' is 20.5");
  expect_error("num_key_value_heads", 3,
               "'num_key_value_heads' is 3; expected a divisor of num_attention_heads (4)");
  expect_error("num_key_value_heads", 8, "'num_key_value_heads' is 8");
  expect_error("head_dim", 5, "'head_dim' is 5; expected an even number");
  expect_error("rms_norm_eps", "1e-5", "'rms_norm_eps' is \"1e-5\"; expected a number");
  expect_error("tie_word_embeddings", 1, "'tie_word_embeddings' is 1; expected true or false");
  expect_error("hidden_act", "quick_gelu", "'hidden_act' is \"quick_gelu\"; expected silu, gelu");
}

TEST_F(ReadModelConfig, RefusesNumbersThatMakeNoModel) {
  expect_error("rms_norm_eps", -1e-5, "'rms_norm_eps' is -1e-05; expected");
  expect_error("rope_theta", 0, "'rope_theta' is 0; expected a number above 0");
  expect_error("rope_theta", -10000.0, "'rope_theta' is -10000.0; expected a number above 0");
}

TEST_F(ReadModelConfig, UnknownFamily) {
  expect_error("model_type", "lama", "'model_type' is \"lama\"; expected llama, mistral, qwen2");
  expect_error("model_type", "lama", "; did you mean 'llama'?");
  expect_error("model_type", "bert", "'model_type' is \"bert\"; expected llama");
  expect_error("model_type", nullptr, "'model_type' is \"\"");
}

TEST_F(ReadModelConfig, MissingOrDamagedFile) {
  EXPECT_TRUE(
      contains(error_of([&] { read_model_config(folder_.path() / "absent"); }), "no such folder"));
  EXPECT_TRUE(contains(error_of([&] { read_model_config(folder_.path()); }), "config.json"));
  for (const char* text : {"", "{", "[]", "{\"hidden_size\": 1e999}"}) {
    write_file_atomically(folder_.path() / "config.json", text);
    EXPECT_TRUE(contains(error_of([&] { read_model_config(folder_.path()); }),
                         "config.json: expected a JSON object"))
        << text;
  }
}

TEST_F(ReadModelConfig, RopeInEitherSpelling) {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 2.0},
                       {"high_freq_factor", 5.0},
                       {"original_max_position_embeddings", 16}};
  config_["rope_scaling"] = llama3;
  const ModelConfig old_spelling = read();
  config_.erase("rope_scaling");
  config_.erase("rope_theta");
  config_["rope_parameters"] = llama3;
  config_["rope_parameters"]["rope_theta"] = 100.0;
  const ModelConfig new_spelling = read();
  for (const ModelConfig& config : {old_spelling, new_spelling}) {
    EXPECT_EQ(config.ropes[0].theta, 100.0);
    EXPECT_EQ(config.ropes[0].scaling.type, RopeScaling::Type::llama3);
    EXPECT_EQ(config.ropes[0].scaling.factor, 8.0);
    EXPECT_EQ(config.ropes[0].scaling.low_freq_factor, 2.0);
    EXPECT_EQ(config.ropes[0].scaling.high_freq_factor, 5.0);
    EXPECT_EQ(config.ropes[0].scaling.original_max_position_embeddings, 16);
  }
  config_["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 7.0}};
  EXPECT_EQ(read().ropes[0].theta, 7.0);
  EXPECT_EQ(read().ropes[0].scaling.type, RopeScaling::Type::none);
}

TEST_F(ReadModelConfig, YarnFields) {
  config_["rope_scaling"] = {{"type", "yarn"},   {"original_max_position_embeddings", 16},
                             {"beta_fast", 24},  {"beta_slow", 2},
                             {"mscale", 0.7},    {"mscale_all_dim", 0.5},
                             {"truncate", false}};
  RopeScaling scaling = read().ropes[0].scaling;
  EXPECT_EQ(scaling.type, RopeScaling::Type::yarn);
  EXPECT_EQ(scaling.factor, 4.0);  // 64 / 16
  EXPECT_EQ(scaling.beta_fast, 24.0);
  EXPECT_EQ(scaling.beta_slow, 2.0);
  EXPECT_EQ(scaling.mscale, 0.7);
  EXPECT_EQ(scaling.mscale_all_dim, 0.5);
  EXPECT_FALSE(scaling.attention_factor);
  EXPECT_FALSE(scaling.truncate);
  config_["rope_scaling"]["factor"] = 2.0;
  config_["rope_scaling"]["attention_factor"] = 1.25;
  scaling = read().ropes[0].scaling;
  EXPECT_EQ(scaling.factor, 2.0);
  EXPECT_EQ(scaling.attention_factor, 1.25);
}

TEST_F(ReadModelConfig, RopeErrors) {
  expect_error(
      "rope_scaling", {{"rope_type", "ntk"}, {"factor", 2.0}},
      "'rope_type' is \"ntk\"; expected default, linear, dynamic, llama3, yarn or longrope");
  expect_error("rope_scaling",
               {{"rope_type", "longrope"},
                {"factor", 2.0},
                {"short_factor", {1.0, 2.0}},
                {"long_factor", {1.0}}},
               "'long_factor' holds 1 numbers; expected one for each pair of rotated values, 2");
  expect_error("rope_scaling", {{"type", "linear"}}, "'factor' is missing or not positive");
  expect_error("rope_scaling", {{"type", "linear"}, {"factor", 0}},
               "'factor' is missing or not positive");
  expect_error("rope_scaling", {{"type", "linear"}, {"factor", "2"}},
               "'factor' is \"2\"; expected a number");
  expect_error("rope_scaling", "linear", "'rope_scaling' is \"linear\"; expected an object");
  expect_error("rope_parameters", json::array({1}), "'rope_parameters' is [1]; expected an object");
  expect_error(
      "rope_scaling",
      {{"type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 4.0}, {"high_freq_factor", 4.0}},
      "'high_freq_factor' is 4; expected a number above low_freq_factor (4)");
}

TEST_F(ReadModelConfig, TextPartOfAModelOfSeveralInputs) {
  config_ = {{"model_type", "gemma3"},
             {"text_config", {{"model_type", "gemma3_text"}}},
             {"vision_config", json::object()}};
  const std::string message = error_of([&] { read(); });
  EXPECT_TRUE(contains(message, "whose text part is \"gemma3_text\"") &&
              contains(message, "not loaded in this version"))
      << message;
}

TEST_F(ReadModelConfig, LayersOfTheirOwnKinds) {
  config_["model_type"] = "qwen2";
  config_["num_hidden_layers"] = 4;
  config_["use_sliding_window"] = true;
  config_["sliding_window"] = 8;
  config_["max_window_layers"] = 3;
  ModelConfig config = read();
  EXPECT_EQ(config.layers[2].window, 0);
  EXPECT_EQ(config.layers[3].window, 8);
  config_["layer_types"] = {"sliding_attention", "full_attention", "full_attention",
                            "full_attention"};
  config = read();
  EXPECT_EQ(config.layers[0].window, 8);
  EXPECT_EQ(config.layers[3].window, 0);
  expect_error("layer_types", {"full_attention"},
               "'layer_types' holds 1 entries; expected one for each of the 4 layers");
  expect_error("layer_types", {"a", "b", "c", "d"}, "'layer_types' holds \"a\"");
}

TEST_F(ReadModelConfig, BothSpellingsOfTheExpertCount) {
  config_["model_type"] = "mixtral";
  config_["num_local_experts"] = 6;
  EXPECT_EQ(read().moe.num_experts, 6);
  config_.erase("num_local_experts");
  config_["num_experts"] = 5;
  EXPECT_EQ(read().moe.num_experts, 5);
  EXPECT_EQ(read().moe.aux_loss_coef, 0.0);
  config_["output_router_logits"] = true;
  EXPECT_EQ(read().moe.aux_loss_coef, 0.001);
  expect_error("num_experts_per_tok", 9,
               "'num_experts_per_tok' is 9; expected at most the number of experts (5)");
}

}  // namespace
}  // namespace finetune
