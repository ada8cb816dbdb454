#include "nn/rope_rows.h"

#include "nn/rows.h"

#include <ATen/ops/empty_like.h>

namespace finetune {

namespace {

FT_EVERY_CPU void rotate_head(const float* x, const float* cos, const float* sin, std::int64_t half,
                              float* y) {
  for (std::int64_t i = 0; i < half; ++i) {
    y[i] = x[i] * cos[i] - x[half + i] * sin[i];
    y[half + i] = x[half + i] * cos[i] + x[i] * sin[i];
  }
}

}  // namespace

bool has_rope_rows(const Tensor& x) { return x.dim() == 3 && has_rows(x); }

Tensor rope_rows(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const std::int64_t heads = x.size(1), dim = x.size(2), half = cos.size(-1);
  Tensor y = at::empty_like(x, at::MemoryFormat::Contiguous);
  const Tensor c = cos.to(at::kFloat).contiguous(), s = sin.to(at::kFloat).contiguous();
  const float *cosines = c.const_data_ptr<float>(), *sines = s.const_data_ptr<float>();
  with_row_type(x, [&]<typename T>(T) {
    const T* from = x.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    for_rows(x.size(0), heads * dim, [&](std::int64_t begin, std::int64_t end) {
      WideRow<T> in(dim), out(dim);
      for (std::int64_t token = begin; token < end; ++token) {
        for (std::int64_t head = 0; head < heads; ++head) {
          const float* values = in.read(from + token * x.stride(0) + head * x.stride(1));
          T* place = to + (token * heads + head) * dim;
          float* result = out.room(place);
          rotate_head(values, cosines + token * half, sines + token * half, half, result);
          std::copy(values + 2 * half, values + dim, result + 2 * half);
          out.store(place);
        }
      }
    });
  });
  return y;
}

}  // namespace finetune
