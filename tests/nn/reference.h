#pragma once

#include "finetune/base/tensor.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace finetune::reference {

/// Products and sums of a few hundred float64 terms of size one, in any order.
constexpr double kDoubleTolerance = 1e-11;
/// The same in float32.
constexpr double kFloatTolerance = 2e-5;
/// The same with inputs and results rounded to bfloat16 (8 bits), relative to the largest value.
constexpr double kBfloat16Tolerance = 2e-2;

/// Normal numbers, fixed by the seed.
inline Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed,
                     at::ScalarType dtype = at::kDouble) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed),
                   at::TensorOptions(at::kDouble))
      .to(dtype);
}

/// A copy that autograd looks at.
inline Tensor leaf(const Tensor& value) { return value.detach().clone().requires_grad_(); }

/// d sum(y * dy) / d inputs.
inline std::vector<Tensor> gradients(const Tensor& y, const Tensor& dy,
                                     const std::vector<Tensor>& inputs) {
  return torch::autograd::grad({y}, inputs, {dy});
}

/// Largest difference, relative to the largest expected value (or 1), is below `tolerance`.
inline void expect_close(const Tensor& actual, const Tensor& expected, double tolerance,
                         const std::string& what) {
  ASSERT_TRUE(actual.defined()) << what;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  if (expected.numel() == 0) return;
  const Tensor a = actual.detach().to(at::kDouble), e = expected.detach().to(at::kDouble);
  const double size = std::max(1.0, e.abs().max().item<double>());
  const double difference = (a - e).abs().max().item<double>() / size;
  EXPECT_LE(difference, tolerance) << what;
  EXPECT_TRUE(a.isfinite().all().item<bool>()) << what;
}

}  // namespace finetune::reference
