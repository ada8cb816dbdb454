#include "finetune/nn/attention.h"

#include "finetune/base/error.h"
#include "nn/block_attention.h"
#include "nn/tile_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// q [L, H, D] -> [G, K, L, D]: the G query heads that share a key head become the batch, so keys
/// are not repeated.
Tensor group_queries(const Tensor& q, std::int64_t key_heads) {
  return q.unflatten(1, {key_heads, q.size(1) / key_heads}).permute({2, 1, 0, 3});
}

/// k [L, K, D] -> [G, K, L, D] with stride 0 over the groups.
Tensor expand_keys(const Tensor& k, std::int64_t groups) {
  return k.transpose(0, 1).unsqueeze(0).expand({groups, -1, -1, -1});
}

/// ATen's CPU kernel over the queries [begin, end) and keys [first_key, last_key) of a stream.
struct Piece {
  std::int64_t begin, end, first_key, last_key;
  bool causal;

  Tensor queries(const Tensor& x, std::int64_t key_heads) const {
    return group_queries(x.narrow(0, begin, end - begin), key_heads);
  }
  Tensor keys(const Tensor& x, std::int64_t groups) const {
    return expand_keys(x.narrow(0, first_key, last_key - first_key), groups);
  }
};

/// The pieces of a stream's attention: every segment over itself, then all children of a parent,
/// which lie side by side, over it.
struct Pieces {
  std::vector<Piece> own, prefix;

  explicit Pieces(const Segments& segments) {
    const auto& starts = segments.starts;
    for (std::int64_t s = 0; s < segments.count(); ++s) {
      const auto at = static_cast<std::size_t>(s);
      own.push_back({starts[at], starts[at + 1], starts[at], starts[at + 1], true});
      const std::int64_t parent = segments.parent(s);
      if (parent < 0) continue;
      const Piece& keys = own[static_cast<std::size_t>(parent)];
      if (!prefix.empty() && prefix.back().first_key == keys.begin) {
        FT_CHECK(prefix.back().end == starts[at], "children of segment {} lie apart", parent);
        prefix.back().end = starts[at + 1];
      } else {
        prefix.push_back({starts[at], starts[at + 1], keys.begin, keys.end, false});
      }
    }
  }
};

