#pragma once

#include <c10/core/Allocator.h>

#include <algorithm>
#include <cstdint>

namespace finetune {

/// Bytes of tensors that are alive, and the most there were, while this is the thread's profiler
/// (c10::DebugInfoGuard).
class AliveBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t bytes, std::size_t, std::size_t,
                         c10::Device) override {
    alive += bytes;
    peak = std::max(peak, alive);
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::int64_t alive = 0, peak = 0;
};

}  // namespace finetune
