#include "dataset/similar_rows.h"

#include "finetune/base/random.h"
#include "finetune/base/unicode.h"
#include "finetune/dataset/lint.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <limits>

namespace finetune {

namespace {

constexpr std::size_t kWords = 3;  // of a stretch
constexpr std::size_t kHashes = 32, kBand = 4;
constexpr std::size_t kRowsForTemplate = 8;  // fewer do not tell a template from their content

/// Scripts that are written without spaces between words.
bool is_word_alone(utf8proc_int32_t c) {
  return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x3FFFF) ||
         (c >= 0x0E00 && c <= 0x0EFF);
}

bool is_letter_or_digit(utf8proc_int32_t c) {
  const utf8proc_category_t category = utf8proc_category(c);
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_ME) ||
         (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

/// Hashes of the stretches of kWords words, sorted and without repetition; of fewer words one.
std::vector<std::uint64_t> stretches(const std::string& text) {
  const std::string words = plain_words(text);
  std::vector<std::uint64_t> word_hashes, hashes;
  for (std::size_t begin = 0; begin < words.size();) {
    const std::size_t end = std::min(words.find(' ', begin), words.size());
    std::uint64_t hash = 0;
    for (std::size_t i = begin; i < end; ++i)
      hash = mix_seed({hash, static_cast<std::uint64_t>(static_cast<unsigned char>(words[i]))});
    word_hashes.push_back(hash);
    begin = end + 1;
  }
  const std::size_t width = std::min(kWords, word_hashes.size());
  for (std::size_t i = 0; width > 0 && i + width <= word_hashes.size(); ++i) {
    std::uint64_t hash = 0;
    for (std::size_t k = 0; k < width; ++k) hash = mix_seed({hash, word_hashes[i + k]});
    hashes.push_back(hash);
  }
  std::sort(hashes.begin(), hashes.end());
  hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
  return hashes;
}

double jaccard(const std::vector<std::uint64_t>& a, const std::vector<std::uint64_t>& b) {
  std::size_t common = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++common;
    const bool first = a[i] <= b[j], second = b[j] <= a[i];
    i += first ? 1 : 0;
    j += second ? 1 : 0;
  }
  const std::size_t all = a.size() + b.size() - common;
  return all == 0 ? 0.0 : static_cast<double>(common) / static_cast<double>(all);
}

std::vector<std::uint64_t> bands(const std::vector<std::uint64_t>& hashes) {
  std::array<std::uint64_t, kHashes> least;
  least.fill(std::numeric_limits<std::uint64_t>::max());
  for (const std::uint64_t hash : hashes) {
    for (std::size_t h = 0; h < kHashes; ++h) least[h] = std::min(least[h], mix_seed({hash, h}));
  }
  std::vector<std::uint64_t> keys;
  for (std::size_t band = 0; band < kHashes; band += kBand) {
    std::uint64_t key = band;
    for (std::size_t h = band; h < band + kBand; ++h) key = mix_seed({key, least[h]});
    keys.push_back(key);
  }
  return keys;
}

}  // namespace

std::string plain_words(std::string_view text) {
  std::string words;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  auto left = static_cast<utf8proc_ssize_t>(text.size());
  bool alone = false;
  while (left > 0) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t size = std::max<utf8proc_ssize_t>(1, utf8proc_iterate(bytes, left, &c));
    bytes += size;
    left -= size;
    const bool is_word = c >= 0 && is_letter_or_digit(c);
    const bool begins =
        !words.empty() && words.back() != ' ' && (!is_word || alone || is_word_alone(c));
    if (begins) words += ' ';
    if (is_word) append_utf8(words, static_cast<char32_t>(utf8proc_tolower(c)));
    alone = is_word && is_word_alone(c);
  }
  if (words.ends_with(' ')) words.pop_back();
  return words;
}

SimilarRows::SimilarRows(const std::vector<std::string>& texts) {
  if (texts.size() < kRowsForTemplate) return;
  for (const std::string& text : texts) {
    for (const std::uint64_t hash : stretches(text)) ++rows_with_[hash];
  }
  std::erase_if(rows_with_, [&](const auto& entry) { return entry.second * 2 <= texts.size(); });
}

std::vector<std::uint64_t> SimilarRows::own_stretches(const std::string& text) const {
  std::vector<std::uint64_t> hashes = stretches(text);
  std::erase_if(hashes, [&](std::uint64_t hash) { return rows_with_.contains(hash); });
  return hashes;
}

const SimilarRows::Match* SimilarRows::find(const std::string& text) {
  const std::vector<std::uint64_t> own = own_stretches(text);
  best_ = {0, 0.0};
  for (const std::uint64_t key : bands(own)) {
    const auto bucket = buckets_.find(key);
    if (bucket == buckets_.end()) continue;
    for (const std::size_t row : bucket->second) {
      const double share = jaccard(own, rows_[row]);
      if (share > best_.share) best_ = {row, share};
    }
  }
  return best_.share >= kNearDuplicate ? &best_ : nullptr;
}

void SimilarRows::add(const std::string& text) {
  std::vector<std::uint64_t> own = own_stretches(text);
  for (const std::uint64_t key : bands(own)) {
    std::vector<std::size_t>& bucket = buckets_[key];
    if (bucket.size() < kBucket) bucket.push_back(rows_.size());
  }
  rows_.push_back(std::move(own));
}

}  // namespace finetune
