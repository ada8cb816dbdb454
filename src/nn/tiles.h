#pragma once

#include "finetune/base/tensor.h"

#include <c10/util/BFloat16.h>

#include <cstdint>
#include <vector>

/// Tiles of attention: copies of rows in the layouts that brgemm reads, and its products.
namespace finetune {

constexpr std::int64_t kTileQueries = 32, kTileKeys = 64;
constexpr std::int64_t kTile = kTileQueries * kTileKeys;

/// A matrix of which rows lie `stride` elements apart.
template <typename T>
struct RowView {
  const T* first;
  std::int64_t stride;
  const T* row(std::int64_t i) const { return first + i * stride; }
};

/// Elements of T side by side for each row of a product's second factor: bfloat16 is multiplied in
/// pairs of rows.
template <typename T>
constexpr std::int64_t kPair = sizeof(T) == 4 ? 1 : 2;

/// `count` rows of `dim` elements, then zeros up to `padded` rows, as [padded, dim]: a first
/// factor.
template <typename T>
void copy_rows(RowView<T> from, std::int64_t count, std::int64_t padded, std::int64_t dim, T* to);

/// The same as [dim, padded]: a first factor.
template <typename T>
void transpose_rows(RowView<T> from, std::int64_t count, std::int64_t padded, std::int64_t dim,
                    T* to);

/// The same as a second factor [padded, dim] with its rows in pairs.
template <typename T>
void pair_rows(RowView<T> from, std::int64_t count, std::int64_t padded, std::int64_t dim, T* to);

/// The same as a second factor [dim, padded] with its rows in pairs; `dim` must be even for
/// bfloat16.
template <typename T>
void pair_columns(RowView<T> from, std::int64_t count, std::int64_t padded, std::int64_t dim,
                  T* to);

/// c [m, n] = a [m, k] b [k, n], or added to it. `a` has rows `stride` apart, `b` its rows in
/// pairs.
template <typename T>
void tile_product(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t stride,
                  const T* b, bool add, float* c, std::int64_t c_stride);

/// To be called by a thread after its last product.
template <typename T>
void end_tile_products();

/// True when products of T run on this processor.
template <typename T>
bool has_tile_products();

}  // namespace finetune
