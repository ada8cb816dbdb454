#include "finetune/base/error.h"
#include "finetune/nn/attention.h"
#include "nn/block_attention.h"
#include "nn/decode_rows.h"
#include "nn/rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <cstring>

namespace finetune {

namespace {

/// attend_last by LibTorch's own kernel, which knows no softcap.
Tensor fused_last(const Tensor& q, const Tensor& k, const Tensor& v,
                  const AttentionOptions& options) {
  const auto heads_first = [](const Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  const Tensor o =
      at::scaled_dot_product_attention(heads_first(q), heads_first(k), heads_first(v), {}, 0.0,
                                       false, options.scale, q.size(1) != k.size(1));
  return o.squeeze(0).transpose(0, 1);
}

/// Room for `needed` tokens, doubled when it runs out.
void reserve(Tensor& buffer, std::int64_t used, std::int64_t needed, const Tensor& like) {
  if (buffer.defined() && buffer.size(0) >= needed) return;
  const std::int64_t capacity = std::max<std::int64_t>(needed + 64, 2 * used);
  Tensor larger = at::empty({capacity, like.size(1), like.size(2)}, like.options());
  if (used > 0) larger.narrow(0, 0, used).copy_(buffer.narrow(0, 0, used));
  buffer = larger;
}

/// Puts rows [begin, begin + count) of `fresh` behind the `used` ones.
void append(Tensor& buffer, std::int64_t used, const Tensor& fresh, std::int64_t begin,
            std::int64_t count) {
  reserve(buffer, used, used + count, fresh);
  if (!fresh.is_cpu()) {
    buffer.narrow(0, used, count).copy_(fresh.narrow(0, begin, count));
    return;
  }
  const std::size_t row = fresh.nbytes() / static_cast<std::size_t>(fresh.size(0));
  std::memcpy(
      static_cast<std::byte*>(buffer.mutable_data_ptr()) + row * static_cast<std::size_t>(used),
      static_cast<const std::byte*>(fresh.const_data_ptr()) + row * static_cast<std::size_t>(begin),
      row * static_cast<std::size_t>(count));
}

/// Tokens [begin, end) of the stream and where in them sequences begin.
struct Stretch {
  std::int64_t begin = 0, end = 0;
  std::vector<std::int64_t> starts;
};

/// Neighbouring sequences whose slots were empty, as one ragged batch each.
std::vector<Stretch> first_passes(std::span<const std::int64_t> starts,
                                  std::span<const std::int64_t> lengths) {
  std::vector<Stretch> stretches;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    if (lengths[s] > 0) continue;
    if (stretches.empty() || stretches.back().end != starts[s])
      stretches.push_back({starts[s], starts[s], {0}});
    Stretch& stretch = stretches.back();
    stretch.end = starts[s + 1];
    stretch.starts.push_back(stretch.end - stretch.begin);
  }
  return stretches;
}

}  // namespace

Tensor cached_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                        std::span<const std::int64_t> starts, const AttentionOptions& options,
                        LayerCache& layer, std::span<const std::int64_t> lengths) {
  Tensor out = at::empty_like(q, at::MemoryFormat::Contiguous);
  const Tensor fresh_keys = k.contiguous(), fresh_values = v.contiguous();
  std::vector<CachedSequence> decoded;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    const std::int64_t begin = starts[s], fresh = starts[s + 1] - begin;
    FT_CHECK(lengths[s] == 0 || fresh == 1, "{} new tokens after {}", fresh, lengths[s]);
    append(layer.keys[s], lengths[s], fresh_keys, begin, fresh);
    append(layer.values[s], lengths[s], fresh_values, begin, fresh);
    if (lengths[s] == 0) continue;
    const std::int64_t total = lengths[s] + 1;
    const std::int64_t seen = options.window > 0 ? std::min(options.window, total) : total;
    decoded.push_back({begin, &layer.keys[s], &layer.values[s], total - seen, seen});
  }
  for (const Stretch& stretch : first_passes(starts, lengths)) {
    const auto part = [&](const Tensor& x) {
      return x.narrow(0, stretch.begin, stretch.end - stretch.begin);
    };
    part(out).copy_(attention(part(q), part(k), part(v), stretch.starts, options));
  }
  if (decoded.empty()) return out;
  if (has_rows(q)) {
    decode_rows(q.contiguous(), decoded, options, out);
    return out;
  }
  for (const CachedSequence& sequence : decoded) {
    const Tensor query = q.narrow(0, sequence.row, 1);
    const Tensor keys = sequence.keys->narrow(0, sequence.first, sequence.count);
    const Tensor values = sequence.values->narrow(0, sequence.first, sequence.count);
    out.narrow(0, sequence.row, 1)
        .copy_(options.softcap > 0 ? attend_last(query, keys, values, options)
                                   : fused_last(query, keys, values, options));
  }
  return out;
}

}  // namespace finetune
