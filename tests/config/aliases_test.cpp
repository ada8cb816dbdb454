#include "config/config_file.h"

namespace finetune {
namespace {

struct Alias {
  std::string text;
  std::string key;
  std::string value;
};

std::ostream& operator<<(std::ostream& out, const Alias& alias) { return out << alias.text; }

class Aliases : public ::testing::TestWithParam<Alias> {};

TEST_P(Aliases, AreReadWithANotice) {
  const Alias& alias = GetParam();
  Config config;
  const std::string log = logged_by([&] { config = load_text(alias.text); });
  EXPECT_EQ(values_of(config).at(alias.key), alias.value);
  EXPECT_TRUE(config.is_given(alias.key));
  EXPECT_CONTAINS(log, "lora.yaml:1: '");
  EXPECT_CONTAINS(log, "is read as '" + alias.key);
}

INSTANTIATE_TEST_SUITE_P(
    Names, Aliases,
    ::testing::Values(
        Alias{"model: m", "model_name_or_path", "m"},
        Alias{"base_model: m", "model_name_or_path", "m"},
        Alias{"finetuning_type: full", "method", "full"}, Alias{"rl: dpo", "stage", "dpo"},
        Alias{"bnb_4bit_use_double_quant: false", "double_quant", "false"},
        Alias{"torch_dtype: bfloat16", "dtype", "bfloat16"}, Alias{"r: 4", "lora_rank", "4"},
        Alias{"lora_r: 4", "lora_rank", "4"},
        Alias{"lora_target: all-linear", "target_modules", "all-linear"},
        Alias{"lora_target_modules: [a]", "target_modules", "[a]"},
        Alias{"additional_target: [a]", "modules_to_save", "[a]"},
        Alias{"init_adapter: runs/a", "init_lora_weights", "runs/a"},
        Alias{"dataset: a.jsonl", "datasets", "[{path: a.jsonl}]"},
        Alias{"train_file: a.jsonl", "datasets", "[{path: a.jsonl}]"},
        Alias{"data: a.jsonl", "datasets", "[{path: a.jsonl}]"},
        Alias{"val_size: 0.5", "eval_split", "0.5"},
        Alias{"val_set_size: 0.5", "eval_split", "0.5"},
        Alias{"train_on_inputs: true", "train_on_prompt", "true"},
        Alias{"cutoff_len: 9", "max_length", "9"}, Alias{"sequence_len: 9", "max_length", "9"},
        Alias{"max_seq_length: 9", "max_length", "9"},
        Alias{"num_epochs: 2", "num_train_epochs", "2"},
        Alias{"micro_batch_size: 2", "per_device_train_batch_size", "2"},
        Alias{"lr: 1e-3", "learning_rate", "0.001"},
        Alias{"activation_checkpointing: false", "gradient_checkpointing", "false"},
        Alias{"pref_beta: 0.5", "beta", "0.5"}, Alias{"dpo_beta: 0.5", "beta", "0.5"}));

INSTANTIATE_TEST_SUITE_P(
    Values, Aliases,
    ::testing::Values(Alias{"load_in_4bit: true", "quantization", "nf4"},
                      Alias{"load_in_8bit: yes", "quantization", "int8"},
                      Alias{"quantization_bit: 4", "quantization", "nf4"},
                      Alias{"quantization_bit: 8", "quantization", "int8"},
                      Alias{"bf16: true", "dtype", "bfloat16"},
                      Alias{"fp16: true", "dtype", "float16"},
                      Alias{"method: qlora", "quantization", "nf4"},
                      Alias{"adapter: qlora", "method", "lora"},
                      Alias{"adapter: lora", "method", "lora"},
                      Alias{"lora_target: all", "target_modules", "all-linear"},
                      Alias{"lora_target_linear: true", "target_modules", "all-linear"},
                      Alias{"warmup_steps: 0.1", "warmup_ratio", "0.1"},
                      Alias{"train_on_completions: false", "train_on_prompt", "true"},
                      Alias{"completion_only_loss: true", "train_on_prompt", "false"}));

TEST(AliasValues, SynonymsOfWords) {
  EXPECT_EQ(load_text("dtype: bf16").dtype, Dtype::bfloat16);
  EXPECT_EQ(load_text("dtype: FP32").dtype, Dtype::float32);
  EXPECT_EQ(load_text("optim: adamw_torch").optim, Optim::adamw);
  EXPECT_EQ(load_text("optim: adamw_bnb_8bit").optim, Optim::adamw_8bit);
  EXPECT_EQ(load_text("overlength: raise").overlength, Overlength::error);
  EXPECT_EQ(load_text("prefix_sharing: true").prefix_sharing, PrefixSharing::on);
  EXPECT_EQ(load_text("prefix_sharing: no").prefix_sharing, PrefixSharing::off);
  EXPECT_EQ(load_text("gradient_checkpointing: on").gradient_checkpointing, Recompute::on);
}

TEST(AliasValues, OffSaysNothing) {
  for (const char* text : {"load_in_4bit: false", "bf16: auto", "bf16: no", "load_in_8bit: null",
                           "lora_target_linear: false"}) {
    EXPECT_TRUE(load_text(text).origins.empty()) << text;
  }
}

TEST(AliasValues, OfTheWrongType) {
  EXPECT_CONTAINS(config_error([] { load_text("load_in_4bit: 4"); }),
                  "'load_in_4bit' is \"4\"; expected true or false, or better 'quantization: nf4'");
  EXPECT_CONTAINS(config_error([] { load_text("quantization_bit: 3"); }),
                  "'quantization_bit' is \"3\"; expected 4 or 8");
  EXPECT_CONTAINS(config_error([] { load_text("mask_prompt: maybe"); }),
                  "'mask_prompt' is \"maybe\"; expected true or false");
  EXPECT_CONTAINS(config_error([] { load_text("adapter:\n"); }),
                  "write 'method: full' or 'method: lora'");
  EXPECT_CONTAINS(config_error([] { load_text("r: [8]"); }), "'r' is a list; expected an integer");
}

}  // namespace
}  // namespace finetune
