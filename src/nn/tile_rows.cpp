#include "nn/tile_rows.h"

#include "nn/fast_exp.h"
#include "nn/rows.h"
#include "nn/tiles.h"

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

}  // namespace finetune
