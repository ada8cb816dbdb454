#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/example.h"
#include "finetune/model/causal_lm.h"
#include "finetune/train/evaluate.h"

#include <nlohmann/json.hpp>

#include <map>
#include <string>
#include <vector>

namespace finetune {

/// Preference data under the variants of a model: the loss of the stage, rewards relative to a
/// reference, and how often the chosen answer is preferred.
class PreferenceEvaluation {
 public:
  /// `adapters`: for the report alone.
  PreferenceEvaluation(const Config& config, std::vector<std::string> adapters)
      : config_(config), adapters_(std::move(adapters)) {}

  /// Rewards are relative to the model as it stands: to be called for each data set before add().
  void set_reference(const CausalLM& model, const Dataset& data);
  /// Scores one data set under one variant; with stage: reward the base, which has no head for
  /// scores, is left out. Throws Error(model) for an adapter without one.
  void add(const CausalLM& model, const Dataset& data, const std::string& variant);

  /// The object of `--json`.
  nlohmann::ordered_json json() const;
  /// A table for each data set.
  std::string text() const;
  /// The lines of `--predictions`: one for each row and variant.
  std::string predictions() const;

 private:
  struct Result {
    std::string data, variant;
    std::int64_t rows = 0;
    EvalResult measured;
    std::vector<nlohmann::ordered_json> lines;
  };

  std::vector<nlohmann::ordered_json> lines_of(const Result& result, const Dataset& data) const;

  const Config& config_;
  std::vector<std::string> adapters_;
  std::map<std::string, std::vector<double>> references_;  // by content of the data
  std::vector<Result> results_;
};

}  // namespace finetune
