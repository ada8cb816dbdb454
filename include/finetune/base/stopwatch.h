#pragma once

#include <chrono>

namespace finetune {

/// Time that has passed since it was made, by the clock that nobody sets.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace finetune
