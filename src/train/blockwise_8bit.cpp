#include "train/blockwise_8bit.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>

#include <cmath>

namespace finetune {

namespace {

constexpr std::int64_t kExponents = 7;

/// Every exponent has twice the fractions of the one below: the more zeros lead, the fewer bits are
/// left. Computed in float32 in bitsandbytes' order, so that the values are its own bit for bit.
Tensor dynamic_map(bool is_signed) {
  std::vector<Tensor> parts = {at::tensor({0.0F, 1.0F})};
  for (std::int64_t i = 0; i < kExponents; ++i) {
    const std::int64_t fractions = std::int64_t{1} << (is_signed ? i : i + 1);
    const Tensor bounds = at::linspace(0.1, 1.0, fractions + 1, at::kFloat);
    const Tensor means =
        (bounds.narrow(0, 0, fractions) + bounds.narrow(0, 1, fractions)).div_(2.0);
    const double scale = std::pow(10.0, static_cast<double>(i - (kExponents - 1)));
    parts.push_back(means * scale);
    if (is_signed) parts.push_back(means * -scale);
  }
  return std::get<0>(at::cat(parts).sort());
}

constexpr std::int64_t kGrain = 1 << 14;  // elements below which a second thread does not pay

/// How many of the 255 bounds are below the number: eight halvings without a branch.
std::uint8_t code_of(float number, const float* bounds) {
  int code = 0;
  for (int half = 128; half > 0; half /= 2) code += bounds[code + half - 1] < number ? half : 0;
  return static_cast<std::uint8_t>(code);
}

/// bucketize, whose branches cost ten times as much on the CPU.
void find_codes(const Tensor& numbers, const Tensor& bounds, Tensor& codes) {
  if (!numbers.is_cpu()) {
    codes.copy_(at::bucketize(numbers, bounds, /*out_int32=*/true));
    return;
  }
  const float *in = numbers.const_data_ptr<float>(), *edges = bounds.const_data_ptr<float>();
  auto* out = codes.mutable_data_ptr<std::uint8_t>();
  at::parallel_for(0, numbers.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out[i] = code_of(in[i], edges);
  });
}

/// index_select, without an index of 4 bytes on the CPU.
Tensor look_up(const Tensor& map, const Tensor& codes) {
  if (!codes.is_cpu()) return map.index_select(0, codes.to(at::kInt));
  Tensor numbers = at::empty_like(codes, codes.options().dtype(at::kFloat));
  const float* values = map.const_data_ptr<float>();
  const auto* in = codes.const_data_ptr<std::uint8_t>();
  auto* out = numbers.mutable_data_ptr<float>();
  at::parallel_for(0, codes.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out[i] = values[in[i]];
  });
  return numbers;
}

}  // namespace

Blockwise8Bit::Blockwise8Bit(bool is_signed, at::Device device) {
  const Tensor map = dynamic_map(is_signed);
  map_ = map.to(device);
  bounds_ = (map.narrow(0, 0, 255) + map.narrow(0, 1, 255)).div_(2.0).to(device);
}

void Blockwise8Bit::encode(const Tensor& numbers, Tensor codes, Tensor absmax) const {
  const Tensor blocks = numbers.view({-1, kBlock});
  absmax.copy_(blocks.abs().amax(1));
  // A block of zeros has no scale; any will do.
  const Tensor inverse = absmax.clamp_min(1e-38).reciprocal_().unsqueeze_(1);
  find_codes((blocks * inverse).view({-1}), bounds_, codes);
}

Tensor Blockwise8Bit::decode(const Tensor& codes, const Tensor& absmax) const {
  Tensor numbers = look_up(map_, codes);
  numbers.view({-1, kBlock}).mul_(absmax.unsqueeze(1));
  return numbers;
}

}  // namespace finetune
