#include "text/vocabulary.h"

#include "finetune/base/error.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace finetune {

namespace {

constexpr std::size_t kBlockBytes = std::size_t{1} << 18;

std::uint32_t hash_of(std::string_view content) {
  const auto hash = static_cast<std::uint64_t>(std::hash<std::string_view>()(content));
  return static_cast<std::uint32_t>(hash ^ hash >> 32);
}

}  // namespace

void Vocabulary::reserve(std::size_t tokens) { grow(std::bit_ceil(tokens * 2 + 16)); }

void Vocabulary::grow(std::size_t slots) {
  if (slots <= slots_.size()) return;
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id >= 0) place(slot.content, slot.hash) = slot;
  }
}

Vocabulary::Slot& Vocabulary::place(std::string_view content, std::uint32_t hash) {
  std::size_t at = hash & (slots_.size() - 1);
  while (slots_[at].id >= 0 && (slots_[at].hash != hash || slots_[at].content != content)) {
    at = (at + 1) & (slots_.size() - 1);
  }
  return slots_[at];
}

std::string_view Vocabulary::keep(std::string_view content) {
  if (blocks_.empty() || blocks_.back().capacity() - blocks_.back().size() < content.size()) {
    blocks_.emplace_back().reserve(std::max(kBlockBytes, content.size()));
  }
  std::string& block = blocks_.back();
  block.append(content);
  return std::string_view(block).substr(block.size() - content.size());
}

void Vocabulary::put(std::string_view content, std::int64_t id, const std::string& where) {
  if (id < 0 || id >= kMaxIds) {
    fail(ErrorKind::model, "{}: token '{}' has the id {}, expected 0 to {}", where, content, id,
         kMaxIds - 1);
  }
  if (size_ * 2 >= slots_.size()) grow(std::max<std::size_t>(16, slots_.size() * 2));
  const std::uint32_t hash = hash_of(content);
  Slot& slot = place(content, hash);
  if (slot.id < 0) {
    slot.content = keep(content);
    ++size_;
  }
  slot.hash = hash;
  slot.id = static_cast<std::int32_t>(id);
  const auto index = static_cast<std::size_t>(id);
  if (index >= contents_.size()) contents_.resize(index + 1);
  contents_[index] = slot.content;
}

std::optional<std::int32_t> Vocabulary::find(std::string_view content) const {
  if (slots_.empty()) return std::nullopt;
  const std::uint32_t hash = hash_of(content);
  for (std::size_t at = hash & (slots_.size() - 1); slots_[at].id >= 0;
       at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].hash == hash && slots_[at].content == content) return slots_[at].id;
  }
  return std::nullopt;
}

const std::string_view* Vocabulary::content(std::int32_t id) const {
  const auto index = static_cast<std::size_t>(id);
  if (id < 0 || index >= contents_.size() || contents_[index].data() == nullptr) return nullptr;
  return &contents_[index];
}

}  // namespace finetune
