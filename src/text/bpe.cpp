#include "text/bpe.h"

#include "finetune/base/error.h"
#include "text/stages.h"
#include "text/utf8.h"
#include "text/word_cache.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>

namespace finetune {

namespace {

using nlohmann::json;

constexpr std::size_t kShortSymbols = 96;  // up to here searching all pairs is faster than a queue

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

std::uint64_t next_cache_key() {
  static std::atomic<std::uint64_t> last = 0;
  return ++last;
}

/// Tells the table of a merge of two tokens, which may be written in the characters of bytes.
void add_cut(CutTable& cuts, std::string_view left, std::string_view right, bool raw_bytes) {
  if (!raw_bytes) return cuts.add(left, right);
  constexpr std::size_t kEnough = 8;  // bytes of four characters that stand for bytes
  std::size_t begin = left.size() - std::min(left.size(), kEnough),
              end = std::min(right.size(), kEnough);
  while (begin < left.size() && is_continuation(left[begin])) ++begin;
  while (end < right.size() && is_continuation(right[end])) ++end;
  const auto left_bytes = bytes_of_characters(left.substr(begin)),
             right_bytes = bytes_of_characters(right.substr(0, end));
  if (left_bytes && right_bytes) cuts.add(*left_bytes, *right_bytes);
}

}  // namespace

void BpeModel::MergeTable::reserve(std::size_t merges) {
  const std::size_t size = std::bit_ceil(merges * 2 + 2);  // at most half full
  slots_.assign(size, {kNoPair, {}});
  shift_ = 64 - std::countr_zero(size);
}

std::size_t BpeModel::MergeTable::place(std::uint64_t pair) const {
  std::size_t at = (pair * 0x9E3779B97F4A7C15u) >> shift_;
  while (slots_[at].pair != kNoPair && slots_[at].pair != pair) at = (at + 1) & (slots_.size() - 1);
  return at;
}

void BpeModel::MergeTable::put(std::int32_t left, std::int32_t right, Merge merge) {
  if ((used_ + 1) * 2 > slots_.size()) {
    std::vector<Slot> old;
    old.swap(slots_);
    reserve(old.size());
    for (const Slot& slot : old) {
      if (slot.pair != kNoPair) slots_[place(slot.pair)] = slot;
    }
  }
  Slot& slot = slots_[place(pair_key(left, right))];
  used_ += slot.pair == kNoPair ? 1 : 0;
  slot = {pair_key(left, right), merge};
}

const BpeModel::Merge* BpeModel::MergeTable::find(std::int32_t left, std::int32_t right) const {
  const Slot& slot = slots_[place(pair_key(left, right))];
  return slot.pair == kNoPair ? nullptr : &slot.merge;
}

BpeModel::BpeModel(TokenizerFile& file) : where_(file.where), cache_key_(next_cache_key()) {
  const json& config = file.json.at("model");
  const auto dropout = config.find("dropout");
  if (dropout != config.end() && !dropout->is_null() && *dropout != 0.0) {
    fail(ErrorKind::model, "{}: BPE dropout is not in this version; set \"dropout\" to null",
         where_);
  }
  fill_vocabulary(file, vocabulary_);
  fuse_unknown_ = config.value("fuse_unk", false);
  byte_fallback_ = config.value("byte_fallback", false);
  ignore_merges_ = config.value("ignore_merges", false);
  continuing_prefix_ = text_setting(file, "continuing_subword_prefix");
  end_suffix_ = text_setting(file, "end_of_word_suffix");
  unknown_name_ = text_setting(file, "unk_token");
  unknown_id_ = vocabulary_.find(unknown_name_).value_or(-1);
  for (unsigned byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = vocabulary_.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
    const char c = static_cast<char>(byte);
    symbol_ids_[byte] = byte < 128 ? vocabulary_.find({&c, 1}).value_or(-1) : -1;
  }
  if (!continuing_prefix_.empty() || !end_suffix_.empty()) symbol_ids_.fill(-1);
  read_merges(file);
  prepare_cuts();
}

BpeModel::BpeModel(const std::vector<std::pair<std::string, std::int32_t>>& ranks,
                   const std::string& where)
    : where_(where), ignore_merges_(true), raw_bytes_(true), cache_key_(next_cache_key()) {
  symbol_ids_.fill(-1);
  byte_ids_.fill(-1);
  raw_words_.reserve(ranks.size());
  vocabulary_.reserve(ranks.size());
  merges_.reserve(ranks.size());
  for (const auto& [bytes, rank] : ranks) {
    raw_words_.put(bytes, rank, where_);
    std::string characters;
    for (const char byte : bytes) characters += byte_characters()[static_cast<unsigned char>(byte)];
    vocabulary_.put(characters, rank, where_);
    if (bytes.size() == 1) symbol_ids_[static_cast<unsigned char>(bytes[0])] = rank;
  }
  for (std::size_t byte = 0; byte < 256; ++byte) {
    if (symbol_ids_[byte] < 0)
      fail(ErrorKind::model, "{}: the byte 0x{:02X} is no token; is the file complete?", where_,
           byte);
  }
  for (const auto& [bytes, rank] : ranks) {
    for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = raw_words_.find(std::string_view(bytes).substr(0, cut));
      if (!left) continue;
      const auto right = raw_words_.find(std::string_view(bytes).substr(cut));
      if (right) merges_.put(*left, *right, {rank, rank});
    }
  }
  prepare_cuts();
}

