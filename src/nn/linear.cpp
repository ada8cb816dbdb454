#include "finetune/nn/linear.h"

#include "finetune/base/error.h"
#include "finetune/base/random.h"
#include "finetune/nn/generator.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct LoraCall {
  const FrozenWeight* weight;
  double scaling;
  double dropout;  // 0 outside training
  std::uint64_t seed;
};

/// Frozen product and low-rank update as one node: saves x and xA^T only, no gradient of W.
///   dA = s (dy B)^T d(x),  dB = s dy^T (d(x) A^T),  dx = dy W + s d'((dy B) A)
class LoraLinear : public torch::autograd::Function<LoraLinear> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& bias,
                        const Tensor& a, const Tensor& b, const LoraCall& call) {
    const auto dtype = x.scalar_type();
    const Tensor dropped = call.dropout > 0.0 ? x * dropout_mask(x, call.dropout, call.seed) : x;
    const Tensor xa = at::mm(dropped, a.to(dtype).t());
    Tensor y = call.weight->multiply(x, bias.value_or(Tensor()));
    y.addmm_(xa, b.to(dtype).t(), 1.0, call.scaling);
    ctx->save_for_backward({x, xa, a, b});
    ctx->saved_data["weight"] = reinterpret_cast<std::int64_t>(call.weight);
    ctx->saved_data["scaling"] = call.scaling;
    ctx->saved_data["dropout"] = call.dropout;
    ctx->saved_data["seed"] = static_cast<std::int64_t>(call.seed);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &xa = saved[1], &a = saved[2], &b = saved[3];
    const auto* weight = reinterpret_cast<const FrozenWeight*>(ctx->saved_data["weight"].toInt());
    const double scaling = ctx->saved_data["scaling"].toDouble();
    const double dropout = ctx->saved_data["dropout"].toDouble();
    const Tensor dy = grads[0].contiguous();
    const auto dtype = x.scalar_type();
    const Tensor dy_b = at::mm(dy, b.to(dtype)).mul_(scaling);  // [N, R]
    Tensor mask;
    if (dropout > 0.0) {
      mask = dropout_mask(x, dropout, static_cast<std::uint64_t>(ctx->saved_data["seed"].toInt()));
    }
    const Tensor da = at::mm(dy_b.t(), mask.defined() ? x * mask : x).to(a.scalar_type());
    const Tensor db = at::mm(dy.t(), xa).to(b.scalar_type()).mul_(scaling);
    Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = weight->multiply_backward(dy);
      if (mask.defined()) {
        dx.add_(at::mm(dy_b, a.to(dtype)).mul_(mask));
      } else {
        dx.addmm_(dy_b, a.to(dtype));
      }
    }
    return {dx, Tensor(), da, db, Tensor()};
  }
};

/// Frozen product alone: saves nothing.
class FrozenLinear : public torch::autograd::Function<FrozenLinear> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& bias,
                        const FrozenWeight* weight) {
    ctx->saved_data["weight"] = reinterpret_cast<std::int64_t>(weight);
    ctx->saved_data["bias"] = bias.has_value();  // inputs are counted without absent ones
    return weight->multiply(x, bias.value_or(Tensor()));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto* weight = reinterpret_cast<const FrozenWeight*>(ctx->saved_data["weight"].toInt());
    const Tensor dy = grads[0].contiguous();
    Tensor dx, dbias;
    if (ctx->needs_input_grad(0)) dx = weight->multiply_backward(dy);
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(1))
      dbias = dy.sum(0);  // full fine-tuning may train a bias alone
    return {dx, dbias, Tensor()};
  }
};

/// DoRA: g (W + s B A) x with g = magnitude / |rows of W + s B A|, whose norm is constant to
/// autograd. Dropout acts on the update's input alone: W x + (g - 1) W d(x) + g s B A d(x), as in
/// PEFT.
Tensor dora_forward(const Linear& linear, const Tensor& x, const std::optional<Tensor>& bias,
                    const LoraCall& call) {
  const Lora& lora = *linear.lora;
  const Tensor updated = linear.weight.dense().to(at::kFloat).add(delta_weight(lora));
  const Tensor gain =
      (lora.magnitude / at::linalg_vector_norm(updated, 2, {1})).to(x.scalar_type());
  const LoraCall plain{call.weight, call.scaling, 0.0, 0};
  if (call.dropout == 0.0) {
    const Tensor y =
        LoraLinear::apply(x, std::nullopt, lora.whole_a(), lora.whole_b(), plain) * gain;
    return bias ? y + *bias : y;
  }
  const Tensor dropped = x * dropout_mask(x, call.dropout, call.seed);
  return FrozenLinear::apply(x - dropped, bias, call.weight) +
         LoraLinear::apply(dropped, std::nullopt, lora.whole_a(), lora.whole_b(), plain) * gain;
}

Tensor adapted_forward(const Linear& linear, const Tensor& x, const std::optional<Tensor>& bias,
                       const ForwardContext& context) {
  if (!linear.lora) return FrozenLinear::apply(x, bias, &linear.weight);
  const Lora& lora = *linear.lora;
  const LoraCall call{&linear.weight, lora.scaling, context.training ? lora.dropout : 0.0,
                      mix_seed({context.seed, linear.index})};
  if (lora.magnitude.defined()) return dora_forward(linear, x, bias, call);
  return LoraLinear::apply(x, bias, lora.whole_a(), lora.whole_b(), call);
}

}  // namespace

Tensor Lora::whole_a() const { return constant_a.defined() ? at::cat({a, constant_a}, 0) : a; }

Tensor Lora::whole_b() const { return constant_b.defined() ? at::cat({b, constant_b}, 1) : b; }

Tensor Linear::forward(const Tensor& x, const ForwardContext& context) const {
  // Autograd wants an absent tensor as nullopt, not as an undefined one.
  const std::optional<Tensor> b =
      bias.defined() ? std::optional(bias.to(x.scalar_type())) : std::nullopt;
  if (trained.defined()) return at::linear(x, trained.to(x.scalar_type()), b);
  if (!ia3) return adapted_forward(*this, x, b, context);
  const Tensor factors = ia3->factors.flatten().to(x.scalar_type());
  return ia3->on_input ? adapted_forward(*this, x * factors, b, context)
                       : adapted_forward(*this, x, b, context) * factors;
}

Tensor lora_inner(const Tensor& x, const Lora& lora, const ForwardContext& context,
                  std::uint64_t index) {
  const double dropout = context.training ? lora.dropout : 0.0;
  const Tensor dropped =
      dropout > 0.0 ? x * dropout_mask(x, dropout, mix_seed({context.seed, index})) : x;
  return at::matmul(dropped, lora.whole_a().to(x.scalar_type()).t()) * lora.scaling;
}

Tensor delta_weight(const Lora& lora) {
  return at::mm(lora.whole_b().detach().to(at::kFloat), lora.whole_a().detach().to(at::kFloat))
      .mul_(lora.scaling);
}

Tensor merged_weight(const Tensor& weight, const Linear& adapted) {
  Tensor merged = weight.to(at::kFloat);
  if (adapted.lora) {
    merged = merged + delta_weight(*adapted.lora);
    const Tensor& magnitude = adapted.lora->magnitude;
    if (magnitude.defined()) {
      const Tensor norm = at::linalg_vector_norm(merged, 2, {1});
      merged = merged * (magnitude.detach().to(at::kFloat) / norm).unsqueeze(1);
    }
  }
  return adapted.ia3 ? merged * adapted.ia3->factors.detach().to(at::kFloat) : merged;
}

}  // namespace finetune
