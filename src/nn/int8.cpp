#include "finetune/nn/int8.h"

#include "finetune/base/error.h"
#include "nn/float_type.h"
#include "nn/rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace finetune {

namespace {

constexpr float kLargest = 127.0F;
constexpr std::int64_t kGrain = 32768;  // weights that are worth a thread

std::int64_t rows_a_thread(std::int64_t in) {
  return std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, in));
}

FT_EVERY_CPU void scale_row(const std::int8_t* values, std::int64_t count, float scale, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(values[i]) * scale;
}

}  // namespace

Int8Tensor int8_quantize(const Tensor& weight) {
  FT_CHECK(weight.dim() == 2 && weight.is_cpu(), "{} dimensions", weight.dim());
  const Tensor source = float_typed(weight).contiguous();
  const std::int64_t rows = source.size(0), in = source.size(1);
  Int8Tensor result{at::empty({rows, in}, at::kChar), at::empty({rows}, at::kFloat)};
  auto* values = result.values.mutable_data_ptr<std::int8_t>();
  auto* scales = result.scale.mutable_data_ptr<float>();
  with_float_type(source.scalar_type(), [&]<typename T>(T) {
    const T* x = source.const_data_ptr<T>();
    at::parallel_for(0, rows, rows_a_thread(in), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        const T* from = x + row * in;
        float absmax = 0.0F;
        for (std::int64_t i = 0; i < in; ++i)
          absmax = std::max(absmax, std::fabs(static_cast<float>(from[i])));
        scales[row] = absmax / kLargest;
        const float factor = absmax == 0.0F ? 0.0F : kLargest / absmax;
        for (std::int64_t i = 0; i < in; ++i) {
          values[row * in + i] =
              static_cast<std::int8_t>(std::nearbyint(static_cast<float>(from[i]) * factor));
        }
      }
    });
  });
  return result;
}

void int8_dequantize_into(const Int8Tensor& weight, const Tensor& out) {
  FT_CHECK(out.is_contiguous() && out.numel() == weight.values.numel(), "{} elements", out.numel());
  const std::int64_t rows = weight.values.size(0), in = weight.values.size(1);
  const auto* values = weight.values.const_data_ptr<std::int8_t>();
  const auto* scales = weight.scale.const_data_ptr<float>();
  with_float_type(out.scalar_type(), [&]<typename T>(T) {
    T* to = out.mutable_data_ptr<T>();
    at::parallel_for(0, rows, rows_a_thread(in), [&](std::int64_t first, std::int64_t last) {
      std::vector<float> wide(static_cast<std::size_t>(in));
      for (std::int64_t row = first; row < last; ++row) {
        scale_row(values + row * in, in, scales[row], wide.data());
        narrow(wide.data(), in, to + row * in);
      }
    });
  });
}

}  // namespace finetune
