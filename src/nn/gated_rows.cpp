#include "nn/gated_rows.h"

#include "nn/fast_exp.h"
#include "nn/rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace finetune {

namespace {

constexpr float kSlope = 1.5957691F, kCube = 0.044715F;  // 2 sqrt(2 / pi)

FT_EVERY_CPU void silu_row(const float* gate, const float* up, std::int64_t count, float* y) {
  for (std::int64_t i = 0; i < count; ++i) y[i] = gate[i] * fast_sigmoid(gate[i]) * up[i];
}

FT_EVERY_CPU void gelu_row(const float* gate, const float* up, std::int64_t count, float* y) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gate[i], z = kSlope * (g + kCube * g * g * g);
    y[i] = g * fast_sigmoid(z) * up[i];
  }
}

FT_EVERY_CPU void silu_row_backward(const float* dy, const float* gate, const float* up,
                                    std::int64_t count, float* dgate, float* dup) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float d = dy[i], g = gate[i], u = up[i], s = fast_sigmoid(g);
    dup[i] = d * g * s;
    dgate[i] = d * u * (s + g * s * (1.0F - s));
  }
}

FT_EVERY_CPU void gelu_row_backward(const float* dy, const float* gate, const float* up,
                                    std::int64_t count, float* dgate, float* dup) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float d = dy[i], g = gate[i], u = up[i];
    const float s = fast_sigmoid(kSlope * (g + kCube * g * g * g));
    const float slope = kSlope * (1.0F + 3.0F * kCube * g * g);
    dup[i] = d * g * s;
    dgate[i] = d * u * (s + g * s * (1.0F - s) * slope);
  }
}

}  // namespace

bool has_gated_rows(const Tensor& gate, const Tensor& up, Activation activation) {
  return (activation == Activation::silu || activation == Activation::gelu_tanh) &&
         gate.dim() == 2 && has_rows(gate) && has_rows(up) &&
         gate.scalar_type() == up.scalar_type();
}

Tensor gated_rows(const Tensor& gate, const Tensor& up, Activation activation) {
  const std::int64_t rows = gate.size(0), width = gate.size(1);
  Tensor y = at::empty({rows, width}, gate.options());
  const auto row_function = activation == Activation::silu ? silu_row : gelu_row;
  with_row_type(gate, [&]<typename T>(T) {
    const T *gates = gate.const_data_ptr<T>(), *ups = up.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    for_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
      WideRow<T> a(width), b(width), out(width);
      for (std::int64_t row = begin; row < end; ++row) {
        row_function(a.read(gates + row * gate.stride(0)), b.read(ups + row * up.stride(0)), width,
                     out.room(to + row * width));
        out.store(to + row * width);
      }
    });
  });
  return y;
}

std::pair<Tensor, Tensor> gated_rows_backward(const Tensor& dy, const Tensor& gate,
                                              const Tensor& up, Activation activation) {
  const std::int64_t rows = gate.size(0), width = gate.size(1);
  Tensor dgate = at::empty({rows, width}, gate.options()), dup = at::empty_like(dgate);
  const auto row_function = activation == Activation::silu ? silu_row_backward : gelu_row_backward;
  with_row_type(gate, [&]<typename T>(T) {
    const T *gates = gate.const_data_ptr<T>(), *ups = up.const_data_ptr<T>(),
            *gradients = dy.const_data_ptr<T>();
    T *to_gate = dgate.mutable_data_ptr<T>(), *to_up = dup.mutable_data_ptr<T>();
    for_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
      WideRow<T> a(width), b(width), d(width), out_a(width), out_b(width);
      for (std::int64_t row = begin; row < end; ++row) {
        row_function(d.read(gradients + row * width), a.read(gates + row * gate.stride(0)),
                     b.read(ups + row * up.stride(0)), width, out_a.room(to_gate + row * width),
                     out_b.room(to_up + row * width));
        out_a.store(to_gate + row * width);
        out_b.store(to_up + row * width);
      }
    });
  });
  return {dgate, dup};
}

}  // namespace finetune
