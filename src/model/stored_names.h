#pragma once

#include "finetune/formats/safetensors.h"
#include "finetune/model/model_config.h"

#include <string>

namespace finetune {

/// How the files of a folder spell the full Hugging Face names: a bare decoder (LlamaModel,
/// GPT2Model) is saved without the prefix of its tensors.
class StoredNames {
 public:
  StoredNames(const ModelConfig& config, const WeightFolder& weights);

  /// "model.norm.weight" -> "norm.weight" where the prefix is left out
  std::string stored(const std::string& full) const;
  /// The way back.
  std::string full(const std::string& stored) const;

 private:
  bool is_head(const std::string& name) const;

  std::string prefix_;
  std::vector<std::string> heads_;
  bool bare_;
};

}  // namespace finetune
