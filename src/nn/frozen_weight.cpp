#include "finetune/nn/frozen_weight.h"

#include "nn/product.h"
#include "nn/workspace.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

namespace finetune {

Tensor FrozenWeight::multiply(const Tensor& x, const Tensor& bias) const {
  return linear_product(x, matrix(x.scalar_type()), bias);
}

Tensor FrozenWeight::multiply_backward(const Tensor& dy) const {
  return linear_product_backward(dy, matrix(dy.scalar_type()));
}

std::int64_t FrozenWeight::out_features() const {
  if (const auto* weight = std::get_if<Nf4Tensor>(&storage_)) return weight->out;
  if (const auto* weight = std::get_if<Int8Tensor>(&storage_)) return weight->values.size(0);
  return std::get<Tensor>(storage_).size(0);
}

std::int64_t FrozenWeight::in_features() const {
  if (const auto* weight = std::get_if<Nf4Tensor>(&storage_)) return weight->in;
  if (const auto* weight = std::get_if<Int8Tensor>(&storage_)) return weight->values.size(1);
  return std::get<Tensor>(storage_).size(1);
}

Tensor FrozenWeight::dense() const {
  if (const auto* weight = std::get_if<Tensor>(&storage_)) return *weight;
  Tensor out = at::empty({out_features(), in_features()}, at::kFloat);
  dequantize_into(out);
  return out;
}

bool FrozenWeight::defined() const {
  const auto* weight = std::get_if<Tensor>(&storage_);
  return weight == nullptr || weight->defined();
}

std::uint64_t FrozenWeight::bytes() const {
  if (const auto* weight = std::get_if<Nf4Tensor>(&storage_)) return weight->bytes();
  if (const auto* weight = std::get_if<Int8Tensor>(&storage_)) return weight->bytes();
  return std::get<Tensor>(storage_).nbytes();
}

Tensor FrozenWeight::matrix(at::ScalarType dtype) const {
  if (const auto* weight = std::get_if<Tensor>(&storage_)) return *weight;
  // Products of frozen weights are made where autograd records nothing, so nothing keeps it.
  Tensor out = workspace(Workspace::weight, out_features(), in_features(), dtype);
  dequantize_into(out);
  return out;
}

void FrozenWeight::dequantize_into(const Tensor& out) const {
  if (const auto* weight = std::get_if<Nf4Tensor>(&storage_)) nf4_dequantize_into(*weight, out);
  if (const auto* weight = std::get_if<Int8Tensor>(&storage_)) int8_dequantize_into(*weight, out);
}

}  // namespace finetune
