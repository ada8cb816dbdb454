#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace finetune {

/// What is trained.
enum class Method { lora, full, adapter, ia3 };
/// What the loss is.
enum class Stage { sft, dpo, ipo, orpo, simpo, kto, reward, grpo };
/// The loss of stage dpo.
enum class PreferenceLoss { sigmoid, hinge, robust };
/// How the token losses of stage grpo are averaged.
enum class GrpoLoss { grpo, bnpo, dr_grpo, dapo };
/// What stage grpo divides the advantages by: the deviation of rewards in a group, in the batch,
/// or nothing.
enum class ScaleRewards { group, batch, none };
/// How the frozen weights are stored.
enum class Quantization { none, nf4, int8 };
/// The type the model computes in; `automatic` is written `auto`.
enum class Dtype { automatic, float32, bfloat16, float16 };
/// Where the model runs; `automatic` is written `auto`.
enum class Device { automatic, cpu, cuda };
/// What happens to a row longer than max_length.
enum class Overlength { error, truncate, drop };
/// The shape of the learning rate over the run.
enum class Scheduler {
  linear,
  cosine,
  constant,
  constant_with_warmup,
  cosine_with_min_lr,
  inverse_sqrt,
  wsd,
};
/// The optimizer.
enum class Optim { adamw, adamw_8bit, sgd, lion };
/// gradient_checkpointing: recompute activations in the backward pass (auto, true, false).
enum class Recompute { automatic, on, off };
/// Compute a shared prompt once (auto, on, off).
enum class PrefixSharing { automatic, on, off };
/// What happens when a loss or gradient is not finite.
enum class OnNonfinite { stop, skip, rollback };
/// Nonlinearity of a bottleneck adapter.
enum class AdapterActivation { gelu, relu, silu, tanh };
/// Where bottleneck adapters stand and what they read. With x the values that enter a sublayer
/// (before its norm) and h those it gives: `pfeiffer` after the MLP, reads x + h; `houlsby` after
/// attention and MLP, reads h; `parallel` beside the MLP, reads x.
enum class AdapterPlacement { pfeiffer, houlsby, parallel };

/// One accepted spelling of a value; the first spelling of each value is the one we write.
template <typename E>
struct ChoiceWord {
  E value;
  std::string_view word;
};

/// The spellings of an enum's values: `Choices<E>::words`.
template <typename E>
struct Choices;

template <>
struct Choices<Method> {
  static constexpr ChoiceWord<Method> words[] = {{Method::lora, "lora"},
                                                 {Method::full, "full"},
                                                 {Method::adapter, "adapter"},
                                                 {Method::ia3, "ia3"}};
};

template <>
struct Choices<Stage> {
  static constexpr ChoiceWord<Stage> words[] = {
      {Stage::sft, "sft"},       {Stage::dpo, "dpo"},     {Stage::ipo, "ipo"},
      {Stage::orpo, "orpo"},     {Stage::simpo, "simpo"}, {Stage::kto, "kto"},
      {Stage::reward, "reward"}, {Stage::grpo, "grpo"},   {Stage::reward, "rm"}};
};

template <>
struct Choices<Quantization> {
  static constexpr ChoiceWord<Quantization> words[] = {
      {Quantization::none, "none"}, {Quantization::nf4, "nf4"}, {Quantization::int8, "int8"}};
};

template <>
struct Choices<Dtype> {
  static constexpr ChoiceWord<Dtype> words[] = {
      {Dtype::automatic, "auto"},  {Dtype::float32, "float32"}, {Dtype::bfloat16, "bfloat16"},
      {Dtype::float16, "float16"}, {Dtype::float32, "fp32"},    {Dtype::bfloat16, "bf16"},
      {Dtype::float16, "fp16"}};
};

template <>
struct Choices<Device> {
  static constexpr ChoiceWord<Device> words[] = {
      {Device::automatic, "auto"}, {Device::cpu, "cpu"}, {Device::cuda, "cuda"}};
};

template <>
struct Choices<Overlength> {
  static constexpr ChoiceWord<Overlength> words[] = {{Overlength::error, "error"},
                                                     {Overlength::truncate, "truncate"},
                                                     {Overlength::drop, "drop"},
                                                     {Overlength::error, "raise"}};
};

