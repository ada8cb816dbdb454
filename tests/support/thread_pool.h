#pragma once

// For the thread sanitizer, put in front of every file: at::parallel_for on plain threads. The
// sanitizer does not know what LibTorch's OpenMP threads wait for, and would see races everywhere.

#define INTRA_OP_PARALLEL

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace at::internal {

template <typename F>
void invoke_parallel(std::int64_t begin, std::int64_t end, std::int64_t grain_size, const F& run) {
  constexpr std::int64_t kThreads = 4;
  const std::int64_t size = std::max((end - begin + kThreads - 1) / kThreads, grain_size);
  std::exception_ptr problem;
  std::atomic_flag failed = ATOMIC_FLAG_INIT;
  std::vector<std::thread> threads;
  for (std::int64_t from = begin; from < end; from += size) {
    threads.emplace_back([&, from] {
      try {
        run(from, std::min(end, from + size));
      } catch (...) {
        if (!failed.test_and_set()) problem = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (problem) std::rethrow_exception(problem);
}

}  // namespace at::internal
