#pragma once

#include "finetune/dataset/example.h"

#include <cstdint>
#include <string>
#include <vector>

namespace finetune {

/// Something about a row that its author should see. None of it stops a run.
struct Finding {
  std::string kind;   ///< duplicate, near_duplicate, other_answer, leakage, short_answer,
                      ///< over_length, no_stop, encoding, placeholder, imbalance; of preferences
                      ///< also same_answers, contradiction, label_imbalance
  std::string where;  ///< "file:line"; for imbalances the file or "source NAME"
  std::string what;   ///< one line for a person
};

/// What lint looks for.
struct LintOptions {
  std::int64_t max_length = 0;         ///< tokens; 0: any
  std::vector<std::int32_t> stop_ids;  ///< what ends an answer; empty: not looked at
  double desirable_weight = 1, undesirable_weight = 1;  ///< of rows with labels
};

/// Share of common stretches of three words (Jaccard) from which two rows count as nearly the same.
constexpr double kNearDuplicate = 0.8;

/// Looks at every row once, however often its weight repeats it; at both answers of a pair. `data`
/// has its texts (DatasetOptions::keep_texts). Findings come kind by kind, in the order of the
/// rows.
std::vector<Finding> lint(const Dataset& data, const LintOptions& options);

/// Rows of `eval` that training has seen: the same tokens, nearly the same words, or the same
/// prompt. Of a pair either answer.
std::vector<Finding> lint_leakage(const Dataset& train, const Dataset& eval);

}  // namespace finetune
