#include "finetune/base/error.h"
#include "finetune/model/write_model.h"
#include "model/base_tensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

namespace finetune {

VocabularyResize resize_vocabulary(const std::filesystem::path& base,
                                   const std::filesystem::path& output, std::int64_t rows) {
  const BaseTensors tensors(base);
  const ModelConfig& config = tensors.config();
  VocabularyResize resize{config.vocab_size, rows, {config.names.embeddings}};
  if (!config.tie_word_embeddings) resize.modules.push_back(config.names.heads.front());
  if (rows <= resize.before) {
    fail(ErrorKind::config,
         "{}: the model has embeddings for {} tokens, and the tokenizer has {}; there is nothing "
         "to add",
         base.string(), resize.before, rows);
  }
  const auto change = [&](const std::string& name, const Tensor& stored) {
    if (!has_row_per_token(config, name)) return stored;
    const Tensor mean = stored.to(at::kFloat).mean(0, /*keepdim=*/true).to(stored.scalar_type());
    std::vector<std::int64_t> shape = stored.sizes().vec();
    shape[0] = rows - resize.before;
    return at::cat({stored, mean.expand(shape)});
  };
  const bool in_nf4 = tensors.any_stored_nf4();
  write_model_folder(base, output, {.change = change, .requantize = in_nf4, .vocab_size = rows});
  return resize;
}

}  // namespace finetune
