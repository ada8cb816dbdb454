#include "finetune/scores/text_scores.h"

#include "finetune/base/unicode.h"
#include "scores/code_points.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace finetune {

namespace {

bool is_ascii_punctuation(char32_t c) {
  return (c >= 0x21 && c <= 0x2f) || (c >= 0x3a && c <= 0x40) || (c >= 0x5b && c <= 0x60) ||
         (c >= 0x7b && c <= 0x7e);
}

/// A run of word characters that is an article becomes a space.
std::u32string without_articles(const std::u32string& text) {
  std::u32string out;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && is_alphanumeric(text[end])) ++end;
    if (end == i) {
      out += text[i++];
      continue;
    }
    const std::u32string word = text.substr(i, end - i);
    const bool article = word == U"a" || word == U"an" || word == U"the";
    out += article ? U" " : word;
    i = end;
  }
  return out;
}

std::vector<std::u32string> answer_words(std::string_view text) {
  std::u32string kept;
  for (const char32_t c : lower_case(code_points(text))) {
    if (!is_ascii_punctuation(c)) kept += c;
  }
  return split_words(without_articles(kept));
}

double f_measure(double precision, double recall) {
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
}

/// How often each run of n neighbours occurs.
template <typename Sequence>
std::map<Sequence, std::int64_t> ngrams(const Sequence& sequence, std::size_t n) {
  std::map<Sequence, std::int64_t> counts;
  for (std::size_t i = 0; i + n <= sequence.size(); ++i) {
    const auto first = sequence.begin() + static_cast<std::ptrdiff_t>(i);
    ++counts[Sequence(first, first + static_cast<std::ptrdiff_t>(n))];
  }
  return counts;
}

template <typename Map>
std::int64_t common(const Map& a, const Map& b) {
  std::int64_t sum = 0;
  for (const auto& [key, count] : a) {
    if (const auto found = b.find(key); found != b.end()) sum += std::min(count, found->second);
  }
  return sum;
}

std::int64_t run_count(std::size_t length, std::size_t n) {
  return length < n ? 0 : static_cast<std::int64_t>(length - n + 1);
}

using Words = std::vector<std::u32string>;

Words rouge_words(std::string_view text) {
  std::u32string kept;
  for (const char32_t c : lower_case(code_points(text))) {
    kept += (c >= U'a' && c <= U'z') || (c >= U'0' && c <= U'9') ? c : U' ';
  }
  return split_words(kept);
}

double rouge_n(const Words& prediction, const Words& reference, std::size_t n) {
  const auto matches = static_cast<double>(common(ngrams(prediction, n), ngrams(reference, n)));
  const auto at_least_one = [](std::int64_t count) {
    return static_cast<double>(std::max<std::int64_t>(count, 1));
  };
  return f_measure(matches / at_least_one(run_count(prediction.size(), n)),
                   matches / at_least_one(run_count(reference.size(), n)));
}

/// Length of the longest common subsequence, in one row of the table.
std::int64_t common_subsequence(const Words& a, const Words& b) {
  std::vector<std::int64_t> row(b.size() + 1, 0);
  for (const std::u32string& word : a) {
    std::int64_t diagonal = 0;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::int64_t above = row[j];
      row[j] = word == b[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
      diagonal = above;
    }
  }
  return row.back();
}

