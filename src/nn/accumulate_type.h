#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// The type that sums over x are made in: float32 for the half types and for itself; double stays
/// double, for the reference tests.
inline at::ScalarType accumulate_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace finetune
