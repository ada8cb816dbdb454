#include "nn/workspace.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>

namespace finetune {

Tensor workspace(Workspace use, std::int64_t rows, std::int64_t columns, at::ScalarType dtype,
                 std::int64_t most_rows) {
  thread_local std::array<Tensor, 2> kept;
  Tensor& memory = kept.at(static_cast<std::size_t>(use));
  const std::int64_t row_bytes = columns * static_cast<std::int64_t>(c10::elementSize(dtype));
  const std::int64_t bytes = rows * row_bytes;
  if (!memory.defined() || memory.numel() < bytes) {
    memory.reset();
    memory = at::empty({std::max(rows, most_rows) * row_bytes}, at::kByte);
  }
  return memory.narrow(0, 0, bytes).view(dtype).view({rows, columns});
}

}  // namespace finetune
