#include "finetune/scores/answers.h"

#include "finetune/base/random.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace finetune {

namespace {

constexpr std::uint64_t kResampleStream = 0x626f6f74;

struct MeasureText {
  const char* name;
  const char* label;
};

constexpr std::array<MeasureText, kMeasures> kTexts = {{
    {"exact_match", "exact match"},
    {"exact_match_normalized", "same words"},
    {"f1", "token F1"},
    {"rouge_1", "ROUGE-1"},
    {"rouge_2", "ROUGE-2"},
    {"rouge_l", "ROUGE-L"},
    {"bleu", "BLEU"},
    {"chrf", "chrF"},
    {"valid_json", "valid JSON"},
    {"format_check", "format check"},
    {"valid_markdown_table", "Markdown table"},
    {"valid_code_block", "code block"},
    {"term_recall", "term recall"},
    {"contains_all_terms", "all terms"},
    {"scorer", "scorer"},
}};

double as_number(bool value) { return value ? 1 : 0; }

AnswerScores score_one(const Answer& answer, const Glossary* glossary) {
  const std::string &said = answer.prediction, &wanted = answer.reference;
  AnswerScores row;
  row[Measure::exact_match] = as_number(strip(said) == strip(wanted));
  row[Measure::exact_match_normalized] =
      as_number(normalize_answer(said) == normalize_answer(wanted));
  row[Measure::f1] = token_f1(said, wanted);
  const Rouge words = rouge(said, wanted);
  row[Measure::rouge_1] = words.rouge_1;
  row[Measure::rouge_2] = words.rouge_2;
  row[Measure::rouge_l] = words.rouge_l;
  row.bleu = bleu_counts(said, wanted);
  row.chrf = chrf_counts(said, wanted);
  row[Measure::chrf] = row.chrf.score();
  if (answer.check != nullptr) row[Measure::format_check] = as_number(answer.check->accepts(said));
  if (markdown_table(wanted) == Markdown::valid)
    row[Measure::valid_markdown_table] = as_number(markdown_table(said) == Markdown::valid);
  if (code_blocks(wanted) == Markdown::valid)
    row[Measure::valid_code_block] = as_number(code_blocks(said) == Markdown::valid);
  if (glossary == nullptr) return row;
  if (const auto recall = glossary->recall(said, wanted)) {
    row[Measure::term_recall] = *recall;
    row[Measure::contains_all_terms] = as_number(*recall == 1);
  }
  return row;
}

/// Sums over the rows that `times` counts, and the measures they give.
class Sums {
 public:
  void add(const AnswerScores& row, std::int64_t times) {
    const auto weight = static_cast<double>(times);
    for (std::size_t m = 0; m < kMeasures; ++m) {
      if (!row.values[m]) continue;
      sums_[m] += weight * *row.values[m];
      rows_[m] += times;
    }
    for (std::int64_t i = 0; i < times; ++i) {
      bleu_ += row.bleu;
      chrf_ += row.chrf;
    }
    all_ += times;
  }

  std::int64_t rows(Measure measure) const {
    return measure == Measure::bleu ? all_ : rows_[static_cast<std::size_t>(measure)];
  }
  double value(Measure measure) const {
    if (measure == Measure::bleu) return bleu_.score();
    if (measure == Measure::chrf) return chrf_.score();
    return sums_[static_cast<std::size_t>(measure)] / static_cast<double>(rows(measure));
  }

 private:
  std::array<double, kMeasures> sums_{};
  std::array<std::int64_t, kMeasures> rows_{};
  BleuCounts bleu_;
  ChrfCounts chrf_;
  std::int64_t all_ = 0;
};

/// Between the two nearest of the sorted values, as numpy's default.
double percentile(std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(std::floor(place));
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - std::floor(place)) * (sorted[above] - sorted[below]);
}

}  // namespace

const char* measure_name(Measure measure) { return kTexts[static_cast<std::size_t>(measure)].name; }

const char* measure_label(Measure measure) {
  return kTexts[static_cast<std::size_t>(measure)].label;
}

bool is_share(Measure measure) {
  return measure != Measure::bleu && measure != Measure::chrf && measure != Measure::scorer;
}

std::vector<AnswerScores> score_answers(const std::vector<Answer>& answers,
                                        const Glossary* glossary) {
  const auto expects_json = [](const Answer& answer) {
    return is_json_container(answer.reference);
  };
  const bool some_json = std::any_of(answers.begin(), answers.end(), expects_json);
  std::vector<AnswerScores> rows;
  for (const Answer& answer : answers) {
    rows.push_back(score_one(answer, glossary));
    if (!some_json || expects_json(answer))
      rows.back()[Measure::valid_json] = as_number(is_json_container(answer.prediction));
  }
  return rows;
}

std::vector<Estimate> summarize(const std::vector<const AnswerScores*>& rows, int resamples,
                                std::uint64_t seed) {
  Sums whole;
  for (const AnswerScores* row : rows) whole.add(*row, 1);
  std::vector<Estimate> estimates;
  for (std::size_t m = 0; m < kMeasures; ++m) {
    const auto measure = static_cast<Measure>(m);
    if (whole.rows(measure) == 0) continue;
    const double value = whole.value(measure);
    estimates.push_back({measure, value, whole.rows(measure), value, value});
  }
  if (resamples <= 0 || rows.empty()) return estimates;
  std::vector<std::vector<double>> drawn(estimates.size());
  for (int sample = 0; sample < resamples; ++sample) {
    std::mt19937_64 generator(
        mix_seed({seed, kResampleStream, static_cast<std::uint64_t>(sample)}));
    std::vector<std::int64_t> times(rows.size(), 0);
    for (std::size_t i = 0; i < rows.size(); ++i) ++times[uniform_below(generator, rows.size())];
    Sums sums;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (times[i] > 0) sums.add(*rows[i], times[i]);
    }
    for (std::size_t e = 0; e < estimates.size(); ++e) {
      const Measure measure = estimates[e].measure;
      if (sums.rows(measure) > 0) drawn[e].push_back(sums.value(measure));
    }
  }
  for (std::size_t e = 0; e < estimates.size(); ++e) {
    if (drawn[e].empty()) continue;
    std::sort(drawn[e].begin(), drawn[e].end());
    estimates[e].low = percentile(drawn[e], 0.025);
    estimates[e].high = percentile(drawn[e], 0.975);
  }
  return estimates;
}

}  // namespace finetune
