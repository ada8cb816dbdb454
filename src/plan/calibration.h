#pragma once

#include "finetune/config/config.h"
#include "finetune/dataset/example.h"
#include "finetune/model/causal_lm.h"

#include <cstdint>
#include <vector>

namespace finetune {

/// What one training micro-batch costs.
struct BatchCost {
  std::int64_t tokens = 0, supervised_tokens = 0;
  double kept_bytes = 0;  ///< alive between the forward and the backward pass
  double peak_bytes = 0;  ///< most alive at once, what is kept included
  double seconds = 0, forward_seconds = 0;
};

/// Where blocks of a model are kept after the first ones have been put into the computing type.
struct Calibration {
  BatchCost batch;
  double eval_peak_bytes = 0;    ///< of an evaluation batch; 0 without one
  double stored_share = 1;       ///< bytes of the linears as stored over those in float32
  double optimizer_seconds = 0;  ///< a trained element
};

/// Runs `indices` of the data through the first blocks of `model` and extrapolates to all of them.
/// Of `model`, which is given with its adapter, only these blocks are left afterwards.
Calibration calibrate(CausalLM& model, const Config& config, const Dataset& data,
                      const std::vector<std::int64_t>& indices, const Dataset* eval_data);

}  // namespace finetune
