#include "nn/block_attention.h"

#include "nn/accumulate_type.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr std::int64_t kBlock =
    128;  // queries at a time: scores stay in the cache, products are still large

/// Queries at the positions [first, first + count) of a sequence and the keys [first_key, first +
/// count) they see some of. A sequence is a segment, or a parent and a segment.
struct Block {
  std::int64_t first, count, first_key;
  std::int64_t parent_begin, parent_length;  // in the stream; 0 and 0 without a parent
  std::int64_t begin;                        // of the segment's own tokens in the stream

  std::int64_t own_first_key() const { return std::max(first_key, parent_length); }
  std::int64_t keys_of_parent() const {
    return std::max<std::int64_t>(0, parent_length - first_key);
  }

  Tensor rows(const Tensor& x) const { return x.narrow(0, begin + first - parent_length, count); }
  Tensor own_keys(const Tensor& x) const {
    return x.narrow(0, begin + own_first_key() - parent_length, first + count - own_first_key());
  }
  Tensor parents_keys(const Tensor& x) const {
    return x.narrow(0, parent_begin + parent_length - keys_of_parent(), keys_of_parent());
  }
  /// x [N, K, D] -> [K, keys, D]
  Tensor keys(const Tensor& x) const {
    return (keys_of_parent() == 0 ? own_keys(x) : at::cat({parents_keys(x), own_keys(x)}, 0))
        .transpose(0, 1);
  }
  /// Adds what keys() took back to its places.
  void add_to_keys(const Tensor& x, const Tensor& part) const {
    const Tensor by_key = part.transpose(0, 1);
    if (keys_of_parent() > 0) parents_keys(x).add_(by_key.narrow(0, 0, keys_of_parent()));
    own_keys(x).add_(by_key.slice(0, keys_of_parent()));
  }
};

std::vector<Block> blocks_of(const Segments& segments, std::int64_t window) {
  std::vector<Block> blocks;
  for (std::int64_t s = 0; s < segments.count(); ++s) {
    const std::int64_t before = segments.before(s), end = before + segments.length(s);
    const std::int64_t parent_begin =
        before > 0 ? segments.starts[static_cast<std::size_t>(segments.parent(s))] : 0;
    for (std::int64_t first = before; first < end; first += kBlock) {
      const std::int64_t first_key = window > 0 ? std::max<std::int64_t>(0, first - window + 1) : 0;
      blocks.push_back({first, std::min(kBlock, end - first), first_key, parent_begin, before,
                        segments.starts[static_cast<std::size_t>(s)]});
    }
  }
  return blocks;
}

/// [L, H, D] -> [K, G * L, D]: the query heads of a key head stand below each other, so keys are
/// not repeated.
Tensor by_key_head(const Tensor& x, std::int64_t key_heads) {
  return x.unflatten(1, {key_heads, x.size(1) / key_heads}).permute({1, 2, 0, 3}).flatten(1, 2);
}

/// The way back, [K, G * L, D] -> [L, H, D].
Tensor by_token(const Tensor& x, std::int64_t length) {
  return x.unflatten(1, {-1, length}).permute({2, 0, 1, 3}).flatten(1, 2);
}

/// True where a query of the block must not look, [count, keys].
Tensor hidden_keys(const Block& block, std::int64_t window, const at::Device& device) {
  const auto options = at::TensorOptions(at::kLong).device(device);
  const Tensor query = at::arange(block.first, block.first + block.count, options).unsqueeze(1);
  const Tensor key = at::arange(block.first_key, block.first + block.count, options).unsqueeze(0);
  const Tensor later = key.gt(query);
  return window > 0 ? later.logical_or_(key.le(query - window)) : later;
}

/// softcap * tanh(q k^T * scale / softcap) in the wide type, [K, G * L, keys]
Tensor capped_scores(const Tensor& q, const Tensor& k, const AttentionOptions& options) {
  Tensor scores = at::bmm(q, k.transpose(1, 2)).to(accumulate_type(q)).mul_(options.scale);
  return options.softcap > 0 ? scores.div_(options.softcap).tanh_().mul_(options.softcap) : scores;
}

void hide(Tensor& scores, const Block& block, const AttentionOptions& options) {
  const Tensor hidden = hidden_keys(block, options.window, scores.device());
  scores.unflatten(1, {-1, block.count})
      .masked_fill_(hidden, -std::numeric_limits<double>::infinity());
}

