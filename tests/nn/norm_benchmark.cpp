#include "finetune/nn/norm.h"

#include "nn/benchmark.h"

namespace finetune {
namespace {

using namespace benchmarks;

constexpr double kEps = 1e-5;

const bool rms = add({
    "rms_norm",
    [](at::ScalarType dtype) {
      return std::vector{input({kTokens, kHidden}, 1, dtype),
                         reference::random({kHidden}, 2, dtype)};
    },
    [](const std::vector<Tensor>& in) { return rms_norm(in[0], in[1], kEps); },
    [](const std::vector<Tensor>& in) {
      const Tensor x = in[0].to(at::kFloat);
      return (x * at::rsqrt(x.square().mean(-1, true) + kEps)).to(in[0].scalar_type()) * in[1];
    },
});

}  // namespace
}  // namespace finetune
