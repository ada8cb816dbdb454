#pragma once

#include "finetune/base/tensor.h"
#include "nn/reference.h"

#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <vector>

namespace finetune::benchmarks {

/// A block of SmolLM2-135M, and a micro-batch of eight Alpaca rows of a usual length.
constexpr std::int64_t kTokens = 1024, kHidden = 576, kHeads = 9, kKeyHeads = 3, kHeadDim = 64,
                       kMlp = 1536, kVocabulary = 49152;

/// A kernel and what it is measured by.
struct Kernel {
  std::string name;
  /// The inputs of both, in the type of the computation; those that ask for it get a gradient.
  std::function<std::vector<Tensor>(at::ScalarType)> inputs;
  using Call = std::function<Tensor(const std::vector<Tensor>&)>;
  Call ours;
  Call libtorch;     ///< the same from LibTorch's own operations
  double flops = 0;  ///< of a call with its gradients; 0: what counts is the memory it moves
};

inline void measure(benchmark::State& state, const Kernel& kernel, const Kernel::Call& call,
                    at::ScalarType dtype) {
  const std::vector<Tensor> inputs = kernel.inputs(dtype);
  std::vector<Tensor> leaves;
  for (const Tensor& input : inputs) {
    if (input.requires_grad()) leaves.push_back(input);
  }
  const Tensor first = call(inputs), dy = at::ones_like(first);
  for (auto _ : state) {
    const Tensor y = call(inputs);
    if (!leaves.empty()) benchmark::DoNotOptimize(reference::gradients(y, dy, leaves));
  }
  double bytes = static_cast<double>(first.nbytes()) * (leaves.empty() ? 1 : 2);
  for (const Tensor& input : inputs)
    bytes += static_cast<double>(input.nbytes()) * (input.requires_grad() ? 3 : 1);
  const double work = kernel.flops > 0 ? kernel.flops : bytes;
  state.counters[kernel.flops > 0 ? "FLOP/s" : "B/s"] =
      benchmark::Counter(work, benchmark::Counter::kIsIterationInvariantRate);
}

/// Registers NAME/TYPE/finetune and NAME/TYPE/libtorch for both types. The result says nothing: it
/// lets this run before main.
inline bool add(const Kernel& kernel) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const std::string name = kernel.name + (dtype == at::kFloat ? "/float32/" : "/bfloat16/");
    for (const bool ours : {true, false}) {
      benchmark::RegisterBenchmark((name + (ours ? "finetune" : "libtorch")).c_str(),
                                   [=](benchmark::State& state) {
                                     measure(state, kernel, ours ? kernel.ours : kernel.libtorch,
                                             dtype);
                                   })
          ->Unit(benchmark::kMicrosecond)
          ->UseRealTime();
    }
  }
  return true;
}

/// Normal numbers that get a gradient.
inline Tensor input(std::vector<std::int64_t> shape, std::uint64_t seed, at::ScalarType dtype) {
  return reference::leaf(reference::random(std::move(shape), seed, dtype));
}

}  // namespace finetune::benchmarks
