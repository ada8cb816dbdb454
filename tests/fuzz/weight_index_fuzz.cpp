#include "finetune/formats/safetensors.h"

#include "fuzz/fuzz.h"

#include <ATen/ops/ones.h>

/// model.safetensors.index.json beside two sound shards.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace finetune;
  static const fuzz::Folder folder;
  static const bool made = [] {
    write_safetensors(folder.path() / "a.safetensors", {{"x", at::ones({2})}}, {});
    write_safetensors(folder.path() / "b.safetensors", {{"y", at::ones({3})}}, {});
    return true;
  }();
  static_cast<void>(made);
  folder.write("model.safetensors.index.json", fuzz::text_of(data, size));
  fuzz::only_errors([] {
    const WeightFolder weights(folder.path());
    for (const std::string& name : weights.names())
      fuzz::promise(weights.tensor(name).defined(), "every name has a tensor");
  });
  return 0;
}
