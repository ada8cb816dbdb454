#include "finetune/formats/peft.h"

#include "finetune/base/file.h"
#include "finetune/formats/safetensors.h"
#include "support/temporary_folder.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>

namespace finetune {
namespace {

using nlohmann::json;

constexpr const char* kModule = "model.layers.0.self_attn.q_proj";
const std::string kPrefix = "base_model.model.";

class Peft : public ::testing::Test {
 protected:
  void write() const {
    write_file_atomically(folder_.path() / kAdapterConfigFile, config_.dump());
    write_safetensors(folder_.path() / kAdapterWeightsFile, tensors_, {});
  }

  std::string error() const {
    write();
    try {
      read_peft_adapter(folder_.path());
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 4);
      return error.what();
    }
    ADD_FAILURE() << "accepted";
    return "";
  }

  void expect_refused(const std::string& key, const json& value, const std::string& part) {
    const json before = config_;
    config_[key] = value;
    const std::string message = error();
    EXPECT_NE(message.find("adapter_config.json: "), std::string::npos) << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
    config_ = before;
  }

  TemporaryFolder folder_;
  json config_ = {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 6}};
  std::map<std::string, Tensor> tensors_ = {
      {kPrefix + kModule + ".lora_A.weight", at::arange(6, at::kFloat).view({2, 3})},
      {kPrefix + kModule + ".lora_B.weight", at::arange(8, at::kFloat).view({4, 2})}};
};

TEST_F(Peft, ReadsConfigurationAndPairs) {
  config_.update({{"lora_dropout", 0.25},
                  {"use_rslora", true},
                  {"base_model_name_or_path", "base"},
                  {"bias", "none"},
                  {"modules_to_save", nullptr},
                  {"rank_pattern", json::object()},
                  {"init_lora_weights", "gaussian"}});
  write();
  const PeftAdapter adapter = read_peft_adapter(folder_.path());
  EXPECT_EQ(adapter.modules.at(kModule).rank(), 2);
  EXPECT_EQ(adapter.modules.at(kModule).alpha, 6.0);
  EXPECT_EQ(adapter.lora_dropout, 0.25);
  EXPECT_EQ(adapter.base_model_name_or_path, "base");
  EXPECT_TRUE(adapter.use_rslora);
  ASSERT_EQ(adapter.modules.size(), 1U);
  EXPECT_TRUE(at::equal(adapter.modules.at(kModule).a, tensors_.begin()->second));
  EXPECT_TRUE(at::equal(adapter.modules.at(kModule).b, tensors_.rbegin()->second));
}

PeftAdapter small_adapter() {
  PeftAdapter adapter;
  adapter.target_modules = {"q_proj", "v_proj"};
  adapter.modules[kModule] = {at::arange(6, at::kFloat).view({2, 3}), at::zeros({4, 2}), {}, 2.5};
  return adapter;
}

TEST(PeftScaling, IsAlphaOverRankOrItsRoot) {
  PeftAdapter adapter;
  const PeftLora lora{at::zeros({16, 3}), at::zeros({4, 16}), {}, 8};
  EXPECT_EQ(adapter.scaling(lora), 0.5);
  adapter.use_rslora = true;
  EXPECT_EQ(adapter.scaling(lora), 2.0);
}