void replace_all(std::u32string& text, std::u32string_view from, std::u32string_view to) {
  for (std::size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

bool is_digit(char32_t c) { return c >= U'0' && c <= U'9'; }
bool is_stop(char32_t c) { return c == U'.' || c == U','; }

/// Symbols that stand alone: all of ASCII but the apostrophe, the comma, the dash and the point.
bool is_symbol(char32_t c) {
  return is_ascii_punctuation(c) && c != U'\'' && c != U',' && c != U'-' && c != U'.';
}

/// Puts `first`, `between`, `second`, `after` for each pair of neighbours that `fits`, from left to
/// right; a character belongs to one pair at most.
template <typename Fits>
std::u32string part_pairs(const std::u32string& text, std::u32string_view before,
                          std::u32string_view between, std::u32string_view after,
                          const Fits& fits) {
  std::u32string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i + 1 < text.size() && fits(text[i], text[i + 1])) {
      out += before;
      out += text[i++];
      out += between;
      out += text[i];
      out += after;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// mteval-v13a's words, as sacrebleu has them.
Words bleu_words(std::string_view segment) {
  std::u32string text = code_points(segment);
  while (!text.empty() && is_python_space(text.back())) text.pop_back();
  replace_all(text, U"<skipped>", U"");
  replace_all(text, U"-\n", U"");
  replace_all(text, U"\n", U" ");
  replace_all(text, U"&quot;", U"\"");
  replace_all(text, U"&amp;", U"&");
  replace_all(text, U"&lt;", U"<");
  replace_all(text, U"&gt;", U">");
  std::u32string spaced = U" ";
  for (const char32_t c : text) {
    if (is_symbol(c))
      spaced += std::u32string{U' ', c, U' '};
    else
      spaced += c;
  }
  spaced += U' ';
  spaced = part_pairs(spaced, U"", U" ", U" ",
                      [](char32_t a, char32_t b) { return !is_digit(a) && is_stop(b); });
  spaced = part_pairs(spaced, U" ", U" ", U"",
                      [](char32_t a, char32_t b) { return is_stop(a) && !is_digit(b); });
  spaced = part_pairs(spaced, U"", U" ", U" ",
                      [](char32_t a, char32_t b) { return is_digit(a) && b == U'-'; });
  return split_words(spaced);
}

std::u32string without_spaces(std::string_view text) {
  std::u32string out;
  for (const char32_t c : code_points(text)) {
    if (!is_python_space(c)) out += c;
  }
  return out;
}

template <std::size_t N>
void add(std::array<std::int64_t, N>& to, const std::array<std::int64_t, N>& from) {
  for (std::size_t i = 0; i < N; ++i) to[i] += from[i];
}

}  // namespace

std::string_view strip(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::string normalize_answer(std::string_view text) {
  std::string out;
  for (const std::u32string& word : answer_words(text)) {
    if (!out.empty()) out += ' ';
    for (const char32_t c : word) append_utf8(out, c);
  }
  return out;
}

double token_f1(std::string_view prediction, std::string_view reference) {
  const Words said = answer_words(prediction), wanted = answer_words(reference);
  if (said.empty() || wanted.empty()) return said.empty() && wanted.empty() ? 1 : 0;
  const auto same = static_cast<double>(common(ngrams(said, 1), ngrams(wanted, 1)));
  return f_measure(same / static_cast<double>(said.size()),
                   same / static_cast<double>(wanted.size()));
}

Rouge rouge(std::string_view prediction, std::string_view reference) {
  const Words said = rouge_words(prediction), wanted = rouge_words(reference);
  Rouge result{rouge_n(said, wanted, 1), rouge_n(said, wanted, 2), 0};
  if (said.empty() || wanted.empty()) return result;
  const auto same = static_cast<double>(common_subsequence(said, wanted));
  result.rouge_l =
      f_measure(same / static_cast<double>(said.size()), same / static_cast<double>(wanted.size()));
  return result;
}

BleuCounts& BleuCounts::operator+=(const BleuCounts& other) {
  length += other.length;
  reference_length += other.reference_length;
  add(matches, other.matches);
  add(total, other.total);
  return *this;
}

double BleuCounts::score() const {
  if (std::all_of(matches.begin(), matches.end(), [](std::int64_t n) { return n == 0; })) return 0;
  double smoothing = 1, logs = 0;
  for (std::size_t n = 0; n < kOrder; ++n) {
    if (total[n] == 0) return 0;  // answers shorter than four words have no score
    const auto all = static_cast<double>(total[n]);
    if (matches[n] == 0) smoothing *= 2;
    logs += std::log(matches[n] == 0 ? 100 / (smoothing * all)
                                     : 100 * static_cast<double>(matches[n]) / all);
  }
  const double brevity =
      length < reference_length
          ? std::exp(1 - static_cast<double>(reference_length) / static_cast<double>(length))
          : 1;
  return brevity * std::exp(logs / static_cast<double>(kOrder));
}

BleuCounts bleu_counts(std::string_view prediction, std::string_view reference) {
  const Words said = bleu_words(prediction), wanted = bleu_words(reference);
  BleuCounts counts;
  counts.length = static_cast<std::int64_t>(said.size());
  counts.reference_length = static_cast<std::int64_t>(wanted.size());
  for (std::size_t n = 1; n <= BleuCounts::kOrder; ++n) {
    counts.total[n - 1] = run_count(said.size(), n);
    counts.matches[n - 1] = common(ngrams(said, n), ngrams(wanted, n));
  }
  return counts;
}

ChrfCounts& ChrfCounts::operator+=(const ChrfCounts& other) {
  add(prediction, other.prediction);
  add(reference, other.reference);
  add(matches, other.matches);
  return *this;
}

double ChrfCounts::score() const {
  constexpr double kFactor = 4;  // beta squared
  double precision = 0, recall = 0, orders = 0;
  for (std::size_t n = 0; n < kOrder; ++n) {
    if (prediction[n] == 0 || reference[n] == 0) continue;
    precision += static_cast<double>(matches[n]) / static_cast<double>(prediction[n]);
    recall += static_cast<double>(matches[n]) / static_cast<double>(reference[n]);
    ++orders;
  }
  if (precision + recall == 0) return 0;
  precision /= orders;
  recall /= orders;
  return 100 * (1 + kFactor) * precision * recall / (kFactor * precision + recall);
}

ChrfCounts chrf_counts(std::string_view prediction, std::string_view reference) {
  const std::u32string said = without_spaces(prediction), wanted = without_spaces(reference);
  ChrfCounts counts;
  for (std::size_t n = 1; n <= ChrfCounts::kOrder; ++n) {
    counts.reference[n - 1] = run_count(wanted.size(), n);
    // Runs of a length that the reference does not have are not counted against the answer.
    counts.prediction[n - 1] = wanted.size() < n ? 0 : run_count(said.size(), n);
    counts.matches[n - 1] = common(ngrams(said, n), ngrams(wanted, n));
  }
  return counts;
}

}  // namespace finetune
