#include "config/config_file.h"

namespace finetune {
namespace {

TEST(Numbers, InTheWaysPeopleWriteThem) {
  EXPECT_EQ(load_text("learning_rate: 1e-4").learning_rate, 1e-4);
  EXPECT_EQ(load_text("learning_rate: 1E-4").learning_rate, 1e-4);
  EXPECT_EQ(load_text("learning_rate: .5").learning_rate, 0.5);
  EXPECT_EQ(load_text("learning_rate: \"2e-4\"").learning_rate, 2e-4);
  EXPECT_EQ(load_words({"learning_rate=5.0e-05"}).learning_rate, 5e-5);
  EXPECT_EQ(load_text("lora_alpha: 1_000").lora_alpha, 1000.0);
  EXPECT_EQ(load_text("lora_rank: 16.0").lora_rank, 16);
  EXPECT_EQ(load_text("max_steps: 1e3").max_steps, 1000);
  EXPECT_EQ(load_text("max_steps: +10").max_steps, 10);
  EXPECT_EQ(load_text("seed: 9223372036854775807").seed, 9223372036854775807);
}

TEST(Numbers, WhatIsNone) {
  for (const char* text : {"nan", ".inf", "inf", "1e999", "0x10", "1,5", "1e", "1__0", "_1", "1_",
                           "--1", "+-1", "one", "true", "[1]", "\"\""}) {
    EXPECT_CONTAINS(config_error([&] { load_text(std::string("weight_decay: ") + text); }),
                    "expected a number of at least 0");
  }
  for (const char* text : {"1.5", "1e-1", "9223372036854775808", "1e300", "0b1"}) {
    EXPECT_CONTAINS(config_error([&] { load_text(std::string("seed: ") + text); }),
                    "expected an integer of at least 0");
  }
}

TEST(Numbers, OutOfRange) {
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_CONTAINS(config_error([&] { load_text(text); }), part);
  };
  expect("lora_rank: 0", "an integer from 1 to 65536");
  expect("lora_rank: -8", "an integer from 1 to 65536");
  expect("lora_alpha: 0", "a number above 0");
  expect("lora_dropout: 1", "a number from 0 to below 1");
  expect("learning_rate: 0", "a number above 0");
  expect("learning_rate: -1e-4", "a number above 0");
  expect("warmup_ratio: 1.5", "a number from 0 to below 1");
  expect("max_steps: -2", "an integer of at least -1");
  expect("max_length: 1", "an integer of at least 2");
  expect("per_device_train_batch_size: 0", "an integer from 1 to 1048576");
  expect("gradient_accumulation_steps: 0", "an integer from 1 to 1048576");
  expect("min_lr_ratio: 1.5", "a number from 0 to 1");
  expect("adam_beta2: 1.0", "a number from 0 to below 1");
  expect("num_threads: 0", "an integer from 1 to 4096");
  expect("layers_to_transform: [0, -1]", "an integer of at least 0");
  expect("eval_split: 1", "a number from 0 to below 1");
  expect("seed: -1", "an integer of at least 0");
}

TEST(Sizes, WithAndWithoutUnits) {
  EXPECT_EQ(load_text("max_row_bytes: 1048576").max_row_bytes, 1048576);
  EXPECT_EQ(load_text("max_row_bytes: 64 MiB").max_row_bytes, 64 << 20);
  EXPECT_EQ(load_text("max_row_bytes: 2GB").max_row_bytes, 2'000'000'000);
  EXPECT_EQ(load_text("max_row_bytes: 1.5 kib").max_row_bytes, 1536);
  EXPECT_EQ(load_text("max_row_bytes: 1e6").max_row_bytes, 1'000'000);
  for (const char* text : {"64 M", "MiB", "-1", "0", "1e30 GiB", "64 MiBs"}) {
    EXPECT_CONTAINS(config_error([&] { load_text(std::string("max_row_bytes: ") + text); }),
                    "expected a size in bytes, such as");
  }
}

TEST(Words, OfSwitches) {
  for (const char* text : {"true", "True", "TRUE", "yes", "on", "ON"}) {
    EXPECT_TRUE(load_text(std::string("use_rslora: ") + text).use_rslora) << text;
  }
  for (const char* text : {"false", "False", "no", "off"}) {
    EXPECT_FALSE(load_text(std::string("shuffle: ") + text).shuffle) << text;
  }
  for (const char* text : {"1", "tRuE", "y", "[true]", "maybe"}) {
    EXPECT_CONTAINS(config_error([&] { load_text(std::string("shuffle: ") + text); }),
                    "expected true or false");
  }
}

TEST(Words, OfChoices) {
  EXPECT_EQ(load_text("lr_scheduler_type: Linear").lr_scheduler_type, Scheduler::linear);
  EXPECT_EQ(load_text("lr_scheduler_type: warmup_stable_decay").lr_scheduler_type, Scheduler::wsd);
  EXPECT_CONTAINS(config_error([] { load_text("lr_scheduler_type: cosin"); }),
                  "'lr_scheduler_type' is \"cosin\"; expected one of: linear, cosine, constant, "
                  "constant_with_warmup, "
                  "cosine_with_min_lr, inverse_sqrt, wsd; did you mean 'cosine'?");
  EXPECT_CONTAINS(config_error([] { load_text("method: [lora]"); }),
                  "'method' is a list; expected one of: lora, full, adapter");
}

TEST(Texts, AreTakenAsTheyAre) {
  EXPECT_EQ(load_text("system_prompt: no").system_prompt, "no");
  EXPECT_EQ(load_text("system_prompt: 1e-4").system_prompt, "1e-4");
  EXPECT_EQ(load_text("system_prompt: \"null\"").system_prompt, "null");
  EXPECT_EQ(load_text("system_prompt: |\n  a\n  b\n").system_prompt, "a\nb\n");
  EXPECT_EQ(load_words({"system_prompt=\"a # b\""}).system_prompt, "a # b");
  EXPECT_EQ(load_words({"output_dir=runs/a=b"}).output_dir, "runs/a=b");
  EXPECT_CONTAINS(config_error([] { load_text("output_dir: [a]"); }),
                  "'output_dir' is a list; expected a text");
}

TEST(TargetModules, EverySpelling) {
  using Kind = ModuleSelector::Kind;
  const auto selector = [](const std::string& text) {
    return load_text("target_modules: " + text).target_modules;
  };
  EXPECT_EQ(selector("attention").kind, Kind::attention);
  EXPECT_EQ(selector("all-linear").kind, Kind::all_linear);
  EXPECT_EQ(selector("[q_proj, v_proj]"), (ModuleSelector{Kind::names, {"q_proj", "v_proj"}, {}}));
  EXPECT_EQ(selector("q_proj,v_proj"), (ModuleSelector{Kind::names, {"q_proj", "v_proj"}, {}}));
  EXPECT_EQ(selector("q_proj"), (ModuleSelector{Kind::names, {"q_proj"}, {}}));
  EXPECT_EQ(selector("model.layers.0.mlp.up_proj").names,
            std::vector<std::string>{"model.layers.0.mlp.up_proj"});
  EXPECT_EQ(selector("'.*\\.(q|v)_proj'"), (ModuleSelector{Kind::regex, {}, ".*\\.(q|v)_proj"}));
  EXPECT_EQ(selector("[]").kind, Kind::none);
  EXPECT_CONTAINS(config_error([&] { selector("'.*('"); }),
                  "expected a regular expression in ECMAScript's syntax");
  EXPECT_CONTAINS(config_error([&] { selector("''"); }),
                  "expected 'attention', 'all-linear', a list of module names");
  EXPECT_CONTAINS(config_error([&] { selector("[[q_proj]]"); }), "expected a name");
}

TEST(InitLoraWeights, EverySpelling) {
  using Kind = LoraInit::Kind;
  const auto init = [](const std::string& text) {
    return load_text("init_lora_weights: " + text).init_lora_weights;
  };
  EXPECT_EQ(init("true").kind, Kind::standard);
  EXPECT_EQ(init("gaussian").kind, Kind::gaussian);
  EXPECT_EQ(init("pissa").kind, Kind::pissa);
  EXPECT_EQ(init("runs/before"), (LoraInit{Kind::adapter, "runs/before"}));
  EXPECT_CONTAINS(config_error([&] { init("false"); }),
                  "expected true, gaussian, pissa, olora, loftq, or the folder of an adapter");
}

TEST(Maps, OfNamesToNumbers) {
  const Config config =
      load_text("rank_pattern: {q_proj: 4, '.*mlp.*': 8}\nalpha_pattern:\n  q_proj: 1.5\n");
  EXPECT_EQ(config.rank_pattern,
            (std::map<std::string, std::int64_t>{{"q_proj", 4}, {".*mlp.*", 8}}));
  EXPECT_EQ(config.alpha_pattern, (std::map<std::string, double>{{"q_proj", 1.5}}));
  EXPECT_CONTAINS(config_error([] { load_text("rank_pattern: {q_proj: x}"); }),
                  "'rank_pattern.q_proj' is \"x\"; expected an integer");
  EXPECT_CONTAINS(config_error([] { load_text("rank_pattern: 4"); }),
                  "expected a section of 'name: value' lines");
}

TEST(Datasets, EverySpelling) {
  const auto paths = [](const std::string& text) {
    std::vector<std::string> names;
    for (const DatasetSpec& spec : load_text(text).datasets) names.push_back(spec.path);
    return names;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(paths("datasets: a.jsonl"), Names{"a.jsonl"});
  EXPECT_EQ(paths("datasets: [a.jsonl, b.jsonl]"), (Names{"a.jsonl", "b.jsonl"}));
  EXPECT_EQ(paths("datasets: {path: a.jsonl}"), Names{"a.jsonl"});
  EXPECT_EQ(paths("datasets:\n  - a.jsonl\n  - path: b.jsonl\n"), (Names{"a.jsonl", "b.jsonl"}));
  EXPECT_EQ(paths("dataset: {path: a.jsonl}"), Names{"a.jsonl"});
  const DatasetSpec spec = load_text(
                               "datasets:\n  - path: a.jsonl\n    type: alpaca\n    fields: "
                               "{output: answer}\n    weight: 0.5\n    template: none\n")
                               .datasets[0];
  EXPECT_EQ(spec, (DatasetSpec{"a.jsonl", "alpaca", {{"output", "answer"}}, 0.5, "none"}));
}

TEST(Datasets, Problems) {
  const ConfigFile file(
      "datasets:\n  - path: a.jsonl\n    wieght: 2\n  - weight: 1\n  - [b.jsonl]\n  - {path: c, "
      "type: x, format: y}\n"
      "  - {path: d, weight: 0}\n");
  const std::string message = config_error([&] { file.load(); });
  EXPECT_CONTAINS(message,
                  file.at_line(3) + ": unknown key 'datasets.wieght'; did you mean 'weight'?");
  EXPECT_CONTAINS(message, file.at_line(4) + ": an entry of 'datasets' has no path");
  EXPECT_CONTAINS(message,
                  file.at_line(5) + ": 'datasets' is a list; expected a path, or an entry");
  EXPECT_CONTAINS(message, file.at_line(6) + ": 'type' and 'format' are the same key");
  EXPECT_CONTAINS(message,
                  file.at_line(7) + ": 'datasets.weight' is \"0\"; expected a number above 0");
}

TEST(Paths, AreKeptAsGiven) {
  const Config config = load_text("{model: ../base, datasets: ./a b.jsonl, output_dir: /tmp/x/}");
  EXPECT_EQ(config.model_name_or_path, "../base");
  EXPECT_EQ(config.datasets[0].path, "./a b.jsonl");
  EXPECT_EQ(config.output_dir, "/tmp/x/");
}

TEST(TrainableModules, MustBeARegularExpression) {
  EXPECT_EQ(load_text("trainable_modules: '.*norm.*'").trainable_modules, ".*norm.*");
  EXPECT_CONTAINS(config_error([] { load_text("trainable_modules: '['"); }),
                  "expected a regular expression");
}

}  // namespace
}  // namespace finetune
