#include "nn/decode_rows.h"

#include "nn/fast_exp.h"
#include "nn/rows.h"

#include <algorithm>
#include <cmath>

namespace finetune {

namespace {

/// Inlined into functions that are compiled once for each generation of processors.
#define FT_INLINE inline __attribute__((always_inline))

/// A bfloat16 as it lies in memory.
struct Bits16 {
  std::uint16_t bits;
};
FT_INLINE float wide(float x) { return x; }
FT_INLINE float wide(Bits16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

/// What one query head reads: `count` rows of `dim` elements, `stride` apart.
template <typename T>
struct Rows {
  const T* first;
  std::int64_t stride, count, dim;
};

constexpr std::int64_t kDotLanes = 16;

template <typename T>
FT_INLINE void dots_of(const float* q, const Rows<T>& keys, float scale, float* scores) {
  for (std::int64_t t = 0; t < keys.count; ++t) {
    const T* key = keys.first + t * keys.stride;
    float lanes[kDotLanes] = {};
    std::int64_t i = 0;
    for (; i + kDotLanes <= keys.dim; i += kDotLanes) {
      for (std::int64_t lane = 0; lane < kDotLanes; ++lane)
        lanes[lane] += q[i + lane] * wide(key[i + lane]);
    }
    float sum = 0;
    for (; i < keys.dim; ++i) sum += q[i] * wide(key[i]);
    for (std::int64_t half = kDotLanes / 2; half > 0; half /= 2) {
      for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    }
    scores[t] = (sum + lanes[0]) * scale;
  }
}

/// Four rows at a time, so that the sum is read and written a quarter as often.
template <typename T>
FT_INLINE void weighted_sum_of(const float* weights, const Rows<T>& values, float* sum) {
  std::fill(sum, sum + values.dim, 0.0F);
  std::int64_t t = 0;
  for (; t + 4 <= values.count; t += 4) {
    const T *a = values.first + t * values.stride, *b = a + values.stride, *c = b + values.stride,
            *d = c + values.stride;
    const float wa = weights[t], wb = weights[t + 1], wc = weights[t + 2], wd = weights[t + 3];
    for (std::int64_t i = 0; i < values.dim; ++i)
      sum[i] += (wa * wide(a[i]) + wb * wide(b[i])) + (wc * wide(c[i]) + wd * wide(d[i]));
  }
  for (; t < values.count; ++t) {
    const T* row = values.first + t * values.stride;
    for (std::int64_t i = 0; i < values.dim; ++i) sum[i] += weights[t] * wide(row[i]);
  }
}

FT_EVERY_CPU void dots(const float* q, const Rows<float>& keys, float scale, float* scores) {
  dots_of(q, keys, scale, scores);
}
FT_EVERY_CPU void dots(const float* q, const Rows<Bits16>& keys, float scale, float* scores) {
  dots_of(q, keys, scale, scores);
}
FT_EVERY_CPU void weighted_sum(const float* weights, const Rows<float>& values, float* sum) {
  weighted_sum_of(weights, values, sum);
}
FT_EVERY_CPU void weighted_sum(const float* weights, const Rows<Bits16>& values, float* sum) {
  weighted_sum_of(weights, values, sum);
}
FT_EVERY_CPU void exponentials(float* x, float shift, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) x[i] = fast_exp(x[i] - shift);
}
FT_EVERY_CPU void scale_row(float* x, float factor, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) x[i] *= factor;
}

/// Room of one thread.
struct Scratch {
  std::vector<float> scores, sum;
};

/// One head's result in scratch.sum.
template <typename T>
void attend(const float* q, const Rows<T>& keys, const Rows<T>& values,
            const AttentionOptions& options, Scratch& scratch) {
  scratch.scores.resize(static_cast<std::size_t>(keys.count));
  float* scores = scratch.scores.data();
  dots(q, keys, static_cast<float>(options.scale), scores);
  if (options.softcap > 0) {
    const auto cap = static_cast<float>(options.softcap);
    for (std::int64_t t = 0; t < keys.count; ++t) scores[t] = cap * std::tanh(scores[t] / cap);
  }
  exponentials(scores, *std::max_element(scores, scores + keys.count), keys.count);
  float total = 0;
  for (std::int64_t t = 0; t < keys.count; ++t) total += scores[t];
  weighted_sum(scores, values, scratch.sum.data());
  scale_row(scratch.sum.data(), 1.0F / total, values.dim);
}

template <typename T>
const T* data_of(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

/// All query heads of one key head of one sequence. `Element` is what lies in memory, `Stored` what
/// the row helpers call it.
template <typename Element, typename Stored>
void attend_group(const Tensor& q, const CachedSequence& sequence, std::int64_t key_head,
                  const AttentionOptions& options, const Tensor& out, Scratch& scratch) {
  const std::int64_t heads = q.size(1), dim = q.size(2), key_heads = sequence.keys->size(1);
  const std::int64_t groups = heads / key_heads;
  const std::int64_t offset = (sequence.first * key_heads + key_head) * dim;
  const Rows<Element> keys{data_of<Element>(*sequence.keys) + offset, key_heads * dim,
                           sequence.count, dim};
  const Rows<Element> values{data_of<Element>(*sequence.values) + offset, key_heads * dim,
                             sequence.count, dim};
  WideRow<Stored> query(dim);
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t row = (sequence.row * heads + key_head * groups + g) * dim;
    attend(query.read(data_of<Stored>(q) + row), keys, values, options, scratch);
    Stored* to = static_cast<Stored*>(out.mutable_data_ptr()) + row;
    if constexpr (std::is_same_v<Stored, float>)
      std::copy(scratch.sum.begin(), scratch.sum.end(), to);
    else
      narrow(scratch.sum.data(), dim, to);
  }
}

}  // namespace

void decode_rows(const Tensor& q, std::span<const CachedSequence> sequences,
                 const AttentionOptions& options, const Tensor& out) {
  if (sequences.empty()) return;
  const std::int64_t key_heads = sequences.front().keys->size(1);
  const auto pairs = static_cast<std::int64_t>(sequences.size()) * key_heads;
  at::parallel_for(0, pairs, 1, [&](std::int64_t begin, std::int64_t end) {
    Scratch scratch;
    scratch.sum.resize(static_cast<std::size_t>(q.size(2)));
    for (std::int64_t pair = begin; pair < end; ++pair) {
      const CachedSequence& sequence = sequences[static_cast<std::size_t>(pair / key_heads)];
      if (q.scalar_type() == at::kFloat)
        attend_group<float, float>(q, sequence, pair % key_heads, options, out, scratch);
      else
        attend_group<Bits16, at::BFloat16>(q, sequence, pair % key_heads, options, out, scratch);
    }
  });
}

}  // namespace finetune
