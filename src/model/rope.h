#pragma once

#include "finetune/model/model_config.h"
#include "finetune/nn/rope.h"

#include <span>

namespace finetune {

/// Inverse frequencies [R/2] for a sequence of `length` tokens (only `dynamic` and `longrope`
/// depend on it).
Tensor inverse_frequencies(const RopeConfig& rope, std::int64_t length);

/// Angles of a ragged stream. `first_positions` [S]: the position of each sequence's first token;
/// empty: all 0.
RopeAngles rope_angles(const RopeConfig& rope, std::span<const std::int64_t> starts,
                       std::span<const std::int64_t> first_positions, const at::Device& device);

}  // namespace finetune
