#include "text/model.h"

#include "finetune/base/error.h"
#include "text/bpe.h"
#include "text/stages.h"

#include <cmath>

namespace finetune {

std::unique_ptr<WordModel> make_word_model(TokenizerFile& file) {
  const nlohmann::json& model = file.json.at("model");
  std::string type;
  if (model.contains("type")) {
    type = model.at("type").get<std::string>();
  } else if (file.lists.scored) {
    type = "Unigram";
  } else if (!file.lists.merges.empty()) {
    type = "BPE";
  } else {
    type = model.contains("max_input_chars_per_word") ? "WordPiece" : "WordLevel";
  }
  if ((type == "Unigram") != file.lists.scored && !file.lists.vocab.empty()) {
    fail(ErrorKind::model, "{}: a {} model whose vocabulary is {}", file.where, type,
         file.lists.scored ? "a list with scores" : "an object with ids");
  }
  if (type == "BPE") return std::make_unique<BpeModel>(file);
  if (type == "Unigram") return make_unigram_model(file);
  if (type == "WordPiece") return make_word_piece_model(file);
  if (type == "WordLevel") return make_word_level_model(file);
  refuse_stage(file.where, "model", type);
}

void fill_vocabulary(TokenizerFile& file, Vocabulary& vocabulary) {
  vocabulary.reserve(file.lists.vocab.size());
  for (const auto& [token, id] : file.lists.vocab) {
    if (!(id >= 0 && id < static_cast<double>(Vocabulary::kMaxIds)) || id != std::floor(id)) {
      fail(ErrorKind::model, "{}: token '{}' has the id {}, expected 0 to {}", file.where, token,
           id, Vocabulary::kMaxIds - 1);
    }
    vocabulary.put(token, static_cast<std::int64_t>(id), file.where);
  }
}

std::string text_setting(const TokenizerFile& file, const char* key) {
  const nlohmann::json& model = file.json.at("model");
  const auto value = model.find(key);
  return value == model.end() || value->is_null() ? std::string() : value->get<std::string>();
}

}  // namespace finetune
