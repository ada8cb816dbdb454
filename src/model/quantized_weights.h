#pragma once

#include "finetune/formats/safetensors.h"
#include "finetune/nn/nf4.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// Throws Error(model) where config.json says that the weights are quantized in a way that is not
/// NF4 of bitsandbytes.
void check_quantization_config(const std::filesystem::path& folder);

/// Throws Error(model) where the files hold a weight in another type of bitsandbytes, such as fp4.
void check_quant_states(const WeightFolder& weights);

/// Whether the files hold this weight ("model.layers.0.self_attn.q_proj.weight") in bitsandbytes'
/// NF4.
bool is_nf4(const WeightFolder& weights, const std::string& name);
/// The names of the tensors that make up an NF4 weight, its own included.
std::vector<std::string> nf4_parts(const WeightFolder& weights, const std::string& name);
/// Reads such a weight without copying its codes: they stay in the mapped file. Throws
/// Error(model): a part missing, of another type or size, or a block size other than 64 (256 for
/// the nested ones).
Nf4Tensor read_nf4(const WeightFolder& weights, const std::string& name);
/// The way back: the tensors that bitsandbytes stores for a weight, by name. Source:
/// QuantState.as_dict in bitsandbytes 0.50.
std::map<std::string, Tensor> nf4_tensors(const std::string& name, const Nf4Tensor& weight);

/// The key of config.json that says how a checkpoint is quantized.
constexpr const char* kQuantizationConfig = "quantization_config";
/// Its value for an NF4 checkpoint, as transformers' BitsAndBytesConfig reads it.
nlohmann::ordered_json nf4_quantization_config(bool double_quant);

/// Quantized linears of a model on disk, a folder for each base model. Only where
/// FINETUNE_CACHE_DIR is set, since it takes a quarter of the model.
class QuantizedCache {
 public:
  /// Of the base model in `folder`, whose weights these are: the key is their files' names, sizes
  /// and times.
  QuantizedCache(const std::filesystem::path& folder, const WeightFolder& weights,
                 bool double_quant);

  /// The tensors in bitsandbytes' layout, or nothing: no cache yet, or a damaged one.
  std::optional<WeightFolder> open() const;
  /// Writes the weights, by name. Never throws: without a usable folder there is no cache.
  void write(const std::map<std::string, const Nf4Tensor*>& weights) const;

 private:
  std::filesystem::path folder_;  ///< empty: no cache
};

}  // namespace finetune
