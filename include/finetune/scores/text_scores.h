#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace finetune {

/// Without the white space (ASCII) around it.
std::string_view strip(std::string_view text);

/// Lower case, without ASCII punctuation and English articles, single spaces: what SQuAD's
/// evaluation compares. Source: Rajpurkar et al. 2016, arXiv 1606.05250.
std::string normalize_answer(std::string_view text);

/// F1 of the words of two normalized answers, in [0, 1]; with no word on one side, 1 where there is
/// none on both.
double token_f1(std::string_view prediction, std::string_view reference);

/// F-measures as the package rouge-score gives them without stemming, in [0, 1]. Its words are of
/// ASCII letters and digits alone, so other scripts score 0.
struct Rouge {
  double rouge_1 = 0, rouge_2 = 0, rouge_l = 0;
};
Rouge rouge(std::string_view prediction, std::string_view reference);

/// What corpus BLEU adds up over rows: lengths in words, n-grams of 1 to 4 words.
struct BleuCounts {
  static constexpr std::size_t kOrder = 4;
  std::int64_t length = 0, reference_length = 0;
  std::array<std::int64_t, kOrder> matches{}, total{};

  BleuCounts& operator+=(const BleuCounts& other);
  /// 0 to 100, as sacrebleu's default: exponential smoothing. Source: Post 2018, arXiv 1804.08771.
  double score() const;
};
/// Words as sacrebleu's tokenizer `13a` cuts them.
BleuCounts bleu_counts(std::string_view prediction, std::string_view reference);

/// What corpus chrF adds up over rows: n-grams of 1 to 6 characters, white space left out.
struct ChrfCounts {
  static constexpr std::size_t kOrder = 6;
  std::array<std::int64_t, kOrder> prediction{}, reference{}, matches{};

  ChrfCounts& operator+=(const ChrfCounts& other);
  /// 0 to 100, beta 2, as sacrebleu's default. Source: Popovic 2015.
  double score() const;
};
ChrfCounts chrf_counts(std::string_view prediction, std::string_view reference);

}  // namespace finetune
