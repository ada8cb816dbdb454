#pragma once

#include "finetune/base/tensor.h"
#include "finetune/config/choices.h"
#include "finetune/formats/peft.h"
#include "finetune/model/model_config.h"

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// Gives the tensor to write in place of a stored one; `name` is the full name
/// ("model.layers.0..."). Weights of linears are [O, I] here, however they are stored.
using ChangeTensor = std::function<Tensor(const std::string& name, const Tensor& stored)>;

/// How the blocks' linears were held while something was trained over a base whose files hold them
/// as numbers. Weights that the files hold in NF4 are held as they are.
struct BaseQuantization {
  Quantization kind = Quantization::none;
  bool double_quant = true;  ///< with nf4: the block scales too
};

/// How a written folder differs from its base. The tensors that `change` sees, and those it leaves
/// alone, are the numbers that quantized weights stand for.
struct ModelChanges {
  ChangeTensor change;
  std::optional<at::ScalarType> dtype;  ///< of every floating tensor; absent: the type it had
  /// The folder ties its head to the embeddings, and the written one is not to: the missing one of
  /// the two gets a tensor of its own (`change` sees both), and config.json says so.
  bool untie = false;
  BaseQuantization trained;
  /// Writes in NF4 what was held in NF4: a checkpoint of bitsandbytes. Else every weight is written
  /// as numbers, and config.json without quantization_config.
  bool requantize = false;
  /// Rows that `change` gives the tensors with a row for each token, and what config.json then
  /// says; 0: as many as before.
  std::int64_t vocab_size = 0;
};

/// Writes a Hugging Face folder like `base`: the same shards, names and order, every tensor
/// changed. One tensor is in memory at a time (with `requantize` a shard). config.json, written
/// last, and the tokenizer's files are copied byte for byte, but for what the changes make untrue.
/// Throws Error(model, resource).
void write_model_folder(const std::filesystem::path& base, const std::filesystem::path& output,
                        const ModelChanges& changes);

/// Every tensor of a model folder under its full name, mapped; weights of linears are [O, I].
/// Throws Error(model).
std::map<std::string, Tensor> read_model_tensors(const std::filesystem::path& folder);

/// Whether the tensor of this full name has a row for each token: embeddings, head, and the head's
/// bias.
bool has_row_per_token(const ModelConfig& config, const std::string& name);

/// How many tokens a model has embeddings for.
struct VocabularyResize {
  std::int64_t before = 0, after = 0;
  std::vector<std::string> modules;  ///< what modules_to_save calls those with the new rows
};

/// Writes a folder like `base` with embeddings and head for `rows` tokens, config.json included.
/// The new rows are the mean of the old ones, which stay as they are: about what transformers'
/// resize_token_embeddings does. Throws Error(config) where the model has as many already,
/// Error(model, resource).
VocabularyResize resize_vocabulary(const std::filesystem::path& base,
                                   const std::filesystem::path& output, std::int64_t rows);

/// How several adapters become one.
enum class Combination {
  cat,     ///< the exact sum of the weighted updates; the ranks add up
  linear,  ///< A and B are summed apart, so the ranks must be equal, and products of different
           ///< adapters' A and B come in
};

/// One adapter of several LoRA adapters, as PEFT's add_weighted_adapter makes it; its scaling is 1.
/// Throws Error(model): DoRA, (IA)3 or modules_to_save among them, or ranks that differ (`linear`).
PeftAdapter combine_adapters(const std::vector<PeftAdapter>& adapters,
                             const std::vector<double>& weights, Combination combination);

/// How a merged model is written.
struct MergeOptions {
  std::optional<at::ScalarType> dtype;  ///< as ModelChanges::dtype
  BaseQuantization trained;             ///< as ModelChanges::trained
  bool requantize = false;
};

/// What merging did.
struct MergeReport {
  std::size_t tensors = 0;      ///< in the folder
  std::size_t dequantized = 0;  ///< whose base was held quantized
  std::size_t merged = 0;       ///< that took an update
  double largest_difference =
      0;  ///< of products with the reopened weights against base and live adapter, relative
  double lost_to_rounding =
      0;  ///< |stored update - exact update| / |exact update|, over all updates
};

/// Adds the adapter's update, made in float32, to the base tensor by tensor, writes the folder,
/// reopens it, and compares every tensor: an adapted one by products with probe vectors against
/// base and live adapter; over a quantized base, its dequantized values. Throws Error(model) when
/// the adapter does not fit, and Error(internal)
/// when what was written is not what was meant.
MergeReport merge_adapter(const std::filesystem::path& base, const PeftAdapter& adapter,
                          const std::filesystem::path& output, const MergeOptions& options);

}  // namespace finetune
