#include "finetune/nn/norm.h"

#include "nn/accumulate_type.h"
#include "nn/norm_rows.h"
#include "nn/rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <torch/csrc/autograd/custom_function.h>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// The factor in the wide type.
Tensor wide_scale(const Tensor& weight, at::ScalarType type, bool plus_one) {
  const Tensor scale = weight.to(type);
  return plus_one ? scale.add(1.0) : scale;
}

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double eps,
                        std::int64_t kind) {
    const auto type = accumulate_type(x);
    const bool rounds_first = kind == static_cast<std::int64_t>(NormKind::rms);
    const bool plus_one = kind == static_cast<std::int64_t>(NormKind::rms_plus_one);
    const Tensor scale =
        rounds_first ? weight.to(x.scalar_type()).to(type) : wide_scale(weight, type, plus_one);
    ctx->saved_data["plus_one"] = plus_one;
    Tensor y, rstd;  // [..., C], [..., 1]
    if (has_rows(x) && x.is_contiguous()) {
      auto sizes = x.sizes().vec();
      sizes.back() = 1;
      y = at::empty_like(x);
      rstd = at::empty(sizes, at::kFloat);
      rms_rows(x, scale, eps, rounds_first, y, rstd);
    } else {
      const Tensor wide = x.to(type);
      rstd = wide.square().mean(-1, true).add_(eps).rsqrt_();
      const Tensor normalized = wide * rstd;
      y = (rounds_first ? normalized.to(x.scalar_type()) : normalized)
              .mul(scale)
              .to(x.scalar_type());
    }
    ctx->save_for_backward({x, weight, rstd});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2];
    const auto type = accumulate_type(x);
    Tensor dweight;
    if (ctx->needs_input_grad(1)) {
      const Tensor product = grads[0].to(type) * (x.to(type) * rstd);
      dweight = product.reshape({-1, weight.size(0)}).sum(0).to(weight.scalar_type());
    }
    if (!ctx->needs_input_grad(0)) return {Tensor(), dweight, Tensor(), Tensor()};
    const Tensor scale = wide_scale(weight, type, ctx->saved_data["plus_one"].toBool());
    if (has_rows(x) && x.is_contiguous()) {
      Tensor dx = at::empty_like(x);
      rms_rows_backward(grads[0].contiguous(), x, scale, rstd, dx);
      return {dx, dweight, Tensor(), Tensor()};
    }
    const Tensor normalized = x.to(type) * rstd;
    const Tensor g = grads[0].to(type) * scale;
    const Tensor mean = (g * normalized).mean(-1, true);
    return {g.sub_(normalized * mean).mul_(rstd).to(x.scalar_type()), dweight, Tensor(), Tensor()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, NormKind kind) {
  return RmsNorm::apply(x, weight, eps, static_cast<std::int64_t>(kind));
}

Tensor Norm::forward(const Tensor& x) const {
  if (!defined()) return x;
  if (kind != NormKind::layer) return rms_norm(x, weight, eps, kind);
  const auto type = x.scalar_type();
  return at::layer_norm(x, {weight.size(0)}, weight.to(type), bias.to(type), eps);
}

}  // namespace finetune
