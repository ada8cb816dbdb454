#include "finetune/nn/loss.h"

#include "nn/benchmark.h"

namespace finetune {
namespace {

using namespace benchmarks;

constexpr std::int64_t kSupervised = kTokens / 4;

const bool cross_entropy = add({
    "cross_entropy",
    [](at::ScalarType dtype) {
      const Tensor targets = at::arange(kSupervised, at::kLong) * 7;
      return std::vector{input({kSupervised, kHidden}, 1, dtype),
                         reference::random({kVocabulary, kHidden}, 2, dtype), targets};
    },
    [](const std::vector<Tensor>& in) { return cross_entropy_sum(in[0], {in[1]}, in[2]); },
    [](const std::vector<Tensor>& in) {
      const Tensor logits = at::linear(in[0], in[1]).to(at::kFloat);
      return at::cross_entropy_loss(logits, in[2], {}, at::Reduction::Sum);
    },
    4.0 * kSupervised* kHidden* kVocabulary,
});

}  // namespace
}  // namespace finetune
