#pragma once

#include "finetune/base/tensor.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>
#include <vector>

/// Compiles a function once for each generation of x86-64 processors; the loader picks the fastest
/// that runs here. Its loops are written so that the compiler vectorizes them: no branches, sums in
/// several lanes. (Sanitizers are not there yet when the loader picks.)
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FT_EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FT_EVERY_CPU
#endif

namespace finetune {

/// The lanes of a sum: independent chains for the widest vectors, added in one order always.
constexpr std::int64_t kLanes = 32;

/// Elements that are worth another thread.
constexpr std::int64_t kRowGrain = 1 << 14;

/// Rounded to the nearest bfloat16, ties to even; NaN stays NaN.
inline float rounded_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t up = bits + 0x7fffU + ((bits >> 16) & 1U);
  return std::bit_cast<float>(value != value ? 0x7fc00000U : up & 0xffff0000U);
}

void widen(const at::BFloat16* from, std::int64_t count, float* to);
void narrow(const float* from, std::int64_t count, at::BFloat16* to);
template <typename T>
void narrow(const float* from, std::int64_t count, T* to) {
  std::copy(from, from + count, to);  // float32, float16
}

/// sum(x y)
float sum_of_products(const float* x, const float* y, std::int64_t count);

/// True for what the kernels of this folder work on: float32 or bfloat16 on the CPU, rows whose
/// elements lie side by side. Everything else goes through LibTorch's own operations.
inline bool has_rows(const Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
         x.dim() > 0 && x.stride(-1) == 1;
}

/// Calls `f(T())` with the C++ type of a tensor for which has_rows is true.
template <typename F>
void with_row_type(const Tensor& x, F&& f) {
  if (x.scalar_type() == at::kFloat) return f(float());
  f(at::BFloat16());
}

/// Calls f(begin, end) on stretches of rows of `width` elements, on all threads.
template <typename F>
void for_rows(std::int64_t rows, std::int64_t width, const F& f) {
  at::parallel_for(0, rows, std::max<std::int64_t>(1, kRowGrain / std::max<std::int64_t>(width, 1)),
                   f);
}

/// Rows as float32, whatever they are stored in: float32 in place, bfloat16 through a buffer.
template <typename T>
class WideRow {
 public:
  explicit WideRow(std::int64_t width) : width_(width) {
    if constexpr (!std::is_same_v<T, float>) buffer_.resize(static_cast<std::size_t>(width));
  }
  const float* read(const T* row) {
    if constexpr (std::is_same_v<T, float>)
      return row;
    else {
      widen(row, width_, buffer_.data());
      return buffer_.data();
    }
  }
  /// Where to write a row before store().
  float* room(T* row) {
    if constexpr (std::is_same_v<T, float>)
      return row;
    else
      return buffer_.data();
  }
  void store(T* row) {
    if constexpr (!std::is_same_v<T, float>) narrow(buffer_.data(), width_, row);
  }

 private:
  std::int64_t width_;
  std::vector<float> buffer_;
};

}  // namespace finetune
