#include "nn/norm_rows.h"

#include "nn/rows.h"

#include <cmath>
#include <vector>

namespace finetune {

namespace {

FT_EVERY_CPU void multiply(const float* x, const float* y, std::int64_t count, float* z) {
  for (std::int64_t i = 0; i < count; ++i) z[i] = x[i] * y[i];
}

FT_EVERY_CPU void scale(const float* x, float rstd, const float* weight, std::int64_t count,
                        float* y) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = x[i] * rstd * weight[i];
}

FT_EVERY_CPU void round_and_scale(const float* x, float rstd, const float* weight,
                                  std::int64_t count, float* y) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = rounded_to_bfloat16(x[i] * rstd) * weight[i];
}

/// dx = rstd (g - c x)
FT_EVERY_CPU void input_gradient(const float* g, const float* x, float rstd, float c,
                                 std::int64_t count, float* dx) {
  for (std::int64_t i = 0; i < count; ++i) dx[i] = (g[i] - c * x[i]) * rstd;
}

}  // namespace

void rms_rows(const Tensor& x, const Tensor& factors, double eps, bool rounds_first, Tensor& y,
              Tensor& rstd) {
  const std::int64_t width = x.size(-1), rows = x.numel() / width;
  const float* weight = factors.const_data_ptr<float>();
  auto* rstds = rstd.mutable_data_ptr<float>();
  with_row_type(x, [&]<typename T>(T) {
    const auto row_function = rounds_first && !std::is_same_v<T, float> ? round_and_scale : scale;
    const T* from = x.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    for_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
      WideRow<T> in(width), out(width);
      for (std::int64_t row = begin; row < end; ++row) {
        const float* values = in.read(from + row * width);
        const float mean = sum_of_products(values, values, width) / static_cast<float>(width);
        rstds[row] = 1.0F / std::sqrt(mean + static_cast<float>(eps));
        row_function(values, rstds[row], weight, width, out.room(to + row * width));
        out.store(to + row * width);
      }
    });
  });
}

void rms_rows_backward(const Tensor& dy, const Tensor& x, const Tensor& factors, const Tensor& rstd,
                       Tensor& dx) {
  const std::int64_t width = x.size(-1), rows = x.numel() / width;
  const float *weight = factors.const_data_ptr<float>(), *rstds = rstd.const_data_ptr<float>();
  with_row_type(x, [&]<typename T>(T) {
    const T *gradients = dy.const_data_ptr<T>(), *inputs = x.const_data_ptr<T>();
    T* to = dx.mutable_data_ptr<T>();
    for_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
      WideRow<T> gradient(width), input(width), out(width);
      std::vector<float> g(static_cast<std::size_t>(width));
      for (std::int64_t row = begin; row < end; ++row) {
        const float* values = input.read(inputs + row * width);
        multiply(gradient.read(gradients + row * width), weight, width, g.data());
        const float c = sum_of_products(g.data(), values, width) / static_cast<float>(width) *
                        rstds[row] * rstds[row];
        input_gradient(g.data(), values, rstds[row], c, width, out.room(to + row * width));
        out.store(to + row * width);
      }
    });
  });
}

}  // namespace finetune
