#include "text/sentencepiece_tokenizer.h"

#include "finetune/base/error.h"
#include "text/charsmap.h"
#include "text/utf8.h"

#include <algorithm>
#include <exception>
#include <limits>

namespace finetune {

namespace {

void load_or_fail(sentencepiece::SentencePieceProcessor& processor, const std::string& model,
                  const std::string& where) {
  std::string problem;
  try {
    const auto status = processor.LoadFromSerializedProto(model);
    if (!status.ok()) problem = status.error_message();
  } catch (const std::exception& error) {  // of its trie, for an empty piece
    problem = error.what();
  }
  if (!problem.empty()) {
    fail(ErrorKind::model, "{}: not a sentencepiece model ({}); is the file complete?", where,
         problem);
  }
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(const std::filesystem::path& path, std::string model,
                                               const TokenizerConfig& config)
    : where_(path.string()), legacy_(config.legacy) {
  const SentencePieceFacts facts = read_sentencepiece_facts(model);
  if (facts.pieces.empty()) {
    fail(ErrorKind::model,
         "{}: neither a sentencepiece model nor a rank file (tiktoken); is the file complete?",
         where_);
  }
  // The library walks through these without looking where they end.
  for (const std::string_view rules : {facts.charsmap, facts.denormalizer_charsmap}) {
    if (!rules.empty()) Charsmap(rules, where_);
  }
  const bool prefix = config.add_prefix_space.value_or(facts.add_dummy_prefix);
  load_or_fail(first_, prefix == facts.add_dummy_prefix ? model : with_dummy_prefix(model, prefix),
               where_);
  load_or_fail(later_, with_dummy_prefix(model, prefix && legacy_), where_);
  vocab_size_ = first_.GetPieceSize();
  if (static_cast<std::size_t>(vocab_size_) != facts.pieces.size() ||
      later_.GetPieceSize() != vocab_size_) {
    fail(ErrorKind::model, "{}: its pieces cannot be told apart; the file is damaged", where_);
  }
  byte_fallback_ = facts.byte_fallback;
  if (facts.unigram) read_unigram(facts);
  add_tokens(config);
  // The library finds its user-defined pieces itself, and normalizes around them.
  for (auto& [id, token] : added_) {
    const auto index = static_cast<std::size_t>(id);
    if (index >= facts.pieces.size() || facts.pieces[index].kind != SentencePiece::user_defined)
      continue;
    token.normalized = !(token.lstrip || token.rstrip || token.single_word);
  }
  for (const auto& [id, token] : added_) {
    if (!token.normalized) matcher_.add(token.content, token);
  }
  if (config.bos_token.empty() && !config.bos_id && first_.bos_id() >= 0)
    specials_.bos_id = first_.bos_id();
  if (config.eos_token.empty() && !config.eos_id && first_.eos_id() >= 0)
    specials_.eos_id = first_.eos_id();
}

void SentencePieceTokenizer::read_unigram(const SentencePieceFacts& facts) {
  constexpr float kUnknownPenalty = 10;
  constexpr double kUserDefinedPenalty = 0.1;
  float lowest = std::numeric_limits<float>::max(), highest = std::numeric_limits<float>::lowest();
  for (const SentencePiece& piece : facts.pieces) {
    if (piece.kind != SentencePiece::normal) continue;
    lowest = std::min(lowest, piece.score);
    highest = std::max(highest, piece.score);
  }
  lattice_.emplace(true);
  lattice_->set_unknown(first_.unk_id(), lowest - kUnknownPenalty);
  for (std::size_t id = 0; id < facts.pieces.size(); ++id) {
    const SentencePiece& piece = facts.pieces[id];
    if (piece.kind == SentencePiece::normal)
      lattice_->add(piece.text, piece.score, static_cast<std::int32_t>(id));
    if (piece.kind == SentencePiece::user_defined) {
      const auto inside = [](char byte) { return is_continuation(byte); };
      const auto characters =
          piece.text.size() -
          static_cast<std::size_t>(std::count_if(piece.text.begin(), piece.text.end(), inside));
      const auto score =
          static_cast<float>(static_cast<float>(characters) * highest - kUserDefinedPenalty);
      lattice_->add(piece.text, score, static_cast<std::int32_t>(id));
    }
  }
}

void SentencePieceTokenizer::add_tokens(const TokenizerConfig& config) {
  for (AddedToken token : config.added) {
    token.normalized = false;  // transformers looks for all of them in the text as it is
    add_token(token);
  }
  AddedToken special;
  special.special = true;
  for (const std::string& content : config.specials) {
    special.content = content;
    special.id = piece_id(content).value_or(-1);
    if (special.id >= 0) add_token(special);
  }
  for (std::int32_t id = 0; id < first_.GetPieceSize(); ++id) {
    if (!first_.IsControl(id)) continue;
    special.content = first_.IdToPiece(id);
    special.id = id;
    add_token(special);
  }
}

void SentencePieceTokenizer::add_token(AddedToken token) {
  token.id = piece_id(token.content).value_or(token.id);
  if (token.id < 0) {
    fail(ErrorKind::model, "{}: added token '{}' has the id {}, expected 0 or more", where_,
         token.content, token.id);
  }
  if (!added_ids_.emplace(token.content, token.id).second) return;
  vocab_size_ = std::max(vocab_size_, token.id + 1);
  added_.emplace(token.id, std::move(token));
}

std::optional<std::int32_t> SentencePieceTokenizer::piece_id(std::string_view content) const {
  const int id = first_.PieceToId(std::string(content));
  if (id < 0 || id >= first_.GetPieceSize() || first_.IdToPiece(id) != content) return std::nullopt;
  return id;
}

std::optional<std::int32_t> SentencePieceTokenizer::token_id(std::string_view content) const {
  const auto added = added_ids_.find(std::string(content));
  if (added != added_ids_.end()) return added->second;
  return piece_id(content);
}

const sentencepiece::SentencePieceProcessor& SentencePieceTokenizer::processor_at(
    bool at_start) const {
  return at_start ? first_ : later_;
}

Encoding SentencePieceTokenizer::encode(std::string_view text) const {
  require_utf8(text);
  Encoding out;
  for (const AddedTokenMatcher::Part& part : matcher_.split(text)) {
    if (part.id >= 0) {
      out.ids.push_back(part.id);
      out.offsets.push_back({part.begin, part.end});
    } else {
      encode_plain(text.substr(part.begin, part.end - part.begin), part.begin, out);
    }
  }
  return out;
}

void SentencePieceTokenizer::encode_plain(std::string_view text, std::size_t base,
                                          Encoding& out) const {
  sentencepiece::ImmutableSentencePieceText pieces;
  const auto& processor = processor_at(base == 0);
  const auto status = processor.Encode({text.data(), text.size()}, pieces.mutable_proto());
  if (!status.ok()) {
    fail(ErrorKind::data, "{}: sentencepiece cannot encode a text of {} bytes: {}", where_,
         text.size(), status.error_message());
  }
  const std::size_t first = out.ids.size();
  for (const auto& piece : pieces.pieces()) {
    out.ids.push_back(static_cast<std::int32_t>(piece.id()));
    out.offsets.push_back({base + piece.begin(), base + piece.end()});
  }
  // The library gives a character's span to the last of its byte pieces only; each of them holds
  // it.
  for (std::size_t i = out.ids.size(); i-- > first + 1;) {
    ByteSpan& before = out.offsets[i - 1];
    if (processor.IsByte(out.ids[i - 1]) && processor.IsByte(out.ids[i]) &&
        before.begin == before.end) {
      before = out.offsets[i];
    }
  }
  if (lattice_) settle_ties(pieces, first, out);
}

void SentencePieceTokenizer::settle_ties(const sentencepiece::ImmutableSentencePieceText& pieces,
                                         std::size_t first, Encoding& out) const {
  std::string text;              // as the library normalized it
  std::vector<ByteSpan> origin;  // of each of its bytes
  for (std::size_t i = 0; i < pieces.pieces_size(); ++i) {
    const std::string& piece = pieces.pieces(static_cast<int>(i)).piece();
    const ByteSpan span = out.offsets[first + i];
    const bool is_byte = first_.IsByte(out.ids[first + i]);
    const std::string bytes =
        is_byte ? std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)))
                : piece;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      const bool same = bytes.size() == span.end - span.begin;
      origin.push_back(same ? ByteSpan{span.begin + at, span.begin + at + 1} : span);
    }
    text += bytes;
  }
  std::vector<WordToken> tokens;
  lattice_->cut(text, where_, tokens);
  Encoding result;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    WordToken token = tokens[i];
    const bool unknown = token.id == first_.unk_id();
    while (unknown && !byte_fallback_ && i + 1 < tokens.size() && tokens[i + 1].id == token.id)
      token.end = tokens[++i].end;
    const ByteSpan span{origin[token.begin].begin, origin[token.end - 1].end};
    for (std::size_t at = token.begin; unknown && byte_fallback_ && at < token.end; ++at) {
      result.ids.push_back(
          first_.PieceToId(fmt::format("<0x{:02X}>", static_cast<unsigned char>(text[at]))));
      result.offsets.push_back(span);
    }
    if (unknown && byte_fallback_) continue;
    result.ids.push_back(token.id);
    result.offsets.push_back(span);
  }
  if (std::equal(result.ids.begin(), result.ids.end(),
                 out.ids.begin() + static_cast<std::ptrdiff_t>(first), out.ids.end()))
    return;
  out.ids.resize(first);
  out.offsets.resize(first);
  out.ids.insert(out.ids.end(), result.ids.begin(), result.ids.end());
  out.offsets.insert(out.offsets.end(), result.offsets.begin(), result.offsets.end());
}

std::string SentencePieceTokenizer::decode(std::span<const std::int32_t> ids,
                                           bool skip_special_tokens) const {
  std::string text;
  std::vector<int> run;
  bool at_start = true;
  const auto flush = [&] {
    if (run.empty()) return;
    std::string part;
    const auto status = processor_at(at_start).Decode(run, &part);
    if (!status.ok())
      fail(ErrorKind::data, "{}: sentencepiece cannot decode: {}", where_, status.error_message());
    text += part;
    run.clear();
    at_start = false;
  };
  for (const std::int32_t id : ids) {
    require_id(id);
    const auto added = added_.find(id);
    if (added == added_.end() && id < first_.GetPieceSize()) {
      run.push_back(id);
    } else if (added != added_.end() && !(skip_special_tokens && added->second.special)) {
      flush();
      text += added->second.content;
      at_start = false;
    }
  }
  flush();
  return text;
}

}  // namespace finetune
