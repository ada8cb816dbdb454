#include "train/optimizer.h"

#include "finetune/base/error.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros_like.h>

namespace finetune {

Optimizer::Optimizer(const Config& config, const FlatParameters& parameters)
    : kind_(config.optim),
      beta1_(config.adam_beta1),
      beta2_(config.adam_beta2),
      epsilon_(config.adam_epsilon),
      weight_decay_(config.weight_decay),
      momentum_(config.momentum),
      parameters_(parameters) {
  if (kind_ == Optim::adamw) {
    state_["exp_avg"] = at::zeros_like(parameters.values());
    state_["exp_avg_sq"] = at::zeros_like(parameters.values());
  } else if (momentum_ > 0) {
    state_["momentum_buffer"] = at::zeros_like(parameters.values());
  }
}

void Optimizer::step(std::int64_t step, double learning_rate) {
  const at::NoGradGuard no_grad;
  kind_ == Optim::adamw ? adamw_step(step, learning_rate) : sgd_step(step, learning_rate);
}

void Optimizer::adamw_step(std::int64_t step, double learning_rate) {
  const std::int64_t decayed = parameters_.decayed_size(), rest = parameters_.size() - decayed;
  const auto update = [&](std::int64_t begin, std::int64_t count, double weight_decay) {
    if (count == 0) return;
    const auto part = [&](const Tensor& flat) {
      return std::vector<Tensor>{flat.narrow(0, begin, count)};
    };
    const std::vector<Tensor> steps = {
        at::full({}, static_cast<double>(step), parameters_.values().options())};
    at::_fused_adamw_(part(parameters_.values()), part(parameters_.gradients()),
                      part(state_["exp_avg"]), part(state_["exp_avg_sq"]), {}, steps, learning_rate,
                      beta1_, beta2_, weight_decay, epsilon_,
                      /*amsgrad=*/false, /*maximize=*/false);
  };
  update(0, decayed, weight_decay_);
  update(decayed, rest, 0.0);
}

void Optimizer::sgd_step(std::int64_t step, double learning_rate) {
  Tensor values = parameters_.values(), direction = parameters_.gradients();
  if (weight_decay_ > 0)
    values.narrow(0, 0, parameters_.decayed_size()).mul_(1.0 - learning_rate * weight_decay_);
  if (momentum_ > 0) {
    Tensor& buffer = state_["momentum_buffer"];
    if (step == 1) {
      buffer.copy_(direction);
    } else {
      buffer.mul_(momentum_).add_(direction);
    }
    direction = buffer;
  }
  values.add_(direction, -learning_rate);
}

void Optimizer::load(const std::map<std::string, Tensor>& saved, const std::string& where) {
  for (auto& [name, tensor] : state_) {
    const auto found = saved.find(name);
    if (found == saved.end() || found->second.numel() != tensor.numel()) {
      fail(ErrorKind::model,
           "{}: '{}' is missing or not of {} elements; this checkpoint is of another run", where,
           name, tensor.numel());
    }
    tensor.copy_(found->second);
  }
}

double clip_gradients(const FlatParameters& parameters, double max_norm) {
  const at::NoGradGuard no_grad;
  Tensor gradients = parameters.gradients();
  const double norm = at::linalg_vector_norm(gradients).item<double>();
  if (max_norm > 0 && norm > max_norm) gradients.mul_(max_norm / (norm + 1e-6));
  return norm;
}

}  // namespace finetune
