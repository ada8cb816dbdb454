#include "config/config_file.h"

namespace finetune {
namespace {

const std::string kComplete = "model: m\ndatasets: a.jsonl\n";

std::string refusal(const std::string& text, ConfigUse use = ConfigUse::train) {
  const ConfigFile file(kComplete + text);
  const Config config = file.load();
  const std::string message = config_error([&] { validate(config, use); });
  // Every problem of a given key says where it was given.
  EXPECT_CONTAINS(message, file.at_line(3) + ": ");
  return message;
}

TEST(Validate, AcceptsACompleteConfiguration) {
  for (const ConfigUse use :
       {ConfigUse::train, ConfigUse::plan, ConfigUse::eval, ConfigUse::generate}) {
    EXPECT_NO_THROW(validate(load_text(kComplete), use));
  }
  for (const char* text :
       {"method: full", "optim: sgd", "optim: lion", "optim: adamw_bnb_8bit",
        "loraplus_lr_ratio: 16", "method: full\nfreeze_trainable_layers: -2\npure_bf16: true",
        "optimizer_in_backward: true\nmax_grad_norm: 0", "template: none", "template: alpaca",
        "template: chatml", "template: my.jinja", "prefix_sharing: off",
        "gradient_checkpointing: false", "init_lora_weights: runs/a", "use_rslora: true",
        "eval_split: 0.5"}) {
    EXPECT_NO_THROW(validate(load_text(kComplete + text), ConfigUse::train)) << text;
  }
}

TEST(Validate, RequiredKeys) {
  const std::string message = config_error([] { validate(load_text(""), ConfigUse::train); });
  EXPECT_CONTAINS(message, "model_name_or_path is not set");
  EXPECT_CONTAINS(message, "datasets is not set; expected at least one data file");
  EXPECT_NO_THROW(validate(load_words({"model=m"}), ConfigUse::generate));
  EXPECT_NO_THROW(validate(load_words({"model=m"}), ConfigUse::eval));
  EXPECT_CONTAINS(config_error([] { validate(Config(), ConfigUse::eval); }),
                  "model_name_or_path is not set");
}

struct Missing {
  std::string text;
  std::string message;
};

std::ostream& operator<<(std::ostream& out, const Missing& missing) { return out << missing.text; }

class NotInThisVersion : public ::testing::TestWithParam<Missing> {};

TEST_P(NotInThisVersion, IsRefusedNotIgnored) {
  EXPECT_CONTAINS(refusal(GetParam().text), GetParam().message);
}

// A feature that arrives takes its line out of this list.
INSTANTIATE_TEST_SUITE_P(
    All, NotInThisVersion,
    ::testing::Values(Missing{
        "eval_datasets: [{path: b, template: x}]",
        "eval_datasets (b): template: x is not in this version; leave it out"}));

TEST(Validate, KeysThatExcludeEachOther) {
  EXPECT_CONTAINS(refusal("tokens_per_batch: 100\nper_device_train_batch_size: 8"),
                  "tokens_per_batch and per_device_train_batch_size");
  EXPECT_CONTAINS(refusal("eval_split: 0.1\neval_datasets: b.jsonl"),
                  "eval_split and eval_datasets are both given");
  EXPECT_CONTAINS(refusal("init_lora_weights: olora\nmethod: adapter"),
                  "expected the folder of an adapter to continue, or nothing");
  EXPECT_CONTAINS(refusal("warmup_steps: 10\nwarmup_ratio: 0.1"), "warmup_steps and warmup_ratio");
  EXPECT_CONTAINS(refusal("freeze_trainable_layers: 2\ntrainable_modules: .*\nmethod: full"),
                  "freeze_trainable_layers and trainable_modules");
}

TEST(Validate, ValuesThatContradictEachOther) {
  EXPECT_CONTAINS(refusal("max_steps: 0"), "max_steps is 0; expected a number of steps, or -1");
  EXPECT_CONTAINS(refusal("warmup_steps: 20\nmax_steps: 10"),
                  "warmup_steps is 20, more than max_steps, 10");
  EXPECT_CONTAINS(refusal("wsd_decay_ratio: 0.8\nwarmup_ratio: 0.3\nlr_scheduler_type: wsd"),
                  "more than the whole run together");
  EXPECT_CONTAINS(refusal("target_modules: []"), "target_modules is empty");
  EXPECT_CONTAINS(
      refusal("optimizer_in_backward: true\nmax_grad_norm: 0\ngradient_accumulation_steps: 2"),
      "gradient_accumulation_steps is 2; expected 1");
  EXPECT_CONTAINS(refusal("optimizer_in_backward: true"), "set max_grad_norm: 0");
  for (const char* text : {"quantization: nf4\nmethod: full", "load_in_8bit: true\nmethod: full"})
    EXPECT_CONTAINS(refusal(text), "freezes the weights, and method: full trains them");
  EXPECT_CONTAINS(refusal("load_best_model_at_end: true"),
                  "load_best_model_at_end needs evaluation data");
  EXPECT_CONTAINS(refusal("early_stopping_patience: 2"),
                  "early_stopping_patience needs evaluation data");
}

TEST(Validate, WhatStagesNeed) {
  EXPECT_CONTAINS(refusal("per_device_train_batch_size: 1\nstage: kto"), "expected at least 2");
  EXPECT_CONTAINS(refusal("method: full\nstage: reward"), "expected method: lora");
  EXPECT_CONTAINS(refusal("label_smoothing: 0.1\nstage: reward"), "no part of this loss");
  EXPECT_NO_THROW(validate(load_text(kComplete + "stage: reward\nbeta: 0"), ConfigUse::train));
}

TEST(Validate, QuantizedWeightsTakeLora) {
  for (const char* text :
       {"method: qlora", "load_in_4bit: true\ndouble_quant: false", "quantization: int8"})
    EXPECT_NO_THROW(validate(load_text(kComplete + text), ConfigUse::train)) << text;
}

TEST(Validate, EmptyTargetsConcernLoraOnly) {
  EXPECT_NO_THROW(
      validate(load_text(kComplete + "method: full\ntarget_modules: []"), ConfigUse::train));
}

TEST(Validate, ReportsAllProblemsAtOnce) {
  const std::string message =
      refusal("max_steps: 0\ntarget_modules: []\neval_datasets: [{path: b, template: x}]");
  for (const char* part : {"max_steps is 0", "template: x is not", "target_modules is empty"})
    EXPECT_CONTAINS(message, part);
}

std::string notices(const std::string& text) {
  const Config config = load_text(kComplete + text);
  return logged_by([&] { validate(config, ConfigUse::train); });
}

TEST(Validate, TellsOfValuesWithoutEffect) {
  EXPECT_CONTAINS(notices("method: full\nlora_rank: 8"),
                  "lora.yaml:4: lora_rank has no effect with method: full");
  EXPECT_CONTAINS(notices("momentum: 0.9"), "momentum has no effect with optim: adamw");
  EXPECT_CONTAINS(notices("optim: sgd\nadam_beta1: 0.8"),
                  "adam_beta1 has no effect with optim: sgd");
  EXPECT_CONTAINS(notices("optim: lion\nadam_epsilon: 1e-6"),
                  "adam_epsilon has no effect with optim: lion");
  EXPECT_CONTAINS(notices("lr_scheduler_type: constant\nwarmup_steps: 5"),
                  "warmup_steps has no effect with lr_scheduler_type: constant");
  EXPECT_CONTAINS(notices("min_lr_ratio: 0.2"),
                  "min_lr_ratio has no effect with lr_scheduler_type: cosine");
  EXPECT_CONTAINS(notices("max_steps: 5\nnum_train_epochs: 1"),
                  "num_train_epochs has no effect because max_steps is given");
  EXPECT_CONTAINS(notices("eval_steps: 5"),
                  "eval_steps has no effect without eval_datasets or eval_split");
}

TEST(Validate, IsQuietOtherwise) {
  EXPECT_EQ(notices("lora_rank: 8\neval_split: 0.1\neval_steps: 5"), "");
  EXPECT_EQ(notices("momentum: 0"), "");  // its default, written out
  const Config resolved =
      load_text(resolved_yaml(load_text(kComplete + "method: full\nmax_steps: 3")));
  EXPECT_EQ(logged_by([&] { validate(resolved, ConfigUse::train); }), "");
}

}  // namespace
}  // namespace finetune
