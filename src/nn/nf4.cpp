#include "finetune/nn/nf4.h"

#include "finetune/base/error.h"
#include "nn/float_type.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#if defined(__x86_64__)
#include <tmmintrin.h>
#endif

namespace finetune {

namespace {

constexpr std::int64_t kGrain = 512;  // blocks that are worth a thread
constexpr float kSmallest = 1e-38F;   // bitsandbytes divides by no smaller absmax

/// Quantiles of the normal distribution, as bitsandbytes rounds them (get_4bit_type).
constexpr std::array<float, 16> kCode = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

/// Codes of the `count` numbers in `x`, which become their fractions of the absmax that is
/// returned. Only the last block may be short; bitsandbytes divides there, and elsewhere multiplies
/// by the reciprocal.
float quantize_block(float* x, std::int64_t count, std::int32_t* codes) {
  float absmax = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) absmax = std::max(absmax, std::fabs(x[i]));
  if (count == kNf4Block) {
    const float reciprocal = 1.0F / std::max(absmax, kSmallest);
    for (std::int64_t i = 0; i < count; ++i) x[i] *= reciprocal;
  } else {
    absmax = std::max(absmax, kSmallest);
    for (std::int64_t i = 0; i < count; ++i) x[i] /= absmax;
  }
  for (std::int64_t i = 0; i < kNf4Block; ++i) {
    std::int32_t code = 0;
#pragma GCC unroll 15
    for (std::size_t k = 0; k + 1 < kCode.size(); ++k) {
      code += x[i] > (kCode[k] + kCode[k + 1]) / 2.0F ? 1 : 0;
    }
    codes[i] = code;
  }
  return absmax;
}

template <typename T>
void quantize_blocks(const T* weight, std::int64_t count, std::uint8_t* packed, float* absmax) {
  const std::int64_t blocks = (count + kNf4Block - 1) / kNf4Block;
  at::parallel_for(0, blocks, kGrain, [&](std::int64_t first, std::int64_t last) {
    std::array<float, kNf4Block> x{};
    std::array<std::int32_t, kNf4Block> codes{};
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = block * kNf4Block, size = std::min(count - begin, kNf4Block);
      x.fill(0.0F);  // an odd count is padded with the code of zero
      for (std::int64_t i = 0; i < size; ++i) {
        x[static_cast<std::size_t>(i)] = static_cast<float>(weight[begin + i]);
      }
      absmax[block] = quantize_block(x.data(), size, codes.data());
      for (std::int64_t i = 0; i < size; i += 2) {
        const auto at = static_cast<std::size_t>(i);
        packed[(begin + i) / 2] = static_cast<std::uint8_t>(codes[at] << 4 | codes[at + 1]);
      }
    }
  });
}

constexpr std::int32_t kSteps = 65535;

