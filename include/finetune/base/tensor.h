#pragma once

#include <ATen/core/Tensor.h>

namespace finetune {

/// The one tensor type. Shapes in comments use fixed letters: N tokens, S sequences, C hidden,
/// H heads, K key/value heads, D head_dim, V vocabulary, R rank, I in, O out, M supervised tokens.
using Tensor = at::Tensor;

}  // namespace finetune
