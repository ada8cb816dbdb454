#include "finetune/generate/sampling.h"

#include "finetune/base/error.h"
#include "finetune/base/random.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace finetune {

namespace {

constexpr std::uint64_t kDrawStream = 0x64726177;
constexpr double kExcluded = -std::numeric_limits<double>::infinity();

/// Logits after the penalty, which each token gets once however often it was seen.
std::vector<double> penalized(std::span<const float> logits, std::span<const std::int32_t> seen,
                              double penalty) {
  std::vector<double> scores(logits.begin(), logits.end());
  if (penalty == 1) return scores;
  std::vector<std::int32_t> once(seen.begin(), seen.end());
  std::sort(once.begin(), once.end());
  once.erase(std::unique(once.begin(), once.end()), once.end());
  for (const std::int32_t id : once) {
    double& score = scores[static_cast<std::size_t>(id)];
    score = score < 0 ? score * penalty : score / penalty;
  }
  return scores;
}

std::size_t likeliest(const std::vector<double>& scores) {
  return static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

/// Scores -> probabilities, in place.
void softmax(std::vector<double>& scores) {
  const double highest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - highest);
  for (double& score : scores) score /= sum;
}

void keep_top_k(std::vector<double>& scores, std::int64_t k) {
  if (k <= 0 || k >= static_cast<std::int64_t>(scores.size())) return;
  std::vector<double> sorted = scores;
  const auto kth = sorted.begin() + (k - 1);
  std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<>());
  const double threshold = *kth;
  for (double& score : scores) {
    if (score < threshold) score = kExcluded;
  }
}

/// Excludes the least likely tokens whose probabilities add up to no more than 1 - p; of equals the
/// lower id goes first.
void keep_top_p(std::vector<double>& scores, double p) {
  if (p >= 1) return;
  std::vector<double> probabilities = scores;
  softmax(probabilities);
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (scores[i] > kExcluded) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
  double sum = 0;
  for (std::size_t i = 0; i + 1 < order.size(); ++i) {
    sum += probabilities[order[i]];
    if (sum > 1 - p) break;
    scores[order[i]] = kExcluded;
  }
}

void keep_min_p(std::vector<double>& scores, double min_p) {
  if (min_p <= 0) return;
  std::vector<double> probabilities = scores;
  softmax(probabilities);
  const double threshold = min_p * *std::max_element(probabilities.begin(), probabilities.end());
  const std::size_t best = likeliest(scores);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (probabilities[i] < threshold && i != best) scores[i] = kExcluded;
  }
}

}  // namespace

std::vector<double> token_probabilities(std::span<const float> logits,
                                        std::span<const std::int32_t> seen,
                                        const SamplingOptions& options) {
  FT_CHECK(!logits.empty(), "no logits to choose from");
  std::vector<double> scores = penalized(logits, seen, options.repetition_penalty);
  if (options.greedy()) {
    const std::size_t best = likeliest(scores);
    std::fill(scores.begin(), scores.end(), 0.0);
    scores[best] = 1;
    return scores;
  }
  for (double& score : scores) score /= options.temperature;
  keep_top_k(scores, options.top_k);
  keep_top_p(scores, options.top_p);
  keep_min_p(scores, options.min_p);
  softmax(scores);
  return scores;
}

std::int32_t choose_token(std::span<const float> logits, std::span<const std::int32_t> seen,
                          const SamplingOptions& options, std::uint64_t stream,
                          std::uint64_t position) {
  const std::vector<double> probabilities = token_probabilities(logits, seen, options);
  if (options.greedy()) return static_cast<std::int32_t>(likeliest(probabilities));
  constexpr double kScale = 1.0 / 9007199254740992.0;  // 2^-53: every value is below 1
  const std::uint64_t bits = mix_seed({options.seed, kDrawStream, stream, position});
  double left = static_cast<double>(bits >> 11) * kScale;
  std::size_t last = 0;
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] <= 0) continue;
    last = i;
    if (left < probabilities[i]) break;
    left -= probabilities[i];
  }
  return static_cast<std::int32_t>(last);  // rounding can leave a little beyond the last one
}

}  // namespace finetune
