#pragma once

#include "finetune/base/tensor.h"

namespace finetune {

/// What reused memory is for: a piece each, since a product may need both at once.
enum class Workspace { weight, logits };

/// A matrix [rows, columns] on the CPU whose values are whatever was there, over memory of this
/// thread that stays and grows to the largest asked for. For what is large and short-lived where
/// autograd records nothing: taken from the heap each time, it would leave holes that small things
/// settle in, and the peak would grow by chance. Valid until the next call for the same use.
/// `most_rows`: make place for as many at once; what is not used is not resident.
Tensor workspace(Workspace use, std::int64_t rows, std::int64_t columns, at::ScalarType dtype,
                 std::int64_t most_rows = 0);

}  // namespace finetune
