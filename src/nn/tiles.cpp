#include "nn/tiles.h"

#include "nn/rows.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cstring>
#include <exception>

namespace finetune {

namespace {

using Word = std::uint32_t;

/// [rows, words] -> [words, padded]; `stride` and `words` in words of four bytes.
FT_EVERY_CPU void transpose_words(const Word* from, std::int64_t stride, std::int64_t rows,
                                  std::int64_t words, std::int64_t padded, Word* to) {
  constexpr std::int64_t kSide = 16;
  std::int64_t w = 0;
  for (; w + kSide <= words; w += kSide) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < kSide; ++i) to[(w + i) * padded + r] = from[r * stride + w + i];
    }
  }
  for (; w < words; ++w) {
    for (std::int64_t r = 0; r < rows; ++r) to[w * padded + r] = from[r * stride + w];
  }
}

FT_EVERY_CPU void interleave(const std::uint16_t* even, const std::uint16_t* odd,
                             std::int64_t count, Word* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = even[i] | static_cast<Word>(odd[i]) << 16;
}

const std::uint16_t* bits(const at::BFloat16* x) {
  return reinterpret_cast<const std::uint16_t*>(x);
}

}  // namespace

template <typename T>
void copy_rows(RowView<T> from, std::int64_t count, std::int64_t padded, std::int64_t dim, T* to) {
  for (std::int64_t r = 0; r < count; ++r)
    std::memcpy(to + r * dim, from.row(r), static_cast<std::size_t>(dim) * sizeof(T));
  std::fill(to + count * dim, to + padded * dim, T(0));
}

template <typename T>
void transpose_rows(RowView<T> from, std::int64_t count, std::int64_t padded, std::int64_t dim,
                    T* to) {
  for (std::int64_t d = 0; d < dim; ++d) {
    for (std::int64_t r = 0; r < count; ++r) to[d * padded + r] = from.first[r * from.stride + d];
    std::fill(to + d * padded + count, to + (d + 1) * padded, T(0));
  }
}

template <typename T>
void pair_rows(RowView<T> from, std::int64_t count, std::int64_t padded, std::int64_t dim, T* to) {
  if constexpr (kPair<T> == 1) {
    copy_rows(from, count, padded, dim, to);
  } else {
    auto* words = reinterpret_cast<Word*>(to);
    const std::vector<std::uint16_t> none(static_cast<std::size_t>(count % 2 == 0 ? 0 : dim));
    for (std::int64_t r = 0; r < count; r += 2) {
      interleave(bits(from.row(r)), r + 1 < count ? bits(from.row(r + 1)) : none.data(), dim,
                 words + r / 2 * dim);
    }
    std::fill(words + (count + 1) / 2 * dim, words + padded / 2 * dim, Word{0});
  }
}

template <typename T>
void pair_columns(RowView<T> from, std::int64_t count, std::int64_t padded, std::int64_t dim,
                  T* to) {
  auto* words = reinterpret_cast<Word*>(to);
  const std::int64_t height = dim / kPair<T>;
  transpose_words(reinterpret_cast<const Word*>(from.first), from.stride / kPair<T>, count, height,
                  padded, words);
  for (std::int64_t w = 0; w < height; ++w)
    std::fill(words + w * padded + count, words + (w + 1) * padded, Word{0});
}

template <typename T>
void tile_product(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t stride,
                  const T* b, bool add, float* c, std::int64_t c_stride) {
  at::native::cpublas::brgemm(m, n, k, stride, n, c_stride, add, a, b, c, kPair<T> == 2);
}

template <typename T>
void end_tile_products() {
  at::native::cpublas::brgemm_release(kPair<T> == 2);
}

template <typename T>
bool has_tile_products() {
#if defined(__x86_64__)
  static const bool works = [] {
    if (!__builtin_cpu_supports(kPair<T> == 1 ? "avx512f" : "avx512bf16")) return false;
    try {  // LibTorch may have been built without them, or its environment forbids them
      const std::vector<T> a(kTileQueries * kTileQueries), b(kTileQueries * kTileQueries);
      std::vector<float> c(kTileQueries * kTileQueries);
      tile_product(kTileQueries, kTileQueries, kTileQueries, a.data(), kTileQueries, b.data(),
                   false, c.data(), kTileQueries);
      end_tile_products<T>();
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }();
  return works;
#else
  return false;
#endif
}

#define FT_TILES_OF(T)                                                                            \
  template void copy_rows<T>(RowView<T>, std::int64_t, std::int64_t, std::int64_t, T*);           \
  template void transpose_rows<T>(RowView<T>, std::int64_t, std::int64_t, std::int64_t, T*);      \
  template void pair_rows<T>(RowView<T>, std::int64_t, std::int64_t, std::int64_t, T*);           \
  template void pair_columns<T>(RowView<T>, std::int64_t, std::int64_t, std::int64_t, T*);        \
  template void tile_product<T>(std::int64_t, std::int64_t, std::int64_t, const T*, std::int64_t, \
                                const T*, bool, float*, std::int64_t);                            \
  template void end_tile_products<T>();                                                           \
  template bool has_tile_products<T>();
FT_TILES_OF(float)
FT_TILES_OF(at::BFloat16)
#undef FT_TILES_OF

}  // namespace finetune
