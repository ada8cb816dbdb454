#include "dataset/row_hash.h"

#include <fmt/format.h>

#include <new>

namespace finetune {

StreamHash::StreamHash() : state_(XXH3_createState(), XXH3_freeState) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(state_.get());
}

void StreamHash::add(std::string_view piece) {
  XXH3_128bits_update(state_.get(), piece.data(), piece.size());
}

std::string StreamHash::hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

XXH128_hash_t row_hash(const Example& example) {
  const XXH64_hash_t learned = XXH3_64bits(example.supervised.data(), example.supervised.size());
  return XXH3_128bits_withSeed(example.input_ids.data(),
                               example.input_ids.size() * sizeof(example.input_ids[0]), learned);
}

}  // namespace finetune
