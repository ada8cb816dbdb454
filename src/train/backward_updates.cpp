#include "train/backward_updates.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>
#include <functional>

namespace finetune {

namespace {

class Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit Hook(std::function<void(const Tensor& gradient)> apply) : apply_(std::move(apply)) {}

  void operator()(const torch::autograd::Variable& leaf) override {
    apply_(leaf.grad());
    leaf.mutable_grad().reset();
  }

 private:
  std::function<void(const Tensor& gradient)> apply_;
};

}  // namespace

BackwardUpdates::BackwardUpdates(const FlatParameters& parameters, Optimizer& optimizer)
    : parameters_(parameters), optimizer_(optimizer), seen_(parameters.parameters().size()) {
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    torch::autograd::impl::set_post_acc_grad_hooks(
        parameters.parameters()[i].leaf,
        std::make_unique<Hook>([this, i](const Tensor& gradient) { apply(i, gradient); }));
  }
}

BackwardUpdates::~BackwardUpdates() {
  for (const FlatParameter& parameter : parameters_.parameters()) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter.leaf, nullptr);
  }
}

void BackwardUpdates::begin(std::int64_t step, double learning_rate) {
  step_ = step;
  learning_rate_ = learning_rate;
  squares_ = 0;
  seen_.assign(seen_.size(), false);
  any_applied_ = false;
  nonfinite_.clear();
}

void BackwardUpdates::apply(std::size_t index, const Tensor& gradient) {
  const at::NoGradGuard no_grad;
  const FlatParameter& parameter = parameters_.parameters()[index];
  seen_[index] = true;
  const double norm =
      at::linalg_vector_norm(gradient, 2, {}, /*keepdim=*/false, at::kFloat).item<double>();
  squares_ += norm * norm;
  if (!std::isfinite(norm) && nonfinite_.empty()) nonfinite_ = parameter.name;
  if (!nonfinite_.empty()) return;
  optimizer_.update(parameter.span, gradient, step_, learning_rate_);
  any_applied_ = true;
}

double BackwardUpdates::finish() {
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    const Tensor& leaf = parameters_.parameters()[i].leaf;
    if (!seen_[i]) apply(i, at::zeros(leaf.sizes(), leaf.options().requires_grad(false)));
  }
  return std::sqrt(squares_);
}

}  // namespace finetune
