#include "train/optimizer.h"

#include "finetune/base/error.h"
#include "finetune/base/random.h"
#include "train/stochastic_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <limits>

namespace finetune {

namespace {

constexpr std::uint64_t kRoundingStream = 0x726f756e64;

/// Bounds the float32 copies of what is kept in fewer bits; a multiple of their blocks.
constexpr std::int64_t kTile = std::int64_t{1} << 20;
static_assert(kTile % FlatParameters::kAlignment == 0);

std::vector<Moment> make_moments(const Config& config, const FlatParameters& parameters) {
  std::vector<Moment> moments;
  const auto add = [&](const char* name, MomentStorage storage) {
    moments.emplace_back(name, parameters, storage);
  };
  switch (config.optim) {
    case Optim::adamw:
      add("exp_avg", MomentStorage::float32);
      add("exp_avg_sq", MomentStorage::float32);
      break;
    case Optim::adamw_8bit:
      add("exp_avg", MomentStorage::signed_8bit);
      add("exp_avg_sq", MomentStorage::unsigned_8bit);
      break;
    case Optim::lion:
      add("exp_avg", MomentStorage::float32);
      break;
    case Optim::sgd:
      if (config.momentum > 0) add("momentum_buffer", MomentStorage::float32);
      break;
  }
  return moments;
}

}  // namespace

Optimizer::Optimizer(const Config& config, const FlatParameters& parameters)
    : kind_(config.optim),
      beta1_(config.adam_beta1),
      beta2_(config.adam_beta2),
      epsilon_(config.adam_epsilon),
      weight_decay_(config.weight_decay),
      momentum_(config.momentum),
      seed_(static_cast<std::uint64_t>(config.seed)),
      parameters_(parameters),
      moments_(make_moments(config, parameters)) {
  const bool copies = kind_ == Optim::adamw_8bit || parameters.values().scalar_type() != at::kFloat;
  tile_ = copies ? kTile : std::numeric_limits<std::int64_t>::max();
}

void Optimizer::step(std::int64_t step, double learning_rate) {
  for (const FlatSpan& group : parameters_.groups()) {
    update(group, parameters_.gradients().narrow(0, group.begin, group.count), step, learning_rate);
  }
}

void Optimizer::update(const FlatSpan& span, const Tensor& gradient, std::int64_t step,
                       double learning_rate) {
  const at::NoGradGuard no_grad;
  const Tensor flat = gradient.reshape({-1});
  for (std::int64_t first = 0, count = 0; first < span.count; first += count) {
    count = std::min(tile_, span.count - first);
    update_tile({span.begin + first, count, span.decays, span.lr_scale},
                flat.narrow(0, first, count).to(at::kFloat), step, learning_rate);
  }
}

void Optimizer::update_tile(const FlatSpan& tile, const Tensor& gradient, std::int64_t step,
                            double learning_rate) {
  const Tensor stored = parameters_.values().narrow(0, tile.begin, tile.count);
  const Tensor values = stored.to(at::kFloat);  // itself where it is that already
  std::vector<Tensor> moments;
  for (const Moment& moment : moments_) moments.push_back(moment.read(tile.begin, tile.count));
  const double rate = learning_rate * tile.lr_scale;
  const double decay = tile.decays ? weight_decay_ : 0.0;
  if (kind_ == Optim::adamw || kind_ == Optim::adamw_8bit) {
    const Tensor steps = at::full({}, static_cast<double>(step), values.options());
    at::_fused_adamw_({values}, {gradient}, {moments[0]}, {moments[1]}, {}, {steps}, rate, beta1_,
                      beta2_, decay, epsilon_, /*amsgrad=*/false, /*maximize=*/false);
  } else {
    if (decay > 0) values.mul_(1.0 - rate * decay);
    if (kind_ == Optim::lion) {
      values.sub_(moments[0].mul(beta1_).add_(gradient, 1.0 - beta1_).sign_(), rate);
      moments[0].mul_(beta2_).add_(gradient, 1.0 - beta2_);
    } else {
      if (!moments.empty()) moments[0].mul_(momentum_).add_(gradient);
      values.sub_(moments.empty() ? gradient : moments[0], rate);
    }
  }
  for (std::size_t i = 0; i < moments_.size(); ++i) moments_[i].write(tile.begin, moments[i]);
  if (stored.scalar_type() == at::kFloat) return;
  round_stochastically(values, stored,
                       mix_seed({seed_, kRoundingStream, static_cast<std::uint64_t>(step),
                                 static_cast<std::uint64_t>(tile.begin)}));
}

std::map<std::string, Tensor> Optimizer::state() const {
  std::map<std::string, Tensor> state;
  for (const Moment& moment : moments_) moment.add_state(state);
  return state;
}

void Optimizer::load(const std::map<std::string, Tensor>& saved, const std::string& where) {
  for (auto& [name, tensor] : state()) {
    const auto found = saved.find(name);
    if (found == saved.end() || found->second.numel() != tensor.numel()) {
      fail(ErrorKind::model,
           "{}: '{}' is missing or not of {} elements; this checkpoint is of another run", where,
           name, tensor.numel());
    }
    Tensor(tensor).copy_(found->second);
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