AttentionOptions load_options(AutogradContext* ctx) {
  return {ctx->saved_data["scale"].toDouble(), ctx->saved_data["window"].toInt(),
          ctx->saved_data["softcap"].toDouble()};
}

class BlockAttention : public torch::autograd::Function<BlockAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<std::int64_t>& starts,
                        const std::vector<std::int64_t>& parents, double scale, std::int64_t window,
                        double softcap) {
    const AttentionOptions options{scale, window, softcap};
    const std::int64_t key_heads = k.size(1);
    Tensor out = at::empty_like(q, at::MemoryFormat::Contiguous);
    variable_list saved = {q, k, v, out};
    for (const Block& block : blocks_of(Segments(starts, parents), window)) {
      Tensor scores = capped_scores(by_key_head(block.rows(q), key_heads), block.keys(k), options);
      hide(scores, block, options);
      const Tensor lse = at::logsumexp(scores, {-1}, true);
      const Tensor p = scores.sub_(lse).exp_().to(q.scalar_type());
      block.rows(out).copy_(by_token(at::bmm(p, block.keys(v)), block.count));
      saved.push_back(lse);
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["starts"] = starts;
    ctx->saved_data["parents"] = parents;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["window"] = window;
    ctx->saved_data["softcap"] = softcap;
    return out;
  }

  /// The scores are made again from q and k; with p = exp(score - lse):
  ///   dv = p^T do,  ds = p (do v^T - sum(do * o)),  through the cap ds *= 1 - (score / softcap)^2,
  ///   dq = ds k,  dk = ds^T q
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3];
    const auto starts = ctx->saved_data["starts"].toIntVector();
    const auto parents = ctx->saved_data["parents"].toIntVector();
    const AttentionOptions options = load_options(ctx);
    const std::int64_t key_heads = k.size(1);
    const auto wide = accumulate_type(q);
    Tensor dq = at::empty_like(q, at::MemoryFormat::Contiguous);
    Tensor dk = at::zeros_like(k, k.options().dtype(wide),
                               at::MemoryFormat::Contiguous);  // blocks add to each other's keys
    Tensor dv = at::zeros_like(v, v.options().dtype(wide), at::MemoryFormat::Contiguous);
    std::size_t next = 4;
    for (const Block& block : blocks_of(Segments(starts, parents), options.window)) {
      const auto rows = [&](const Tensor& x) { return by_key_head(block.rows(x), key_heads); };
      const Tensor query = rows(q), dout = rows(grads[0]), keys = block.keys(k);
      const Tensor capped = capped_scores(query, keys, options);
      Tensor scores = options.softcap > 0 ? capped.clone() : capped;
      hide(scores, block, options);
      const Tensor p = scores.sub_(saved[next++]).exp_();
      block.add_to_keys(dv, at::bmm(p.to(q.scalar_type()).transpose(1, 2), dout));
      const Tensor mean = (dout.to(wide) * rows(out).to(wide)).sum(-1, true);
      Tensor ds = at::bmm(dout, block.keys(v).transpose(1, 2))
                      .to(wide)
                      .sub_(mean)
                      .mul_(p)
                      .mul_(options.scale);
      if (options.softcap > 0) ds.mul_(capped.div(options.softcap).square_().neg_().add_(1.0));
      const Tensor narrow = ds.to(q.scalar_type());
      block.rows(dq).copy_(by_token(at::bmm(narrow, keys), block.count));
      block.add_to_keys(dk, at::bmm(narrow.transpose(1, 2), query));
    }
    return {dq,
            dk.to(k.scalar_type()),
            dv.to(v.scalar_type()),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

}  // namespace

Tensor block_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Segments& segments,
                       const AttentionOptions& options) {
  return BlockAttention::apply(
      q, k, v, std::vector<std::int64_t>(segments.starts.begin(), segments.starts.end()),
      std::vector<std::int64_t>(segments.parents.begin(), segments.parents.end()), options.scale,
      options.window, options.softcap);
}

Tensor attend_last(const Tensor& q, const Tensor& k, const Tensor& v,
                   const AttentionOptions& options) {
  const Tensor scores = capped_scores(by_key_head(q, k.size(1)), k.transpose(0, 1), options);
  return by_token(at::bmm(scores.softmax(-1).to(q.scalar_type()), v.transpose(0, 1)), 1);
}

}  // namespace finetune
