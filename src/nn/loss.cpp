#include "finetune/nn/loss.h"

#include "nn/accumulate_type.h"
#include "nn/product.h"
#include "nn/rows.h"
#include "nn/softmax_rows.h"
#include "nn/workspace.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr std::uint64_t kHeadIndex = ~std::uint64_t{0};  // apart from the linears' in dropout seeds
constexpr std::int64_t kTileElements = 16 << 20;         // logits held at once: 64 MiB of float32
/// Fewer make the product with the head's weights slow: 110 of Qwen2.5's vocabulary take a sixth
/// more time than 256, 32 more than twice as much.
constexpr std::int64_t kLeastTileRows = 256;

/// h W^T of one tile, [m, V] in the wide type. On the CPU in reused memory: the next tile's takes
/// its place.
Tensor tile_product(const Tensor& hidden, const Tensor& weight) {
  const auto wide = accumulate_type(hidden);
  if (!hidden.is_cpu()) return linear_product(hidden, weight).to(wide);
  const Tensor memory = workspace(Workspace::logits, hidden.size(0), weight.size(0), wide,
                                  logits_tile_rows(weight.size(0)));
  if (hidden.scalar_type() == wide) return linear_product_in(memory, hidden, weight);
  return memory.copy_(linear_product(hidden, weight));
}

/// Logits [M, V] from h W^T, in place. `inner` [M, R] and `b` [V, R] of the head's adapter, or
/// undefined.
Tensor to_logits(Tensor product, const Head& head, const Tensor& inner, const Tensor& b) {
  if (inner.defined()) product.add_(at::mm(inner, b.t()));
  if (head.bias.defined()) product.add_(head.bias.detach().to(product.scalar_type()));
  if (head.scale != 1.0) product.mul_(head.scale);
  return head.softcap > 0 ? product.div_(head.softcap).tanh_().mul_(head.softcap) : product;
}

/// d loss / d (h W^T) from d loss / d logits, in place.
Tensor through_scale_and_cap(Tensor gradient, const Tensor& logits, double scale, double softcap) {
  if (softcap > 0) gradient.mul_(logits.div(softcap).square_().neg_().add_(1.0));
  return scale == 1.0 ? gradient : gradient.mul_(scale);
}

/// The cross-entropy of a tile's tokens, [m] each, and the gradient of their sum for h W^T, [m, V].
SoftmaxRows tile_loss(Tensor& logits, const Tensor& targets, const Head& head, double smoothing,
                      at::ScalarType dtype) {
  const bool fused = has_rows(logits) && logits.scalar_type() == at::kFloat &&
                     (dtype == at::kFloat || dtype == at::kBFloat16) && head.softcap == 0;
  if (fused) {
    SoftmaxRows rows = softmax_rows(logits, targets, smoothing, dtype);
    if (head.scale != 1.0) rows.gradient.mul_(head.scale);
    return rows;
  }
  const Tensor t = targets.unsqueeze(1);
  const Tensor lse = at::logsumexp(logits, {-1}, true);
  SoftmaxRows rows{(lse - logits.gather(1, t)).squeeze(1), Tensor(), Tensor()};
  if (smoothing > 0) rows.uniform_nll = lse.squeeze(1) - logits.mean(1);
  Tensor p = (head.softcap > 0 ? logits.sub(lse) : logits.sub_(lse)).exp_();
  p.scatter_add_(1, t, at::empty_like(t, p.options()).fill_(smoothing - 1.0));
  if (smoothing > 0) p.sub_(smoothing / static_cast<double>(p.size(1)));
  rows.gradient = through_scale_and_cap(p, logits, head.scale, head.softcap).to(dtype);
  return rows;
}

/// The tensors of a head that a pass works with; what a head does not have is undefined.
struct HeadTensors {
  Tensor weight, bias, inner, lora_b;
  double scale, softcap;
};

/// The summed loss of some rows and its gradients, made in one pass; undefined where nothing asks.
struct SumGradients {
  Tensor sum, hidden, weight, bias, inner, lora_b;
};

