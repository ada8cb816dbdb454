#include "config/config_file.h"

namespace finetune {
namespace {

/// The line of show_config that begins with this key.
std::string line_of(const std::string& text, const std::string& key) {
  const auto begin = text.find("\n" + key + ": ");
  return begin == std::string::npos
             ? ""
             : text.substr(begin + 1, text.find('\n', begin + 1) - begin - 1);
}

TEST(ShowConfig, EveryValueWithItsOrigin) {
  const ConfigFile file("lora_rank: 8\nlora:\n  alpha: 16\n");
  const std::string shown = show_config(file.load({"max_steps=5"}));
  EXPECT_EQ(line_of(shown, "lora_rank"), "lora_rank: 8  # " + file.at_line(1));
  EXPECT_EQ(line_of(shown, "lora_alpha"), "lora_alpha: 16  # " + file.at_line(3));
  EXPECT_EQ(line_of(shown, "max_steps"), "max_steps: 5  # command line");
  EXPECT_EQ(line_of(shown, "seed"), "seed: 42  # default");
  EXPECT_EQ(line_of(shown, "learning_rate"), "learning_rate: 0.0002  # default");
  for (const auto& [key, value] : config_values(Config()))
    EXPECT_NE(line_of(shown, key), "") << key;
}

/// The same settings from what was printed.
void expect_round_trip(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const Config config = load_text(text, overrides);
  for (const std::string& printed : {resolved_yaml(config), show_config(config)}) {
    const Config again = load_text(printed);
    EXPECT_EQ(config_values(again), config_values(config)) << printed;
    EXPECT_EQ(resolved_yaml(again), resolved_yaml(config));
  }
}

TEST(ResolvedYaml, ReadsBackAsTheSameSettings) {
  expect_round_trip("");
  expect_round_trip(
      "{method: full, stage: dpo, dtype: bf16, gradient_checkpointing: false, num_train_epochs: "
      "0.5}");
  expect_round_trip("{tokens_per_batch: 4096, warmup_steps: 10, max_steps: 100}");
  expect_round_trip(
      "{warmup_steps: 0.1, learning_rate: 0.1, adam_epsilon: 1e-12, weight_decay: "
      "0.30000000000000004}");
  expect_round_trip("{init_lora_weights: runs/before, eval_split: 0.1}");
  expect_round_trip(
      "{init_lora_weights: gaussian, target_modules: all-linear, exclude_modules: [a, b.c]}");
  expect_round_trip(
      "target_modules: '.*\\.(q|v)_proj'\nrank_pattern: {'a: b': 4, yes: 8}\nlayers_to_transform: "
      "[0, 3]\n");
  expect_round_trip(
      "datasets:\n  - path: 'a, b.jsonl'\n    fields: {output: 'the answer'}\n    weight: 0.25\n  "
      "- c.jsonl\n");
  expect_round_trip("", {"model=base", "eval_datasets=[x.jsonl]", "seed=9223372036854775807"});
}

TEST(ResolvedYaml, KeepsTextsWhateverTheyHold) {
  const std::vector<std::string> texts = {
      "null",        "~",          "yes",     "1e5",
      "-1",          "a: b",       "a #b",    "# a",
      "[a",          "{a}",        "'a'",     "\"a\"",
      "a\nb",        "\ttab",      " space ", "caf\u00e9 \u4e2d \U0001F600",
      "back\\slash", "a, b",       "*a",      "&a",
      "!a",          "%a",         "@a",      "`a`",
      "-",           "?",          "a:",      ".inf",
      "0x1F",        "2026-01-01", "\x7f",    "NULL",
      "on"};
  for (const std::string& text : texts) {
    Config config;
    config.system_prompt = text;
    config.output_dir = text;
    config.datasets = {DatasetSpec{text, text, {{text, text}}, 1.0, text}};
    const Config again = load_text(resolved_yaml(config));
    EXPECT_EQ(again.system_prompt, text);
    EXPECT_EQ(again.output_dir, text);
    EXPECT_EQ(again.datasets, config.datasets);
  }
}

TEST(ResolvedYaml, QuotesWhatOtherReadersWouldMisread) {
  for (const char* text : {"yes", "null", "1e5", "a: b"}) {
    Config config;
    config.system_prompt = text;
    EXPECT_CONTAINS(resolved_yaml(config), std::string("\nsystem_prompt: \"") + text + "\"\n");
  }
}

TEST(ResolvedYaml, EmptySystemPromptIsNotAnAbsentOne) {
  const Config config = load_text("system_prompt: \"\"");
  EXPECT_EQ(config.system_prompt, "");
  EXPECT_EQ(load_text(resolved_yaml(config)).system_prompt, "");
  EXPECT_FALSE(load_text("system_prompt: null").system_prompt);
}

TEST(ResolvedYaml, CanBeTrainedWith) {
  for (const char* text :
       {"{model: m, datasets: a.jsonl}", "{model: m, datasets: a.jsonl, tokens_per_batch: 100}",
        "{model: m, datasets: a.jsonl, warmup_steps: 10}",
        "{model: m, datasets: a.jsonl, eval_split: 0.1}",
        "{model: m, datasets: a.jsonl, init_lora_weights: runs/before}"}) {
    const Config again = load_text(resolved_yaml(load_text(text)));
    EXPECT_NO_THROW(validate(again, ConfigUse::train)) << text;
  }
}

TEST(ConfigValues, TellDifferentRunsApart) {
  const auto values = [](const std::string& text) { return config_values(load_text(text)); };
  EXPECT_EQ(values("lora_rank: 16"), values(""));
  EXPECT_EQ(values("learning_rate: 2e-4"), values(""));  // its default, written out
  EXPECT_NE(values("lora_rank: 8"), values(""));
  EXPECT_NE(values("datasets: a.jsonl"), values("datasets: b.jsonl"));
  EXPECT_NE(values("target_modules: [q_proj]"), values("target_modules: '.*q_proj'"));
  EXPECT_NE(values("seed: 9007199254740993"), values("seed: 9007199254740992"));
}

}  // namespace
}  // namespace finetune
