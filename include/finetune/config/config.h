#pragma once

#include "finetune/config/choices.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finetune {

/// Which modules a setting means, by PEFT's rules.
struct ModuleSelector {
  enum class Kind {
    none,        ///< no module
    attention,   ///< the q, k, v and o projections of every decoder block
    all_linear,  ///< every linear layer of the decoder blocks, never the head
    names,       ///< a module whose full name is one of `names`, or ends in "." + one of them
    regex,  ///< a module whose full name matches `regex` from end to end (ECMAScript, std::regex)
  };
  Kind kind = Kind::none;
  std::vector<std::string> names;
  std::string regex;

  bool operator==(const ModuleSelector&) const = default;
};

/// How the LoRA matrices begin.
struct LoraInit {
  enum class Kind {
    standard,  ///< `true`: A is Kaiming uniform, B is zero
    gaussian,  ///< A is N(0, 1/rank), B is zero
    pissa,     ///< the largest singular values of the weight, which the base loses
    olora,     ///< the first columns of the weight's QR, which the base loses
    loftq,     ///< the largest singular values of what quantization lost
    adapter,   ///< continues the adapter in `path`; rank, alpha and targets come from it
  };
  Kind kind = Kind::standard;
  std::string path;
  std::int64_t pissa_niter = 0;  ///< `pissa_niter_16`: rounds of a fast approximate SVD; 0: exact

  bool operator==(const LoraInit&) const = default;
};

/// One data file of `datasets` or `eval_datasets`.
struct DatasetSpec {
  std::string path;                           ///< as given; relative to the working directory
  std::string format = "auto";                ///< recognised by the rows' keys unless named
  std::map<std::string, std::string> fields;  ///< our key -> the key in the file's rows
  double weight = 1;
  std::string template_name;  ///< key `template`; empty: the run's own
  std::string format_check;   ///< what its generated answers must match; empty: the run's own

  bool operator==(const DatasetSpec&) const = default;
};

/// Every setting of a run. A member is named like its key (`template_name` is the key `template`),
/// and holds the default until load_config sets it. Meaning, range and aliases of each are in
/// docs/config.md, made from the same list the parser reads (src/config/fields.h).
struct Config {
  // Model.
  std::string model_name_or_path;  ///< a local folder; required by every verb that opens a model
  Method method = Method::lora;
  Stage stage = Stage::sft;
  Quantization quantization = Quantization::none;
  bool double_quant = true;
  Dtype dtype = Dtype::automatic;
  Device device = Device::automatic;
  bool allow_extra_tensors = false;

  // LoRA.
  std::int64_t lora_rank = 16;
  double lora_alpha = 32;
  double lora_dropout = 0;
  ModuleSelector target_modules{ModuleSelector::Kind::attention, {}, {}};
  ModuleSelector exclude_modules;
  std::vector<std::int64_t> layers_to_transform;  ///< decoder blocks counted from 0; empty: all
  std::map<std::string, std::int64_t> rank_pattern;
  std::map<std::string, double> alpha_pattern;
  std::vector<std::string> modules_to_save;
  bool use_rslora = false;
  bool use_dora = false;
  LoraInit init_lora_weights;
  std::optional<std::string> stack_on_adapter;  ///< frozen adapter that the new one is trained upon
  double loraplus_lr_ratio = 1;

  // Full fine-tuning and bottleneck adapters.
  std::optional<std::string> trainable_modules;  ///< regex over parameter names; absent: all
  std::int64_t freeze_trainable_layers = 0;      ///< > 0: the last blocks, < 0: the first, 0: all
  bool pure_bf16 = false;                        ///< bfloat16 weights without float32 masters
  std::int64_t adapter_size = 64;
  AdapterActivation adapter_activation = AdapterActivation::gelu;
  AdapterPlacement adapter_placement = AdapterPlacement::pfeiffer;
  std::optional<double> adapter_scaling;  ///< see resolved_adapter_scaling()
  double adapter_dropout = 0;
  std::vector<std::string> feedforward_modules;  ///< ia3: names of modules scaled at their input

  // Data.
  std::vector<DatasetSpec> datasets;
  std::vector<DatasetSpec> eval_datasets;
  double eval_split = 0;               ///< fraction of the rows held out of training
  std::string template_name = "auto";  ///< key `template`: a name, or a path ending in .jinja
  std::optional<std::string> system_prompt;
  bool train_on_prompt = false;
  std::int64_t max_length = 2048;  ///< tokens
  Overlength overlength = Overlength::error;
  bool shuffle = true;
  std::int64_t seed = 42;
  std::int64_t max_row_bytes = std::int64_t{64} << 20;
  PrefixSharing prefix_sharing = PrefixSharing::automatic;

  // Length of the run and batches.
  double num_train_epochs = 3;
  std::int64_t max_steps =
      -1;  ///< optimizer steps; above 0 it decides, whatever num_train_epochs says
  std::int64_t per_device_train_batch_size = 8;  ///< examples of a micro-batch
  std::optional<std::int64_t> tokens_per_batch;  ///< given: replaces the number of examples
  std::optional<std::int64_t> per_device_eval_batch_size;  ///< see eval_batch_size()
  std::int64_t gradient_accumulation_steps = 1;

  // Optimizer and schedule.
  std::optional<double> learning_rate;  ///< see resolved_learning_rate()
  Scheduler lr_scheduler_type = Scheduler::cosine;
  double warmup_ratio = 0.03;  ///< of all optimizer steps; not used when warmup_steps is above 0
  std::int64_t warmup_steps = 0;
  double min_lr_ratio = 0.1;  ///< cosine_with_min_lr: lowest rate as a fraction of learning_rate
  double wsd_decay_ratio =
      0.1;  ///< wsd: the last fraction of the steps, in which the rate falls to 0
  Optim optim = Optim::adamw;
  double weight_decay = 0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double momentum = 0;  ///< sgd
  bool optimizer_in_backward = false;
  double max_grad_norm = 1;  ///< 0: no clipping
  Recompute gradient_checkpointing = Recompute::automatic;
  double neftune_noise_alpha = 0;
  double label_smoothing = 0;

