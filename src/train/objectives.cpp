#include "finetune/train/objectives.h"

#include "finetune/base/error.h"
#include "finetune/base/log.h"
#include "train/preference.h"

namespace finetune {

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
  if (has_reference(config.stage) && reference.empty()) {
    log_info("train", "the reference: log-probabilities of {} pairs before training", data.rows());
    reference = answer_log_probabilities(model, data, config.eval_batch_size(), share_prefixes);
  }
  return std::make_unique<PreferenceObjective>(preference_settings(config), std::move(reference));
}

void add_means(std::vector<NamedSum>& means, const std::vector<NamedSum>& sums,
               std::int64_t count) {
  if (means.empty()) {
    for (const NamedSum& sum : sums) means.push_back({sum.name, 0.0});
  }
  for (std::size_t i = 0; i < sums.size(); ++i)
    means[i].value += sums[i].value / static_cast<double>(count);
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
    line["eval_" + extra.name] = extra.value;
    if (extra.name == "reward") text = fmt::format("reward {:.3f}", extra.value);
    if (extra.name == "rewards/margins") text += fmt::format(", margin {:.3f}", extra.value);
    if (extra.name == "rewards/accuracies")
      text += fmt::format(", the chosen answer preferred in {:.1f} %", 100 * extra.value);
  }
  return text;
}

}  // namespace finetune
