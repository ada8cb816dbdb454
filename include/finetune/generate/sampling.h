#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace finetune {

/// How the next token is chosen. The steps, their order and their edge cases are those of
/// transformers' logits processors: repetition penalty, temperature, top-k, top-p, min-p.
struct SamplingOptions {
  double temperature = 0;  ///< 0: the token with the largest logit, the lowest id among equals
  std::int64_t top_k = 0;  ///< only the k likeliest tokens (and their equals); 0: all
  double top_p = 1;        ///< only the likeliest tokens that together have this probability
  double min_p = 0;  ///< only tokens of at least this share of the likeliest one's probability
  double repetition_penalty =
      1;  ///< logits of tokens that the prompt or the answer has are divided by it (above 0) or
          ///< multiplied with it (below 0). Source: Keskar et al. 2019, arXiv 1909.05858
  std::uint64_t seed = 42;

  bool greedy() const { return temperature == 0; }
};

/// The probabilities that a token is drawn with, [V], zero where an option excludes it; greedy: 1
/// for one token. `logits` [V]; `seen`: the tokens of the prompt and the answer so far.
std::vector<double> token_probabilities(std::span<const float> logits,
                                        std::span<const std::int32_t> seen,
                                        const SamplingOptions& options);

/// The next token. A draw depends on (seed, stream, position) and the probabilities alone; `stream`
/// tells the prompts of a call apart, `position` counts the answer's tokens.
std::int32_t choose_token(std::span<const float> logits, std::span<const std::int32_t> seen,
                          const SamplingOptions& options, std::uint64_t stream,
                          std::uint64_t position);

}  // namespace finetune
