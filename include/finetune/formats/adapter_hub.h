#pragma once

#include "finetune/base/tensor.h"
#include "finetune/config/choices.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace finetune {

/// The tensors of one bottleneck.
struct BottleneckWeights {
  Tensor down_weight, down_bias;  ///< adapter_down.0: [R, C] and [R]
  Tensor up_weight, up_bias;      ///< adapter_up: [C, R] and [C]
};

/// What a folder of the `adapters` library (AdapterHub) holds when its adapter is a bottleneck:
/// configuration, and tensors by module name ("model.layers.0.output_adapters"; a bare decoder is
/// saved without "model."). The field names are those of the library's BnConfig.
struct BottleneckAdapter {
  std::string base_model_name_or_path;                      ///< `model_name`
  std::string model_type;                                   ///< of the base: "llama"
  AdapterPlacement placement = AdapterPlacement::pfeiffer;  ///< what is read; the modules say where
  std::string non_linearity = "gelu";                       ///< Hugging Face's name
  double scaling = 1.0;
  double dropout = 0.0;
  std::vector<std::int64_t> leave_out;  ///< blocks without an adapter

  std::map<std::string, BottleneckWeights> modules;

  /// Width of the bottlenecks.
  std::int64_t size() const { return modules.begin()->second.down_weight.size(0); }
};

/// The library's names for the two places in a block.
constexpr const char* kAttentionAdapters = "attention_adapters";
constexpr const char* kOutputAdapters = "output_adapters";

constexpr const char* kBottleneckWeightsFile = "adapter.safetensors";

/// Throws Error(model): missing files, a variant that this version does not compute, a tensor that
/// belongs to none, tensors that do not fit together.
BottleneckAdapter read_bottleneck_adapter(const std::filesystem::path& folder);

/// Writes both files into a folder that is there; the library opens them with
/// `load_adapter(folder, use_safetensors=True)`. Throws Error(resource).
void write_bottleneck_adapter(const std::filesystem::path& folder,
                              const BottleneckAdapter& adapter);

/// Tensors under the library's names
/// ("model.layers.0.output_adapters.adapters.finetune.adapter_up.weight").
std::map<std::string, Tensor> bottleneck_tensors(const BottleneckAdapter& adapter);

}  // namespace finetune
