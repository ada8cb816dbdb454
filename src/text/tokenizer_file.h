#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace finetune {

/// The two long lists of a model, kept apart from the rest of its JSON: as JSON values they would
/// take most of the time and memory of loading.
struct ModelLists {
  std::vector<std::pair<std::string, double>>
      vocab;            ///< token and id, or token and score (Unigram)
  bool scored = false;  ///< vocab was a list of [token, score]
  std::vector<std::pair<std::string, std::string>>
      merges;  ///< left and right, in the order of their ranks
};

/// A tokenizer.json, or what another format of vocabulary amounts to.
struct TokenizerFile {
  std::string where;    ///< the path, for messages
  nlohmann::json json;  ///< all but model.vocab and model.merges
  ModelLists lists;
};

/// Reads a tokenizer.json. Throws Error(model) naming the path for what is not JSON or not such a
/// file.
TokenizerFile read_tokenizer_file(const std::filesystem::path& path);

/// Reads vocab.json ({"token": id}) and merges.txt ("left right" a line) with the stages that their
/// family
/// (`tokenizer_class` or `model_type`: Qwen2, else GPT-2) has around them. Throws Error(model).
TokenizerFile read_vocab_and_merges(const std::filesystem::path& vocab,
                                    const std::filesystem::path& merges, const std::string& family,
                                    bool add_prefix_space);

/// The whole file; Error(model) for one that is a Git LFS pointer rather than the file itself.
std::string read_model_text(const std::filesystem::path& path);

/// The stages of the families whose vocabularies come without them: "qwen2", "llama3" or "gpt2".
nlohmann::json family_stages(const std::string& family, bool add_prefix_space);

}  // namespace finetune
