#include "train/artifact.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/formats/peft.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/adapters.h"
#include "finetune/model/write_model.h"
#include "finetune/text/tokenizer.h"
#include "finetune/train/run_dir.h"

#include <ATen/core/grad_mode.h>

namespace finetune {

namespace fs = std::filesystem;

Artifact::Artifact(Method method, const CausalLM& model, const FlatParameters& parameters,
                   fs::path base)
    : method_(method), model_(model), parameters_(parameters), base_(std::move(base)) {}

std::string Artifact::embeddings_name() const {
  return model_.config.names.prefix + model_.config.names.embeddings + ".weight";
}

std::string Artifact::weights_file() const {
  return method_ == Method::full ? kModelWeightsFile : kAdapterWeightsFile;
}

void Artifact::save_result(const fs::path& folder) const {
  if (method_ == Method::full) return save_model(folder, std::nullopt);
  save_adapter(folder);
  for (const fs::path& file : tokenizer_files(base_)) {
    write_file_atomically(folder / file.filename(), read_file(file, ErrorKind::model));
  }
}

void Artifact::save_exact(const fs::path& folder) const {
  method_ == Method::full ? save_model(folder, at::kFloat) : save_adapter(folder);
}

void Artifact::save_adapter(const fs::path& folder) const {
  PeftLoraConfig config = lora_config_of(model_);
  config.base_model_name_or_path = base_.string();
  write_safetensors(folder / kAdapterWeightsFile, peft_tensors(lora_pairs_of(model_)),
                    {{"format", "pt"}});
  write_file_atomically(folder / kAdapterConfigFile, peft_config_json(config));
}

void Artifact::save_model(const fs::path& folder, std::optional<at::ScalarType> dtype) const {
  const auto& trained = parameters_.by_name();
  write_model_folder(base_, folder, dtype, [&](const std::string& name, const Tensor& stored) {
    const bool tied_head = model_.tied() && name == model_.head_name + ".weight";
    const auto found = trained.find(tied_head ? embeddings_name() : name);
    return found == trained.end() ? stored : found->second.cpu();
  });
}

void Artifact::load_exact(const fs::path& folder) const {
  const at::NoGradGuard no_grad;
  std::map<std::string, Tensor> saved;
  if (method_ == Method::full) {
    saved = read_model_tensors(folder);
    if (!saved.contains(embeddings_name()))
      saved[embeddings_name()] = saved[model_.head_name + ".weight"];
  } else {
    for (const auto& [module, pair] : read_peft_adapter(folder).modules) {
      saved[module + ".lora_A.weight"] = pair.a;
      saved[module + ".lora_B.weight"] = pair.b;
    }
  }
  for (const auto& [name, value] : parameters_.by_name()) {
    const auto found = saved.find(name);
    if (found == saved.end() || !found->second.defined() ||
        found->second.sizes() != value.sizes()) {
      fail(ErrorKind::model,
           "{}: '{}' is missing or not of shape {}; this checkpoint is of another run",
           folder.string(), name, format_shape(value.sizes().vec()));
    }
    Tensor(value).copy_(found->second);
  }
}

}  // namespace finetune
