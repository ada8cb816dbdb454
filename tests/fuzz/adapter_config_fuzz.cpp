#include "finetune/formats/adapter_folder.h"
#include "finetune/formats/safetensors.h"
#include "fuzz/fuzz.h"

#include <ATen/ops/ones.h>

/// adapter_config.json beside sound weights of both formats.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace finetune;
  static const fuzz::Folder folder;
  static const bool made = [] {
    const std::string linear = "base_model.model.model.layers.0.self_attn.q_proj.";
    write_safetensors(folder.path() / kAdapterWeightsFile,
                      {{linear + "lora_A.weight", at::ones({2, 4})},
                       {linear + "lora_B.weight", at::ones({4, 2})}},
                      {{"format", "pt"}});
    const std::string bottleneck = "model.layers.0.output_adapters.adapters.finetune.";
    write_safetensors(folder.path() / kBottleneckWeightsFile,
                      {{bottleneck + "adapter_down.0.weight", at::ones({2, 4})},
                       {bottleneck + "adapter_down.0.bias", at::ones({2})},
                       {bottleneck + "adapter_up.weight", at::ones({4, 2})},
                       {bottleneck + "adapter_up.bias", at::ones({4})}},
                      {});
    return true;
  }();
  static_cast<void>(made);
  folder.write(kAdapterConfigFile, fuzz::text_of(data, size));
  fuzz::only_errors([] {
    const SavedAdapter adapter = read_adapter(folder.path());
    fuzz::promise(!stored_tensors(adapter).empty(), "an adapter has tensors");
  });
  return 0;
}
