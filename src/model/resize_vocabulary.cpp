#include "finetune/base/error.h"
#include "finetune/model/write_model.h"
#include "model/base_tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <algorithm>

namespace finetune {

VocabularyResize resize_vocabulary(const std::filesystem::path& base,
                                   const std::filesystem::path& output, std::int64_t rows) {
  const BaseTensors tensors(base);
  const VocabularyResize resize{tensors.config().vocab_size, rows};
  if (rows <= resize.before) {
    fail(ErrorKind::config,
         "{}: the model has embeddings for {} tokens, and the tokenizer has {}; there is nothing "
         "to add",
         base.string(), resize.before, rows);
  }
  const std::vector<std::string> resized = vocabulary_tensors(tensors.config());
  const auto change = [&](const std::string& name, const Tensor& stored) {
    if (std::find(resized.begin(), resized.end(), name) == resized.end()) return stored;
    const Tensor mean = stored.to(at::kFloat).mean(0, /*keepdim=*/true).to(stored.scalar_type());
    std::vector<std::int64_t> shape = stored.sizes().vec();
    shape[0] = rows - resize.before;
    return at::cat({stored, mean.expand(shape)});
  };
  const std::vector<std::string> names = tensors.full_names();
  const bool in_nf4 = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return tensors.stored_nf4(name);
  });
  write_model_folder(base, output, {.change = change, .requantize = in_nf4, .vocab_size = rows});
  return resize;
}

}  // namespace finetune