TEST_F(Peft, ReadsWhatItWrote) {
  PeftAdapter written = small_adapter();
  written.base_model_name_or_path = "models/base \"quoted\"";
  written.lora_dropout = 0.1;
  written.use_rslora = true;
  written.modules_to_save = {"lm_head"};
  written.saved["lm_head.weight"] = at::ones({5, 3});
  written.modules["model.layers.1.mlp.up_proj"] = {at::ones({3, 3}), at::ones({4, 3}),
                                                   at::ones({4}), 7};
  written.modules["model.embed_tokens"] = {at::ones({2, 9}), at::ones({3, 2}), {}, 2.5, true};
  write_file_atomically(folder_.path() / kAdapterConfigFile, peft_config_json(written));
  const auto tensors = peft_tensors(written);
  EXPECT_EQ(tensors.size(), 8U);
  EXPECT_TRUE(tensors.contains("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"));
  EXPECT_TRUE(tensors.contains("base_model.model.model.embed_tokens.lora_embedding_A"));
  write_safetensors(folder_.path() / kAdapterWeightsFile, tensors, {});
  const PeftAdapter read = read_peft_adapter(folder_.path());
  EXPECT_EQ(read.base_model_name_or_path, written.base_model_name_or_path);
  EXPECT_EQ(read.lora_dropout, 0.1);
  EXPECT_TRUE(read.use_rslora);
  EXPECT_TRUE(read.use_dora());
  ASSERT_EQ(read.modules.size(), 3U);
  for (const auto& [name, lora] : written.modules) {
    EXPECT_TRUE(at::equal(read.modules.at(name).a, lora.a)) << name;
    EXPECT_TRUE(at::equal(read.modules.at(name).b, lora.b)) << name;
    EXPECT_EQ(read.modules.at(name).alpha, lora.alpha) << name;
    EXPECT_EQ(read.modules.at(name).embedding, lora.embedding) << name;
  }
  EXPECT_TRUE(at::equal(read.saved.at("lm_head.weight"), written.saved.at("lm_head.weight")));
}

TEST_F(Peft, RemembersHowTheBaseWasHeld) {
  write();
  PeftAdapter adapter = read_peft_adapter(folder_.path());
  EXPECT_EQ(adapter.quantization, Quantization::none);
  adapter.quantization = Quantization::nf4;
  adapter.double_quant = false;
  write_peft_adapter(folder_.path(), adapter);
  const PeftAdapter read = read_peft_adapter(folder_.path());
  EXPECT_EQ(read.quantization, Quantization::nf4);
  EXPECT_FALSE(read.double_quant);
  write_safetensors(folder_.path() / kAdapterWeightsFile, tensors_, {{"quantization", "fp4"}});
  try {
    read_peft_adapter(folder_.path());
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("quantization \"fp4\"; expected none, nf4 or int8"),
              std::string::npos)
        << error.what();
  }
}

TEST_F(Peft, ReadsIa3) {
  config_ = {{"peft_type", "IA3"}, {"feedforward_modules", {"down_proj"}}};
  tensors_ = {{kPrefix + kModule + ".ia3_l", at::ones({4, 1})},
              {kPrefix + "model.layers.0.mlp.down_proj.ia3_l", at::ones({1, 8})}};
  write();
  const PeftAdapter adapter = read_peft_adapter(folder_.path());
  EXPECT_EQ(adapter.type, PeftAdapter::Type::ia3);
  EXPECT_EQ(adapter.ia3.size(), 2U);
  EXPECT_EQ(adapter.feedforward_modules, std::vector<std::string>{"down_proj"});
}

TEST(PeftConfigJson, HasTheTypesThatPeftWrites) {
  PeftAdapter adapter = small_adapter();
  adapter.modules[kModule].alpha = 32;
  const json out = json::parse(peft_config_json(adapter));
  EXPECT_TRUE(out.at("lora_alpha").is_number_integer());
  EXPECT_EQ(out.at("lora_alpha"), 32);
  EXPECT_EQ(out.at("r"), 2);
  EXPECT_EQ(out.at("peft_type"), "LORA");
  EXPECT_EQ(out.at("task_type"), "CAUSAL_LM");
  EXPECT_EQ(out.at("bias"), "none");
  EXPECT_EQ(out.at("target_modules"), json({"q_proj", "v_proj"}));
  EXPECT_EQ(out.at("use_dora"), false);
  EXPECT_TRUE(out.at("modules_to_save").is_null());
  EXPECT_EQ(out.at("rank_pattern"), json::object());
}

TEST_F(Peft, RefusesWhatItWouldComputeWrongly) {
  expect_refused("peft_type", "LOHA", "'peft_type' is \"LOHA\"");
  expect_refused("peft_type", nullptr, "'peft_type' is \"\"");
  expect_refused("use_dora", true, "'use_dora' and the magnitude vectors");
  expect_refused("bias", "all", "'bias' is \"all\"");
  expect_refused("layer_replication", json::array({1}), "'layer_replication' is [1]");
  expect_refused("rank_pattern", {{"q_proj", "x"}}, "'rank_pattern' has \"x\" for 'q_proj'");
  expect_refused("alpha_pattern", {{"q_(proj", 4}}, "no regular expression");
}

