#include "finetune/nn/functions.h"

#include "finetune/base/error.h"
#include "nn/gated_rows.h"
#include "nn/rope_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tanh_backward.h>
#include <ATen/ops/threshold_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

const char* gelu_form(Activation activation) {
  return activation == Activation::gelu_tanh ? "tanh" : "none";
}

/// d loss / d x for y = activation(x)
Tensor activation_backward(const Tensor& dy, const Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return at::silu_backward(dy, x);
    case Activation::relu:
      return at::threshold_backward(dy, x, 0.0);
    case Activation::gelu:
    case Activation::gelu_tanh:
      return at::gelu_backward(dy, x, gelu_form(activation));
    case Activation::tanh:
      return at::tanh_backward(dy, at::tanh(x));
  }
  FT_CHECK(false, "activation {}", static_cast<int>(activation));
}

class Gated : public torch::autograd::Function<Gated> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& gate, const Tensor& up,
                        std::int64_t kind) {
    const auto activation = static_cast<Activation>(kind);
    ctx->save_for_backward({gate, up});
    ctx->saved_data["activation"] = kind;
    return has_gated_rows(gate, up, activation) ? gated_rows(gate, up, activation)
                                                : activate(gate, activation).mul_(up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1];
    const auto activation = static_cast<Activation>(ctx->saved_data["activation"].toInt());
    if (has_gated_rows(gate, up, activation)) {
      auto [dgate, dup] = gated_rows_backward(grads[0].contiguous(), gate, up, activation);
      return {dgate, dup, Tensor()};
    }
    const Tensor& dy = grads[0];
    return {activation_backward(dy * up, gate, activation), activate(gate, activation).mul_(dy),
            Tensor()};
  }
};

/// [x1, x2, rest] -> [x1 cos - x2 sin, x2 cos + x1 sin, rest]
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  if (has_rope_rows(x)) return rope_rows(x, cos, sin);
  const std::int64_t half = cos.size(-1), rest = x.size(-1) - 2 * half;
  const Tensor x1 = x.narrow(-1, 0, half), x2 = x.narrow(-1, half, half);
  const Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);  // [N, 1, R/2]
  Tensor y = at::empty_like(x, at::MemoryFormat::Contiguous);
  Tensor y1 = y.narrow(-1, 0, half), y2 = y.narrow(-1, half, half);
  y1.copy_(x1).mul_(c).addcmul_(x2, s, -1.0);
  y2.copy_(x2).mul_(c).addcmul_(x1, s);
  if (rest > 0) y.narrow(-1, 2 * half, rest).copy_(x.narrow(-1, 2 * half, rest));
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

Tensor activate(const Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return at::silu(x);
    case Activation::relu:
      return at::relu(x);
    case Activation::gelu:
    case Activation::gelu_tanh:
      return at::gelu(x, gelu_form(activation));
    case Activation::tanh:
      return at::tanh(x);
  }
  FT_CHECK(false, "activation {}", static_cast<int>(activation));
}

Tensor gated(const Tensor& gate, const Tensor& up, Activation activation) {
  return Gated::apply(gate, up, static_cast<std::int64_t>(activation));
}

Tensor apply_rope(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  return Rope::apply(x, cos.to(x.scalar_type()), sin.to(x.scalar_type()));
}

}  // namespace finetune
