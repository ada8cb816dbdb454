#include "train/blockwise_8bit.h"

#include "finetune/nn/nf4.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/empty_like.h>

namespace finetune {

namespace {

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
  const Tensor map = dynamic_quant_map(is_signed);
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
