#pragma once

#include <cstdint>

namespace finetune {

/// x *= factor
void multiply_tile(float* x, float factor, std::int64_t count);

/// p^T and ds^T of a tile [kTileKeys, kTileQueries] from k q^T and v do^T, in place; `lse` and
/// `delta` = sum(do o) of its queries.
void tile_gradients(float* p, float* ds, const float* lse, const float* delta, float scale);

}  // namespace finetune
