#include "nn/rows.h"

#include <array>
#include <bit>

namespace finetune {

namespace {

FT_EVERY_CPU void widen_bits(const std::uint16_t* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i)
    to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(from[i]) << 16);
}

FT_EVERY_CPU void narrow_bits(const float* from, std::int64_t count, std::uint16_t* to) {
  for (std::int64_t i = 0; i < count; ++i)
    to[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(rounded_to_bfloat16(from[i])) >>
                                       16);
}

}  // namespace

// at::BFloat16 is one std::uint16_t.
void widen(const at::BFloat16* from, std::int64_t count, float* to) {
  widen_bits(reinterpret_cast<const std::uint16_t*>(from), count, to);
}

void narrow(const float* from, std::int64_t count, at::BFloat16* to) {
  narrow_bits(from, count, reinterpret_cast<std::uint16_t*>(to));
}

FT_EVERY_CPU float sum_of_products(const float* x, const float* y, std::int64_t count) {
  std::array<float, kLanes> lanes{};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      lanes[static_cast<std::size_t>(lane)] += x[i + lane] * y[i + lane];
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  for (; i < count; ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace finetune