void BpeModel::prepare_cuts() {
  cuts_ = nullptr;
  const bool all_bytes =
      raw_bytes_ ||
      (byte_fallback_ && std::find(byte_ids_.begin(), byte_ids_.end(), -1) == byte_ids_.end());
  // Unknown characters may become one token with their neighbours, or vanish between them.
  if (!continuing_prefix_.empty() || !end_suffix_.empty() || !all_bytes) return;
  cuts_ = std::make_unique<CutTable>();
  bool only_text = true;
  merges_.for_each([&](std::int32_t left, std::int32_t right) {
    for (const std::int32_t id : {left, right}) {
      only_text = only_text && std::find(byte_ids_.begin(), byte_ids_.end(), id) == byte_ids_.end();
    }
    add_cut(*cuts_, *vocabulary_.content(left), *vocabulary_.content(right), raw_bytes_);
  });
  if (!only_text && !raw_bytes_) cuts_ = nullptr;
}

void BpeModel::read_merges(TokenizerFile& file) {
  merges_.reserve(file.lists.merges.size());
  std::string result;
  std::int32_t rank = 0;
  for (const auto& [left, right] : file.lists.merges) {
    const bool cut = !continuing_prefix_.empty() && right.starts_with(continuing_prefix_);
    result.assign(left).append(right, cut ? continuing_prefix_.size() : 0);
    const auto left_id = vocabulary_.find(left), right_id = vocabulary_.find(right),
               result_id = vocabulary_.find(result);
    if (!left_id || !right_id || !result_id) {
      fail(ErrorKind::model,
           "{}: merge {} ('{}' + '{}') needs a token that is not in the vocabulary", where_, rank,
           left, right);
    }
    merges_.put(*left_id, *right_id, {rank, *result_id});
    ++rank;
  }
}

bool BpeModel::take_raw_bytes() {
  if (raw_bytes_) return true;
  if (!continuing_prefix_.empty() || !end_suffix_.empty()) return false;
  std::array<std::int32_t, 256> ids;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const auto id = vocabulary_.find(byte_characters()[byte]);
    if (!id) return false;
    ids[byte] = *id;
  }
  symbol_ids_ = ids;
  raw_bytes_ = true;
  prepare_cuts();
  if (!ignore_merges_) return true;
  raw_words_.reserve(vocabulary_.size());
  for (std::int32_t id = 0; id < vocabulary_.id_limit(); ++id) {
    const std::string_view* content = vocabulary_.content(id);
    if (content == nullptr) continue;
    if (const auto bytes = bytes_of_characters(*content)) raw_words_.put(*bytes, id, where_);
  }
  return true;
}

std::optional<std::int32_t> BpeModel::whole_word(std::string_view word) const {
  if (!ignore_merges_) return std::nullopt;
  return raw_bytes_ ? raw_words_.find(word) : vocabulary_.find(word);
}

void BpeModel::characters(std::string_view word, std::vector<Symbol>& symbols) const {
  const auto place = [](std::size_t at) { return static_cast<std::uint32_t>(at); };
  if (raw_bytes_) {
    for (std::size_t i = 0; i < word.size(); ++i) {
      symbols.push_back(
          {symbol_ids_[static_cast<unsigned char>(word[i])], 0, 0, place(i), place(i + 1), 0, 0});
    }
    return;
  }
  Symbol unknown{-1, 0, 0, 0, 0, 0, 0};  // met, but not yet among the symbols: the next may join it
  std::string piece;
  for (std::size_t begin = 0, end = 0; begin < word.size(); begin = end) {
    end = begin + code_point_at(word, begin).size;
    const std::int32_t id = symbol_ids_[static_cast<unsigned char>(word[begin])];
    if (id >= 0 && unknown.id < 0) {
      symbols.push_back({id, 0, 0, place(begin), place(end), 0, 0});
      continue;
    }
    piece = begin > 0 ? continuing_prefix_ : "";
    piece += word.substr(begin, end - begin);
    if (end == word.size()) piece += end_suffix_;
    push_piece(piece, begin, end, symbols, unknown);
  }
  if (unknown.id >= 0) symbols.push_back(unknown);
}

