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

/// The log-probability that the model as it stands gives to each example's answer, and for stage
/// kto then to each mismatched one. Shorter when interrupt_signal() is set.
std::vector<double> reference_log_probabilities(const Config& config, const CausalLM& model,
                                                const Dataset& data, bool share_prefixes);

/// The objective of the configured stage over a data set. `reference`: what
/// reference_log_probabilities() gave for the reference; empty where the model as it stands is
/// that. Then rewards must be exactly 0 now, or Error(training) is thrown; the numbers are kept
/// between runs in cache_folder().
std::unique_ptr<Objective> make_objective(const Config& config, const CausalLM& model,
                                          const Dataset& data, std::vector<double> reference,
                                          bool share_prefixes);

/// Throws Error(training) unless the rewards of the first rows are exactly 0 under the model as it
/// stands: it is the reference. `rows`: so many are computed together, as the reference was.
void check_rewards_begin_at_zero(const Objective& objective, const CausalLM& model,
                                 const Dataset& data, std::int64_t rows, bool share_prefixes);

/// Adds sums / count to the means of the same names. A sum with a count of its own makes a mean
/// over all of these counts.
void add_means(std::vector<NamedSum>& means, const std::vector<NamedSum>& sums, std::int64_t count);

/// What an evaluation says: for people, and beside the loss added to `line` for metrics.jsonl.
std::string describe_evaluation(const EvalResult& result, bool sft, nlohmann::ordered_json& line);

}  // namespace finetune
