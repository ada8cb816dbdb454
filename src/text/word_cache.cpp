#include "text/word_cache.h"

#include <algorithm>
#include <cstring>

namespace finetune {

WordCache& WordCache::of_thread(std::uint64_t model) {
  thread_local WordCache cache;
  if (cache.model_ != model) {
    cache.slots_.assign(kSlots, Slot());
    cache.model_ = model;
  }
  return cache;
}

WordCache::Key WordCache::key(std::string_view word, bool whole) {
  constexpr std::uint32_t kPiece = 128;
  Key key;
  key.size = static_cast<std::uint32_t>(word.size()) + (whole ? 0 : kPiece);
  std::memcpy(key.bytes.data(), word.data(), word.size());
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15u;
  std::uint64_t hash = key.bytes[0] * kOdd;
  hash = ((hash ^ hash >> 32) + key.bytes[1]) * kOdd;
  hash = ((hash ^ hash >> 32) + key.bytes[2] + key.size) * kOdd;
  key.slot = hash >> 49;
  static_assert(kSlots == std::size_t{1} << (64 - 49));
  return key;
}

bool WordCache::find(const Key& key, std::vector<WordToken>& tokens) const {
  const Slot& slot = slots_[key.slot];
  if (slot.size != key.size || slot.bytes != key.bytes) return false;
  for (std::size_t i = 0; i < slot.count; ++i)
    tokens.push_back({slot.ids[i], slot.begins[i], slot.ends[i]});
  return true;
}

void WordCache::put(const Key& key, std::span<const WordToken> tokens) {
  if (tokens.size() > kTokens) return;
  Slot& slot = slots_[key.slot];
  slot.bytes = key.bytes;
  slot.size = static_cast<std::uint8_t>(key.size);
  slot.count = static_cast<std::uint8_t>(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    slot.ids[i] = tokens[i].id;
    slot.begins[i] = static_cast<std::uint8_t>(tokens[i].begin);
    slot.ends[i] = static_cast<std::uint8_t>(tokens[i].end);
  }
}

}  // namespace finetune