void BpeModel::push_piece(const std::string& piece, std::size_t begin, std::size_t end,
                          std::vector<Symbol>& symbols, Symbol& unknown) const {
  const auto first = static_cast<std::uint32_t>(begin), last = static_cast<std::uint32_t>(end);
  if (const auto id = vocabulary_.find(piece)) {
    if (unknown.id >= 0) symbols.push_back(unknown);
    unknown.id = -1;
    symbols.push_back({*id, 0, 0, first, last, 0, 0});
    return;
  }
  const auto byte_id = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (byte_fallback_ &&
      std::all_of(piece.begin(), piece.end(), [&](char byte) { return byte_id(byte) >= 0; })) {
    // A token met before that is unknown still waits behind these bytes, as it does in
    // `tokenizers`.
    for (const char byte : piece) symbols.push_back({byte_id(byte), 0, 0, first, last, 0, 0});
    return;
  }
  if (unknown_name_.empty()) return;  // the character vanishes, as with `tokenizers`
  if (unknown_id_ < 0) {
    fail(ErrorKind::model,
         "{}: '{}' is not in the vocabulary, and neither is the unknown token '{}'", where_, piece,
         unknown_name_);
  }
  if (unknown.id >= 0 && fuse_unknown_) {
    unknown.end = last;
    return;
  }
  if (unknown.id >= 0) symbols.push_back(unknown);
  unknown = {unknown_id_, 0, 0, first, last, 0, 0};
}

void BpeModel::tokenize(std::string_view word, std::vector<WordToken>& tokens) const {
  // Words of scripts with few characters come back as they are; only others are worth cutting.
  constexpr unsigned char kThreeBytes = 0xE0;
  const bool cut = cuts_ != nullptr && (word.size() > WordCache::kWordBytes ||
                                        static_cast<unsigned char>(word[0]) >= kThreeBytes);
  if (!cut) return tokenize_piece(word, true, tokens);
  if (const auto id = whole_word(word)) {
    tokens.push_back({*id, 0, static_cast<std::uint32_t>(word.size())});
    return;
  }
  for (std::size_t begin = 0, end = 0; begin < word.size(); begin = end) {
    end = cuts_->piece_end(word, begin);
    const std::size_t first = tokens.size();
    tokenize_piece(word.substr(begin, end - begin), !ignore_merges_, tokens);
    for (std::size_t i = first; begin > 0 && i < tokens.size(); ++i) {
      tokens[i].begin += static_cast<std::uint32_t>(begin);
      tokens[i].end += static_cast<std::uint32_t>(begin);
    }
  }
}

/// `whole`: the piece is a word, or would be encoded alike if it were one.
void BpeModel::tokenize_piece(std::string_view piece, bool whole,
                              std::vector<WordToken>& tokens) const {
  const bool cached = piece.size() <= WordCache::kWordBytes;
  WordCache& cache = WordCache::of_thread(cache_key_);
  WordCache::Key key;
  if (cached) {
    key = WordCache::key(piece, whole);
    if (cache.find(key, tokens)) return;
  }
  const std::size_t first = tokens.size();
  const auto id = whole ? whole_word(piece) : std::nullopt;
  if (id) {
    tokens.push_back({*id, 0, static_cast<std::uint32_t>(piece.size())});
  } else {
    thread_local std::vector<Symbol> symbols;
    symbols.clear();
    characters(piece, symbols);
    if (symbols.size() <= kShortSymbols) {
      merge_short(symbols);
    } else {
      merge_long(symbols);
    }
    for (const Symbol& symbol : symbols) {
      if (symbol.id >= 0) tokens.push_back({symbol.id, symbol.begin, symbol.end});
    }
    if (symbols.capacity() > kShortSymbols * 1024)
      symbols = {};  // one long text must not hold its memory
  }
  if (cached) cache.put(key, std::span(tokens).subspan(first));
}

}  // namespace finetune
