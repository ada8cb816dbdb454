#include "nn/tile_rows.h"

#include "nn/fast_exp.h"
#include "nn/rows.h"
#include "nn/tiles.h"

#include <array>

namespace finetune {

FT_EVERY_CPU void multiply_tile(float* x, float factor, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) x[i] *= factor;
}

FT_EVERY_CPU void tile_gradients(float* p, float* ds, const float* lse, const float* delta,
                                 float scale) {
  for (std::int64_t key = 0; key < kTileKeys; ++key) {
    float *p_row = p + key * kTileQueries, *ds_row = ds + key * kTileQueries;
    for (std::int64_t c = 0; c < kTileQueries; ++c) {
      p_row[c] = fast_exp(p_row[c] * scale - lse[c]);
      ds_row[c] = p_row[c] * (ds_row[c] - delta[c]) * scale;
    }
  }
}

FT_EVERY_CPU float tile_dot(const float* a, const float* b, std::int64_t count) {
  std::array<float, kLanes> lanes{};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      lanes[static_cast<std::size_t>(lane)] += a[i + lane] * b[i + lane];
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace finetune
