#include "finetune/base/error.h"
#include "text/model.h"
#include "text/prefix_trie.h"
#include "text/utf8.h"

#include <algorithm>
#include <optional>

namespace finetune {

namespace {

/// WordPiece and WordLevel: both look words up, and have one token for a word they do not know.
class LookupModel : public WordModel {
 public:
  explicit LookupModel(TokenizerFile& file)
      : where_(file.where), unknown_name_(text_setting(file, "unk_token")) {
    fill_vocabulary(file, vocabulary_);
    unknown_ = vocabulary_.find(unknown_name_);
  }

 protected:
  void push_unknown(std::string_view word, std::vector<WordToken>& tokens) const {
    if (!unknown_) {
      fail(ErrorKind::model,
           "{}: '{}' is not in the vocabulary, and neither is the unknown token '{}'", where_, word,
           unknown_name_);
    }
    tokens.push_back({*unknown_, 0, static_cast<std::uint32_t>(word.size())});
  }

 private:
  std::string where_, unknown_name_;
  std::optional<std::int32_t> unknown_;
};

class WordLevelModel final : public LookupModel {
 public:
  using LookupModel::LookupModel;

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    const auto id = vocabulary_.find(word);
    if (!id) return push_unknown(word, tokens);
    tokens.push_back({*id, 0, static_cast<std::uint32_t>(word.size())});
  }
};

class WordPieceModel final : public LookupModel {
 public:
  explicit WordPieceModel(TokenizerFile& file) : LookupModel(file) {
    const nlohmann::json& model = file.json.at("model");
    max_characters_ = model.value("max_input_chars_per_word", std::size_t{100});
    for (std::int32_t id = 0; id < vocabulary_.id_limit(); ++id) {
      if (const std::string_view* content = vocabulary_.content(id)) trie_.put(*content, id);
    }
    inside_ = trie_.walk(model.value("continuing_subword_prefix", std::string("##")));
  }

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    const auto continuation = [](char byte) { return is_continuation(byte); };
    const auto characters = word.size() - static_cast<std::size_t>(std::count_if(
                                              word.begin(), word.end(), continuation));
    if (characters > max_characters_) return push_unknown(word, tokens);
    const std::size_t first = tokens.size();
    for (std::size_t begin = 0, end = 0; begin < word.size(); begin = end) {
      std::int32_t id = -1;
      std::uint32_t node = begin > 0 ? inside_ : PrefixTrie::kRoot;
      for (std::size_t at = begin; at < word.size() && node != PrefixTrie::kNone;) {
        node = trie_.step(node, word[at++]);
        const bool ends_character = at == word.size() || !is_continuation(word[at]);
        if (node == PrefixTrie::kNone || trie_.number(node) < 0 || !ends_character) continue;
        id = trie_.number(node);
        end = at;
      }
      if (id < 0) {
        tokens.resize(first);
        return push_unknown(word, tokens);
      }
      tokens.push_back({id, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)});
    }
  }

 private:
  PrefixTrie trie_;
  std::uint32_t inside_ = PrefixTrie::kNone;  ///< the node of the prefix of tokens inside of a word
  std::size_t max_characters_ = 100;
};

}  // namespace

std::unique_ptr<WordModel> make_word_piece_model(TokenizerFile& file) {
  return std::make_unique<WordPieceModel>(file);
}

std::unique_ptr<WordModel> make_word_level_model(TokenizerFile& file) {
  return std::make_unique<WordLevelModel>(file);
}

}  // namespace finetune
