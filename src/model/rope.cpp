#include "model/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace finetune {

namespace {

/// base^(2i/D) in float32, as transformers computes it.
Tensor position_frequencies(double base, std::int64_t dim) {
  const Tensor exponents = at::arange(0, dim, 2, at::kLong).to(at::kFloat).div(dim);
  return at::pow(at::Scalar(base), exponents);
}

/// Llama 3.1: long waves are divided by the factor, short ones kept, those between blended.
Tensor llama3_frequencies(const RopeScaling& scaling, const Tensor& inv_freq) {
  const double original = static_cast<double>(scaling.original_max_position_embeddings);
  const double low_wave = original / scaling.low_freq_factor;
  const double high_wave = original / scaling.high_freq_factor;
  const Tensor wave = inv_freq.reciprocal().mul(2.0 * std::numbers::pi);
  const Tensor scaled = at::where(wave.gt(low_wave), inv_freq.div(scaling.factor), inv_freq);
  const Tensor smooth = wave.reciprocal()
                            .mul(original)
                            .sub(scaling.low_freq_factor)
                            .div(scaling.high_freq_factor - scaling.low_freq_factor);
  const Tensor blended = (1.0 - smooth) * scaled / scaling.factor + smooth * scaled;
  const Tensor medium = wave.ge(high_wave).logical_and(wave.le(low_wave));
  return at::where(medium, blended, scaled);
}

/// YaRN (arXiv 2309.00071): blends interpolated and original frequencies by how often a dimension
/// turns.
Tensor yarn_frequencies(const RopeConfig& rope) {
  const RopeScaling& scaling = rope.scaling;
  const double dim = static_cast<double>(rope.rotary_dim);
  const auto correction = [&](double rotations) {
    return dim *
           std::log(static_cast<double>(scaling.original_max_position_embeddings) /
                    (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = correction(scaling.beta_fast), high = correction(scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;  // the ramp must not divide by zero
  const Tensor ramp =
      at::arange(rope.rotary_dim / 2, at::kFloat).sub(low).div(high - low).clamp(0, 1);
  const Tensor frequencies = position_frequencies(rope.theta, rope.rotary_dim);
  const Tensor keep = 1.0 - ramp;
  return frequencies.mul(scaling.factor).reciprocal() * (1.0 - keep) +
         frequencies.reciprocal() * keep;
}

/// LongRoPE (arXiv 2402.13753): each frequency has a factor of its own, one set for rows of the
/// original length.
Tensor longrope_frequencies(const RopeConfig& rope, std::int64_t length) {
  const RopeScaling& scaling = rope.scaling;
  const bool is_long = length > scaling.original_max_position_embeddings;
  const Tensor factors =
      at::tensor(is_long ? scaling.long_factor : scaling.short_factor, at::kFloat);
  return (factors * position_frequencies(rope.theta, rope.rotary_dim)).reciprocal();
}

double attention_factor(const RopeScaling& scaling) {
  const bool yarn = scaling.type == RopeScaling::Type::yarn;
  if (!yarn && scaling.type != RopeScaling::Type::longrope) return 1.0;
  if (scaling.attention_factor) return *scaling.attention_factor;
  if (!yarn) {
    const double original = static_cast<double>(scaling.original_max_position_embeddings);
    return scaling.factor <= 1.0 ? 1.0
                                 : std::sqrt(1.0 + std::log(scaling.factor) / std::log(original));
  }
  const auto mscale = [&](double m) {
    return scaling.factor <= 1.0 ? 1.0 : 0.1 * m * std::log(scaling.factor) + 1.0;
  };
  if (scaling.mscale.value_or(0.0) != 0.0 && scaling.mscale_all_dim.value_or(0.0) != 0.0) {
    return mscale(*scaling.mscale) / mscale(*scaling.mscale_all_dim);
  }
  return mscale(1.0);
}

}  // namespace

Tensor inverse_frequencies(const RopeConfig& rope, std::int64_t length) {
  const RopeScaling& scaling = rope.scaling;
  if (scaling.type == RopeScaling::Type::yarn) return yarn_frequencies(rope);
  if (scaling.type == RopeScaling::Type::longrope) return longrope_frequencies(rope, length);
  double base = rope.theta;
  if (scaling.type == RopeScaling::Type::dynamic) {
    const double dim = static_cast<double>(rope.rotary_dim);
    const double longest = static_cast<double>(rope.max_position_embeddings);
    const double reach = std::max(static_cast<double>(length), longest);
    base *= std::pow(scaling.factor * reach / longest - (scaling.factor - 1.0), dim / (dim - 2.0));
  }
  Tensor inv_freq = position_frequencies(base, rope.rotary_dim).reciprocal();
  if (scaling.type == RopeScaling::Type::linear) inv_freq = inv_freq.div(scaling.factor);
  if (scaling.type == RopeScaling::Type::llama3) inv_freq = llama3_frequencies(scaling, inv_freq);
  return inv_freq;
}

RopeAngles rope_angles(const RopeConfig& rope, std::span<const std::int64_t> starts,
                       std::span<const std::int64_t> first_positions, const at::Device& device) {
  Tensor inv_freq = inverse_frequencies(rope, 0);
  std::vector<Tensor> angles;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    const std::int64_t first = first_positions.empty() ? 0 : first_positions[s];
    const std::int64_t end = first + starts[s + 1] - starts[s];
    if (rope.by_length()) inv_freq = inverse_frequencies(rope, end);
    angles.push_back(at::outer(at::arange(first, end, at::kLong).to(at::kFloat), inv_freq));
  }
  const Tensor all = at::cat(angles, 0).to(device);
  const double factor = attention_factor(rope.scaling);
  return {all.cos().mul_(factor), all.sin().mul_(factor)};
}

}  // namespace finetune