  // Preference stages.
  PreferenceLoss loss_type = PreferenceLoss::sigmoid;
  std::optional<double> beta;  ///< see resolved_beta()
  double simpo_gamma = 0.5;
  std::optional<std::string> reference_adapter;
  bool use_weighting = false;  ///< dpo: pairs weighted by their likelihood (WPO)
  double desirable_weight = 1, undesirable_weight = 1;  ///< kto
  double center_rewards_coefficient = 0;                ///< reward

  // Online: stage grpo.
  std::vector<std::string> reward_funcs;     ///< "name" or "name:argument"
  std::vector<double> reward_weights;        ///< one for each of reward_funcs; empty: all 1
  std::int64_t num_generations = 8;          ///< answers to a prompt: a group
  std::int64_t max_completion_length = 256;  ///< tokens
  double temperature = 1;                    ///< of the sampled answers
  std::int64_t top_k = 0;                    ///< 0: all
  double top_p = 1;
  std::int64_t num_iterations = 1;  ///< optimizer steps on the same answers
  double epsilon = 0.2;  ///< how far the ratio of probabilities may fall before it is cut
  std::optional<double> epsilon_high;  ///< how far it may rise; absent: epsilon
  GrpoLoss grpo_loss_type = GrpoLoss::dapo;
  ScaleRewards scale_rewards = ScaleRewards::group;

  // Evaluation, checkpoints, output.
  std::optional<std::int64_t> eval_steps;  ///< optimizer steps; absent: at the end of each epoch
  std::optional<std::int64_t> save_steps;  ///< optimizer steps; absent: at the end of each epoch
  std::int64_t logging_steps = 1;
  std::int64_t eval_samples = 2;  ///< rows of the evaluation data answered at each evaluation
  bool tensorboard = true;        ///< event files in output_dir/tensorboard
  std::optional<std::string> prometheus_file;  ///< for the node exporter's textfile collector
  std::int64_t save_total_limit = 2;           ///< checkpoints kept
  std::optional<bool> load_best_model_at_end;  ///< see resolved_load_best_model_at_end()
  std::int64_t early_stopping_patience = 0;    ///< evaluations without a better loss; 0: off
  std::optional<std::string> terms;            ///< glossary file for term recall
  std::optional<std::string> format_check;     ///< schema, its file, or regex for generated answers
  std::optional<std::string> scorer;           ///< shell command that scores generated answers
  std::string output_dir;  ///< set by load_config: runs/<stem of the config file>, or runs/train
  bool overwrite_output_dir = false;
  std::int64_t disk_retry_seconds = 600;
  OnNonfinite on_nonfinite = OnNonfinite::stop;
  std::int64_t interrupt_grace_seconds = 20;  ///< from SIGINT or SIGTERM to the end of the process
  std::optional<std::int64_t> num_threads;    ///< absent: all cores this process may use

  /// Key -> where its value comes from: "lora.yaml:3" or "command line". A key at its default, or
  /// given as null, is not in it.
  std::map<std::string, std::string> origins;

  /// True when the user gave this key (canonical spelling) a value.
  bool is_given(std::string_view key) const;
  /// learning_rate, or 2e-4 for lora and adapter, 3e-3 for ia3, 1e-5 for full, 5e-6 for preference
  /// stages.
  double resolved_learning_rate() const;
  /// beta, or 0.1; 0 for grpo, which then needs no reference.
  double resolved_beta() const;
  /// adapter_scaling, or 4 with adapter_placement: parallel, as He et al. have it, else 1.
  double resolved_adapter_scaling() const;
  /// load_best_model_at_end, or true when there are evaluation data.
  bool resolved_load_best_model_at_end() const;
  /// True when eval_datasets or eval_split is set.
  bool has_eval_data() const;
  /// per_device_eval_batch_size, or the training one.
  std::int64_t eval_batch_size() const;
};

/// Where settings come from: a file, then `key=value` words of the command line, which win.
struct ConfigSource {
  std::optional<std::filesystem::path> file;
  std::vector<std::string> overrides;
};

/// Reads a configuration. Sections are joined with their keys (`lora: {rank: 8}` is lora_rank),
/// aliases are replaced with a notice, null means the default. Throws Error(config) that lists all
/// problems at once, each with file:line: unknown or repeated keys, wrong types, values out of
/// range, two spellings that differ.
Config load_config(const ConfigSource& source);

/// What a configuration is about to be used for.
enum class ConfigUse { train, eval, generate, plan };

/// Checks what one key alone cannot tell: required keys, keys that exclude each other, and values
/// this version of the program does not have. Throws Error(config) that lists all problems; logs a
/// notice for a key without effect.
void validate(const Config& config, ConfigUse use);

/// Every key in its documented order -> its effective value as YAML text on one line ("null" when
/// absent). Two configurations mean the same run settings exactly when these are equal; --resume
/// compares them.
std::vector<std::pair<std::string, std::string>> config_values(const Config& config);

/// YAML with every key, its effective value, and its origin as a comment: what --show-config
/// prints.
std::string show_config(const Config& config);

/// What is written as config.yaml into the output folder: every effective value, so that
/// load_config gives the same config_values again, also with other defaults. Data paths stay as
/// given.
std::string resolved_yaml(const Config& config);

/// docs/config.md: every key with type, default, range, meaning and aliases.
std::string config_markdown();

}  // namespace finetune