template <>
struct Choices<Scheduler> {
  static constexpr ChoiceWord<Scheduler> words[] = {
      {Scheduler::linear, "linear"},
      {Scheduler::cosine, "cosine"},
      {Scheduler::constant, "constant"},
      {Scheduler::constant_with_warmup, "constant_with_warmup"},
      {Scheduler::cosine_with_min_lr, "cosine_with_min_lr"},
      {Scheduler::inverse_sqrt, "inverse_sqrt"},
      {Scheduler::wsd, "wsd"},
      {Scheduler::wsd, "warmup_stable_decay"}};
};

template <>
struct Choices<Optim> {
  static constexpr ChoiceWord<Optim> words[] = {
      {Optim::adamw, "adamw"},       {Optim::adamw_8bit, "adamw_8bit"},
      {Optim::sgd, "sgd"},           {Optim::lion, "lion"},
      {Optim::adamw, "adamw_torch"}, {Optim::adamw, "adamw_torch_fused"},
      {Optim::adamw, "adamw_hf"},    {Optim::adamw_8bit, "adamw_bnb_8bit"}};
};

template <>
struct Choices<Recompute> {
  static constexpr ChoiceWord<Recompute> words[] = {
      {Recompute::automatic, "auto"}, {Recompute::on, "true"}, {Recompute::off, "false"}};
};

template <>
struct Choices<PrefixSharing> {
  static constexpr ChoiceWord<PrefixSharing> words[] = {
      {PrefixSharing::automatic, "auto"}, {PrefixSharing::on, "on"}, {PrefixSharing::off, "off"}};
};

template <>
struct Choices<PreferenceLoss> {
  static constexpr ChoiceWord<PreferenceLoss> words[] = {{PreferenceLoss::sigmoid, "sigmoid"},
                                                         {PreferenceLoss::hinge, "hinge"},
                                                         {PreferenceLoss::robust, "robust"}};
};

template <>
struct Choices<GrpoLoss> {
  static constexpr ChoiceWord<GrpoLoss> words[] = {{GrpoLoss::grpo, "grpo"},
                                                   {GrpoLoss::bnpo, "bnpo"},
                                                   {GrpoLoss::dr_grpo, "dr_grpo"},
                                                   {GrpoLoss::dapo, "dapo"}};
};

template <>
struct Choices<ScaleRewards> {
  static constexpr ChoiceWord<ScaleRewards> words[] = {
      {ScaleRewards::group, "group"}, {ScaleRewards::batch, "batch"}, {ScaleRewards::none, "none"}};
};

template <>
struct Choices<OnNonfinite> {
  static constexpr ChoiceWord<OnNonfinite> words[] = {{OnNonfinite::stop, "stop"},
                                                      {OnNonfinite::skip, "skip"},
                                                      {OnNonfinite::rollback, "rollback"}};
};

template <>
struct Choices<AdapterActivation> {
  static constexpr ChoiceWord<AdapterActivation> words[] = {{AdapterActivation::gelu, "gelu"},
                                                            {AdapterActivation::relu, "relu"},
                                                            {AdapterActivation::silu, "silu"},
                                                            {AdapterActivation::tanh, "tanh"}};
};

template <>
struct Choices<AdapterPlacement> {
  static constexpr ChoiceWord<AdapterPlacement> words[] = {
      {AdapterPlacement::pfeiffer, "pfeiffer"},
      {AdapterPlacement::houlsby, "houlsby"},
      {AdapterPlacement::parallel, "parallel"}};
};

/// Any of the enums above.
template <typename E>
concept Choice = requires {
  Choices<E>::words;
};

/// The word of a value as the configuration writes it: to_string(Dtype::automatic) is "auto".
template <Choice E>
std::string to_string(E value) {
  for (const ChoiceWord<E>& entry : Choices<E>::words) {
    if (entry.value == value) return std::string(entry.word);
  }
  return "?";
}

/// The value of a word, exact spelling; nothing when the word is not one of them.
template <Choice E>
std::optional<E> parse_choice(std::string_view word) {
  for (const ChoiceWord<E>& entry : Choices<E>::words) {
    if (entry.word == word) return entry.value;
  }
  return std::nullopt;
}

}  // namespace finetune
