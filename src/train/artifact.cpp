#include "train/artifact.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "finetune/formats/adapter_folder.h"
#include "finetune/formats/safetensors.h"
#include "finetune/model/adapters.h"
#include "finetune/model/write_model.h"
#include "finetune/text/tokenizer.h"
#include "finetune/train/run_dir.h"

#include <ATen/core/grad_mode.h>

namespace finetune {

namespace fs = std::filesystem;

Artifact::Artifact(Method method, CausalLM& model, const FlatParameters& parameters, fs::path base)
    : method_(method), model_(model), parameters_(parameters), base_(std::move(base)) {}

std::string Artifact::weights_file() const {
  return method_ == Method::full      ? kModelWeightsFile
         : method_ == Method::adapter ? kBottleneckWeightsFile
                                      : kAdapterWeightsFile;
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
  SavedAdapter adapter = adapter_of(model_);
  base_model(adapter) = base_.string();
  write_adapter(folder, adapter);
}

void Artifact::save_model(const fs::path& folder, std::optional<at::ScalarType> dtype) const {
  const auto& trained = parameters_.by_name();
  const auto change = [&](const std::string& name, const Tensor& stored) {
    const bool tied_head = model_.tied() && name == model_.head_name + ".weight";
    const auto found = trained.find(tied_head ? model_.embeddings_name() + ".weight" : name);
    return found == trained.end() ? stored : found->second.cpu();
  };
  write_model_folder(base_, folder, {change, dtype});
}

void Artifact::load_exact(const fs::path& folder) const {
  const at::NoGradGuard no_grad;
  if (method_ != Method::full)
    return restore_adapter(model_, read_adapter(folder), folder.string());
  std::map<std::string, Tensor> saved = read_model_tensors(folder);
  const std::string embeddings = model_.embeddings_name() + ".weight";
  if (!saved.contains(embeddings)) saved[embeddings] = saved[model_.head_name + ".weight"];
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
