#include "finetune/nn/loss.h"

#include "nn/accumulate_type.h"
#include "nn/product.h"
#include "nn/rows.h"
#include "nn/softmax_rows.h"

#include <ATen/TensorOperators.h>
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

std::int64_t tile_rows(const Tensor& weight) {
  return std::max<std::int64_t>(1, kTileElements / weight.size(0));
}

/// Logits of one tile; `inner` [M, R] and `b` [V, R] of the head's adapter, or undefined.
Tensor tile_logits(const Tensor& hidden, const Head& head, const Tensor& inner, const Tensor& b) {
  const auto wide = accumulate_type(hidden);
  Tensor logits = linear_product(hidden, head.weight.to(hidden.scalar_type())).to(wide);
  if (inner.defined()) logits.add_(at::mm(inner, b.t()));
  if (head.bias.defined()) logits.add_(head.bias.detach().to(wide));
  if (head.scale != 1.0) logits.mul_(head.scale);
  return head.softcap > 0 ? logits.div_(head.softcap).tanh_().mul_(head.softcap) : logits;
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

class CrossEntropySum : public torch::autograd::Function<CrossEntropySum> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight,
                        const std::optional<Tensor>& bias, const std::optional<Tensor>& inner,
                        const std::optional<Tensor>& lora_b, const Tensor& targets, double scale,
                        double softcap, const LossOptions& options) {
    const auto wide = accumulate_type(hidden);
    const Head head{weight.to(hidden.scalar_type()), bias.value_or(Tensor()), scale, softcap};
    const Tensor& w = head.weight;
    const Tensor b = lora_b ? lora_b->to(hidden.scalar_type()) : Tensor();
    const double smoothing = options.label_smoothing;
    Tensor sum = at::zeros({}, hidden.options().dtype(wide));
    Tensor dhidden = at::empty_like(hidden);
    Tensor dinner = inner ? at::empty_like(*inner) : Tensor();
    Tensor db = inner ? at::zeros_like(*lora_b, lora_b->options().dtype(wide)) : Tensor();
    // In the wide type: a half type would lose what later tiles add.
    Tensor dweight = weight.requires_grad() ? at::zeros_like(w, w.options().dtype(wide)) : Tensor();
    Tensor dbias = bias && bias->requires_grad()
                       ? at::zeros_like(*bias, bias->options().dtype(wide))
                       : Tensor();
    const std::int64_t rows = tile_rows(w);
    for (std::int64_t begin = 0; begin < hidden.size(0); begin += rows) {
      const std::int64_t count = std::min(rows, hidden.size(0) - begin);
      const Tensor h = hidden.narrow(0, begin, count);
      const Tensor low = inner ? inner->narrow(0, begin, count) : Tensor();
      Tensor logits = tile_logits(h, head, low, b);  // [m, V]
      const SoftmaxRows tile =
          tile_loss(logits, targets.narrow(0, begin, count), head, smoothing, hidden.scalar_type());
      if (options.token_nll != nullptr) options.token_nll->narrow(0, begin, count).copy_(tile.nll);
      Tensor p = tile.gradient;
      const auto weighted = [&](const Tensor& loss) {
        return options.token_weights.defined()
                   ? loss.mul(options.token_weights.narrow(0, begin, count)).sum()
                   : loss.sum();
      };
      sum.add_(weighted(tile.nll), 1.0 - smoothing);
      if (smoothing > 0) sum.add_(weighted(tile.uniform_nll), smoothing);
      if (options.token_weights.defined())
        p.mul_(options.token_weights.narrow(0, begin, count).unsqueeze(1));
      if (dbias.defined()) dbias.add_(p.sum(0, false, wide));
      dhidden.narrow(0, begin, count).copy_(linear_product_backward(p, w));
      if (inner) dinner.narrow(0, begin, count).copy_(at::mm(p, b));
      if (inner) db.add_(at::mm(p.t(), low));
      if (dweight.defined() && w.scalar_type() == wide) dweight.addmm_(p.t(), h);
      if (dweight.defined() && w.scalar_type() != wide) dweight.add_(at::mm(p.t(), h));
    }
    ctx->save_for_backward({dhidden, dweight, dbias, dinner, db});
    return sum;
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

}  // namespace

Tensor head_logits(const Tensor& hidden, const Head& head) {
  if (!head.lora) return tile_logits(hidden, head, {}, {});
  return tile_logits(hidden, head, lora_inner(hidden, *head.lora, {}, 0),
                     head.lora->whole_b().to(hidden.scalar_type()));
}

Tensor cross_entropy_sum(const Tensor& hidden, const Head& head, const Tensor& targets,
                         const LossOptions& options) {
  std::optional<Tensor> bias, inner, lora_b;  // autograd wants an absent tensor as nullopt
  if (head.bias.defined()) bias = head.bias;
  if (head.lora) {
    inner = lora_inner(hidden, *head.lora, options.context, kHeadIndex);
    lora_b = head.lora->whole_b();
  }
  if (options.token_nll != nullptr) {
    *options.token_nll =
        at::empty({hidden.size(0)}, hidden.options().dtype(accumulate_type(hidden)));
  }
  return CrossEntropySum::apply(hidden, head.weight, bias, inner, lora_b, targets, head.scale,
                                head.softcap, options);
}

TokenScores score_tokens(const Tensor& hidden, const Head& head, const Tensor& targets) {
  const auto wide = accumulate_type(hidden);
  TokenScores scores{
      at::empty({hidden.size(0)}, hidden.options().dtype(wide).requires_grad(false)),
      at::empty({hidden.size(0)}, hidden.options().dtype(at::kBool).requires_grad(false))};
  const std::int64_t rows = tile_rows(head.weight);
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += rows) {
    const std::int64_t count = std::min(rows, hidden.size(0) - begin);
    const Tensor t = targets.narrow(0, begin, count);
    const Tensor logits = head_logits(hidden.narrow(0, begin, count), head);
    const Tensor target_logits = logits.gather(1, t.unsqueeze(1)).squeeze(1);
    scores.nll.narrow(0, begin, count).copy_(at::logsumexp(logits, {-1}) - target_logits);
    scores.correct.narrow(0, begin, count).copy_(logits.argmax(-1).eq(t));
  }
  return scores;
}

}  // namespace finetune
