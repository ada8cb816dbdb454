#pragma once

#include "commands/eval_report.h"
#include "finetune/config/config.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// Scores answers by what the configuration names: glossary, format checks, the user's command.
class AnswerScoring {
 public:
  /// Reads the glossary. Throws as Glossary.
  explicit AnswerScoring(const Config& config);

  /// Reads a format check that rows will name, so that a wrong one is told before the work. ""
  /// names none. Throws as FormatCheck.
  void need(const std::string& check, const std::string& where);

  /// Fills `scores` of the rows that have a prediction.
  void score(VariantResult& result) const;

 private:
  std::optional<std::string> scorer_;
  std::optional<Glossary> glossary_;
  std::map<std::string, FormatCheck> checks_;
};

/// Answers that were made before, here or elsewhere: JSON Lines with `prediction` and `reference`,
/// and what else `--predictions` writes. Scored, without a loss. Throws Error(data) for other rows.
EvalReport score_file(const std::string& file, const Config& config);

}  // namespace finetune
