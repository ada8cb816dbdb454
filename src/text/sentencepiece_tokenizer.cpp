#include "text/sentencepiece_tokenizer.h"

#include "finetune/base/error.h"
#include "finetune/base/file.h"
#include "text/sentencepiece_proto.h"

#include <algorithm>

namespace finetune {

namespace {

void load_or_fail(sentencepiece::SentencePieceProcessor& processor, const std::string& model,
                  const std::string& where) {
  const auto status = processor.LoadFromSerializedProto(model);
  if (!status.ok()) {
    fail(ErrorKind::model, "{}: not a sentencepiece model ({}); is the file complete?", where,
         status.error_message());
  }
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(const std::filesystem::path& path,
                                               const TokenizerConfig& config)
    : where_(path.string()), legacy_(config.legacy) {
  const std::string model = read_file(path, ErrorKind::model);
  const SentencePieceFacts facts = read_sentencepiece_facts(model);
  const bool prefix = config.add_prefix_space.value_or(facts.add_dummy_prefix);
  load_or_fail(first_, prefix == facts.add_dummy_prefix ? model : with_dummy_prefix(model, prefix), where_);
  load_or_fail(later_, with_dummy_prefix(model, prefix && legacy_), where_);
  vocab_size_ = first_.GetPieceSize();
  add_tokens(config);
  // The library finds its user-defined pieces itself, and normalizes around them.
  for (const std::int32_t id : facts.user_defined) {
    if (!added_.contains(id)) continue;
    AddedToken& token = added_.at(id);
    token.normalized = !(token.lstrip || token.rstrip || token.single_word);
  }
  for (const auto& [id, token] : added_) {
    if (!token.normalized) matcher_.add(token.content, token);
  }
  if (config.bos_token.empty() && !config.bos_id && first_.bos_id() >= 0) specials_.bos_id = first_.bos_id();
  if (config.eos_token.empty() && !config.eos_id && first_.eos_id() >= 0) specials_.eos_id = first_.eos_id();
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
    fail(ErrorKind::model, "{}: added token '{}' has the id {}, expected 0 or more", where_, token.content,
         token.id);
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

const sentencepiece::SentencePieceProcessor& SentencePieceTokenizer::processor_at(bool at_start) const {
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

void SentencePieceTokenizer::encode_plain(std::string_view text, std::size_t base, Encoding& out) const {
  sentencepiece::ImmutableSentencePieceText pieces;
  const auto& processor = processor_at(base == 0);
  const auto status = processor.Encode({text.data(), text.size()}, pieces.mutable_proto());
  if (!status.ok()) {
    fail(ErrorKind::data, "{}: sentencepiece cannot encode a text of {} bytes: {}", where_, text.size(),
         status.error_message());
  }
  const std::size_t first = out.ids.size();
  for (const auto& piece : pieces.pieces()) {
    out.ids.push_back(static_cast<std::int32_t>(piece.id()));
    out.offsets.push_back({base + piece.begin(), base + piece.end()});
  }
  // The library gives a character's span to the last of its byte pieces only; each of them holds it.
  for (std::size_t i = out.ids.size(); i-- > first + 1;) {
    ByteSpan& before = out.offsets[i - 1];
    if (processor.IsByte(out.ids[i - 1]) && processor.IsByte(out.ids[i]) && before.begin == before.end) {
      before = out.offsets[i];
    }
  }
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
    if (!status.ok()) fail(ErrorKind::data, "{}: sentencepiece cannot decode: {}", where_, status.error_message());
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
