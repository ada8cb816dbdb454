#include "finetune/config/config.h"

#include "config/fields.h"
#include "config/settings.h"
#include "config/write_value.h"
#include "finetune/base/error.h"
#include "finetune/base/log.h"
#include "finetune/base/text.h"

#include <algorithm>

namespace finetune {

namespace {

/// "lora.yaml:3: ", or "" where the value is the default.
std::string origin_prefix(const Config& config, std::string_view key) {
  const auto found = config.origins.find(std::string(key));
  return found == config.origins.end() ? "" : found->second + ": ";
}

/// Refuses what this version does not have, so that no setting is silently ignored.
struct AvailabilityCheck {
  const Config& config;
  Problems& problems;

  template <typename T>
  void operator()(const Field& field, const T& member) const {
    const std::string absent = not_in_version(field, json_value(member));
    if (!absent.empty()) problems.push_back(origin_prefix(config, field.key) + absent);
    if constexpr (std::is_same_v<T, std::vector<DatasetSpec>>) {
      for (const DatasetSpec& spec : member) check_dataset(field, spec);
    }
  }

  void check_dataset(const Field& list, const DatasetSpec& spec) const {
    visit_dataset_fields(spec, [&](const Field& field, const auto& member) {
      const std::string absent = not_in_version(field, json_value(member));
      if (absent.empty()) return;
      problems.push_back(fmt::format("{}{} ({}): {}", origin_prefix(config, list.key), list.key,
                                     spec.path, absent));
    });
  }
};

/// Key -> why a value of it has no effect in this configuration.
std::map<std::string_view, std::string> void_keys(const Config& c) {
  std::map<std::string_view, std::string> reasons;
  const std::string scheduler = "with lr_scheduler_type: " + to_string(c.lr_scheduler_type);
  if (c.lr_scheduler_type == Scheduler::constant) {
    reasons["warmup_ratio"] = reasons["warmup_steps"] = scheduler;
  }
  if (c.lr_scheduler_type != Scheduler::cosine_with_min_lr) reasons["min_lr_ratio"] = scheduler;
  if (c.lr_scheduler_type != Scheduler::wsd) reasons["wsd_decay_ratio"] = scheduler;
  const std::string optim = "with optim: " + to_string(c.optim);
  if (c.optim != Optim::sgd) reasons["momentum"] = optim;
  if (c.optim == Optim::sgd) reasons["adam_beta1"] = reasons["adam_beta2"] = optim;
  if (c.optim == Optim::sgd || c.optim == Optim::lion) reasons["adam_epsilon"] = optim;
  if (c.quantization != Quantization::nf4) {
    reasons["double_quant"] = "with quantization: " + to_string(c.quantization);
  }
  const std::string stage = "with stage: " + to_string(c.stage);
  if (c.stage != Stage::dpo) reasons["loss_type"] = reasons["use_weighting"] = stage;
  if (c.stage != Stage::kto) reasons["desirable_weight"] = reasons["undesirable_weight"] = stage;
  if (c.stage != Stage::reward) reasons["center_rewards_coefficient"] = stage;
  if (c.stage != Stage::grpo) {
    visit_grpo_fields(c, [&](const Field& field, const auto&) { reasons[field.key] = stage; });
  }
  if (c.stage != Stage::simpo) reasons["simpo_gamma"] = stage;
  if (c.stage == Stage::sft || c.stage == Stage::reward) reasons["beta"] = stage;
  if (c.stage != Stage::dpo && c.stage != Stage::ipo && c.stage != Stage::kto)
    reasons["reference_adapter"] = stage;
  if (c.max_steps > 0) reasons["num_train_epochs"] = "because max_steps is given";
  if (!c.has_eval_data()) reasons["eval_steps"] = "without eval_datasets or eval_split";
  return reasons;
}

/// Says for each given value, other than the default, that the rest of the configuration makes it
/// void.
void log_void_values(const Config& config) {
  std::map<std::string_view, OrderedJson> defaults;
  const Config standard;
  visit_fields(standard, [&](const Field& field, const auto& member) {
    defaults[field.key] = json_value(member);
  });
  const auto reasons = void_keys(config);
  const std::string method = to_string(config.method);
  visit_fields(config, [&](const Field& field, const auto& member) {
    if (!config.is_given(field.key) || json_value(member) == defaults[field.key]) return;
    const auto reason = reasons.find(field.key);
    const auto& readers = field.only_for;
    const bool other_method =
        !readers.empty() && std::find(readers.begin(), readers.end(), method) == readers.end();
    if (!other_method && reason == reasons.end()) return;
    log_info("config", "{}{} has no effect {}", origin_prefix(config, field.key), field.key,
             other_method ? "with method: " + method : reason->second);
  });
}

/// Adds "origin: message" for keys that depend on each other.
class CrossChecks {
 public:
  CrossChecks(const Config& config, Problems& problems) : c_(config), problems_(problems) {}