SumGradients summed_loss(const Tensor& hidden, const HeadTensors& head, const Tensor& targets,
                         const LossOptions& options) {
  const auto wide = accumulate_type(hidden);
  const Tensor w = head.weight.to(hidden.scalar_type());
  const Head tile_head{w, head.bias, head.scale, head.softcap};
  const Tensor b = head.lora_b.defined() ? head.lora_b.to(hidden.scalar_type()) : Tensor();
  const double smoothing = options.label_smoothing;
  SumGradients out;
  out.sum = at::zeros({}, hidden.options().dtype(wide));
  out.hidden = at::empty_like(hidden);
  if (head.inner.defined()) {
    out.inner = at::empty_like(head.inner);
    out.lora_b = at::zeros_like(head.lora_b, head.lora_b.options().dtype(wide));
  }
  // In the wide type: a half type would lose what later tiles add.
  if (head.weight.requires_grad()) out.weight = at::zeros_like(w, w.options().dtype(wide));
  if (head.bias.defined() && head.bias.requires_grad())
    out.bias = at::zeros_like(head.bias, head.bias.options().dtype(wide));
  const std::int64_t rows = logits_tile_rows(w.size(0));
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += rows) {
    const std::int64_t count = std::min(rows, hidden.size(0) - begin);
    const Tensor h = hidden.narrow(0, begin, count);
    const Tensor low = head.inner.defined() ? head.inner.narrow(0, begin, count) : Tensor();
    Tensor logits = to_logits(tile_product(h, w), tile_head, low, b);  // [m, V]
    const SoftmaxRows tile = tile_loss(logits, targets.narrow(0, begin, count), tile_head,
                                       smoothing, hidden.scalar_type());
    if (options.token_nll != nullptr) options.token_nll->narrow(0, begin, count).copy_(tile.nll);
    Tensor p = tile.gradient;
    const auto weighted = [&](const Tensor& loss) {
      return options.token_weights.defined()
                 ? loss.mul(options.token_weights.narrow(0, begin, count)).sum()
                 : loss.sum();
    };
    out.sum.add_(weighted(tile.nll), 1.0 - smoothing);
    if (smoothing > 0) out.sum.add_(weighted(tile.uniform_nll), smoothing);
    if (options.token_weights.defined())
      p.mul_(options.token_weights.narrow(0, begin, count).unsqueeze(1));
    if (out.bias.defined()) out.bias.add_(p.sum(0, false, wide));
    out.hidden.narrow(0, begin, count).copy_(linear_product_backward(p, w));
    if (out.inner.defined()) out.inner.narrow(0, begin, count).copy_(at::mm(p, b));
    if (out.inner.defined()) out.lora_b.add_(at::mm(p.t(), low));
    if (out.weight.defined() && w.scalar_type() == wide) out.weight.addmm_(p.t(), h);
    if (out.weight.defined() && w.scalar_type() != wide) out.weight.add_(at::mm(p.t(), h));
  }
  return out;
}

class CrossEntropySum : public torch::autograd::Function<CrossEntropySum> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                        const std::optional<Tensor>& bias, const std::optional<Tensor>& inner,
                        const std::optional<Tensor>& lora_b, const Tensor& targets, double scale,
                        double softcap, const LossOptions& options) {
    const SumGradients made =
        summed_loss(hidden,
                    {weight, bias.value_or(Tensor()), inner.value_or(Tensor()),
                     lora_b.value_or(Tensor()), scale, softcap},
                    targets, options);
    ctx->save_for_backward({made.hidden, made.weight, made.bias, made.inner, made.lora_b});
    return made.sum;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto scaled = [&](const Tensor& gradient) {
      return gradient.defined() ? gradient.mul(grads[0].to(gradient.scalar_type())) : Tensor();
    };
    return {scaled(saved[0]), scaled(saved[1]), scaled(saved[2]),
            scaled(saved[3]), scaled(saved[4]), Tensor(),
            Tensor(),         Tensor(),         Tensor()};
  }
};

/// log sum_v p_v^2 of each row of logits, [m]
Tensor log_sum_of_squares(const Tensor& logits) {
  return at::logsumexp(logits.mul(2.0), {-1}) - at::logsumexp(logits, {-1}).mul_(2.0);
}

