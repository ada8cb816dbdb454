#pragma once

#include "finetune/config/choices.h"
#include "finetune/model/causal_lm.h"
#include "train/flat_parameters.h"

#include <filesystem>
#include <optional>
#include <string>

namespace finetune {

/// Saves and restores what a run trains: an adapter folder, or with `full` a Hugging Face model
/// folder.
class Artifact {
 public:
  /// `base`: the folder the model came from, as the user gave it.
  Artifact(Method method, CausalLM& model, const FlatParameters& parameters,
           std::filesystem::path base);

  /// For the user. `full`: in the type the base is stored in, with its tokenizer.
  void save_result(const std::filesystem::path& folder) const;
  /// For continuing: exact float32 values.
  void save_exact(const std::filesystem::path& folder) const;
  /// Copies saved values back into the parameters. Throws Error(model) when a tensor is missing or
  /// misshapen.
  void load_exact(const std::filesystem::path& folder) const;
  /// The file that holds the weights: adapter_model.safetensors, adapter.safetensors or
  /// model.safetensors.
  std::string weights_file() const;

 private:
  void save_adapter(const std::filesystem::path& folder) const;
  void save_model(const std::filesystem::path& folder, std::optional<at::ScalarType> dtype) const;

  Method method_;
  CausalLM& model_;
  const FlatParameters& parameters_;
  std::filesystem::path base_;
};

}  // namespace finetune
