#pragma once

#include "finetune/base/tensor.h"
#include "finetune/nn/int8.h"
#include "finetune/nn/nf4.h"

#include <cstdint>
#include <utility>
#include <variant>

namespace finetune {

/// A frozen weight: not a parameter, never seen by autograd. It knows how to multiply forward and
/// backward to its input, whatever its storage. A quantized one is dequantized for each product, in
/// the type of the product, into a buffer that all weights of a thread share.
class FrozenWeight {
 public:
  FrozenWeight() = default;
  /// weight [O, I], in the type that products are computed in; may be a read-only mapping of a
  /// file.
  explicit FrozenWeight(Tensor weight) : storage_(std::move(weight)) {}
  explicit FrozenWeight(Nf4Tensor weight) : storage_(std::move(weight)) {}
  explicit FrozenWeight(Int8Tensor weight) : storage_(std::move(weight)) {}

  /// x [N, I] -> x W^T (+ bias [O]) [N, O]
  Tensor multiply(const Tensor& x, const Tensor& bias) const;
  /// dy [N, O] -> dy W [N, I]
  Tensor multiply_backward(const Tensor& dy) const;

  std::int64_t out_features() const;
  std::int64_t in_features() const;
  /// The weight as a matrix [O, I]: the stored tensor, or a quantized one as new float32.
  Tensor dense() const;
  bool defined() const;
  bool quantized() const { return !std::holds_alternative<Tensor>(storage_); }
  /// The NF4 storage, or nullptr.
  const Nf4Tensor* nf4() const { return std::get_if<Nf4Tensor>(&storage_); }
  /// Bytes that the storage takes.
  std::uint64_t bytes() const;

 private:
  /// [O, I] in the type of a product; of a quantized weight it is valid until the thread's next
  /// one.
  Tensor matrix(at::ScalarType dtype) const;
  void dequantize_into(const Tensor& out) const;

  std::variant<Tensor, Nf4Tensor, Int8Tensor> storage_;
};

}  // namespace finetune