  void check_model(ConfigUse use) {
    if (c_.model_name_or_path.empty()) {
      const bool has_option = use == ConfigUse::eval || use == ConfigUse::generate;
      problems_.push_back(
          fmt::format("model_name_or_path is not set; expected the folder of a model, in the file "
                      "or as {}",
                      has_option ? "--model FOLDER" : "model_name_or_path=FOLDER"));
    }
    if (c_.method == Method::lora) check_lora();
    const LoraInit::Kind init = c_.init_lora_weights.kind;
    if (c_.method == Method::adapter && init != LoraInit::Kind::standard &&
        init != LoraInit::Kind::adapter) {
      add("init_lora_weights",
          "init_lora_weights names a start of low-rank updates; with method: adapter expected the "
          "folder of an adapter to continue, or nothing");
    }
    if (c_.method == Method::full && c_.quantization != Quantization::none) {
      add("quantization", "quantization: " + to_string(c_.quantization) +
                              " freezes the weights, and method: full trains them; expected "
                              "quantization: none, or method: lora");
    }
    if (c_.method == Method::lora && c_.target_modules.kind == ModuleSelector::Kind::none) {
      add("target_modules",
          "target_modules is empty; expected attention, all-linear, names or a pattern");
    }
  }

  void check_lora() {
    const LoraInit::Kind init = c_.init_lora_weights.kind;
    if (init == LoraInit::Kind::loftq && c_.quantization == Quantization::none) {
      add("init_lora_weights",
          "init_lora_weights: loftq begins with what quantization lost, and quantization is none; "
          "expected quantization: nf4 or int8");
    }
    if (init == LoraInit::Kind::adapter && c_.stack_on_adapter) {
      add("stack_on_adapter",
          "stack_on_adapter and init_lora_weights: FOLDER are both given; keep the one to train "
          "upon, or the one to continue");
    }
    if (c_.use_dora && c_.stack_on_adapter) {
      add("use_dora",
          "use_dora scales the whole weight, and cannot lie upon stack_on_adapter; merge that "
          "adapter first");
    }
  }

  void check_data() {
    if (c_.datasets.empty()) {
      problems_.push_back(
          "datasets is not set; expected at least one data file, in the file or as "
          "datasets=train.jsonl");
    }
    if (!c_.eval_datasets.empty() && c_.eval_split > 0) {
      add("eval_split", "eval_split and eval_datasets are both given; keep one of them");
    }
    if (c_.has_eval_data()) return;
    if (c_.load_best_model_at_end.value_or(false)) {
      add("load_best_model_at_end",
          "load_best_model_at_end needs evaluation data; give eval_datasets or eval_split");
    }
    if (c_.early_stopping_patience > 0) {
      add("early_stopping_patience",
          "early_stopping_patience needs evaluation data; give eval_datasets or eval_split");
    }
  }

  void check_length() {
    if (c_.tokens_per_batch && c_.is_given("per_device_train_batch_size")) {
      add("tokens_per_batch", "tokens_per_batch and per_device_train_batch_size" +
                                  other_place("per_device_train_batch_size") +
                                  " are both given; keep one of them");
    }
    if (c_.max_steps == 0) {
      add("max_steps",
          "max_steps is 0; expected a number of steps, or -1 for num_train_epochs to decide");
    }
  }

  void check_schedule() {
    const bool both = c_.is_given("warmup_ratio") && c_.warmup_ratio > 0 && c_.warmup_steps > 0;
    if (both) {
      add("warmup_steps", "warmup_steps and warmup_ratio" + other_place("warmup_ratio") +
                              " are both given; keep one of them");
    }
    if (c_.max_steps > 0 && c_.warmup_steps > c_.max_steps) {
      add("warmup_steps", fmt::format("warmup_steps is {}, more than max_steps, {}; expected fewer",
                                      c_.warmup_steps, c_.max_steps));
    }
    if (c_.lr_scheduler_type == Scheduler::wsd && c_.warmup_steps == 0 &&
        c_.warmup_ratio + c_.wsd_decay_ratio > 1) {
      add("wsd_decay_ratio",
          "warmup_ratio and wsd_decay_ratio are more than the whole run together; "
          "expected a sum of at most 1");
    }
  }

