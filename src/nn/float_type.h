#pragma once

#include "finetune/base/error.h"
#include "finetune/base/tensor.h"

namespace finetune {

/// Calls `f(T())` with the C++ type of float32, bfloat16 or float16.
template <typename F>
void with_float_type(at::ScalarType dtype, F&& f) {
  switch (dtype) {
    case at::kFloat:
      return f(float());
    case at::kBFloat16:
      return f(at::BFloat16());
    case at::kHalf:
      return f(at::Half());
    default:
      fail(ErrorKind::internal, "type {} is not float32, bfloat16 or float16",
           c10::toString(dtype));
  }
}

/// The tensor itself in one of those types, else in float32.
inline Tensor float_typed(const Tensor& x) {
  const at::ScalarType dtype = x.scalar_type();
  const bool has = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
  return has ? x : x.to(at::kFloat);
}

}  // namespace finetune
