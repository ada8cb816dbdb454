#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// Summed cross-entropy of the next token over supervised positions, in nats (float32), as a scalar tensor.
/// hidden [M, C] in the compute type, head [V, C], targets [M] int64. Works in tiles, so [M, V] never exists; the
/// gradient of `hidden` (and of `head` when it asks for one) is made in the same pass.
/// Logits are accumulated and reduced in float32. The caller divides by the count.
Tensor cross_entropy_sum(const Tensor& hidden, const Tensor& head, const Tensor& targets);

/// Per-token results of an evaluation, without gradients.
struct TokenScores {
  Tensor nll;      ///< [M] float32, nats
  Tensor correct;  ///< [M] bool: the target has the largest logit
};
TokenScores score_tokens(const Tensor& hidden, const Tensor& head, const Tensor& targets);

}  // namespace finetune
