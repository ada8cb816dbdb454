#pragma once

#include "finetune/base/tensor.h"

#include <cstdint>

namespace finetune {

/// A frozen weight: not a parameter, never seen by autograd. It knows how to multiply forward and
/// backward to its input, whatever its storage.
class FrozenWeight {
 public:
  FrozenWeight() = default;
  /// weight [O, I], in the type that products are computed in; may be a read-only mapping of a
  /// file.
  explicit FrozenWeight(Tensor weight) : dense_(std::move(weight)) {}

  /// x [N, I] -> x W^T (+ bias [O]) [N, O]
  Tensor multiply(const Tensor& x, const Tensor& bias) const;
  /// dy [N, O] -> dy W [N, I]
  Tensor multiply_backward(const Tensor& dy) const;

  std::int64_t out_features() const { return dense_.size(0); }
  std::int64_t in_features() const { return dense_.size(1); }
  /// The weight as a matrix [O, I].
  Tensor dense() const { return dense_; }
  bool defined() const { return dense_.defined(); }

 private:
  Tensor dense_;
};

}  // namespace finetune
