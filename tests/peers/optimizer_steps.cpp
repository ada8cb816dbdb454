// The optimizer alone, for tests/peers/test_optimizers.py: what it makes of given gradients.
//
//   optimizer_steps CASE.safetensors RESULT.safetensors OPTIM
//
// CASE holds "values" [n] and "gradients" [steps, n] in float32. RESULT gets the values after all
// steps and the optimizer's state.

#include "finetune/base/error.h"
#include "finetune/formats/safetensors.h"
#include "train/optimizer.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <cstdlib>

namespace {

void run(const char* input, const char* output, const char* optim) {
  using namespace finetune;
  const SafetensorsFile file{input};
  Tensor values = file.tensor("values").clone();
  const Tensor gradients = file.tensor("gradients");
  Config config;
  const auto kind = parse_choice<Optim>(optim);
  if (!kind) fail(ErrorKind::config, "no optimizer '{}'", optim);
  config.optim = *kind;
  config.adam_beta2 = 0.98;
  config.weight_decay = *kind == Optim::sgd ? 0 : 0.1;
  config.momentum = 0.9;
  const FlatParameters parameters({{"w", &values}}, at::kFloat, true);
  Optimizer optimizer(config, parameters);
  for (std::int64_t step = 1; step <= gradients.size(0); ++step) {
    values.mutable_grad().copy_(gradients[step - 1]);
    optimizer.step(step, 1e-3);
  }
  std::map<std::string, Tensor> result = optimizer.state();
  result["values"] = values.detach();
  write_safetensors(output, result, {});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "optimizer_steps CASE.safetensors RESULT.safetensors OPTIM\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  std::fflush(nullptr);
  std::_Exit(0);  // as the program itself does
}
