#pragma once

#include "finetune/nn/attention.h"

#include <span>

namespace finetune {

/// A sequence that has one new token, and the cached tokens that this one sees.
struct CachedSequence {
  std::int64_t row = 0;    ///< of the token in q and out
  const Tensor* keys;      ///< [capacity, K, D], contiguous, the new token's among them
  const Tensor* values;    ///< the same
  std::int64_t first = 0;  ///< of the tokens it sees
  std::int64_t count = 0;  ///< how many, the last one is the token itself
};

/// Attention of one new token of each sequence over its own part of a ragged cache, all sequences
/// and heads in one parallel loop; nothing is padded, copied or joined. Sums are in float32, in an
/// order that does not depend on threads or on the other sequences. q and out [N, H, D],
/// contiguous, float32 or bfloat16 on the CPU; writes the rows of `out` that the sequences name.
void decode_rows(const Tensor& q, std::span<const CachedSequence> sequences,
                 const AttentionOptions& options, const Tensor& out);

}  // namespace finetune
