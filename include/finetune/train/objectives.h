#pragma once

#include "finetune/config/config.h"
#include "finetune/train/objective.h"

#include <nlohmann/json.hpp>

#include <memory>
#include <string>
#include <vector>

namespace finetune {

/// Whether what rows begin with alike is computed once: it must give what each row alone gives.
/// Throws Error(config) where prefix_sharing: on cannot.
bool shares_prefixes(const Config& config, const CausalLM& model);

/// The objective of the configured stage over a data set. `reference`: the log-probability of each
/// example's answer in the reference; empty where the model as it stands is that.
std::unique_ptr<Objective> make_objective(const Config& config, const CausalLM& model,
                                          const Dataset& data, std::vector<double> reference,
                                          bool share_prefixes);

/// Adds sums / count to the means of the same names; the first sums name them.
void add_means(std::vector<NamedSum>& means, const std::vector<NamedSum>& sums, std::int64_t count);

/// What an evaluation says: for people, and beside the loss added to `line` for metrics.jsonl.
std::string describe_evaluation(const EvalResult& result, bool sft, nlohmann::ordered_json& line);

}  // namespace finetune
