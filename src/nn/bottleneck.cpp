#include "finetune/nn/bottleneck.h"

#include "finetune/base/random.h"
#include "finetune/nn/generator.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>

namespace finetune {

namespace {

constexpr std::uint64_t kDropoutStream = 0x626f7474;  // apart from that of the linears

}  // namespace

Tensor Bottleneck::join(const Tensor& x, const Tensor& h, const ForwardContext& context) const {
  const auto dtype = x.scalar_type();
  const Tensor joined = x + h;
  const Tensor& input = placement == AdapterPlacement::houlsby    ? h
                        : placement == AdapterPlacement::pfeiffer ? joined
                                                                  : x;
  const Tensor inner =
      activate(at::linear(input, down_weight.to(dtype), down_bias.to(dtype)), activation);
  Tensor update = at::linear(inner, up_weight.to(dtype), up_bias.to(dtype)) * scaling;
  if (context.training && dropout > 0.0)
    update =
        update * dropout_mask(update, dropout, mix_seed({context.seed, kDropoutStream, index}));
  return joined + update;
}

}  // namespace finetune
