#pragma once

#include <bit>
#include <cstdint>

namespace finetune {

/// exp(x) in float32 within 2 units in the last place, written without branches so that loops over
/// it vectorize. Below -87.3 it is the smallest normal number or so, above 88.7 infinity; NaN stays
/// NaN. x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by its Taylor polynomial of degree 7.
inline float fast_exp(float x) {
  constexpr float kLog2E = 1.44269504F, kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x < -87.3F ? -87.3F : x;
  const float limited = clamped > 88.8F ? 88.8F : clamped;
  const float n = (limited * kLog2E + kMagic) - kMagic;
  const float r = (limited - n * kLn2High) - n * kLn2Low;
  float p = 1.0F / 5040;
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  // In two halves: 2^128 is not a float32, but exp of 88.7 is.
  const auto whole = static_cast<std::int32_t>(n), half = whole >> 1;
  const auto power = [](std::int32_t e) { return std::bit_cast<float>((e + 127) << 23); };
  return p * power(half) * power(whole - half);
}

/// 1 / (1 + exp(-x))
inline float fast_sigmoid(float x) { return 1.0F / (1.0F + fast_exp(-x)); }

}  // namespace finetune
