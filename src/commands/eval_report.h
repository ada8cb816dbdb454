#pragma once

#include "finetune/scores/answers.h"
#include "finetune/train/evaluate.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// One row under one variant of the model.
struct EvalRow {
  std::int64_t line = 0;
  double nll = 0;  ///< nats, summed over the supervised tokens
  std::int64_t supervised_tokens = 0;
  std::string prompt, reference;
  std::string source;  ///< the row's own, else the file
  std::vector<std::string> tags;
  std::string format_check;  ///< what its answer must be valid against; "" for nothing
  std::optional<std::string> prediction;
  std::optional<AnswerScores> scores;  ///< where there is a prediction

  double loss() const { return nll / static_cast<double>(supervised_tokens); }
};

/// A data set scored with one variant of the model ("base", "adapter", an adapter's name).
struct VariantResult {
  std::string data, variant;
  EvalResult result;
  std::vector<EvalRow> rows;
};

/// Everything that `finetune eval` found.
struct EvalReport {
  std::string model;
  std::vector<std::string> adapters;
  std::vector<VariantResult> results;
  std::uint64_t seed = 42;      ///< of the bootstrap
  std::int64_t shown_rows = 3;  ///< worst rows and regressions that are shown
  bool expects_json = false;    ///< some reference is an object or array
};

/// The object of `--json`.
nlohmann::ordered_json report_json(const EvalReport& report);

/// Tables for people: base and adapters side by side, by source and tag, worst rows, regressions.
std::string report_text(const EvalReport& report);

/// The lines of `--predictions`.
std::string report_predictions(const EvalReport& report);

}  // namespace finetune
