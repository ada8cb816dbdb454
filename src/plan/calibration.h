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

/// Blocks that a calibration keeps of a model. The cost of one more is half of what four cost above
/// two: the first differs from the others, and a difference of a single block is lost in the noise,
/// which the model's other blocks would multiply.
constexpr std::size_t kCalibrationBlocks = 4;

/// What was measured on the first blocks of a model.
struct Calibration {
  BatchCost batch;                    ///< of all blocks
  BatchCost measured;                 ///< of the first ones
  std::uint64_t resident_bytes = 0;   ///< the most this process had with them
  std::uint64_t parameter_bytes = 0;  ///< of it, what is trained of them and its gradients
  double eval_peak_bytes = 0;         ///< of an evaluation batch; 0 without one
  std::int64_t eval_supervised_tokens = 0;
  double stored_share = 1;       ///< bytes of the linears as stored over those in float32
  double optimizer_seconds = 0;  ///< a trained element
};

/// Runs `indices` of the data through `model`, which has kCalibrationBlocks of its `blocks` left,
/// or all where it has no more, and extrapolates to all of them. Leaves the model changed.
Calibration calibrate(CausalLM& model, std::size_t blocks, const Config& config,
                      const Dataset& data, const std::vector<std::int64_t>& indices,
                      const Dataset* eval_data);

}  // namespace finetune
