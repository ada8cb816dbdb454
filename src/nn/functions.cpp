#include "finetune/nn/functions.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// float32 for the half types, else the type itself (double stays double in the reference tests).
at::ScalarType accumulate_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double eps) {
    const Tensor wide = x.to(accumulate_type(x));
    const Tensor rstd = wide.square().mean(-1, true).add_(eps).rsqrt_();  // [N, 1]
    ctx->save_for_backward({x, weight, rstd});
    return (wide * rstd).to(x.scalar_type()).mul(weight.to(x.scalar_type()));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2];
    const auto type = accumulate_type(x);
    const Tensor dy = grads[0].to(type);
    const Tensor normalized = x.to(type) * rstd;
    Tensor dweight;
    if (ctx->needs_input_grad(1)) dweight = (dy * normalized).sum(0).to(weight.scalar_type());
    Tensor dx;
    if (ctx->needs_input_grad(0)) {
      const Tensor g = dy * weight.to(type);
      const Tensor mean = (g * normalized).mean(-1, true);
      dx = g.sub_(normalized * mean).mul_(rstd).to(x.scalar_type());
    }
    return {dx, dweight, Tensor()};
  }
};

class SwiGlu : public torch::autograd::Function<SwiGlu> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& gate, const Tensor& up) {
    ctx->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1], &dy = grads[0];
    return {at::silu_backward(dy * up, gate), at::silu(gate).mul_(dy)};
  }
};

/// [x1, x2] -> [x1 cos - x2 sin, x2 cos + x1 sin]
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const std::int64_t half = x.size(-1) / 2;
  const Tensor x1 = x.narrow(-1, 0, half), x2 = x.narrow(-1, half, half);
  const Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);  // [N, 1, D/2]
  Tensor y = at::empty_like(x, at::MemoryFormat::Contiguous);
  Tensor y1 = y.narrow(-1, 0, half), y2 = y.narrow(-1, half, half);
  y1.copy_(x1).mul_(c).addcmul_(x2, s, -1.0);
  y2.copy_(x2).mul_(c).addcmul_(x1, s);
  return y;
}

class Rope : public torch::autograd::Function<Rope> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos,
                        const Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return rotate(x, cos, sin);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rotate(grads[0], saved[0], saved[1].neg()), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  return RmsNorm::apply(x, weight, eps);
}

Tensor swiglu(const Tensor& gate, const Tensor& up) { return SwiGlu::apply(gate, up); }

Tensor apply_rope(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  return Rope::apply(x, cos.to(x.scalar_type()), sin.to(x.scalar_type()));
}

}  // namespace finetune
