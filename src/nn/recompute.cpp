#include "finetune/nn/recompute.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// Carries the function through autograd's context.
struct Block : torch::CustomClassHolder {
  explicit Block(BlockFunction function) : run(std::move(function)) {}
  BlockFunction run;
};

class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const BlockFunction& block) {
    ctx->save_for_backward({x});
    ctx->saved_data["block"] = at::IValue::make_capsule(c10::make_intrusive<Block>(block));
    return block(x);  // autograd records nothing in here
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto holder = ctx->saved_data["block"].toCapsule();
    const Tensor x = ctx->get_saved_variables()[0].detach().requires_grad_();
    {
      const at::AutoGradMode record(true);
      const Tensor y = static_cast<const Block&>(*holder).run(x);
      torch::autograd::backward({y}, {grads[0]});  // the parameters inside take theirs here
    }
    return {x.grad(), Tensor()};
  }
};

}  // namespace

Tensor recomputed(const Tensor& x, const BlockFunction& block) {
  return x.requires_grad() && at::GradMode::is_enabled() ? Recomputed::apply(x, block) : block(x);
}

}  // namespace finetune
