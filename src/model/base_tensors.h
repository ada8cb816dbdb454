#pragma once

#include "finetune/formats/safetensors.h"
#include "finetune/model/model_config.h"
#include "finetune/model/write_model.h"
#include "finetune/nn/nf4.h"
#include "model/stored_names.h"

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

/// The tensors of a base model as an adapter saw them in training, made when they are asked for:
/// under full names, weights of linears [O, I], quantized ones as the numbers they stand for.
class BaseTensors {
 public:
  /// `trained`: how the linears were held that the files hold as numbers. Throws Error(model).
  explicit BaseTensors(const std::filesystem::path& folder, BaseQuantization trained = {});

  const ModelConfig& config() const { return config_; }
  const WeightFolder& files() const { return files_; }
  const StoredNames& names() const { return stored_; }
  /// All of them but the parts that make up an NF4 weight.
  std::vector<std::string> full_names() const;
  bool has(const std::string& name) const { return files_.find(file_name(name)) != nullptr; }
  /// Gives `name` the tensor of `other`, where the files have it once for both.
  void add_twin(const std::string& name, const std::string& other) { twins_[name] = other; }

  /// float32 where it is quantized, else as stored (mapped).
  Tensor tensor(const std::string& name) const;
  /// Takes what the files hold of it out of this process's memory, until it is asked for again.
  void release(const std::string& name) const;
  std::vector<std::int64_t> shape(const std::string& name) const;
  /// The stored type, or the one that a quantized weight was made of.
  at::ScalarType dtype(const std::string& name) const;

  /// How this weight was held in training.
  Quantization quantization(const std::string& name) const;
  /// Whether the files hold it in NF4.
  bool stored_nf4(const std::string& name) const;
  bool any_stored_nf4() const;
  /// Its NF4 weight, from the files or made of their numbers.
  Nf4Tensor nf4(const std::string& name) const;
  /// The tensors of the files that make it up.
  std::vector<std::string> parts(const std::string& name) const;

 private:
  /// Its name in the files.
  std::string file_name(const std::string& name) const;
  /// What the files hold as numbers, [O, I].
  Tensor numbers(const std::string& name) const;

  ModelConfig config_;
  WeightFolder files_;
  StoredNames stored_;
  BaseQuantization trained_;
  std::map<std::string, std::string> twins_;
};

/// The NF4 weight that is written for a weight held in NF4: the base's own where `changed` is
/// `before`, else that of the changed numbers, rounded to the base's type first.
Nf4Tensor requantized(const BaseTensors& base, const std::string& name, const Tensor& before,
                      const Tensor& changed);

}  // namespace finetune
