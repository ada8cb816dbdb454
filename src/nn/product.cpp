#include "nn/product.h"

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include <time.h>

#include <algorithm>
#include <limits>
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

/// Of this thread alone: what else runs on the machine hardly changes it.
double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <typename F>
double seconds_of(const F& product) {
  const double begin = processor_seconds();
  product();
  return processor_seconds() - begin;
}

/// Where oneDNN gains, it gains more than twice, elsewhere next to nothing. The margin lies
/// between, so that the choice, and with it every bit of the result, is the same in every run.
bool onednn_is_faster() {
  static const bool faster = [] {
    constexpr double kMargin = 1.6;
    if (!onednn_operator()) return false;
    const at::NoGradGuard no_grad;
    const Tensor x = at::full({512, 512}, 0.5, at::kFloat), weight = at::full_like(x, 0.25);
    double usual = std::numeric_limits<double>::infinity(), other = usual;
    for (int i = 0; i < 8; ++i) {
      usual = std::min(usual, seconds_of([&] { return at::linear(x, weight); }));
      other = std::min(other, seconds_of([&] { return onednn_product(x, weight, {}); }));
    }
    return other * kMargin < usual;
  }();
  return faster;
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

Tensor linear_product_backward(const Tensor& dy, const Tensor& weight) {
  if (takes_onednn(dy, weight)) return onednn_product(dy, weight.t(), {});
  return at::mm(dy, weight);
}

}  // namespace finetune
