#pragma once

#include "finetune/base/tensor.h"

#include <cstdint>
#include <vector>

namespace finetune {

/// The auxiliary loss of sparse models, a scalar: experts * sum over experts of (how often it was
/// chosen, per token) * (its mean probability), over all rows of all layers' router logits [N,
/// experts]. It is num_experts_per_token where all experts are used alike, and larger where they
/// are not. Source: Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6, as transformers computes
/// it for output_router_logits.
Tensor load_balancing_loss(const std::vector<Tensor>& router_logits,
                           std::int64_t num_experts_per_token);

}  // namespace finetune
