#include "text/bpe.h"

#include "finetune/base/error.h"
#include "text/utf8.h"

#include <bit>
#include <queue>
#include <tuple>

namespace finetune {

namespace {

using nlohmann::json;

constexpr std::size_t kCacheShards = 32;
constexpr std::size_t kCacheWordBytes = 64;     // longer words hardly come back
constexpr std::size_t kCacheShardWords = 4096;
constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

std::string string_or_empty(const json& config, const char* key) {
  const auto value = config.find(key);
  return value == config.end() || value->is_null() ? std::string() : value->get<std::string>();
}

/// A merge is ["a", "b"], or "a b" in older files.
std::pair<std::string, std::string> parse_merge(const json& merge, std::size_t index,
                                                const std::string& where) {
  if (merge.is_array() && merge.size() == 2) return {merge[0], merge[1]};
  if (merge.is_string()) {
    const std::string& text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  fail(ErrorKind::model, "{}: merge {} is {}, expected \"left right\" or [\"left\", \"right\"]", where, index,
       merge.dump());
}

}  // namespace

/// Tokens of the words that were seen before, in shards so that threads seldom wait for each other.
struct BpeModel::Cache {
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::string, std::vector<WordToken>> words;
  };
  std::array<Shard, kCacheShards> shards;

  Shard& shard(const std::string& word) {
    return shards[std::hash<std::string>()(word) / 64 % kCacheShards];
  }
};

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

void BpeModel::MergeTable::put(std::uint64_t pair, Merge merge) { slots_[place(pair)] = {pair, merge}; }

const BpeModel::Merge* BpeModel::MergeTable::find(std::uint64_t pair) const {
  const Slot& slot = slots_[place(pair)];
  return slot.pair == kNoPair ? nullptr : &slot.merge;
}

BpeModel::BpeModel(const json& config, const std::string& where) : cache_(std::make_unique<Cache>()) {
  if (config.contains("dropout") && !config["dropout"].is_null() && config["dropout"] != 0.0) {
    fail(ErrorKind::model, "{}: BPE dropout is not in this version; set \"dropout\" to null", where);
  }
  for (const auto& [token, id] : config.at("vocab").items()) {
    vocabulary_.emplace(token, id.get<std::int32_t>());
  }
  fuse_unknown_ = config.value("fuse_unk", false);
  byte_fallback_ = config.value("byte_fallback", false);
  ignore_merges_ = config.value("ignore_merges", false);
  continuing_prefix_ = string_or_empty(config, "continuing_subword_prefix");
  end_suffix_ = string_or_empty(config, "end_of_word_suffix");
  const std::string unknown = string_or_empty(config, "unk_token");
  if (!unknown.empty()) {
    const auto id = token_id(unknown);
    if (!id) fail(ErrorKind::model, "{}: the unknown token '{}' is not in the vocabulary", where, unknown);
    unknown_id_ = *id;
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = token_id(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }
  for (std::size_t i = 0; i < ascii_ids_.size(); ++i) {
    ascii_ids_[i] = token_id(std::string(1, static_cast<char>(i))).value_or(-1);
  }
  read_merges(config.at("merges"), where);
}

BpeModel::~BpeModel() = default;

void BpeModel::read_merges(const json& merges, const std::string& where) {
  merges_.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = parse_merge(merges[rank], rank, where);
    const std::string result =
        left + (right.starts_with(continuing_prefix_) ? right.substr(continuing_prefix_.size()) : right);
    const auto left_id = token_id(left), right_id = token_id(right), result_id = token_id(result);
    if (!left_id || !right_id || !result_id) {
      fail(ErrorKind::model, "{}: merge {} ('{}' + '{}') needs a token that is not in the vocabulary", where,
           rank, left, right);
    }
    merges_.put(pair_key(*left_id, *right_id), {static_cast<std::int32_t>(rank), *result_id});
  }
}

std::optional<std::int32_t> BpeModel::token_id(std::string_view content) const {
  const auto found = vocabulary_.find(std::string(content));
  if (found == vocabulary_.end()) return std::nullopt;
  return found->second;
}

const BpeModel::Merge* BpeModel::find_merge(std::int32_t left, std::int32_t right) const {
  return merges_.find(pair_key(left, right));
}

std::vector<BpeModel::Symbol> BpeModel::characters(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  const auto push = [&](std::int32_t id, std::size_t begin, std::size_t end) {
    symbols.push_back({id, 0, 0, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)});
  };
  const bool plain = continuing_prefix_.empty() && end_suffix_.empty();
  bool unknown_open = false;  // the last symbol is an unknown one that the next may join
  for (std::size_t begin = 0, end = 0; begin < word.size(); begin = end) {
    end = begin + code_point_at(word, begin).size;
    const auto first_byte = static_cast<unsigned char>(word[begin]);
    if (plain && first_byte < 128 && ascii_ids_[first_byte] >= 0) {
      push(ascii_ids_[first_byte], begin, end);
      unknown_open = false;
      continue;
    }
    std::string piece(word.substr(begin, end - begin));
    if (begin > 0 && !plain) piece.insert(0, continuing_prefix_);
    if (end == word.size() && !plain) piece += end_suffix_;
    if (const auto id = token_id(piece)) {
      push(*id, begin, end);
      unknown_open = false;
      continue;
    }
    bool all_bytes = byte_fallback_;
    for (const char byte : piece) all_bytes = all_bytes && byte_ids_[static_cast<unsigned char>(byte)] >= 0;
    if (all_bytes) {
      for (std::size_t i = begin; i < end; ++i) push(byte_ids_[static_cast<unsigned char>(word[i])], i, i + 1);
      unknown_open = false;
    } else if (unknown_id_ >= 0) {
      if (unknown_open && fuse_unknown_) {
        symbols.back().end = static_cast<std::uint32_t>(end);
      } else {
        push(unknown_id_, begin, end);
      }
      unknown_open = true;
    }  // without an unknown token the character vanishes, as with `tokenizers`
  }
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<std::int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<std::int32_t>(i) + 1 : -1;
  }
  return symbols;
}

