#include "nn/product.h"

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include <optional>
#include <string_view>

namespace finetune {

namespace {

using OnednnLinear = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&,
                            std::string_view, c10::List<std::optional<at::Scalar>>,
                            std::optional<std::string_view>);

/// An operator that torch.compile uses; absent where LibTorch was built without oneDNN.
std::optional<c10::OperatorHandle> onednn_operator() {
  static const auto found =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  return found;
}

/// MKL takes its AVX-512 path on processors of its own maker alone; on others that have AVX-512
/// oneDNN's is more than twice as fast, and elsewhere the two are near each other. Not measured at
/// run time: the two round differently, and a load at that moment must not change a run's bytes.
bool onednn_is_faster() {
#if defined(__x86_64__)
  static const bool faster =
      onednn_operator() && __builtin_cpu_supports("avx512f") && !__builtin_cpu_is("intel");
  return faster;
#else
  return false;
#endif
}

bool takes_onednn(const Tensor& x, const Tensor& weight) {
  constexpr std::int64_t kFewRows = 32;  // below it the call costs more than the product
  return x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
         x.size(0) >= kFewRows && onednn_is_faster();
}

}  // namespace

Tensor onednn_product(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const std::optional<Tensor> b = bias.defined() ? std::optional(bias) : std::nullopt;
  return onednn_operator()->typed<OnednnLinear>().call(x, weight, b, "none",
                                                       c10::List<std::optional<at::Scalar>>(), "");
}

Tensor linear_product(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (takes_onednn(x, weight)) return onednn_product(x, weight, bias);
  return bias.defined() ? at::linear(x, weight, bias) : at::linear(x, weight);
}

Tensor linear_product_in(const Tensor& memory, const Tensor& x, const Tensor& weight) {
  Tensor out = memory;
  return at::mm_out(out, x, weight.t());
}

Tensor linear_product_backward(const Tensor& dy, const Tensor& weight) {
  if (takes_onednn(dy, weight)) return onednn_product(dy, weight.t(), {});
  return at::mm(dy, weight);
}

}  // namespace finetune