/// For each of 65,536 evenly spaced numbers in [-1, 1] the code nearest to it. bitsandbytes looks
/// codes up here, so near the many small codes it misses the nearest; its bits are what we want.
std::vector<std::uint8_t> make_dynamic_table() {
  const Tensor map = dynamic_quant_map();
  const float* code = map.const_data_ptr<float>();
  std::vector<std::uint8_t> table(kSteps + 1);
  int nearest = 0;
  for (std::int32_t i = 0; i <= kSteps; ++i) {
    const float value = 2.0F * static_cast<float>(i) / static_cast<float>(kSteps) - 1.0F;
    while (nearest < 255 && value > (code[nearest] + code[nearest + 1]) * 0.5F) ++nearest;
    table[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(nearest);
  }
  return table;
}

/// absmax - offset as 8-bit codes (quantize_blockwise of bitsandbytes' CPU library).
void quantize_absmax(Nf4Tensor& weight) {
  static const std::vector<std::uint8_t> table = make_dynamic_table();
  weight.offset = weight.absmax.mean().item<float>();
  const Tensor centered = weight.absmax - weight.offset;
  const std::int64_t count = weight.blocks();
  const std::int64_t nested = (count + kNf4NestedBlock - 1) / kNf4NestedBlock;
  weight.absmax = at::empty({count}, at::kByte);
  weight.nested_absmax = at::empty({nested}, at::kFloat);
  weight.nested_quant_map = dynamic_quant_map();
  const float* x = centered.const_data_ptr<float>();
  auto* codes = weight.absmax.mutable_data_ptr<std::uint8_t>();
  auto* nested_absmax = weight.nested_absmax.mutable_data_ptr<float>();
  for (std::int64_t block = 0; block < nested; ++block) {
    const std::int64_t begin = block * kNf4NestedBlock,
                       end = std::min(count, begin + kNf4NestedBlock);
    float absmax = 0.0F;
    for (std::int64_t i = begin; i < end; ++i) absmax = std::max(absmax, std::fabs(x[i]));
    nested_absmax[block] = absmax;
    const float reciprocal = absmax == 0.0F ? 0.0F : 1.0F / absmax;
    for (std::int64_t i = begin; i < end; ++i) {
      const float unit = (std::clamp(x[i] * reciprocal, -1.0F, 1.0F) + 1.0F) * 0.5F;
      // Rounded once, as the fused instruction that its compiler chose.
      const auto step = static_cast<std::size_t>(std::fma(unit, static_cast<float>(kSteps), 0.5F));
      codes[i] = absmax == 0.0F ? 0 : table[step];
    }
  }
}

/// absmax of one block as float32.
class AbsmaxReader {
 public:
  explicit AbsmaxReader(const Nf4Tensor& weight) : offset_(weight.offset) {
    if (!weight.double_quant()) {
      absmax_ = weight.absmax.const_data_ptr<float>();
      return;
    }
    codes_ = weight.absmax.const_data_ptr<std::uint8_t>();
    absmax_ = weight.nested_absmax.const_data_ptr<float>();
    map_ = weight.nested_quant_map.const_data_ptr<float>();
  }

  float operator[](std::int64_t block) const {
    if (codes_ == nullptr) return absmax_[block];
    return map_[codes_[block]] * absmax_[block / kNf4NestedBlock] + offset_;
  }

 private:
  const float* absmax_ = nullptr;
  const std::uint8_t* codes_ = nullptr;
  const float* map_ = nullptr;
  float offset_;
};

template <typename T>
void expand(const std::uint8_t* packed, const T* values, T* out, std::int64_t count) {
  for (std::int64_t i = 0; i + 1 < count; i += 2) {
    const std::uint8_t byte = packed[i / 2];
    out[i] = values[byte >> 4];
    out[i + 1] = values[byte & 15];
  }
  if (count % 2 != 0) out[count - 1] = values[packed[count / 2] >> 4];
}

#if defined(__x86_64__)
/// The same for a whole block of 16-bit numbers, of which the values' low and high bytes are two
/// 16-byte tables: an instruction looks 16 codes up.
__attribute__((target("ssse3"))) void expand_block16(const std::uint8_t* packed,
                                                     const std::uint16_t* values,
                                                     std::uint16_t* out) {
  const __m128i byte = _mm_set1_epi16(0xff), nibble = _mm_set1_epi8(15);
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values)),
                last = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + 8));
  const __m128i low = _mm_packus_epi16(_mm_and_si128(first, byte), _mm_and_si128(last, byte)),
                high = _mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(last, 8));
  for (int i = 0; i < 2; ++i) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + 16 * i)),
                  even = _mm_and_si128(_mm_srli_epi16(codes, 4), nibble),
                  odd = _mm_and_si128(codes, nibble);
    for (const __m128i indices : {_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)}) {
      const __m128i l = _mm_shuffle_epi8(low, indices), h = _mm_shuffle_epi8(high, indices);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi8(l, h));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 8), _mm_unpackhi_epi8(l, h));
      out += 16;
    }
  }
}
#endif

bool has_byte_lookup() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("ssse3");
  return has;
#else
  return false;
#endif
}

template <typename T>
void values_of_block(float scale, T* values) {
  for (std::size_t k = 0; k < kCode.size(); ++k) values[k] = static_cast<T>(kCode[k] * scale);
}

