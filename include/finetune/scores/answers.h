#pragma once

#include "finetune/scores/format_check.h"
#include "finetune/scores/glossary.h"
#include "finetune/scores/text_scores.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// What is measured of answers, in the order of reports.
enum class Measure {
  exact_match,             ///< equal after stripping outer white space
  exact_match_normalized,  ///< equal after normalize_answer
  f1,
  rouge_1,
  rouge_2,
  rouge_l,
  bleu,        ///< of a set of rows; a row has none
  chrf,        ///< of a set of rows from their counts, of a row from its own
  valid_json,  ///< an object or array; of the rows whose reference is one, of all where none is
  format_check,
  valid_markdown_table,  ///< of the rows whose reference has a table
  valid_code_block,      ///< of the rows whose reference has one
  term_recall,           ///< of the rows whose reference has a term
  contains_all_terms,    ///< the share of those with recall 1
  scorer,                ///< what the user's own command says
  count,                 ///< number of measures
};
constexpr std::size_t kMeasures = static_cast<std::size_t>(Measure::count);

/// Its key in JSON ("rouge_l"), and what tables call it ("ROUGE-L").
const char* measure_name(Measure measure);
const char* measure_label(Measure measure);
/// True for shares in [0, 1]; BLEU and chrF are 0 to 100, and a scorer has a scale of its own.
bool is_share(Measure measure);

/// One answer, what it should have been, and what it must be valid against (or nullptr).
struct Answer {
  std::string prediction;
  std::string reference;
  const FormatCheck* check = nullptr;
};

/// The scores of one row; a measure that does not apply to it has none.
struct AnswerScores {
  std::array<std::optional<double>, kMeasures> values;
  BleuCounts bleu;
  ChrfCounts chrf;

  std::optional<double>& operator[](Measure measure) {
    return values[static_cast<std::size_t>(measure)];
  }
  const std::optional<double>& operator[](Measure measure) const {
    return values[static_cast<std::size_t>(measure)];
  }
};

/// Scores every row; `glossary` may be nullptr.
std::vector<AnswerScores> score_answers(const std::vector<Answer>& answers,
                                        const Glossary* glossary);

/// A measure of a set of rows, and where its value lies in 95 of 100 sets drawn from the rows.
struct Estimate {
  Measure measure;
  double value = 0;
  std::int64_t rows = 0;     ///< that it is about
  double low = 0, high = 0;  ///< percentile bootstrap; both `value` without resamples
};

/// Every measure that some row has. BLEU and chrF are of all rows together, as sacrebleu's corpus
/// scores; the others are means. `resamples` sets are drawn with replacement, fixed by `seed`.
/// Source: Efron 1979; Koehn 2004 for BLEU.
std::vector<Estimate> summarize(const std::vector<const AnswerScores*>& rows, int resamples,
                                std::uint64_t seed);

}  // namespace finetune
