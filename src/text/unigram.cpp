#include "text/unigram.h"

#include "finetune/base/error.h"
#include "text/utf8.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace finetune {

void UnigramLattice::add(std::string_view token, double score, std::int32_t id) {
  trie_.put(token, static_cast<std::int32_t>(entries_.size()));
  entries_.push_back({score, id});
}

void UnigramLattice::set_unknown(std::int32_t id, double score) {
  unknown_ = id;
  unknown_score_ = score;
}

std::vector<UnigramLattice::Step> UnigramLattice::best_steps(std::string_view text,
                                                             const std::string& where) const {
  std::vector<Step> best(text.size() + 1);
  for (std::size_t begin = 0, next = 0; begin < text.size(); begin = next) {
    const double score = best[begin].score;
    next = begin + code_point_at(text, begin).size;
    const auto propose = [&](std::size_t end, double total, std::int32_t id) {
      if (single_precision_) total = static_cast<float>(total);
      Step& step = best[end];
      if (step.begin == kNowhere || total > step.score)
        step = {total, static_cast<std::uint32_t>(begin), id};
    };
    bool whole_character = false;
    std::uint32_t node = PrefixTrie::kRoot;
    for (std::size_t end = begin; end < text.size();) {
      node = trie_.step(node, text[end++]);
      if (node == PrefixTrie::kNone) break;
      if (trie_.number(node) < 0) continue;
      const Entry& entry = entries_[static_cast<std::size_t>(trie_.number(node))];
      propose(end, entry.score + score, entry.id);
      whole_character = whole_character || end == next;
    }
    if (whole_character) continue;
    if (unknown_ < 0)
      fail(ErrorKind::model, "{}: a character is not in the vocabulary, and there is no unk_id",
           where);
    propose(next, unknown_score_ + score, unknown_);
  }
  return best;
}

void UnigramLattice::cut(std::string_view text, const std::string& where,
                         std::vector<WordToken>& tokens) const {
  const std::vector<Step> best = best_steps(text, where);
  const std::size_t first = tokens.size();
  for (std::size_t end = text.size(); end > 0; end = best[end].begin) {
    tokens.push_back({best[end].id, best[end].begin, static_cast<std::uint32_t>(end)});
  }
  std::reverse(tokens.begin() + static_cast<std::ptrdiff_t>(first), tokens.end());
}

namespace {

class UnigramModel final : public WordModel {
 public:
  explicit UnigramModel(TokenizerFile& file) : where_(file.where) {
    const nlohmann::json& model = file.json.at("model");
    const std::size_t size = file.lists.vocab.size();
    vocabulary_.reserve(size);
    double lowest = std::numeric_limits<double>::infinity();
    for (std::size_t id = 0; id < size; ++id) {
      const auto& [token, score] = file.lists.vocab[id];
      if (!std::isfinite(score))
        fail(ErrorKind::model, "{}: token '{}' has the score {}", where_, token, score);
      vocabulary_.put(token, static_cast<std::int64_t>(id), where_);
      lattice_.add(token, score, static_cast<std::int32_t>(id));
      lowest = std::min(lowest, score);
    }
    const auto unknown = model.find("unk_id");
    if (unknown != model.end() && !unknown->is_null()) {
      const auto id = unknown->get<std::int64_t>();
      if (id < 0 || id >= static_cast<std::int64_t>(size)) {
        fail(ErrorKind::model, "{}: unk_id is {}, expected 0 to {}", where_, id,
             static_cast<std::int64_t>(size) - 1);
      }
      unknown_ = static_cast<std::int32_t>(id);
      constexpr double kPenalty = 10;
      lattice_.set_unknown(unknown_, lowest - kPenalty);
    }
    fuse_unknown_ = model.value("fuse_unk", true);
    byte_fallback_ = model.value("byte_fallback", false);
    for (unsigned byte = 0; byte < 256; ++byte) {
      byte_ids_[byte] = vocabulary_.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
    }
  }

  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const override {
    std::vector<WordToken> pieces;
    lattice_.cut(word, where_, pieces);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      WordToken piece = pieces[i];
      while (fuse_unknown_ && piece.id == unknown_ && i + 1 < pieces.size() &&
             pieces[i + 1].id == unknown_) {
        piece.end = pieces[++i].end;
      }
      push(word.substr(piece.begin, piece.end - piece.begin), piece, tokens);
    }
  }

 private:
  /// The token of a piece of text, which is looked up again: unknown characters together may be
  /// one.
  void push(std::string_view text, WordToken piece, std::vector<WordToken>& tokens) const {
    const auto byte_id = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
    if (const auto id = vocabulary_.find(text)) {
      tokens.push_back({*id, piece.begin, piece.end});
    } else if (byte_fallback_ && std::all_of(text.begin(), text.end(),
                                             [&](char byte) { return byte_id(byte) >= 0; })) {
      for (const char byte : text) tokens.push_back({byte_id(byte), piece.begin, piece.end});
    } else {
      tokens.push_back({unknown_, piece.begin, piece.end});
    }
  }

  std::string where_;
  UnigramLattice lattice_{false};
  std::int32_t unknown_ = -1;
  bool fuse_unknown_ = true, byte_fallback_ = false;
  std::array<std::int32_t, 256> byte_ids_{};
};

}  // namespace

std::unique_ptr<WordModel> make_unigram_model(TokenizerFile& file) {
  return std::make_unique<UnigramModel>(file);
}

}  // namespace finetune
