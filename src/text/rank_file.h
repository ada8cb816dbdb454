#pragma once

#include "finetune/text/tokenizer.h"
#include "text/tokenizer_config.h"

#include <filesystem>
#include <memory>
#include <string_view>

namespace finetune {

/// Is this text a file of ranks: a token's bytes in base64, a space and its rank on every line?
bool is_rank_file(std::string_view text);

/// The tokenizer of a rank file (`original/tokenizer.model` of Llama 3, `qwen.tiktoken`), whose
/// pattern and special tokens are not in it but known for the family that the folder's
/// configuration names. Throws Error(model) for another family, and for a file that is damaged.
std::unique_ptr<Tokenizer> load_rank_file(const std::filesystem::path& path, std::string_view text,
                                          const TokenizerConfig& config);

}  // namespace finetune
