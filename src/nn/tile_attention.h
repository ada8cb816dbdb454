#pragma once

#include "finetune/nn/attention.h"

namespace finetune {

/// True where tile_attention works and is the fastest: float32 and bfloat16 on processors with
/// AVX-512 (and its bfloat16 products), no cap on the scores.
bool has_tile_attention(const Tensor& q, const AttentionOptions& options);

/// attention() by tiles of queries and keys that stay in the processor's cache, each product of two
/// of them by LibTorch's brgemm. A segment and a query head at a time, forward:
///   s = scale q k^T,  l = log(sum exp(s)),  o = exp(s - l) v
/// and backward, with keys in the rows of a tile, so that the next product reads it as it is:
///   p^T = exp(scale k q^T - l),  ds^T = scale p^T (v do^T - sum(do o)),
///   dv = p^T do,  dk = ds^T q,  dq^T = k^T ds^T
/// Saves q, k, v, out and l [H, N].
Tensor tile_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Segments& segments,
                      const AttentionOptions& options);

}  // namespace finetune
