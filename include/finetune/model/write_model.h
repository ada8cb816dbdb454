#pragma once

#include "finetune/base/tensor.h"
#include "finetune/formats/peft.h"

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace finetune {

/// Gives the tensor to write in place of a stored one; `name` is the full name
/// ("model.layers.0..."). Weights of linears are [O, I] here, however they are stored.
using ChangeTensor = std::function<Tensor(const std::string& name, const Tensor& stored)>;

/// Writes a Hugging Face folder like `base`: the same shards, names and order, every tensor changed
/// by `change`, then stored as `dtype` (absent: the type it had). One tensor is in memory at a
/// time. config.json, written last, and the tokenizer's files are copied byte for byte, but for the
/// type's name. Throws Error(model, resource).
void write_model_folder(const std::filesystem::path& base, const std::filesystem::path& output,
                        std::optional<at::ScalarType> dtype, const ChangeTensor& change);

/// Every tensor of a model folder under its full name, mapped; weights of linears are [O, I].
/// Throws Error(model).
std::map<std::string, Tensor> read_model_tensors(const std::filesystem::path& folder);

/// What merging did.
struct MergeReport {
  std::size_t tensors = 0;  ///< in the folder
  std::size_t merged = 0;   ///< that took an update
  double largest_difference =
      0;  ///< of products with the reopened weights against base and live adapter, relative
  double lost_to_rounding =
      0;  ///< |stored update - exact update| / |exact update|, over all updates
};

/// Adds the adapter's update, made in float32, to the base tensor by tensor, writes the folder,
/// reopens it, and compares every tensor: an adapted one by products with probe vectors against
/// base and live adapter. Throws Error(model) when the adapter does not fit, and Error(internal)
/// when what was written is not what was meant.
MergeReport merge_adapter(const std::filesystem::path& base, const PeftAdapter& adapter,
                          const std::filesystem::path& output, std::optional<at::ScalarType> dtype);

}  // namespace finetune
