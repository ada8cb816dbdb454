#include "train/flat_parameters.h"

#include "finetune/base/error.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

namespace finetune {

FlatParameters::FlatParameters(const std::vector<TrainableParameter>& parameters) {
  FT_CHECK(!parameters.empty(), "nothing to train");
  const at::NoGradGuard no_grad;
  std::int64_t total = 0;
  for (const TrainableParameter& parameter : parameters) {
    total += parameter.slot->numel();
    if (parameter.decays) decayed_size_ += parameter.slot->numel();
  }
  values_ = at::empty({total}, parameters.front().slot->options().dtype(at::kFloat));
  gradients_ = at::zeros_like(values_);
  std::int64_t offset = 0;
  for (const bool decays : {true, false}) {
    for (const TrainableParameter& parameter : parameters) {
      if (parameter.decays != decays) continue;
      const std::int64_t count = parameter.slot->numel();
      const auto shape = parameter.slot->sizes().vec();
      Tensor leaf = values_.narrow(0, offset, count).view(shape).detach();
      leaf.copy_(*parameter.slot);
      leaf.requires_grad_(true);
      // Defined beforehand, so that backward adds into the flat buffer.
      leaf.mutable_grad() = gradients_.narrow(0, offset, count).view(shape);
      by_name_[parameter.name] = leaf.detach();
      starts_[offset] = parameter.name;
      *parameter.slot = leaf;
      offset += count;
    }
  }
}

const std::string& FlatParameters::name_at(std::int64_t index) const {
  return std::prev(starts_.upper_bound(index))->second;
}

}  // namespace finetune
