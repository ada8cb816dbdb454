#include "commands/eval_groups.h"

#include <algorithm>

namespace finetune {

RowGroups by_source(const VariantResult& result) {
  RowGroups groups;
  for (const EvalRow& row : result.rows) groups[row.source].push_back(&row);
  return groups.size() > 1 ? groups : RowGroups();
}

RowGroups by_tag(const VariantResult& result) {
  RowGroups groups;
  for (const EvalRow& row : result.rows) {
    for (const std::string& tag : row.tags) groups[tag].push_back(&row);
  }
  return groups;
}

double group_loss(const std::vector<const EvalRow*>& rows) {
  double nll = 0, tokens = 0;
  for (const EvalRow* row : rows) {
    nll += row->nll;
    tokens += static_cast<double>(row->supervised_tokens);
  }
  return nll / tokens;
}

std::vector<Estimate> group_estimates(const std::vector<const EvalRow*>& rows, int resamples,
                                      std::uint64_t seed) {
  std::vector<const AnswerScores*> scores;
  for (const EvalRow* row : rows) {
    if (row->scores) scores.push_back(&*row->scores);
  }
  return summarize(scores, resamples, seed);
}

std::vector<const EvalRow*> all_rows(const VariantResult& result) {
  std::vector<const EvalRow*> rows;
  for (const EvalRow& row : result.rows) rows.push_back(&row);
  return rows;
}

RowQuality row_quality(const VariantResult& result) {
  for (const EvalRow& row : result.rows) {
    if (!row.scores) continue;
    return {(*row.scores)[Measure::scorer] ? "scorer" : "chrF", true};
  }
  return {"loss", false};
}

std::optional<double> quality_of(const EvalRow& row, const RowQuality& quality) {
  if (!quality.generated) return -row.loss();
  if (!row.scores) return std::nullopt;
  const AnswerScores& scores = *row.scores;
  return scores[Measure::scorer] ? scores[Measure::scorer] : scores[Measure::chrf];
}

std::vector<std::size_t> worst_rows(const VariantResult& result, std::int64_t count) {
  const RowQuality quality = row_quality(result);
  std::vector<std::size_t> rows;
  for (std::size_t i = 0; i < result.rows.size(); ++i) {
    if (quality_of(result.rows[i], quality)) rows.push_back(i);
  }
  std::stable_sort(rows.begin(), rows.end(), [&](std::size_t a, std::size_t b) {
    return *quality_of(result.rows[a], quality) < *quality_of(result.rows[b], quality);
  });
  rows.resize(std::min(rows.size(), static_cast<std::size_t>(count)));
  return rows;
}

const VariantResult* base_of(const EvalReport& report, const VariantResult& result) {
  if (result.variant == "base") return nullptr;
  for (const VariantResult& other : report.results) {
    if (other.variant == "base" && other.data == result.data) return &other;
  }
  return nullptr;
}

Comparison compare(const VariantResult& base, const VariantResult& result) {
  Comparison comparison;
  const RowQuality quality = row_quality(result);
  std::map<std::int64_t, const EvalRow*> by_line;
  for (const EvalRow& row : base.rows) by_line.try_emplace(row.line, &row);
  for (std::size_t i = 0; i < result.rows.size(); ++i) {
    const auto found = by_line.find(result.rows[i].line);
    if (found == by_line.end()) continue;
    const auto before = quality_of(*found->second, quality);
    const auto after = quality_of(result.rows[i], quality);
    if (!before || !after || *before == *after) continue;
    ++(*after < *before ? comparison.worse : comparison.better);
    if (*after < *before) comparison.regressions.push_back({i, *before, *after});
  }
  std::stable_sort(
      comparison.regressions.begin(), comparison.regressions.end(),
      [](const auto& a, const auto& b) { return a.base - a.value > b.base - b.value; });
  return comparison;
}

}  // namespace finetune
