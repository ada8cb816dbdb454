#include "finetune/nn/norm.h"

#include "nn/accumulate_type.h"

#include <ATen/TensorOperators.h>
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
    const Tensor wide = x.to(type);
    const Tensor rstd = wide.square().mean(-1, true).add_(eps).rsqrt_();  // [..., 1]
    ctx->save_for_backward({x, weight, rstd});
    const bool plus_one = kind == static_cast<std::int64_t>(NormKind::rms_plus_one);
    ctx->saved_data["plus_one"] = plus_one;
    const Tensor normalized = wide * rstd;
    if (kind == static_cast<std::int64_t>(NormKind::rms)) {
      return normalized.to(x.scalar_type()).mul(weight.to(x.scalar_type()));
    }
    return normalized.mul(wide_scale(weight, type, plus_one)).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2];
    const auto type = accumulate_type(x);
    const Tensor dy = grads[0].to(type);
    const Tensor normalized = x.to(type) * rstd;
    Tensor dweight;
    if (ctx->needs_input_grad(1)) {
      dweight = (dy * normalized).reshape({-1, weight.size(0)}).sum(0).to(weight.scalar_type());
    }
    Tensor dx;
    if (ctx->needs_input_grad(0)) {
      const Tensor g = dy * wide_scale(weight, type, ctx->saved_data["plus_one"].toBool());
      const Tensor mean = (g * normalized).mean(-1, true);
      dx = g.sub_(normalized * mean).mul_(rstd).to(x.scalar_type());
    }
    return {dx, dweight, Tensor(), Tensor()};
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
