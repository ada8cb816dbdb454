#pragma once

#include "finetune/model/model_config.h"
#include "finetune/nn/rope.h"

#include <span>

namespace finetune {

/// Inverse frequencies [D/2] for a sequence of `length` tokens (only `dynamic` depends on it).
Tensor inverse_frequencies(const ModelConfig& config, std::int64_t length);

/// Angles of a ragged stream. `first_positions` [S]: the position of each sequence's first token (0 in training).
RopeAngles rope_angles(const ModelConfig& config, std::span<const std::int64_t> starts,
                       std::span<const std::int64_t> first_positions, const at::Device& device);

}  // namespace finetune
