#pragma once

#include "finetune/config/choices.h"
#include "finetune/nn/functions.h"
#include "finetune/nn/linear.h"

#include <cstdint>

namespace finetune {

/// A trainable bottleneck where a sublayer joins the residual stream: x + h + s W_up f(W_down z),
/// with x the stream before the sublayer and h what the sublayer gives. z is h (houlsby), x + h
/// (pfeiffer) or x (parallel). Masters are float32 leaves of autograd.
/// Source: Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2021, arXiv 2005.00247; He et al.
/// 2022, arXiv 2110.04366; names and orientation as in the `adapters` library.
struct Bottleneck {
  Tensor down_weight, down_bias;  ///< adapter_down.0: [R, C] and [R]
  Tensor up_weight, up_bias;      ///< adapter_up: [C, R] and [C]
  AdapterPlacement placement = AdapterPlacement::pfeiffer;
  Activation activation = Activation::gelu;
  double scaling = 1.0;
  double dropout = 0.0;     ///< of the update, in training
  std::uint64_t index = 0;  ///< position in the model, part of the dropout seed

  /// The stream after the sublayer: x, h [N, C] -> [N, C].
  Tensor join(const Tensor& x, const Tensor& h, const ForwardContext& context) const;
};

}  // namespace finetune
