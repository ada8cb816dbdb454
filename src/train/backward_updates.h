#pragma once

#include "train/flat_parameters.h"
#include "train/optimizer.h"

#include <string>
#include <vector>

namespace finetune {

/// The optimizer inside the backward pass: as soon as a parameter's gradient is complete it is
/// applied and freed, so no more than the gradients on their way exist at once. Source: Lv et al.
/// 2023, arXiv 2306.09782; torchtune's optimizer_in_bwd.
class BackwardUpdates {
 public:
  /// Hooks every leaf. Both arguments outlive this.
  BackwardUpdates(const FlatParameters& parameters, Optimizer& optimizer);
  ~BackwardUpdates();
  BackwardUpdates(const BackwardUpdates&) = delete;
  BackwardUpdates& operator=(const BackwardUpdates&) = delete;

  /// Before the one backward pass of a step. `step` counts from 1.
  void begin(std::int64_t step, double learning_rate);
  /// After it: parameters that no gradient reached are updated with zeros, as they are in a flat
  /// buffer. Returns the norm of all gradients, which is not finite when one of them was not; that
  /// one and all after it were not applied.
  double finish();

  /// The parameter whose gradient was not finite; "" when there is none.
  const std::string& nonfinite() const { return nonfinite_; }
  /// True when this step has changed a parameter.
  bool any_applied() const { return any_applied_; }

 private:
  void apply(std::size_t index, const Tensor& gradient);

  const FlatParameters& parameters_;
  Optimizer& optimizer_;
  std::int64_t step_ = 0;
  double learning_rate_ = 0;
  double squares_ = 0;  // of all gradients so far
  std::vector<bool> seen_;
  bool any_applied_ = false;
  std::string nonfinite_;
};

}  // namespace finetune
