#include "finetune/nn/attention.h"

#include "finetune/base/error.h"
#include "nn/block_attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>

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

/// ATen's CPU kernel, sequence by sequence on strided views. Saves q, k, v, out and the
/// log-sum-exp.
class CpuAttention : public torch::autograd::Function<CpuAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<std::int64_t>& starts, double scale) {
    const std::int64_t key_heads = k.size(1), groups = q.size(1) / key_heads;
    Tensor out = at::empty_like(q, at::MemoryFormat::Contiguous);
    variable_list saved = {q, k, v, out};
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
      const std::int64_t begin = starts[s], length = starts[s + 1] - begin;
      auto [o, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
          group_queries(q.narrow(0, begin, length), key_heads),
          expand_keys(k.narrow(0, begin, length), groups),
          expand_keys(v.narrow(0, begin, length), groups), 0.0, true, {}, scale);
      group_queries(out.narrow(0, begin, length), key_heads).copy_(o);
      saved.push_back(lse);
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["starts"] = starts;
    ctx->saved_data["scale"] = scale;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3];
    const auto starts = ctx->saved_data["starts"].toIntVector();
    const double scale = ctx->saved_data["scale"].toDouble();
    const std::int64_t key_heads = k.size(1), groups = q.size(1) / key_heads;
    Tensor dq = at::empty_like(q, at::MemoryFormat::Contiguous);
    Tensor dk = at::empty_like(k, at::MemoryFormat::Contiguous);
    Tensor dv = at::empty_like(v, at::MemoryFormat::Contiguous);
    for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
      const std::int64_t begin = starts[s], length = starts[s + 1] - begin;
      const auto part = [&](const Tensor& x) { return x.narrow(0, begin, length); };
      auto [gq, gk, gv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          group_queries(part(grads[0]), key_heads), group_queries(part(q), key_heads),
          expand_keys(part(k), groups), expand_keys(part(v), groups),
          group_queries(part(out), key_heads), saved[4 + s], 0.0, true, {}, scale);
      group_queries(part(dq), key_heads).copy_(gq);
      part(dk).copy_(gk.sum(0).transpose(0, 1));
      part(dv).copy_(gv.sum(0).transpose(0, 1));
    }
    return {dq, dk, dv, Tensor(), Tensor()};
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
bool is_plain(std::span<const std::int64_t> starts, const AttentionOptions& options) {
  if (options.softcap > 0) return false;
  if (options.window == 0) return true;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    if (starts[s + 1] - starts[s] > options.window) return false;
  }
  return true;
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 std::span<const std::int64_t> starts, const AttentionOptions& options) {
  if (!is_plain(starts, options)) return block_attention(q, k, v, starts, options);
  if (!q.is_cpu()) return generic_attention(q, k, v, starts, options.scale);
  return CpuAttention::apply(q, k, v, std::vector<std::int64_t>(starts.begin(), starts.end()),
                             options.scale);
}

}  // namespace finetune
