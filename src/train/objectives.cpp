#include "finetune/train/objectives.h"

#include "finetune/base/cache_folder.h"
#include "finetune/base/error.h"
#include "finetune/base/interrupt.h"
#include "finetune/base/log.h"
#include "finetune/base/stopwatch.h"
#include "train/answer_scores.h"
#include "train/kto.h"
#include "train/preference.h"
#include "train/reference_cache.h"
#include "train/reward.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace finetune {

namespace {

std::unique_ptr<Objective> preference_objective(const Config& config, const CausalLM& model,
                                                const Dataset& data, std::vector<double> reference,
                                                bool share_prefixes) {
  if (config.stage == Stage::kto) {
    return std::make_unique<KtoObjective>(kto_settings(config), data.labels,
                                          mismatched_answers(config, model, data),
                                          std::move(reference), share_prefixes);
  }
  return std::make_unique<PreferenceObjective>(preference_settings(config), std::move(reference));
}

/// The largest reward, or distance from the reference, of the first rows, as training sees them.
/// They are taken as the reference was computed, so that rounding is the same.
double largest_reward(const Objective& objective, const CausalLM& model, const Dataset& data,
                      std::int64_t rows, bool share_prefixes) {
  const at::NoGradGuard no_grad;
  const Batch batch = make_batch(data, rows_from(data, 0, rows), share_prefixes).to(model.device);
  double largest = 0;
  for (const NamedSum& sum : objective.loss(model, batch, ForwardContext{}).extras) {
    const std::string_view name = sum.name;
    if (name == "rewards/chosen" || name == "rewards/rejected" || name == "kl")
      largest = std::max(largest, std::abs(sum.value));
  }
  return largest;
}

/// The objective whose reference is the model as it stands.
std::unique_ptr<Objective> against_itself(const Config& config, const CausalLM& model,
                                          const Dataset& data, bool share_prefixes) {
  const std::int64_t rows = config.eval_batch_size();
  const std::size_t count = data.examples.size() * (config.stage == Stage::kto ? 2 : 1);
  const ReferenceCache cache(config, model, data, share_prefixes);
  if (auto kept = cache.read(count)) {
    auto objective = preference_objective(config, model, data, std::move(*kept), share_prefixes);
    if (largest_reward(*objective, model, data, rows, share_prefixes) == 0) {
      log_info("train", "the reference: log-probabilities of {} rows, kept by an earlier run",
               data.rows());
      return objective;
    }
    log_warning("train", "{} is not what this model gives; computing the reference again",
                cache.file().string());
  }
  log_info("train", "the reference: log-probabilities of {} rows before training", data.rows());
  const Stopwatch watch;
  std::vector<double> reference = reference_log_probabilities(config, model, data, share_prefixes);
  const bool slow = watch.seconds() > 1.0;
  auto objective = preference_objective(config, model, data, reference, share_prefixes);
  if (interrupt_signal() != 0) return objective;
  check_rewards_begin_at_zero(*objective, model, data, rows, share_prefixes);
  // A file for what takes no time would only be litter.
  if (slow || cache_folder_is_given()) cache.write(reference);
  return objective;
}

}  // namespace

bool shares_prefixes(const Config& config, const CausalLM& model) {
  if (config.prefix_sharing == PrefixSharing::off) return false;
  std::string obstacle = model.sharing_obstacle();
  if (config.lora_dropout > 0 || config.adapter_dropout > 0)
    obstacle = "each row has its own dropout";
  if (config.neftune_noise_alpha > 0) obstacle = "each row has its own noise (neftune_noise_alpha)";
  if (config.prefix_sharing == PrefixSharing::on && !obstacle.empty()) {
    fail(ErrorKind::config,
         "prefix_sharing: on cannot give what each row alone gives here: {}; leave it at auto",
         obstacle);
  }
  return obstacle.empty();
}

std::unique_ptr<Objective> make_objective(const Config& config, const CausalLM& model,
                                          const Dataset& data, std::vector<double> reference,
                                          bool share_prefixes) {
  if (config.stage == Stage::sft) return std::make_unique<SftObjective>(config.label_smoothing);
  if (config.stage == Stage::reward)
    return std::make_unique<RewardObjective>(config.center_rewards_coefficient, data.margins);
  if (has_reference(config.stage) && reference.empty())
    return against_itself(config, model, data, share_prefixes);
  return preference_objective(config, model, data, std::move(reference), share_prefixes);
}

void check_rewards_begin_at_zero(const Objective& objective, const CausalLM& model,
                                 const Dataset& data, std::int64_t rows, bool share_prefixes) {
  const double reward = largest_reward(objective, model, data, rows, share_prefixes);
  if (reward == 0) return;
  fail(
      ErrorKind::training,
      "the reference is the model before the first step, and yet the first rows of {} have rewards "
      "that sum up to {}; expected exactly 0. The same model gives the same rows different "
      "numbers: this is a defect of the machine or of this program. reference_adapter names a "
      "reference that is computed apart",
      data.files.front(), reward);
}

std::vector<double> reference_log_probabilities(const Config& config, const CausalLM& model,
                                                const Dataset& data, bool share_prefixes) {
  const auto score = [&](const Dataset& answers) {
    return to_vector(score_all_answers(model, answers, config.eval_batch_size(), share_prefixes)
                         .log_probabilities);
  };
  std::vector<double> reference = score(data);
  if (config.stage != Stage::kto) return reference;
  const std::vector<double> mismatched = score(mismatched_answers(config, model, data));
  reference.insert(reference.end(), mismatched.begin(), mismatched.end());
  return reference;
}

void add_means(std::vector<NamedSum>& means, const std::vector<NamedSum>& sums,
               std::int64_t count) {
  for (const NamedSum& sum : sums) {
    auto mean = std::find_if(means.begin(), means.end(), [&](const NamedSum& other) {
      return std::string_view(other.name) == sum.name;
    });
    if (mean == means.end()) mean = means.insert(means.end(), {sum.name});
    mean->count += sum.count;
    if (sum.count == 0) {
      mean->value += sum.value / static_cast<double>(count);
    } else {
      mean->value += (sum.value - static_cast<double>(sum.count) * mean->value) /
                     static_cast<double>(mean->count);
    }
  }
}

std::string describe_evaluation(const EvalResult& result, bool sft, nlohmann::ordered_json& line) {
  std::string text = fmt::format("loss {:.4f}", result.loss);
  if (sft) {
    text += fmt::format(", perplexity {:.3f}, token accuracy {:.1f} %", result.perplexity(),
                        100 * result.token_accuracy);
    line["eval_perplexity"] = result.perplexity();
    line["eval_token_accuracy"] = result.token_accuracy;
  }
  for (const NamedSum& extra : result.extras) {
    const std::string& name = extra.name;
    line["eval_" + name] = extra.value;
    const std::string part =
        name == "reward"                                ? fmt::format("reward {:.3f}", extra.value)
        : name == "rewards/margins" || name == "margin" ? fmt::format("margin {:.3f}", extra.value)
        : name == "rewards/accuracies" || name == "accuracy"
            ? fmt::format("the chosen answer preferred in {:.1f} %", 100 * extra.value)
            : "";
    if (!part.empty()) text += (text.empty() ? "" : ", ") + part;
  }
  return text;
}

}  // namespace finetune
