#include "finetune/nn/attention.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rand.h>

#include <ATen/Context.h>
#include <gtest/gtest.h>

namespace finetune {
namespace {

/// Two sequences a token at a time, and a third that joins with its whole prompt in the middle of
/// them, in the slot of one that ended: each as attention over the whole sequence gives it.
void check(at::ScalarType dtype, std::int64_t dim, const AttentionOptions& options, double bound) {
  constexpr std::int64_t kHeads = 6, kKeyHeads = 2;
  at::manual_seed(7);
  const auto made = [&](std::int64_t tokens, std::int64_t heads) {
    return at::rand({tokens, heads, dim}, dtype).sub_(0.5).mul_(4);
  };
  const std::vector<std::int64_t> lengths = {21, 9, 30};
  std::vector<Tensor> q, k, v, whole;
  for (const std::int64_t length : lengths) {
    q.push_back(made(length, kHeads));
    k.push_back(made(length, kKeyHeads));
    v.push_back(made(length, kKeyHeads));
    const std::vector<std::int64_t> starts = {0, length};
    whole.push_back(attention(q.back().to(at::kDouble), k.back().to(at::kDouble),
                              v.back().to(at::kDouble), starts, options));
  }
  LayerCache cache{{Tensor(), Tensor()}, {Tensor(), Tensor()}};
  std::vector<std::int64_t> held = {0, 0};
  std::vector<std::size_t> sequence = {0, 1};
  std::int64_t compared = 0;
  for (;;) {
    std::vector<std::int64_t> starts = {0};
    std::vector<Tensor> queries, keys, values, wanted;
    for (std::size_t slot = 0; slot < 2; ++slot) {
      if (held[slot] == lengths[sequence[slot]]) {
        if (sequence[slot] != 1) {
          EXPECT_GT(compared, 21 + 9);
          return;
        }
        sequence[slot] = 2;
        held[slot] = 0;
      }
      const std::int64_t fresh = held[slot] == 0 ? 5 : 1;
      const auto part = [&](const Tensor& x) { return x.narrow(0, held[slot], fresh); };
      const std::size_t s = sequence[slot];
      queries.push_back(part(q[s]));
      keys.push_back(part(k[s]));
      values.push_back(part(v[s]));
      wanted.push_back(part(whole[s]));
      starts.push_back(starts.back() + fresh);
    }
    const Tensor out = cached_attention(at::cat(queries), at::cat(keys), at::cat(values), starts,
                                        options, cache, held);
    const Tensor expected = at::cat(wanted);
    EXPECT_LE((out.to(at::kDouble) - expected).abs().max().item<double>(), bound);
    compared += out.size(0);
    for (std::size_t slot = 0; slot < 2; ++slot) held[slot] += starts[slot + 1] - starts[slot];
  }
}

TEST(CachedAttention, FloatRows) {
  for (const std::int64_t dim : {8, 12, 48, 64}) check(at::kFloat, dim, {0.3, 0, 0}, 2e-6);
}

TEST(CachedAttention, WindowAndSoftcap) {
  check(at::kFloat, 16, {0.3, 4, 0}, 2e-6);
  check(at::kFloat, 16, {0.3, 0, 2.5}, 2e-6);
  check(at::kFloat, 16, {0.3, 7, 2.5}, 2e-6);
}

TEST(CachedAttention, OtherTypes) {
  check(at::kDouble, 16, {0.3, 7, 2.5}, 1e-12);
  check(at::kDouble, 16, {0.3, 0, 0}, 1e-12);
  check(at::kBFloat16, 48, {0.3, 0, 0}, 2e-2);
}

}  // namespace
}  // namespace finetune