void BpeModel::merge_all(std::vector<Symbol>& symbols) const {
  using Candidate = std::tuple<std::int32_t, std::int32_t, std::int32_t>;  // rank, left index, result
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto propose = [&](std::int32_t left) {
    if (left < 0 || symbols[static_cast<std::size_t>(left)].next < 0) return;
    const Symbol& symbol = symbols[static_cast<std::size_t>(left)];
    const Merge* merge = find_merge(symbol.id, symbols[static_cast<std::size_t>(symbol.next)].id);
    if (merge != nullptr) queue.emplace(merge->rank, left, merge->result);
  };
  for (std::size_t i = 0; i < symbols.size(); ++i) propose(static_cast<std::int32_t>(i));
  while (!queue.empty()) {
    const auto [rank, index, result] = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<std::size_t>(index)];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->result != result) continue;  // the neighbours changed meanwhile
    left.id = result;
    left.end = right.end;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = index;
    propose(left.previous);
    propose(index);
  }
}

void BpeModel::tokenize(std::string_view word, std::vector<WordToken>& tokens) const {
  if (word.empty()) return;
  const bool cached = word.size() <= kCacheWordBytes;
  const std::string key(cached ? word : std::string_view());
  if (ignore_merges_) {
    if (const auto id = token_id(word)) {
      tokens.push_back({*id, 0, static_cast<std::uint32_t>(word.size())});
      return;
    }
  }
  Cache::Shard& shard = cache_->shard(key);
  if (cached) {
    const std::lock_guard lock(shard.mutex);
    const auto found = shard.words.find(key);
    if (found != shard.words.end()) {
      tokens.insert(tokens.end(), found->second.begin(), found->second.end());
      return;
    }
  }
  std::vector<Symbol> symbols = characters(word);
  merge_all(symbols);
  const std::size_t first = tokens.size();
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) tokens.push_back({symbol.id, symbol.begin, symbol.end});
  }
  if (cached) {
    const std::lock_guard lock(shard.mutex);
    if (shard.words.size() >= kCacheShardWords) shard.words.clear();
    shard.words.emplace(key, std::vector<WordToken>(tokens.begin() + static_cast<std::ptrdiff_t>(first),
                                                    tokens.end()));
  }
}

}  // namespace finetune
