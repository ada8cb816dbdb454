#include "nn/softmax_rows.h"

#include "nn/fast_exp.h"
#include "nn/rows.h"

#include <ATen/ops/empty.h>

#include <array>
#include <cmath>
#include <limits>

namespace finetune {

namespace {

FT_EVERY_CPU float largest(const float* x, std::int64_t count) {
  std::array<float, kLanes> lanes;
  lanes.fill(-std::numeric_limits<float>::infinity());
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const auto l = static_cast<std::size_t>(lane);
      lanes[l] = x[i + lane] > lanes[l] ? x[i + lane] : lanes[l];
    }
  }
  float best = lanes[0];
  for (const float lane : lanes) best = lane > best ? lane : best;
  for (; i < count; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

FT_EVERY_CPU float sum_of(const float* x, std::int64_t count) {
  std::array<float, kLanes> lanes{};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      lanes[static_cast<std::size_t>(lane)] += x[i + lane];
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < count; ++i) sum += x[i];
  return sum;
}

FT_EVERY_CPU void exponentials(float* x, float shift, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) x[i] = fast_exp(x[i] - shift);
}

FT_EVERY_CPU void scale_and_shift(float* x, float factor, float shift, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) x[i] = x[i] * factor - shift;
}

}  // namespace

std::array<float, 2> exponentiate(float* row, std::int64_t width) {
  const float shift = largest(row, width);
  exponentials(row, shift, width);
  const float sum = sum_of(row, width);
  return {shift + std::log(sum), 1.0F / sum};
}

SoftmaxRows softmax_rows(const Tensor& logits, const Tensor& targets, double smoothing,
                         at::ScalarType dtype) {
  const std::int64_t rows = logits.size(0), width = logits.size(1);
  SoftmaxRows result;
  result.nll = at::empty({rows}, at::kFloat);
  if (smoothing > 0) result.uniform_nll = at::empty({rows}, at::kFloat);
  result.gradient =
      dtype == at::kFloat ? logits : at::empty({rows, width}, logits.options().dtype(dtype));
  auto *values = logits.mutable_data_ptr<float>(), *nll = result.nll.mutable_data_ptr<float>();
  auto* uniform = smoothing > 0 ? result.uniform_nll.mutable_data_ptr<float>() : nullptr;
  const auto* target = targets.const_data_ptr<std::int64_t>();
  const auto share = static_cast<float>(smoothing / static_cast<double>(width));
  const auto weight = static_cast<float>(1.0 - smoothing);
  with_row_type(result.gradient, [&]<typename T>(T) {
    [[maybe_unused]] T* to = result.gradient.mutable_data_ptr<T>();
    for_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        float* x = values + row * width;
        const float logit = x[target[row]];
        const float mean = uniform == nullptr ? 0 : sum_of(x, width) / static_cast<float>(width);
        const auto [lse, inverse] = exponentiate(x, width);
        nll[row] = lse - logit;
        if (uniform != nullptr) uniform[row] = lse - mean;
        scale_and_shift(x, inverse, share, width);
        x[target[row]] -= weight;
        if constexpr (!std::is_same_v<T, float>) narrow(x, width, to + row * width);
      }
    });
  });
  return result;
}

}  // namespace finetune