class TokenNll : public torch::autograd::Function<TokenNll> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                        const std::optional<Tensor>& bias, const std::optional<Tensor>& inner,
                        const std::optional<Tensor>& lora_b, const Tensor& targets, double scale,
                        double softcap, bool with_gradient, Tensor* log_sum_squares) {
    const Tensor w = weight.to(hidden.scalar_type());
    const Head head{w, bias.value_or(Tensor()), scale, softcap};
    const Tensor b = lora_b ? lora_b->to(hidden.scalar_type()) : Tensor();
    const auto options = hidden.options().dtype(accumulate_type(hidden));
    const Tensor nll = at::empty({hidden.size(0)}, options);
    if (log_sum_squares != nullptr) *log_sum_squares = at::empty_like(nll);
    // Gradients of the head are sums over rows, which later factors cannot be put on; those of the
    // hidden states are rows.
    const bool trained =
        inner.has_value() || weight.requires_grad() || (bias && bias->requires_grad());
    const Tensor dhidden = with_gradient && !trained ? at::empty_like(hidden) : Tensor();
    const std::int64_t rows = logits_tile_rows(w.size(0));
    for (std::int64_t begin = 0; begin < hidden.size(0); begin += rows) {
      const std::int64_t count = std::min(rows, hidden.size(0) - begin);
      Tensor logits = to_logits(tile_product(hidden.narrow(0, begin, count), w), head,
                                inner ? inner->narrow(0, begin, count) : Tensor(), b);
      if (log_sum_squares != nullptr)
        log_sum_squares->narrow(0, begin, count).copy_(log_sum_of_squares(logits));
      const SoftmaxRows tile =
          tile_loss(logits, targets.narrow(0, begin, count), head, 0.0, hidden.scalar_type());
      nll.narrow(0, begin, count).copy_(tile.nll);
      if (dhidden.defined())
        dhidden.narrow(0, begin, count).copy_(linear_product_backward(tile.gradient, w));
    }
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["softcap"] = softcap;
    if (!with_gradient) return nll;
    if (trained) {
      ctx->save_for_backward({Tensor(), hidden, weight, head.bias, inner.value_or(Tensor()),
                              lora_b.value_or(Tensor()), targets});
    } else {
      ctx->save_for_backward({dhidden});
    }
    return nll;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list out(10);
    if (saved.size() == 1) {
      out[0] = saved[0].mul(grads[0].unsqueeze(1).to(saved[0].scalar_type()));
      return out;
    }
    LossOptions options;
    options.token_weights = grads[0];
    const SumGradients made =
        summed_loss(saved[1],
                    {saved[2], saved[3], saved[4], saved[5], ctx->saved_data["scale"].toDouble(),
                     ctx->saved_data["softcap"].toDouble()},
                    saved[6], options);
    out[0] = made.hidden;
    out[1] = made.weight;
    out[2] = made.bias;
    out[3] = made.inner;
    out[4] = made.lora_b;
    return out;
  }
};

Tensor adapted_logits(const Tensor& product, const Tensor& hidden, const Head& head) {
  if (!head.lora) return to_logits(product, head, {}, {});
  return to_logits(product, head, lora_inner(hidden, *head.lora, {}, 0),
                   head.lora->whole_b().to(hidden.scalar_type()));
}

/// The head's tensors as autograd wants them: an absent one is nullopt.
struct HeadInputs {
  std::optional<Tensor> bias, inner, lora_b;

  HeadInputs(const Tensor& hidden, const Head& head, const ForwardContext& context) {
    if (head.bias.defined()) bias = head.bias;
    if (!head.lora) return;
    inner = lora_inner(hidden, *head.lora, context, kHeadIndex);
    lora_b = head.lora->whole_b();
  }
};

}  // namespace

std::int64_t logits_tile_rows(std::int64_t vocabulary) {
  return std::max(kLeastTileRows, kTileElements / vocabulary);
}

Tensor head_logits(const Tensor& hidden, const Head& head) {
  return adapted_logits(
      linear_product(hidden, head.weight.to(hidden.scalar_type())).to(accumulate_type(hidden)),
      hidden, head);
}

Tensor cross_entropy_sum(const Tensor& hidden, const Head& head, const Tensor& targets,
                         const LossOptions& options) {
  const HeadInputs inputs(hidden, head, options.context);
  if (options.token_nll != nullptr) {
    *options.token_nll =
        at::empty({hidden.size(0)}, hidden.options().dtype(accumulate_type(hidden)));
  }
  return CrossEntropySum::apply(hidden, head.weight, inputs.bias, inputs.inner, inputs.lora_b,
                                targets, head.scale, head.softcap, options);
}

Tensor token_nll(const Tensor& hidden, const Head& head, const Tensor& targets,
                 Tensor* log_sum_squares) {
  // Without dropout of the head's adapter: the values are log-probabilities as they are.
  const HeadInputs inputs(hidden, head, ForwardContext{});
  return TokenNll::apply(hidden, head.weight, inputs.bias, inputs.inner, inputs.lora_b, targets,
                         head.scale, head.softcap, at::GradMode::is_enabled(), log_sum_squares);
}

TokenScores score_tokens(const Tensor& hidden, const Head& head, const Tensor& targets) {
  const at::NoGradGuard no_grad;
  const auto wide = accumulate_type(hidden);
  TokenScores scores{
      at::empty({hidden.size(0)}, hidden.options().dtype(wide).requires_grad(false)),
      at::empty({hidden.size(0)}, hidden.options().dtype(at::kBool).requires_grad(false))};
  const Tensor w = head.weight.to(hidden.scalar_type());
  const std::int64_t rows = logits_tile_rows(w.size(0));
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += rows) {
    const std::int64_t count = std::min(rows, hidden.size(0) - begin);
    const Tensor t = targets.narrow(0, begin, count), h = hidden.narrow(0, begin, count);
    const Tensor logits = adapted_logits(tile_product(h, w), h, head);
    const Tensor target_logits = logits.gather(1, t.unsqueeze(1)).squeeze(1);
    scores.nll.narrow(0, begin, count).copy_(at::logsumexp(logits, {-1}) - target_logits);
    scores.correct.narrow(0, begin, count).copy_(logits.argmax(-1).eq(t));
  }
  return scores;
}

}  // namespace finetune
