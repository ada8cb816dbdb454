#pragma once

#include "commands/eval_report.h"

#include <map>

namespace finetune {

/// Rows of a result by their source or tag, in the order of the names.
using RowGroups = std::map<std::string, std::vector<const EvalRow*>>;

/// By source; empty where all rows have one.
RowGroups by_source(const VariantResult& result);
/// By tag; a row is in the group of each of its tags.
RowGroups by_tag(const VariantResult& result);

/// Summed nll by supervised tokens.
double group_loss(const std::vector<const EvalRow*>& rows);
std::vector<Estimate> group_estimates(const std::vector<const EvalRow*>& rows, int resamples,
                                      std::uint64_t seed);

/// Pointers to all rows.
std::vector<const EvalRow*> all_rows(const VariantResult& result);

/// What rows are compared by: the user's scorer, else chrF, else the loss.
struct RowQuality {
  const char* label;  ///< "scorer", "chrF", "loss"
  bool generated;     ///< not the loss
};
RowQuality row_quality(const VariantResult& result);
/// The larger the better; nothing for a row that has no answer while others have.
std::optional<double> quality_of(const EvalRow& row, const RowQuality& quality);

/// Indices of the rows with the lowest quality, lowest first.
std::vector<std::size_t> worst_rows(const VariantResult& result, std::int64_t count);

/// How the rows of a variant compare with those of the base.
struct Comparison {
  struct Regression {
    std::size_t row;
    double base, value;
  };
  std::int64_t worse = 0, better = 0;
  std::vector<Regression> regressions;  ///< all that are worse, the largest drop first
};
/// The result of the base on the same data, or nullptr for the base itself.
const VariantResult* base_of(const EvalReport& report, const VariantResult& result);
Comparison compare(const VariantResult& base, const VariantResult& result);

}  // namespace finetune
