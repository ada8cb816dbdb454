#include "finetune/nn/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace finetune {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr std::int64_t kTileElements = 16 << 20;  // logits held at once: 64 MiB of float32

at::ScalarType reduce_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

std::int64_t tile_rows(const Tensor& head) {
  return std::max<std::int64_t>(1, kTileElements / head.size(0));
}

class CrossEntropySum : public torch::autograd::Function<CrossEntropySum> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& head,
                        const Tensor& targets) {
    const auto wide = reduce_type(hidden);
    const Tensor w = head.to(hidden.scalar_type());
    const bool train_head = head.requires_grad();
    Tensor sum = at::zeros({}, hidden.options().dtype(wide));
    Tensor dhidden = at::empty_like(hidden);
    // In the wide type: a half type would lose what later tiles add.
    Tensor dhead = train_head ? at::zeros_like(w, w.options().dtype(wide)) : Tensor();
    const std::int64_t rows = tile_rows(w);
    for (std::int64_t begin = 0; begin < hidden.size(0); begin += rows) {
      const std::int64_t count = std::min(rows, hidden.size(0) - begin);
      const Tensor h = hidden.narrow(0, begin, count);
      const Tensor t = targets.narrow(0, begin, count).unsqueeze(1);
      Tensor logits = at::mm(h, w.t()).to(wide);  // [m, V]
      const Tensor lse = at::logsumexp(logits, {-1}, true);
      sum.add_(lse.sum() - logits.gather(1, t).sum());
      Tensor p = logits.sub_(lse).exp_();  // becomes d loss / d logits
      p.scatter_add_(1, t, at::empty_like(t, p.options()).fill_(-1.0));
      p = p.to(hidden.scalar_type());
      dhidden.narrow(0, begin, count).copy_(at::mm(p, w));
      if (train_head && w.scalar_type() == wide) dhead.addmm_(p.t(), h);
      if (train_head && w.scalar_type() != wide) dhead.add_(at::mm(p.t(), h));
    }
    ctx->save_for_backward({dhidden, dhead});
    return sum;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor& scale = grads[0];
    const Tensor dhidden = saved[0].mul(scale.to(saved[0].scalar_type()));
    Tensor dhead;
    if (saved[1].defined()) dhead = saved[1].mul(scale.to(saved[1].scalar_type()));
    return {dhidden, dhead, Tensor()};
  }
};

}  // namespace

Tensor cross_entropy_sum(const Tensor& hidden, const Tensor& head, const Tensor& targets) {
  return CrossEntropySum::apply(hidden, head, targets);
}

TokenScores score_tokens(const Tensor& hidden, const Tensor& head, const Tensor& targets) {
  const Tensor w = head.to(hidden.scalar_type());
  const auto wide = reduce_type(hidden);
  TokenScores scores{at::empty({hidden.size(0)}, hidden.options().dtype(wide).requires_grad(false)),
                     at::empty({hidden.size(0)}, hidden.options().dtype(at::kBool).requires_grad(false))};
  const std::int64_t rows = tile_rows(w);
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += rows) {
    const std::int64_t count = std::min(rows, hidden.size(0) - begin);
    const Tensor t = targets.narrow(0, begin, count);
    const Tensor logits = at::mm(hidden.narrow(0, begin, count), w.t()).to(wide);
    const Tensor target_logits = logits.gather(1, t.unsqueeze(1)).squeeze(1);
    scores.nll.narrow(0, begin, count).copy_(at::logsumexp(logits, {-1}) - target_logits);
    scores.correct.narrow(0, begin, count).copy_(logits.argmax(-1).eq(t));
  }
  return scores;
}

}  // namespace finetune