/// The attention of a stream, piece by piece on strided views. Where queries have two pieces, with
/// results o1, o2 and log-sum-exps l1, l2 of their scores, the whole is
///   l = log(e^l1 + e^l2),  o = o1 e^(l1 - l) + o2 e^(l2 - l),
/// and each piece's own backward, given o and l, makes its part of the whole's gradient. Saves q,
/// k, v, out and l [G, K, N].
class CpuAttention : public torch::autograd::Function<CpuAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<std::int64_t>& starts,
                        const std::vector<std::int64_t>& parents, double scale) {
    const std::int64_t key_heads = k.size(1), groups = q.size(1) / key_heads;
    const Pieces pieces(Segments(starts, parents));
    Tensor out = at::empty_like(q, at::MemoryFormat::Contiguous);
    const auto run = [&](const Piece& piece) {
      return at::_scaled_dot_product_flash_attention_for_cpu(
          piece.queries(q, key_heads), piece.keys(k, groups), piece.keys(v, groups), 0.0,
          piece.causal, {}, scale);
    };
    std::vector<Tensor> sums;  // of each segment, [G, K, L]
    for (const Piece& piece : pieces.own) {
      auto [o, lse] = run(piece);
      piece.queries(out, key_heads).copy_(o);
      sums.push_back(lse);
    }
    Tensor lse = sums.size() == 1 ? sums[0] : at::cat(sums, 2);
    for (const Piece& piece : pieces.prefix) {
      auto [o, prefix_lse] = run(piece);
      const Tensor own_lse = lse.narrow(2, piece.begin, piece.end - piece.begin);
      const Tensor whole = at::logaddexp(own_lse, prefix_lse);
      Tensor own = piece.queries(out, key_heads);
      own.copy_(own * (own_lse - whole).exp_().unsqueeze(-1) +
                o * (prefix_lse - whole).exp_().unsqueeze(-1));
      Tensor(own_lse).copy_(whole);
    }
    ctx->save_for_backward({q, k, v, out, lse});
    ctx->saved_data["starts"] = starts;
    ctx->saved_data["parents"] = parents;
    ctx->saved_data["scale"] = scale;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &lse = saved[4];
    const auto starts = ctx->saved_data["starts"].toIntVector();
    const auto parents = ctx->saved_data["parents"].toIntVector();
    const double scale = ctx->saved_data["scale"].toDouble();
    const std::int64_t key_heads = k.size(1), groups = q.size(1) / key_heads;
    const Pieces pieces(Segments(starts, parents));
    Tensor dq = at::empty_like(q, at::MemoryFormat::Contiguous);
    Tensor dk = at::empty_like(k, at::MemoryFormat::Contiguous);
    Tensor dv = at::empty_like(v, at::MemoryFormat::Contiguous);
    const auto run = [&](const Piece& piece, auto&& put) {
      auto [gq, gk, gv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          piece.queries(grads[0], key_heads), piece.queries(q, key_heads), piece.keys(k, groups),
          piece.keys(v, groups), piece.queries(out, key_heads),
          lse.narrow(2, piece.begin, piece.end - piece.begin).contiguous(), 0.0, piece.causal, {},
          scale);
      const auto keys = [&](const Tensor& x) {
        return x.narrow(0, piece.first_key, piece.last_key - piece.first_key);
      };
      put(piece.queries(dq, key_heads), gq);
      put(keys(dk), gk.sum(0).transpose(0, 1));
      put(keys(dv), gv.sum(0).transpose(0, 1));
    };
    // Every row of the three is in one piece of the first kind, so these fill them.
    for (const Piece& piece : pieces.own)
      run(piece, [](Tensor place, const Tensor& part) { place.copy_(part); });
    for (const Piece& piece : pieces.prefix)
      run(piece, [](Tensor place, const Tensor& part) { place.add_(part); });
    return {dq, dk, dv, Tensor(), Tensor(), Tensor()};
  }
};

/// LibTorch's own choice of kernel with its own backward, for other devices.
Tensor generic_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                         std::span<const std::int64_t> starts, double scale) {
  std::vector<Tensor> parts;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    const auto heads_first = [&](const Tensor& x) {
      return x.narrow(0, starts[s], starts[s + 1] - starts[s]).transpose(0, 1).unsqueeze(0);
    };
    const Tensor o =
        at::scaled_dot_product_attention(heads_first(q), heads_first(k), heads_first(v), {}, 0.0,
                                         true, scale, q.size(1) != k.size(1));
    parts.push_back(o.squeeze(0).transpose(0, 1));
  }
  return at::cat(parts, 0);
}

/// True when the fused kernels, which know neither, give the same: no softcap, and every sequence
/// within the window.
bool is_plain(const Segments& segments, const AttentionOptions& options) {
  if (options.softcap > 0) return false;
  if (options.window == 0) return true;
  for (std::int64_t s = 0; s < segments.count(); ++s) {
    if (segments.before(s) + segments.length(s) > options.window) return false;
  }
  return true;
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Segments& segments,
                 const AttentionOptions& options) {
  if (has_tile_attention(q, options)) return tile_attention(q, k, v, segments, options);
  const bool plain = is_plain(segments, options) && (q.is_cpu() || !segments.shared());
  if (!plain) return block_attention(q, k, v, segments, options);
  if (!q.is_cpu()) return generic_attention(q, k, v, segments.starts, options.scale);
  return CpuAttention::apply(
      q, k, v, std::vector<std::int64_t>(segments.starts.begin(), segments.starts.end()),
      std::vector<std::int64_t>(segments.parents.begin(), segments.parents.end()), options.scale);
}

}  // namespace finetune
