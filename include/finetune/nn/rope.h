#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// cos and sin of every token's rotary angles, [N, D/2] float32, times the attention factor.
struct RopeAngles {
  Tensor cos;
  Tensor sin;
};

}  // namespace finetune
