#pragma once

#include "finetune/nn/attention.h"

namespace finetune {

/// Attention by blocks of queries, from matrix products alone: any window, any softcap, any device.
/// Keys outside a block's windows are never touched, so a row of L tokens costs O(L * window).
/// Differentiable; saves the inputs, the result, and one number for each query and head.
Tensor block_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Segments& segments,
                       const AttentionOptions& options);

/// One token's queries [1, H, D] over the keys and values [L, K, D] that it sees. No gradient.
Tensor attend_last(const Tensor& q, const Tensor& k, const Tensor& v,
                   const AttentionOptions& options);

}  // namespace finetune
