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

/// Where the segments of a ragged stream lie, and which of them go on where another ends. Views:
/// what they look at must outlive them.
struct Segments {
  std::span<const std::int64_t> starts;  ///< S + 1 offsets, first 0, last N
  /// [S] the segment whose tokens stand before this one's, or -1; empty: no segment has a parent. A
  /// parent has no parent itself, and its children follow it without a gap.
  std::span<const std::int64_t> parents;

  Segments(std::span<const std::int64_t> starts, std::span<const std::int64_t> parents = {})
      : starts(starts), parents(parents) {}
  Segments(const std::vector<std::int64_t>& starts)
      : Segments(std::span<const std::int64_t>(starts)) {}

  std::int64_t count() const { return static_cast<std::int64_t>(starts.size()) - 1; }
  std::int64_t length(std::int64_t s) const {
    return starts[static_cast<std::size_t>(s) + 1] - starts[static_cast<std::size_t>(s)];
  }
  std::int64_t parent(std::int64_t s) const {
    return parents.empty() ? -1 : parents[static_cast<std::size_t>(s)];
  }
  /// Tokens that stand before the segment's first: its position.
  std::int64_t before(std::int64_t s) const { return parent(s) < 0 ? 0 : length(parent(s)); }
  bool shared() const { return !parents.empty(); }
};

/// Causal self-attention within each sequence of a ragged stream; a segment with a parent also sees
/// all of that.
/// q [N, H, D], k and v [N, K, D] with K dividing H (grouped heads: query head h reads head h / (H
/// / K)). Returns [N, H, D]. softmax(q k^T * scale) v, every sequence on its own, so there is
/// neither padding nor a mask between sequences.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Segments& segments,
                 const AttentionOptions& options);

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