TEST_F(Peft, PatternsNameModulesByTheirEnd) {
  config_["r"] = 8;
  config_["rank_pattern"] = {{"proj", 5}, {"q_proj", 2}, {"v_proj", 3}};
  config_["alpha_pattern"] = {{"self_attn.q_proj", 10}};
  write();
  const PeftAdapter adapter = read_peft_adapter(folder_.path());
  EXPECT_EQ(adapter.modules.at(kModule).alpha, 10);
  EXPECT_EQ(adapter.scaling(adapter.modules.at(kModule)), 5);
}

TEST_F(Peft, RefusesInitialisationsThatChangeTheBase) {
  // PEFT repeats these when it loads the adapter: the base weight is then W minus the initial
  // update.
  for (const char* init : {"pissa_niter_16", "corda", "loftq", "something_new"}) {
    expect_refused("init_lora_weights", init,
                   std::string("'init_lora_weights' is \"") + init + "\"");
  }
  for (const char* init : {"pissa", "olora"}) {  // which follow from the base weight alone
    config_["init_lora_weights"] = init;
    write();
    EXPECT_EQ(read_peft_adapter(folder_.path()).init_lora_weights, init);
  }
  for (const json& init : {json(true), json(false), json(nullptr), json("gaussian"), json("eva"),
                           json("orthogonal")}) {
    config_["init_lora_weights"] = init;
    write();
    EXPECT_EQ(read_peft_adapter(folder_.path()).modules.size(), 1U) << init;
  }
}

TEST_F(Peft, RefusesWrongTypesAndRanges) {
  expect_refused("r", 0, "'r' is 0; expected at least 1");
  expect_refused("r", "8", "'r' is \"8\"");
  expect_refused("r", 2.5, "'r' is 2.5");
  expect_refused("r", true, "'r' is true");
  expect_refused("lora_alpha", json::array(), "'lora_alpha' is []");
  expect_refused("use_rslora", 1, "'use_rslora' is 1");
}

TEST_F(Peft, RefusesTensorsThatMakeNoAdapter) {
  const auto good = tensors_;
  const auto check = [&](const std::string& part) {
    const std::string message = error();
    EXPECT_NE(message.find("adapter_model.safetensors: "), std::string::npos) << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
    tensors_ = good;
  };
  tensors_[kPrefix + "lm_head.weight"] = at::zeros({1});
  check("'base_model.model.lm_head.weight' is not a LoRA tensor");
  tensors_["model.layers.0.self_attn.q_proj.lora_A.weight"] = at::zeros({2, 3});
  check("'model.layers.0.self_attn.q_proj.lora_A.weight' is not a LoRA tensor");
  tensors_.erase(kPrefix + kModule + ".lora_B.weight");
  check(std::string("'") + kModule + "' has only lora_A; expected A and B");
  tensors_[kPrefix + kModule + ".lora_B.weight"] = at::zeros({4, 3});
  check(std::string("'") + kModule +
        "' has A [2, 3] and B [4, 3]; adapter_config.json says rank 2");
  tensors_.clear();
  check("holds no LoRA tensors");
}

TEST_F(Peft, ReportsAllTensorsAtOnce) {
  tensors_[kPrefix + "a"] = at::zeros({1});
  tensors_[kPrefix + "b"] = at::zeros({1});
  const std::string message = error();
  EXPECT_NE(message.find("'base_model.model.a'"), std::string::npos) << message;
  EXPECT_NE(message.find("'base_model.model.b'"), std::string::npos) << message;
}

TEST_F(Peft, MissingFiles) {
  const auto message_of = [&](const std::filesystem::path& path) -> std::string {
    try {
      read_peft_adapter(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 4);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_NE(message_of(folder_.path() / "absent").find("no such folder"), std::string::npos);
  EXPECT_NE(message_of(folder_.path()).find("adapter_config.json"), std::string::npos);
  write_file_atomically(folder_.path() / kAdapterConfigFile, "{");
  EXPECT_NE(message_of(folder_.path()).find("adapter_config.json: expected a JSON object"),
            std::string::npos);
  write_file_atomically(folder_.path() / kAdapterConfigFile, config_.dump());
  EXPECT_NE(message_of(folder_.path()).find("adapter_model.safetensors"), std::string::npos);
}

}  // namespace
}  // namespace finetune
