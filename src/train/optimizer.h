#pragma once

#include "finetune/config/config.h"
#include "train/flat_parameters.h"
#include "train/moment.h"

#include <map>
#include <string>
#include <vector>

namespace finetune {

/// The update rule, over the flat buffer, in float32 and with decoupled weight decay:
///   adamw       Loshchilov and Hutter 2019, as torch.optim.AdamW computes it
///   adamw_8bit  the same with moments in eight bits, as bitsandbytes' AdamW8bit
///   lion        Chen et al. 2023, arXiv 2302.06675: w -= lr sign(b1 m + (1 - b1) g), then
///               m = b2 m + (1 - b2) g
///   sgd         plain gradient descent with momentum, as torch.optim.SGD
/// bfloat16 values are widened for the update and rounded stochastically after it, with bits that
/// follow from (seed, step, position).
class Optimizer {
 public:
  Optimizer(const Config& config, const FlatParameters& parameters);

  /// Applies the flat gradients. `step` counts from 1.
  void step(std::int64_t step, double learning_rate);
  /// Applies `gradient` (span.count elements of any shape and floating type) to one parameter or
  /// group.
  void update(const FlatSpan& span, const Tensor& gradient, std::int64_t step,
              double learning_rate);

  /// Name -> tensor of everything a resumed run needs besides the values: views, so `load` fills
  /// them.
  std::map<std::string, Tensor> state() const;
  /// Copies saved tensors in. Throws Error(model) when one is missing or of another size; `where`
  /// is for the message.
  void load(const std::map<std::string, Tensor>& saved, const std::string& where);

 private:
  void update_tile(const FlatSpan& tile, const Tensor& gradient, std::int64_t step,
                   double learning_rate);

  Optim kind_;
  double beta1_, beta2_, epsilon_, weight_decay_, momentum_;
  std::uint64_t seed_;
  const FlatParameters& parameters_;
  std::vector<Moment> moments_;
  std::int64_t tile_;  // elements updated at once
};

/// The norm of all gradients; when it is above `max_norm` (0: never) they are scaled down to it, as
/// torch.nn.utils.clip_grad_norm_ does. Returns the norm before clipping.
double clip_gradients(const FlatParameters& parameters, double max_norm);

}  // namespace finetune
