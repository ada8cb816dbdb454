#include "train/flat_parameters.h"

#include "finetune/base/error.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <tuple>

namespace finetune {

namespace {

bool is_small(const TrainableParameter& parameter) {
  return parameter.slot->numel() < FlatParameters::kLarge;
}

std::int64_t with_gap(std::int64_t count) {
  constexpr std::int64_t step = FlatParameters::kAlignment;
  return (count + step - 1) / step * step;
}

}  // namespace

FlatParameters::FlatParameters(const std::vector<TrainableParameter>& parameters,
                               at::ScalarType dtype, bool with_gradients) {
  FT_CHECK(!parameters.empty(), "nothing to train");
  const at::NoGradGuard no_grad;
  std::vector<TrainableParameter> sorted = parameters;
  const auto rank = [](const TrainableParameter& p) {
    return std::tuple(is_small(p), !p.decays, p.lr_scale);
  };
  std::stable_sort(
      sorted.begin(), sorted.end(),
      [&](const TrainableParameter& a, const TrainableParameter& b) { return rank(a) < rank(b); });
  std::int64_t total = 0;
  for (const TrainableParameter& parameter : sorted) {
    total += with_gap(parameter.slot->numel());
    size_ += parameter.slot->numel();
    if (!is_small(parameter)) large_size_ = total;
  }
  const at::TensorOptions options = parameters.front().slot->options().requires_grad(false);
  values_ = at::zeros({total}, options.dtype(dtype));
  if (with_gradients) gradients_ = at::zeros({total}, options.dtype(at::kFloat));
  std::int64_t begin = 0;
  for (const TrainableParameter& parameter : sorted) {
    place(parameter, begin);
    begin += with_gap(parameters_.back().span.count);
  }
}

void FlatParameters::place(const TrainableParameter& parameter, std::int64_t begin) {
  const FlatSpan span{begin, parameter.slot->numel(), parameter.decays, parameter.lr_scale};
  const auto shape = parameter.slot->sizes().vec();
  // Not detach(): with one version counter for all, updating a tensor in the backward pass would
  // invalidate what the others have saved for theirs.
  Tensor leaf = values_.narrow(0, begin, span.count).view(shape).variable_data();
  leaf.copy_(*parameter.slot);
  leaf.requires_grad_(true);
  // Defined beforehand, so that backward adds into the flat buffer.
  if (gradients_.defined())
    leaf.mutable_grad() = gradients_.narrow(0, begin, span.count).view(shape);
  by_name_[parameter.name] = leaf.detach();
  *parameter.slot = leaf;
  if (parameter.frozen != nullptr) *parameter.frozen = FrozenWeight(leaf.detach());
  parameters_.push_back({parameter.name, span, leaf});
  join_group(span);
}

void FlatParameters::join_group(const FlatSpan& span) {
  const bool joins = !groups_.empty() && span.begin != large_size_ &&
                     groups_.back().decays == span.decays &&
                     groups_.back().lr_scale == span.lr_scale;
  if (!joins) groups_.push_back({span.begin, 0, span.decays, span.lr_scale});
  groups_.back().count = span.begin + span.count - groups_.back().begin;
}

const std::string& FlatParameters::name_at(std::int64_t index) const {
  const auto after = std::upper_bound(
      parameters_.begin(), parameters_.end(), index,
      [](std::int64_t at, const FlatParameter& parameter) { return at < parameter.span.begin; });
  return std::prev(after)->name;
}

}  // namespace finetune
