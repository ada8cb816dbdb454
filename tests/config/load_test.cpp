#include "config/config_file.h"

namespace finetune {
namespace {

/// The defaults of the contract's table.
const std::map<std::string, std::string> kDocumented = {{"method", "lora"},
                                                        {"stage", "sft"},
                                                        {"quantization", "none"},
                                                        {"double_quant", "true"},
                                                        {"dtype", "auto"},
                                                        {"device", "auto"},
                                                        {"lora_rank", "16"},
                                                        {"lora_alpha", "32"},
                                                        {"lora_dropout", "0"},
                                                        {"target_modules", "attention"},
                                                        {"exclude_modules", "[]"},
                                                        {"use_rslora", "false"},
                                                        {"use_dora", "false"},
                                                        {"init_lora_weights", "true"},
                                                        {"loraplus_lr_ratio", "1"},
                                                        {"adapter_size", "64"},
                                                        {"adapter_activation", "gelu"},
                                                        {"adapter_placement", "pfeiffer"},
                                                        {"adapter_scaling", "null"},
                                                        {"adapter_dropout", "0"},
                                                        {"eval_split", "0"},
                                                        {"template", "auto"},
                                                        {"system_prompt", "null"},
                                                        {"train_on_prompt", "false"},
                                                        {"max_length", "2048"},
                                                        {"overlength", "error"},
                                                        {"shuffle", "true"},
                                                        {"seed", "42"},
                                                        {"num_train_epochs", "3"},
                                                        {"max_steps", "-1"},
                                                        {"per_device_train_batch_size", "8"},
                                                        {"tokens_per_batch", "null"},
                                                        {"per_device_eval_batch_size", "null"},
                                                        {"gradient_accumulation_steps", "1"},
                                                        {"learning_rate", "0.0002"},
                                                        {"lr_scheduler_type", "cosine"},
                                                        {"warmup_ratio", "0.03"},
                                                        {"warmup_steps", "0"},
                                                        {"optim", "adamw"},
                                                        {"weight_decay", "0"},
                                                        {"adam_beta1", "0.9"},
                                                        {"adam_beta2", "0.999"},
                                                        {"adam_epsilon", "1e-08"},
                                                        {"max_grad_norm", "1"},
                                                        {"gradient_checkpointing", "auto"},
                                                        {"neftune_noise_alpha", "0"},
                                                        {"label_smoothing", "0"},
                                                        {"eval_steps", "null"},
                                                        {"save_steps", "null"},
                                                        {"logging_steps", "1"},
                                                        {"save_total_limit", "2"},
                                                        {"early_stopping_patience", "0"},
                                                        {"output_dir", "runs/lora"},
                                                        {"overwrite_output_dir", "false"},
                                                        {"max_row_bytes", "67108864"},
                                                        {"disk_retry_seconds", "600"},
                                                        {"on_nonfinite", "stop"},
                                                        {"prefix_sharing", "auto"},
                                                        {"beta", "null"},
                                                        {"reference_adapter", "null"},
                                                        {"num_threads", "null"}};

TEST(LoadConfig, EmptyFileIsTheDocumentedDefaults) {
  for (const char* text : {"", "# nothing\n", "---\n", "{}\n", "\xEF\xBB\xBF\n"}) {
    auto values = values_of(load_text(text));
    for (const auto& [key, value] : kDocumented) EXPECT_EQ(values[key], value) << key;
  }
}

TEST(LoadConfig, DefaultsThatFollowOtherSettings) {
  EXPECT_EQ(values_of(load_text("stage: dpo"))["beta"], "0.1");
  EXPECT_EQ(values_of(load_text("stage: grpo"))["beta"], "0");
  EXPECT_EQ(load_text("method: full").resolved_learning_rate(), 1e-5);
  EXPECT_EQ(load_text("method: adapter").resolved_learning_rate(), 2e-4);
  EXPECT_EQ(load_text("adapter_placement: houlsby").resolved_adapter_scaling(), 1.0);
  EXPECT_EQ(load_text("adapter_placement: parallel").resolved_adapter_scaling(), 4.0);
  EXPECT_EQ(load_text("adapter_placement: parallel\nadapter_scaling: 2").resolved_adapter_scaling(),
            2.0);
  EXPECT_EQ(load_text("stage: dpo").resolved_learning_rate(), 5e-6);
  EXPECT_EQ(load_text("{stage: dpo, learning_rate: 3e-4}").resolved_learning_rate(), 3e-4);
  EXPECT_FALSE(load_text("").resolved_load_best_model_at_end());
  EXPECT_TRUE(load_text("eval_split: 0.1").resolved_load_best_model_at_end());
  EXPECT_TRUE(load_text("eval_datasets: a.jsonl").resolved_load_best_model_at_end());
  EXPECT_FALSE(load_text("{eval_split: 0.1, load_best_model_at_end: false}")
                   .resolved_load_best_model_at_end());
  EXPECT_EQ(load_text("per_device_train_batch_size: 3").eval_batch_size(), 3);
  EXPECT_EQ(load_text("per_device_eval_batch_size: 5").eval_batch_size(), 5);
}

TEST(LoadConfig, OnlyFromTheCommandLine) {
  const Config config = load_words(
      {"model=base", "datasets=[a.jsonl, b.jsonl]", "lora.rank=4", "system_prompt=Be: brief #1"});
  EXPECT_EQ(config.model_name_or_path, "base");
  EXPECT_EQ(config.lora_rank, 4);
  EXPECT_EQ(config.system_prompt, "Be: brief #1");
  ASSERT_EQ(config.datasets.size(), 2U);
  EXPECT_EQ(config.datasets[1].path, "b.jsonl");
  EXPECT_EQ(config.output_dir, "runs/train");
  EXPECT_EQ(config.origins.at("lora_rank"), "command line");
}

TEST(LoadConfig, OriginsAreWhereAValueStands) {
  const ConfigFile file("# heading\nseed: 1\n\nlora:\n  rank: 8\n  alpha: null\n");
  const Config config = file.load({"max_steps=5"});
  EXPECT_EQ(config.origins.at("seed"), file.at_line(2));
  EXPECT_EQ(config.origins.at("lora_rank"), file.at_line(5));
  EXPECT_EQ(config.origins.at("max_steps"), "command line");
  EXPECT_FALSE(config.is_given("lora_alpha"));
  EXPECT_EQ(config.origins.size(), 3U);
}

TEST(LoadConfig, CommandLineWins) {
  const std::string text = "{lora_rank: 8, learning_rate: 1e-3, tokens_per_batch: 100}";
  const Config config = load_text(text, {"lora_r=4", "learning_rate=null", "tokens_per_batch="});
  EXPECT_EQ(config.lora_rank, 4);
  EXPECT_FALSE(config.learning_rate);
  EXPECT_FALSE(config.tokens_per_batch);
  EXPECT_FALSE(config.is_given("learning_rate"));
}

TEST(LoadConfig, LastWordOfTheCommandLineWinsWithANotice) {
  Config config;
  const std::string log = logged_by([&] { config = load_words({"seed=1", "seed=2"}); });
  EXPECT_EQ(config.seed, 2);
  EXPECT_CONTAINS(log, "'seed' is given more than once");
  EXPECT_EQ(logged_by([] { load_words({"seed=1", "seed=1.0"}); }), "");
}

TEST(LoadConfig, WordsThatAreNoSettings) {
  const std::string message = config_error([] {
    load_words({"lora_rank", "=3", "seed=[1", "sed=1"});
  });
  EXPECT_CONTAINS(
      message,
      "command line: 'lora_rank' is not a setting; expected key=value, such as lora_rank=8");
  EXPECT_CONTAINS(message, "'=3' is not a setting");
  EXPECT_CONTAINS(message, "'seed=[1': command line: this is not YAML");
  EXPECT_CONTAINS(message, "command line: unknown key 'sed'; did you mean 'seed'?");
}

TEST(LoadConfig, SectionsAreJoinedWithTheirKeys) {
  const Config config = load_text(
      "lora:\n  rank: 8\n  target-modules: [q_proj]\ntraining:\n  optimizer_settings:\n    "
      "learning_rate: 1e-3\n"
      "data:\n  max_length: 100\nmax-steps: 7\n");
  EXPECT_EQ(config.lora_rank, 8);
  EXPECT_EQ(config.target_modules.names, std::vector<std::string>{"q_proj"});
  EXPECT_EQ(config.learning_rate, 1e-3);
  EXPECT_EQ(config.max_length, 100);
  EXPECT_EQ(config.max_steps, 7);
}

TEST(LoadConfig, UnknownKeysAreNamedWithLineAndNearest) {
  const ConfigFile file("seed: 1\nlora_rnak: 8\nlora:\n  alhpa: 3\n\nxyzzy: 1\npacking: true\n");
  const std::string message = config_error([&] { file.load(); });
  EXPECT_CONTAINS(message,
                  file.at_line(2) + ": unknown key 'lora_rnak'; did you mean 'lora_rank'?");
  EXPECT_CONTAINS(message,
                  file.at_line(4) + ": unknown key 'lora.alhpa'; did you mean 'lora_alpha'?");
  EXPECT_CONTAINS(message, file.at_line(6) + ": unknown key 'xyzzy'; remove it");
  EXPECT_CONTAINS(message,
                  file.at_line(7) + ": unknown key 'packing'; batches here are never padded");
}

TEST(LoadConfig, AllProblemsAreReportedAtOnce) {
  const ConfigFile file("seed: one\nlora_rank: 0\nseed: 2\nnope: 1\ndtype: float23\n");
  const std::string message = config_error([&] { file.load({"max_length=x"}); });
  EXPECT_CONTAINS(message,
                  file.at_line(1) + ": 'seed' is \"one\"; expected an integer of at least 0");
  EXPECT_CONTAINS(message,
                  file.at_line(2) + ": 'lora_rank' is \"0\"; expected an integer from 1 to 65536");
  EXPECT_CONTAINS(message,
                  file.at_line(3) + ": key 'seed' is given twice, first at " + file.at_line(1));
  EXPECT_CONTAINS(message, file.at_line(4) + ": unknown key 'nope'");
  EXPECT_CONTAINS(message, "did you mean 'float32'?");
  EXPECT_CONTAINS(message, "command line: 'max_length' is \"x\"");
}

TEST(LoadConfig, TwoSpellingsThatDiffer) {
  const ConfigFile file("lora_rank: 8\nlora:\n  r: 4\nload_in_4bit: true\nquantization: int8\n");
  const std::string message = config_error([&] { file.load(); });
  EXPECT_CONTAINS(message, file.at_line(3) + ": 'lora.r' makes lora_rank 4, but 'lora_rank' (" +
                               file.at_line(1) + ") makes it 8; keep one of them");
  EXPECT_CONTAINS(message,
                  file.at_line(5) + ": 'quantization' makes quantization int8, but 'load_in_4bit'");
}

TEST(LoadConfig, TwoSpellingsThatAgree) {
  EXPECT_EQ(load_text("{lora_rank: 8, r: 8.0, lora: {r: 8}}").lora_rank, 8);
  EXPECT_EQ(load_text("{load_in_4bit: false, load_in_8bit: true}").quantization,
            Quantization::int8);
}

TEST(LoadConfig, RefusesWhatIsNotOneMap) {
  const ConfigFile two("seed: 1\n---\nseed: 2\n");
  EXPECT_CONTAINS(config_error([&] { two.load(); }),
                  two.at_line(3) + ": a second YAML document begins here");
  EXPECT_EQ(load_text("---\nseed: 1\n---\n").seed, 1);
  const ConfigFile list("- seed\n");
  EXPECT_CONTAINS(config_error([&] { list.load(); }),
                  list.name() + ": the file is a list; expected 'key: value' lines");
  const ConfigFile tab("lora:\n\trank: 8\n");
  EXPECT_CONTAINS(config_error([&] { tab.load(); }), tab.at_line(2) + ":");
  const ConfigFile open("datasets: [a\nseed: 1\n");
  EXPECT_CONTAINS(config_error([&] { open.load(); }), ": this is not YAML: ");
  const ConfigFile control(
      "seed: 1\nsystem: a\x04"
      "b\n");
  EXPECT_CONTAINS(config_error([&] { control.load(); }), control.at_line(2) + ": byte 0x04");
  const ConfigFile latin("system: caf\xE9\n");
  EXPECT_CONTAINS(config_error([&] { latin.load(); }),
                  latin.at_line(1) + ": byte 0xe9; expected UTF-8");
  const ConfigFile odd("[a, b]: 1\n");
  EXPECT_CONTAINS(config_error([&] { odd.load(); }),
                  odd.at_line(1) + ": a key is a list; expected a word");
}

TEST(LoadConfig, MissingFileAndFolder) {
  const TemporaryFolder folder;
  const std::string message = config_error([&] {
    load_config({folder.path() / "absent.yaml", {}});
  });
  EXPECT_CONTAINS(message, "absent.yaml: there is no such configuration file");
  EXPECT_CONTAINS(config_error([&] { load_config({folder.path(), {}}); }), folder.path().string());
}

TEST(LoadConfig, AnchorsThatExplodeAreRefused) {
  std::string text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) text += (j == 0 ? "" : ", ") + before;
    text += "]\n";
  }
  EXPECT_CONTAINS(config_error([&] { load_text(text); }), "nested too deeply or too large");
  EXPECT_CONTAINS(
      config_error([] { load_text("seed: " + std::string(200, '[') + std::string(200, ']')); }),
      "lora.yaml:1");
}

TEST(LoadConfig, WindowsLineEndings) {
  const Config config = load_text("\xEF\xBB\xBFseed: 1\r\nsystem_prompt: short\r\n");
  EXPECT_EQ(config.seed, 1);
  EXPECT_EQ(config.system_prompt, "short");
}

}  // namespace
}  // namespace finetune
