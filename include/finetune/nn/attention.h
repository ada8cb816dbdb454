#pragma once

#include "finetune/base/tensor.h"

#include <cstdint>
#include <span>
#include <vector>

namespace finetune {

/// What a layer's attention does with its scores.
struct AttentionOptions {
  double scale = 1.0;  ///< of q k^T
  std::int64_t window =
      0;  ///< a token sees itself and the window - 1 tokens before it; 0: all of them
  double softcap = 0.0;  ///< scores become softcap * tanh(score / softcap); 0: as they are
};

/// Causal self-attention within each sequence of a ragged stream.
/// q [N, H, D], k and v [N, K, D] with K dividing H (grouped heads: query head h reads head h / (H
/// / K)), starts: S + 1 offsets. Returns [N, H, D]. softmax(q k^T * scale) v, every sequence on its
/// own, so there is neither padding nor a mask between sequences.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 std::span<const std::int64_t> starts, const AttentionOptions& options);

/// Keys and values of the tokens a set of sequences has been through, one slot a sequence, for one
/// layer.
struct LayerCache {
  std::vector<Tensor> keys;  ///< S tensors [capacity, K, D]
  std::vector<Tensor> values;
};

/// The cache of all layers. A sequence's slot is filled by its first pass (the prompt), then grows
/// a token a pass.
struct KvCache {
  std::vector<LayerCache> layers;
  std::vector<std::int64_t> lengths;  ///< tokens held, per sequence
};

/// Attention of new tokens over the cache: appends k and v to `layer`, then attends. In one pass
/// every sequence has either an empty slot and any number of new tokens, or exactly one new token.
/// No gradient.
Tensor cached_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                        std::span<const std::int64_t> starts, const AttentionOptions& options,
                        LayerCache& layer, std::span<const std::int64_t> lengths);

}  // namespace finetune
