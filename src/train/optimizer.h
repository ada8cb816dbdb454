#pragma once

#include "finetune/config/config.h"
#include "train/flat_parameters.h"

#include <map>
#include <string>

namespace finetune {

/// AdamW (Loshchilov and Hutter 2019, as torch.optim.AdamW computes it) or plain gradient descent
/// with momentum (torch.optim.SGD with decoupled decay), over the flat buffer.
class Optimizer {
 public:
  Optimizer(const Config& config, const FlatParameters& parameters);

  /// Applies the gradients. `step` counts from 1.
  void step(std::int64_t step, double learning_rate);

  /// Name -> tensor [P] of everything a resumed run needs besides the values: views, so `load`
  /// fills them.
  const std::map<std::string, Tensor>& state() const { return state_; }
  /// Copies saved tensors in. Throws Error(model) when one is missing or of another size; `where`
  /// is for the message.
  void load(const std::map<std::string, Tensor>& saved, const std::string& where);

 private:
  void adamw_step(std::int64_t step, double learning_rate);
  void sgd_step(std::int64_t step, double learning_rate);

  Optim kind_;
  double beta1_, beta2_, epsilon_, weight_decay_, momentum_;
  const FlatParameters& parameters_;
  std::map<std::string, Tensor> state_;
};

/// The norm of all gradients; when it is above `max_norm` (0: never) they are scaled down to it, as
/// torch.nn.utils.clip_grad_norm_ does. Returns the norm before clipping.
double clip_gradients(const FlatParameters& parameters, double max_norm);

}  // namespace finetune