  void check_preference() {
    if (c_.stage == Stage::sft) return;
    if (c_.resolved_beta() <= 0 && c_.stage != Stage::grpo && c_.stage != Stage::reward) {
      add("beta", "beta is 0, with which stage: " + to_string(c_.stage) +
                      " learns nothing; expected a number above 0");
    }
    if (c_.train_on_prompt) {
      add("train_on_prompt",
          "train_on_prompt: true makes the prompt a part of the answers; stage: " +
              to_string(c_.stage) + " compares answers, expected false");
    }
    if (c_.stage == Stage::dpo && c_.loss_type == PreferenceLoss::robust &&
        (c_.label_smoothing <= 0 || c_.label_smoothing >= 0.5)) {
      add("loss_type",
          fmt::format("loss_type: robust is made for a share of wrong labels that is known, and "
                      "label_smoothing is {}; expected above 0 and below 0.5",
                      c_.label_smoothing));
    }
    const bool smooths = c_.stage == Stage::simpo ||
                         (c_.stage == Stage::dpo && c_.loss_type != PreferenceLoss::hinge);
    if (!smooths && c_.label_smoothing > 0) {
      add("label_smoothing", "label_smoothing is no part of this loss; leave it out");
    }
    if (c_.stage == Stage::kto && !c_.tokens_per_batch && c_.per_device_train_batch_size < 2) {
      add("per_device_train_batch_size",
          "per_device_train_batch_size is 1, and stage: kto compares each prompt with the answer "
          "of another row of its batch; expected at least 2");
    }
    if (c_.stage == Stage::reward && c_.method != Method::lora) {
      add("method", "method: " + to_string(c_.method) +
                        " has no place for the head that stage: reward trains beside the adapter; "
                        "expected method: lora");
    }
  }

  void check_grpo(ConfigUse use) {
    if (c_.stage != Stage::grpo) return;
    if (use == ConfigUse::plan) {
      add("stage",
          "stage: grpo samples its answers while it trains, and plan does not know how long they "
          "get; 'finetune train --dry-run' makes one step");
    }
    if (c_.tokens_per_batch) {
      add("tokens_per_batch",
          "tokens_per_batch counts the tokens of rows, and stage: grpo trains on answers that are "
          "not there yet; expected per_device_train_batch_size, in prompts");
    }
    if (c_.overlength == Overlength::truncate) {
      add("overlength",
          "overlength: truncate would cut prompts before their end; with stage: grpo expected "
          "error or drop");
    }
    if (c_.max_completion_length >= c_.max_length) {
      add("max_completion_length",
          fmt::format("max_completion_length is {}, and max_length {}; expected less, so that a "
                      "prompt has room",
                      c_.max_completion_length, c_.max_length));
    }
  }

  void check_full() {
    if (c_.method == Method::full && c_.trainable_modules && c_.freeze_trainable_layers != 0) {
      add("freeze_trainable_layers", "freeze_trainable_layers and trainable_modules" +
                                         other_place("trainable_modules") +
                                         " are both given; keep one of them");
    }
  }

  void check_optimizer_in_backward() {
    if (!c_.optimizer_in_backward) return;
    if (c_.gradient_accumulation_steps != 1) {
      add("optimizer_in_backward",
          fmt::format("optimizer_in_backward applies a gradient as soon as it is there, and "
                      "gradient_accumulation_steps is {}; expected 1",
                      c_.gradient_accumulation_steps));
    }
    if (c_.on_nonfinite != OnNonfinite::stop) {
      add("on_nonfinite", fmt::format("on_nonfinite: {} takes a step back, and "
                                      "optimizer_in_backward applies parts of it before the rest "
                                      "is known; expected stop",
                                      to_string(c_.on_nonfinite)));
    }
    if (c_.max_grad_norm > 0) {
      add("optimizer_in_backward",
          fmt::format("optimizer_in_backward applies a gradient before the others are there, and "
                      "max_grad_norm, {}, needs all; set max_grad_norm: 0",
                      c_.max_grad_norm));
    }
  }

 private:
  void add(std::string_view key, const std::string& message) {
    problems_.push_back(origin_prefix(c_, key) + message);
  }

  std::string other_place(std::string_view key) const {
    const auto found = c_.origins.find(std::string(key));
    return found == c_.origins.end() ? "" : " (" + found->second + ")";
  }

  const Config& c_;
  Problems& problems_;
};

}  // namespace

void validate(const Config& config, ConfigUse use) {
  Problems problems;
  visit_fields(config, AvailabilityCheck{config, problems});
  CrossChecks checks(config, problems);
  checks.check_model(use);
  if (use == ConfigUse::eval) checks.check_preference();
  if (use == ConfigUse::train || use == ConfigUse::plan) {
    checks.check_data();
    checks.check_length();
    checks.check_schedule();
    checks.check_preference();
    checks.check_grpo(use);
    checks.check_full();
    checks.check_optimizer_in_backward();
  }
  if (!problems.empty()) throw Error(ErrorKind::config, join_problems(problems));
  if (use == ConfigUse::train) log_void_values(config);
}

}  // namespace finetune