/// To the nearest, ties to even, without a branch for NaN: the compiler takes several at once.
void values_of_block(float scale, at::BFloat16* values) {
  for (std::size_t k = 0; k < kCode.size(); ++k) {
    const auto bits = std::bit_cast<std::uint32_t>(kCode[k] * scale);
    values[k].x = static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}

/// A block has only 16 different values: they are computed and rounded once, then looked up.
template <typename T>
void dequantize_blocks(const Nf4Tensor& weight, T* out) {
  const std::int64_t count = weight.out * weight.in;
  const auto* packed = weight.codes.const_data_ptr<std::uint8_t>();
  const AbsmaxReader absmax(weight);
  const bool fast = sizeof(T) == 2 && has_byte_lookup();
  at::parallel_for(0, weight.blocks(), kGrain, [&](std::int64_t first, std::int64_t last) {
    std::array<T, 16> values{};
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t begin = block * kNf4Block, size = std::min(count - begin, kNf4Block);
      values_of_block(absmax[block], values.data());
#if defined(__x86_64__)
      if (fast && size == kNf4Block) {
        expand_block16(packed + begin / 2, reinterpret_cast<const std::uint16_t*>(values.data()),
                       reinterpret_cast<std::uint16_t*>(out + begin));
        continue;
      }
#endif
      expand(packed + begin / 2, values.data(), out + begin, size);
    }
  });
}

}  // namespace

std::uint64_t Nf4Tensor::bytes() const {
  std::uint64_t total = codes.nbytes() + absmax.nbytes();
  if (double_quant()) total += nested_absmax.nbytes() + nested_quant_map.nbytes();
  return total;
}

Nf4Tensor nf4_quantize(const Tensor& weight, bool double_quant) {
  FT_CHECK(weight.dim() == 2 && weight.is_cpu(), "{} dimensions", weight.dim());
  const Tensor source = float_typed(weight).contiguous();
  Nf4Tensor result;
  result.out = weight.size(0);
  result.in = weight.size(1);
  result.dtype = source.scalar_type();
  result.codes = at::empty({(weight.numel() + 1) / 2}, at::kByte);
  result.absmax = at::empty({result.blocks()}, at::kFloat);
  with_float_type(result.dtype, [&]<typename T>(T) {
    quantize_blocks(source.const_data_ptr<T>(), source.numel(),
                    result.codes.mutable_data_ptr<std::uint8_t>(),
                    result.absmax.mutable_data_ptr<float>());
  });
  if (double_quant) quantize_absmax(result);
  return result;
}

void nf4_dequantize_into(const Nf4Tensor& weight, const Tensor& out) {
  FT_CHECK(out.is_contiguous() && out.numel() == weight.out * weight.in, "{} elements",
           out.numel());
  with_float_type(out.scalar_type(),
                  [&]<typename T>(T) { dequantize_blocks(weight, out.mutable_data_ptr<T>()); });
}

Tensor nf4_dequantize(const Nf4Tensor& weight, at::ScalarType dtype) {
  Tensor out = at::empty({weight.out, weight.in}, dtype);
  nf4_dequantize_into(weight, out);
  return out;
}

Tensor nf4_quant_map() { return at::tensor(at::ArrayRef<float>(kCode.data(), kCode.size())); }

Tensor dynamic_quant_map(bool is_signed) {
  constexpr int kExponents = 7;
  std::vector<float> values = {0.0F, 1.0F};
  for (int i = 0; i < kExponents; ++i) {
    const int fractions = 1 << (is_signed ? i : i + 1);
    const Tensor bounds = at::linspace(0.1, 1.0, fractions + 1, at::kFloat);
    const float* bound = bounds.const_data_ptr<float>();
    const auto power = static_cast<float>(std::pow(10.0, i - (kExponents - 1)));
    for (int k = 0; k < fractions; ++k) {
      const float value = power * ((bound[k] + bound[k + 1]) / 2.0F);
      values.push_back(value);
      if (is_signed) values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  return at::tensor(values);
}

}  // namespace finetune
