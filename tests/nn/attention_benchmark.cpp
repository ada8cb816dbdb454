#include "finetune/nn/attention.h"

#include "nn/benchmark.h"

namespace finetune {
namespace {

using namespace benchmarks;

/// `count` sequences of one length.
Kernel causal(std::int64_t count) {
  const std::int64_t length = kTokens / count;
  const double scale = 1 / std::sqrt(static_cast<double>(kHeadDim));
  std::vector<std::int64_t> starts;
  for (std::int64_t begin = 0; begin <= kTokens; begin += length) starts.push_back(begin);
  return {
      "attention/" + std::to_string(count) + "x" + std::to_string(length),
      [](at::ScalarType dtype) {
        return std::vector{input({kTokens, kHeads, kHeadDim}, 1, dtype),
                           input({kTokens, kKeyHeads, kHeadDim}, 2, dtype),
                           input({kTokens, kKeyHeads, kHeadDim}, 3, dtype)};
      },
      [=](const std::vector<Tensor>& in) {
        return attention(in[0], in[1], in[2], starts, {scale});
      },
      [=](const std::vector<Tensor>& in) {
        const auto heads = [&](const Tensor& x) {
          return x.unflatten(0, {count, length}).transpose(1, 2);
        };
        const Tensor y = at::scaled_dot_product_attention(heads(in[0]), heads(in[1]), heads(in[2]),
                                                          {}, 0.0, true, scale, true);
        return y.transpose(1, 2).flatten(0, 1);
      },
      // Two products forward and five back, half of each square.
      7.0 * kTokens * length * kHeads * kHeadDim,
  };
}

const bool short_rows = add(causal(8)), long_rows = add(causal(1));

}  // namespace
}  // namespace finetune
