#include "finetune/nn/nf4.h"

#include "finetune/nn/int8.h"
#include "nn/benchmark.h"

namespace finetune {
namespace {

using namespace benchmarks;

/// A quantized matrix in memory of its own, read out by `into`; LibTorch only copies one of as many
/// numbers.
template <typename Quantized, typename Into>
Kernel dequantize(const std::string& name, const Quantized& weight, std::int64_t bytes,
                  const Into& into) {
  const Tensor codes = at::zeros({bytes}, at::kByte);  // what is read counts
  return {
      name,
      [=](at::ScalarType dtype) {
        return std::vector{codes, at::zeros({kMlp, kHidden}, dtype)};
      },
      [=](const std::vector<Tensor>& in) {
        into(weight, in[1]);
        return in[1];
      },
      [](const std::vector<Tensor>& in) { return in[1].clone(); },
  };
}

const Nf4Tensor nf4_weight =
    nf4_quantize(reference::random({kMlp, kHidden}, 1, at::kFloat), /*double_quant=*/true);
const Int8Tensor int8_weight = int8_quantize(reference::random({kMlp, kHidden}, 1, at::kFloat));

const bool nf4 = add(
               dequantize("nf4_dequantize", nf4_weight, nf4_weight.bytes(), nf4_dequantize_into)),
           int8 = add(dequantize("int8_dequantize", int8_weight, int8_weight.bytes(),
                                 int8_dequantize_into));

}  // namespace
}  // namespace finetune
